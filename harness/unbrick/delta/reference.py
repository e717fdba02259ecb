"""The codec in Python: slow, and what the format is (docs/delta-format.md).

``unbrick.delta.compiled`` and the terminal must do the same, byte for byte; tests compare them.
"""

from __future__ import annotations

from unbrick.delta.coder import RangeDecoder, RangeEncoder
from unbrick.delta.format import check_base, digest_new, malformed, read_header
from unbrick.delta.model import INITIAL_FLAGS, MIXERS, REPEAT_FLAGS, Model
from unbrick.delta.plan import DeltaPlan


def write(old: bytes, new: bytes, plan: DeltaPlan) -> bytes:
    """The file that a plan leads to."""
    header = plan.header
    encoder = RangeEncoder(
        *(INITIAL_FLAGS[header.version], REPEAT_FLAGS),
        *(header.slots, header.repeats, MIXERS[header.version]),
    )
    Model(encoder, old, header).run(new, plan)
    return header.pack() + encoder.finish()


def decode(old: bytes, file: bytes) -> bytes:
    """Rebuild the new image.

    Raises:
        DeltaError: the file is for another image, malformed, or gives another image than it says.
    """
    header = read_header(file)
    check_base(header, old)
    payload = file[header.size :]
    decoder = RangeDecoder(
        *(payload, INITIAL_FLAGS[header.version], REPEAT_FLAGS),
        *(header.slots, header.repeats, MIXERS[header.version]),
    )
    new = Model(decoder, old[: header.base_length], header).run()
    if decoder.consumed < len(payload):
        raise malformed("bytes follow its end")
    if header.version > 1 and not decoder.ends_well:
        raise malformed("its last bytes are not those that an encoder writes")
    if digest_new(new, header.version) != header.digest:
        raise malformed("what it gives is not the image that it names")
    return new
