"""Builds the documentation as a site, for `make docs`: from the pages that one reads on GitHub.

The pages are copied to where the site has them, and their links follow. A file of the repository
that a page links to becomes a page that shows it. What Sphinx warns of is an error, and then every
link and anchor of the site is followed. A browser loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

from docs_links import find_complaints
from docs_pictures import draw_diagram, draw_pictures
from unbrick import __version__

ROOT = Path(__file__).resolve().parents[1]
STYLE = Path(__file__).with_name("docs_site.css")
PICTURE_STAYS = re.compile(r"^<!-- picture: (\w+) -->$", re.MULTILINE)
"""Where a page has a picture on the site; on GitHub one sees nothing there."""

NAVIGATION: Mapping[str, Sequence[str]] = {
    "Start": (
        *("docs/tutorials/your-own-bootloader.md", "docs/tutorials/reference-system.md"),
        *("docs/tutorials/pytest.md", "docs/tutorials/robot.md", "docs/tutorials/gdb.md"),
        *("docs/tutorials/own-firmware.md", "docs/tutorials/several-machines.md"),
        "docs/tutorials/a-chip-in-ten-minutes.md",
        "docs/tutorials/differential-updates.md",
    ),
    "Prove": (
        *("docs/any-firmware.md", "docs/campaign.md", "docs/chips.md", "docs/chip-models.md"),
        *("docs/real-boards.md", "docs/robot.md", "docs/ci.md", "docs/renode.md"),
        "docs/second-opinion.md",
        *("docs/brickproof.md", "docs/mcuboot.md", "docs/openblt.md", "docs/nrf5-sdk.md"),
        "docs/stm32-iap-uart.md",
        *("docs/differential.md", "docs/bugs.md", "docs/nor-differences.md", "docs/comparison.md"),
    ),
    "Operate": (
        *("docs/center.md", "docs/orders.md", "docs/rollouts.md", "docs/access.md"),
        "docs/deployment.md",
        *("docs/restoration.md", "docs/configuration.md", "docs/database.md"),
    ),
    "Reference": (
        *("docs/architecture.md", "docs/firmware.md", "docs/protocol.md", "docs/delta-format.md"),
        *("docs/delta-library.md", "docs/console.md"),
        *("docs/performance.md", "docs/traceability.md", "docs/c-style.md"),
        *("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/licences.md", "LICENSE"),
    ),
    "Decisions": ("docs/adr/README.md",),
}
"""The side bar: groups of pages, in the order in which one needs them. README.md is before all."""

UNDER = {
    "docs/adr/README.md": tuple(
        sorted(file.relative_to(ROOT).as_posix() for file in ROOT.glob("docs/adr/[0-9]*.md"))
    )
}
"""Pages that stand under another one."""

LANGUAGES = {
    ".c": "c",
    ".h": "c",
    ".ini": "ini",
    ".md": "markdown",
    ".py": "python",
    ".robot": "robotframework",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
"""Of files that are shown, by their suffix."""

_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def list_pages() -> list[str]:
    """The pages of the documentation, from the root of the repository."""
    pages = ["README.md", *(page for pages in NAVIGATION.values() for page in pages)]
    return [*pages, *(page for pages in UNDER.values() for page in pages)]


def place(file: str) -> str:
    """Where the site has a page; of another file of the repository, where it shows it."""
    if file not in list_pages():
        return f"files/{file}.md"
    path = PurePosixPath(file.removeprefix("docs/"))
    return str(path.with_name("index.md") if path.name == "README.md" else path.with_suffix(".md"))


class Stage:
    """The folder that Sphinx builds from."""

    def __init__(self, folder: Path, pictures: Mapping[str, str]) -> None:
        self.folder = folder
        self._pictures = pictures
        self._shown: set[str] = set()

    def lay_out(self) -> None:
        """Write every page, and what the pages link to.

        Raises:
            ValueError: a page asks for a picture that there is not.
        """
        for page in list_pages():
            text = (ROOT / page).read_text(encoding="utf-8")
            if page == "LICENSE":
                text = f"# Licence\n\n```text\n{text}```\n"
            self._write(page, self._convert(text, page) + "\n".join(self._contents(page)))
        done: set[str] = set()
        while ahead := self._shown - done:
            for file in sorted(ahead):
                self._write(file, self._show(file))
            done |= ahead

    def _write(self, file: str, text: str) -> None:
        path = self.folder / place(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _contents(self, page: str) -> Iterator[str]:
        groups = NAVIGATION if page == "README.md" else {"": UNDER.get(page, ())}
        for caption, pages in groups.items():
            if pages:
                yield "\n\n```{toctree}\n:hidden:"
                yield from ([f":caption: {caption}"] if caption else [])
                yield "\n" + "\n".join(f"/{place(one).removesuffix('.md')}" for one in pages)
                yield "```\n"

    def _convert(self, text: str, page: str) -> str:
        """A page as the site has it: its links, its diagrams, its pictures."""
        out, at = [], 0
        for fence in _FENCE.finditer(text):
            out += [self._relink(text[at : fence.start()], page)]
            diagram = _DIAGRAM.fullmatch(fence.group())
            heading = _HEADING.findall(text[: fence.start()])[-1]
            out += [self._diagram(diagram[1], heading) if diagram else fence.group()]
            at = fence.end()
        return "".join([*out, self._relink(text[at:], page)])

    def _relink(self, text: str, page: str) -> str:
        def point(link: re.Match[str]) -> str:
            path, _, anchor = link[1].partition("#")
            if not path or re.match(r"[a-z]+:", path):
                return link[0]
            target = (ROOT / page).parent.joinpath(path).resolve()
            if not target.exists():
                return link[0]  # Sphinx tells it
            file = target.relative_to(ROOT).as_posix()
            if file not in list_pages():
                self._shown.add(file)
            there = os.path.relpath(place(file), Path(place(page)).parent)
            return f"]({there}{'#' if anchor else ''}{anchor})"

        def draw(mark: re.Match[str]) -> str:
            if mark[1] not in self._pictures:
                raise ValueError(f"{page} asks for the picture {mark[1]!r}")
            root = "../" * place(page).count("/")
            return f"````{{raw}} html\n{self._pictures[mark[1]].replace('@/', root)}\n````"

        return PICTURE_STAYS.sub(draw, _LINK.sub(point, text))

    def _diagram(self, source: str, heading: str) -> str:
        """A diagram, light and dark. A small screen scrolls it."""
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        name = f"diagram-{len(list(folder.glob('*-light.svg'))) + 1}"
        lines = ["`````{container} diagram"]
        for look, svg in draw_diagram(source).items():
            (folder / f"{name}-{look}.svg").write_text(svg, encoding="utf-8")
            lines += [f"````{{image}} /pictures/{name}-{look}.svg", f":class: only-{look}"]
            lines += [f":alt: Diagram: {heading}", "````"]
        return "\n".join([*lines, "`````"])

    def _show(self, file: str) -> str:
        """A page with a file of the repository, or with the files of a folder."""
        path = ROOT / file
        head = f"---\norphan: true\n---\n\n# `{file}`\n\n"
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if one.is_file() and is_ours(one)]
            self._shown |= {one.relative_to(ROOT).as_posix() for one in inside}
            folder = Path(place(file)).parent
            return head + "".join(
                f"- [{one.relative_to(path)}]"
                f"({os.path.relpath(place(one.relative_to(ROOT).as_posix()), folder)})\n"
                for one in inside
            )
        language = LANGUAGES.get(path.suffix, "text")
        return f"{head}``````{language}\n{path.read_text(encoding='utf-8').rstrip()}\n``````\n"


def is_ours(file: Path) -> bool:
    """Whether a file is none that was made."""
    return not {"build", "__pycache__"} & set(file.relative_to(ROOT).parts)


def make_site(source: Path, out: Path, pictures: Mapping[str, str]) -> int:
    """Build the site into ``out``; returns how many warnings there were, which Sphinx has told."""
    Stage(source, pictures).lay_out()
    static = source / "_static"
    static.mkdir()
    shutil.copy(STYLE, static / "unbrick.css")
    settings = {
        "project": "Unbrick",
        "release": __version__,
        "extensions": ["myst_parser"],
        "source_suffix": {".md": "markdown"},
        "nitpicky": True,
        "language": "en",
        "smartquotes": False,
        "highlight_language": "text",
        "html_use_index": False,
        "html_theme": "furo",
        "html_title": f"Unbrick {__version__}",
        "html_theme_options": {"navigation_with_keys": True},
        "html_static_path": ["_static"],
        "html_css_files": ["unbrick.css"],
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_show_copyright": False,
        "myst_heading_anchors": 6,
        "myst_disable_syntax": [
            *("myst_role", "myst_line_comment", "myst_block_break", "myst_target"),
        ],
    }
    app = Sphinx(
        srcdir=source,
        confdir=None,
        outdir=out,
        doctreedir=source.with_name("doctrees"),
        buildername="html",
        confoverrides=settings,
        status=None,
        freshenv=True,
        warningiserror=True,
    )
    app.build()
    return app._warncount  # noqa: SLF001 - what `sphinx-build` itself asks


def build(out: Path, draw: Callable[[Path], Mapping[str, str]]) -> int:
    """Build the site anew.

    Args:
        out: its folder, in which nothing stays of what was there.
        draw: makes the pictures, given a folder of the site for the reports that they are from.

    Returns:
        how much is wrong, which has been told.
    """
    if out.exists():
        shutil.rmtree(out)
    (out / "reports").mkdir(parents=True)
    pictures = draw(out / "reports")
    with tempfile.TemporaryDirectory() as scratch:
        warnings = make_site(Path(scratch) / "pages", out, pictures)
    complaints = find_complaints(out)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return warnings + len(complaints)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--firmware", type=Path, default=ROOT / "build" / "firmware")
    options = parser.parse_args()
    out, firmware = options.out.resolve(), options.firmware.resolve()
    if build(out, lambda reports: draw_pictures(reports, firmware)):
        return 1
    print(f"the documentation is at {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
