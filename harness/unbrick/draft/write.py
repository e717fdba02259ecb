"""Writes a draft as a target's file, with comments for who goes on from there."""

from __future__ import annotations

import json
import os
from math import ceil
from typing import TYPE_CHECKING

from unbrick.draft.staging import SLOTS

if TYPE_CHECKING:
    from pathlib import Path

    from unbrick.draft.draft import Draft
    from unbrick.draft.inputs import Input

WITHIN_LEAST_S, WITHIN_TIMES = 5, 10
"""`within` is so many seconds at least, and so many times what the update took."""


def render_target(draft: Draft, folder: Path) -> str:
    """The text of a target's file that lies in a folder."""
    lines = [
        "# A target of Unbrick: docs/any-firmware.md has every entry.",
        "#   unbrick check FILE     plays the update once, and says what there is to see",
        "#   unbrick campaign FILE  cuts the power at every flash operation",
        "",
        f"chip = {_quote(draft.chip_name)}" + _tell_others(draft),
    ]
    if draft.console:
        lines.append(f"console = {_quote(draft.console)}  # one of {', '.join(draft.chip.uarts)}")
    lines += [
        '# svd = "CHIP.svd"  # of the vendor: gives registers names',
        "",
        "# What is flashed before the update.",
    ]
    for one in draft.firmware:
        lines += ["[[firmware]]", *_tell_file(one, folder), ""]
    for piece in draft.options:
        data = f"hex = {_quote(piece.data.hex())}  # the option of secure code"
        lines += ["[[firmware]]", data, f"at = {piece.address:#010x}", ""]
    lines += [*_tell_update(draft, folder), "", *_tell_recovered(draft, folder), "", *_tell_rest()]
    for name, at, size in draft.partitions:
        lines += ["", f"[partitions.{_key(name)}]", f"at = {at:#010x}", f"size = {size:#x}"]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A TOML text."""
    return json.dumps(text, ensure_ascii=False)


def _key(name: str) -> str:
    """A bare key of TOML."""
    return "".join(one if one.isalnum() or one in "-_" else "-" for one in name)


def _relative(path: Path, folder: Path) -> str:
    return _quote(os.path.relpath(path, folder))


def _tell_others(draft: Draft) -> str:
    return f"  # or: {', '.join(draft.others)}" if draft.others else ""


def _tell_file(one: Input, folder: Path) -> list[str]:
    lines = [f"file = {_relative(one.path, folder)}"]
    if one.at is not None:
        lines.append(f"at = {one.at:#010x}")
    if one.symbols:
        lines.append(f"symbols = {_relative(one.symbols, folder)}  # so that faults have lines")
    return lines


def _tell_update(draft: Draft, folder: Path) -> list[str]:
    update = draft.update
    if update is None:
        slot = next((at for name, at, _ in draft.partitions if name in SLOTS), draft.base)
        place = f"at = {slot:#010x}"
        return [
            "# What begins the update: nothing does yet. So there is likely nowhere to cut.",
            "[update]",
            f'# stage = {{ file = "NEW.bin", {place} }}  # lies in the flash at the start',
            '# driver = "xmodem"  # or it is sent: xmodem, ymodem, xcp, smp, or a Python file',
            '# file = "NEW.bin"',
        ]
    if draft.staged:
        key = "[update.stage]" if draft.trailer is None else "[[update.stage]]"
        lines = [
            "# What begins the update: it lies in its place when the device starts.",
            "# Does the device receive it over its console? Then name a `driver` instead.",
            *(key, *_tell_file(update, folder)),
        ]
        if draft.trailer is None:
            return lines
        magic = f"hex = {_quote(draft.trailer.data.hex())}  # MCUboot is to take it"
        return [*lines, "", key, magic, f"at = {draft.trailer.address:#010x}"]
    lines = ["# What begins the update: it is sent when the device has said `after`.", "[update]"]
    lines += [f"after = {_quote(draft.after)}"] if draft.after else []
    lines += [f"type = {_quote(draft.typed)}"] if draft.typed else []
    return [*lines, f"driver = {_quote(draft.driver)}", *_tell_file(update, folder)]


def _tell_recovered(draft: Draft, folder: Path) -> list[str]:
    words = [_quote(text) for text in draft.says]
    says = f"says = {words[0] if len(words) == 1 else '[' + ', '.join(words) + ']'}"
    within = max(WITHIN_LEAST_S, ceil(WITHIN_TIMES * draft.seconds))
    lines = [
        "# When the device has recovered. Would falling back to the old one do, too?",
        "# Then write both texts: says = [NEW, OLD]",
        "[recovered]",
        says if words else '# says = "TEXT"  # the device says nothing',
        f'within = "{within} s"  # from the start; the update took {draft.seconds:.2g} s',
    ]
    if draft.old and draft.update is not None:
        lines.insert(4, f"# without the update it says {', '.join(map(_quote, draft.old[-3:]))}")
    if draft.runs is None:
        return lines
    names = '"new"' if draft.reverted is None else '["new", "old"]'
    lines += [f"runs = {names}  # all of the image is there, and the core is in it", ""]
    if draft.reverted is not None:
        lines[-1:] = ["# nobody confirms the update, so the device may go back", ""]
        lines += ["[images.old]", *_tell_file(draft.reverted, folder), ""]
    return [*lines, "[images.new]", *_tell_file(draft.runs, folder)]


def _tell_rest() -> list[str]:
    return [
        "[never]",
        '# says = "HARD FAULT"  # what the device must not say',
        '# allowed = ["flash-stray"]  # faults of the hardware\'s rules that pass',
    ]
