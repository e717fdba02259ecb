"""What server and link did in a session, in words: for the timeline of a replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unbrick.campaign.target import TimelineEvent
from unbrick.errors import LinkError
from unbrick.wire import codec, slipmux

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unbrick.campaign.target import ReplayedSession
    from unbrick.reference.memory import ServerState

_HOW_IT_DIES = {
    "": "DIES before it can say so, and goes on from its records",
    "said": "DIES when it has said so, and goes on from its records",
    "late": "DIES when it has said so, and stays away for long",
}


def tell_radio(session: ReplayedSession) -> Iterator[TimelineEvent]:
    """The frames on the wireless link."""
    for sent in (True, False):
        decoder = slipmux.Decoder()
        arrow = "->" if sent else "<-"
        for heard in session.heard:
            if heard.uart == 1 and heard.sent is sent:
                for frame in decoder.feed(heard.data):
                    yield TimelineEvent(heard.time, "radio", f"{arrow} {_tell_frame(frame)}")


def tell_server(session: ReplayedSession) -> Iterator[TimelineEvent]:
    """What the server newly remembers, and how it dies."""
    before: ServerState = session.outcome.marks[0].peers
    death = session.case.death
    for number, mark in enumerate(session.outcome.marks[1:], 1):
        after: ServerState = mark.peers
        if death is not None and death.change == number:
            yield TimelineEvent(mark.time, "server", _HOW_IT_DIES[death.when])
        known = {update.id: update for update in before.updates}
        for update in after.updates:
            if known.get(update.id) != update:
                state = update.state.value
                text = f"update {update.id} to {update.version}: {state}"
                yield TimelineEvent(update.changed, "server", text, state)
        for terminal in after.terminals:
            if terminal not in before.terminals:
                text = f"{terminal.serial} runs {terminal.version}"
                yield TimelineEvent(terminal.last_seen, "server", text)
        for step in sorted(set(after.steps) - set(before.steps), key=lambda s: s.number):
            where = f" at {step.offset:#x}" if step.length else ""
            text = f"step {step.number}, {step.kind.value}{where}: {step.state.value}"
            yield TimelineEvent(mark.time, "server", text)
        before = after


def _tell_frame(frame: slipmux.Frame) -> str:
    if frame.type is not slipmux.FrameType.COAP:
        return frame.data.decode(errors="replace")
    try:
        message = codec.decode(frame.data)
    except LinkError as error:
        return f"no CoAP message: {error}"
    code = message.code
    path = "/" + "/".join(message.opt.uri_path) if code.is_request() else ""
    name = code.name if code.is_request() else code.dotted
    block = message.opt.block2
    part = f" block {block.block_number}{'+' if block.more else ''}" if block else ""
    return f"{message.mtype.name} {message.mid} {name}{path and ' ' + path}{part}".replace(
        "EMPTY", "empty"
    ) + (f", {len(message.payload)} bytes" if message.payload else "")
