"""Everything that a file says about itself as an image, and everything that is wrong with it.

Everything read here may come from an enemy: every length is checked before it is used.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from unbrick.errors import ImageError
from unbrick.image import mcuboot
from unbrick.image.mcuboot import malformed

TEXT_LIMIT = 31
"""Characters of printable ASCII that a text in an image may have."""

OUR_SIGNATURE = "Ed25519"
"""The one kind of signature that terminals check."""

USE_OUR_KEY = "sign it with an Ed25519 key: `imgtool keygen -t ed25519 -k KEY.pem` makes one"

_SHORTEST_BODY = 8  # Initial SP and entry address.
_BLANK = (b"\xff", b"\0")
_SIGN = "sign it with `unbrick image sign`"
_HASHES = {"SHA-256": hashlib.sha256, "SHA-384": hashlib.sha384, "SHA-512": hashlib.sha512}
_OTHER_FILES = (
    (rb"\x7fELF", "an ELF program", f"make a flat binary of it (`objcopy -O binary`), and {_SIGN}"),
    (rb"S[0-9][0-9A-Fa-f]{2}", "Motorola S-records", "make Intel HEX of them: `srec_cat`"),
    (rb":[0-9A-Fa-f]{8}", "Intel HEX", "make a binary of it: `unbrick image convert`"),
    (rb"UF2\n", "UF2", "give the signed image that it was made of"),
    (rb"PK\x03\x04", "a zip archive", "unpack it, and give the signed image"),
    (rb"\x1f\x8b", "a gzip archive", "unpack it, and give the signed image"),
    (rb"-----BEGIN", "a key or a certificate", "give a signed image; a key is for --key"),
    (rb"\xff{4}", "erased flash", "give a signed image"),
)
"""How other files begin, what they are, and what to do."""


@dataclass
class Examination:
    """What is known of an image. What could not be read is None, or empty.

    Attributes:
        file_size: bytes that were looked at.
        version: ``major.minor.revision+build``.
        name: of the software.
        build_time: ISO 8601, UTC.
        hardware_id: the hardware it was made for.
        security_counter: grows when an older image must not be installed any more.
        userdata_format: the format in which this software keeps the user's data.
        delta_version: the newest format version of differential files that this software reads.
        size: bytes of the whole image, with header and TLVs.
        header_size: bytes from the start of the image to the body.
        body_size: bytes of the body.
        protected_size: bytes of the protected TLVs.
        flags: of the header.
        load_address: where the image must lie; 0 when the header leaves it open.
        digest: the hash that the image holds.
        digest_algorithm: of ``digest``: ``SHA-256``.
        key_hash: hash of the public key it was signed with.
        signature: Ed25519 over ``digest``; empty without one.
        signature_algorithm: how it is signed, ``Ed25519`` or otherwise; empty when it is not.
        dependencies: on other images, as text.
        strange_tlvs: types of TLVs outside of the protected area that no terminal knows.
        problems: what is wrong with it, in the order in which it is met.
    """

    file_size: int
    version: str = ""
    name: str = ""
    build_time: str = ""
    hardware_id: str = ""
    security_counter: int | None = None
    userdata_format: int | None = None
    delta_version: int | None = None
    size: int | None = None
    header_size: int | None = None
    body_size: int | None = None
    protected_size: int | None = None
    flags: int | None = None
    load_address: int | None = None
    digest: bytes = b""
    digest_algorithm: str = ""
    key_hash: bytes = b""
    signature: bytes = b""
    signature_algorithm: str = ""
    dependencies: tuple[str, ...] = ()
    strange_tlvs: tuple[int, ...] = ()
    problems: list[ImageError] = field(default_factory=list)

    @property
    def signed(self) -> bool:
        """Whether there is a signature that a terminal could check."""
        return bool(self.signature and self.key_hash)


def examine(data: bytes, *, trailing: bool = False) -> Examination:
    """Look at all of an image, whatever is wrong with it.

    Args:
        data: the image.
        trailing: accept bytes after its end, as a partition of the NOR has them.
    """
    found = Examination(len(data))
    try:
        _Examiner(data, found).run(trailing=trailing)
    except ImageError as error:
        # What it has come through holds the whole image, and this holds it.
        found.problems.append(error.with_traceback(None))
    return found


def identify_other_file(data: bytes) -> ImageError | None:
    """The error of a file that is something else, when its first bytes tell what."""
    for begin, what, hint in _OTHER_FILES:
        if re.match(begin, data):
            return ImageError(f"not an image: this looks like {what}", hint=hint)
    return None


def is_text(value: object) -> bool:
    """Whether ``value`` can be a text in an image or in the identity partition."""
    return (
        isinstance(value, str)
        and value.isascii()
        and value.isprintable()
        and 0 < len(value) <= TEXT_LIMIT
    )


class _Examiner:
    """Fills an examination; raises where nothing behind that point can be read."""

    def __init__(self, data: bytes, found: Examination) -> None:
        self._data = data
        self._found = found
        self._protected: list[tuple[int, bytes]] = []
        self._plain: list[tuple[int, bytes]] = []

    def run(self, *, trailing: bool) -> None:
        body_end = self._header()
        try:
            hashed, end = self._areas(body_end)
        finally:
            self._say_tlvs()
        self._found.size = end
        if len(self._data) > end and not trailing:
            self._found.problems.append(_followed(self._data, end))
        self._check_tlvs()
        self._check_hash(hashed)
        self._check_texts()

    def _header(self) -> int:
        """Reads the header; gives where the body ends."""
        data, found = self._data, self._found
        if len(data) < mcuboot.HEADER.size:
            raise identify_other_file(data) or malformed(
                f"the image is truncated: {len(data)} bytes are no header"
            )
        (magic, address, header_size, protected_size, body_size, flags, *numbers) = (
            mcuboot.HEADER.unpack_from(data)
        )
        if magic != mcuboot.MAGIC:
            raise _no_image(data, magic)
        found.load_address, found.flags = address, flags
        found.header_size, found.body_size = header_size, body_size
        found.protected_size = protected_size
        found.version = mcuboot.format_version(*numbers[:4])
        if header_size < mcuboot.HEADER.size:
            raise malformed(f"the image says that its header has {header_size} bytes")
        if strange := flags & ~mcuboot.FLAG_ROM_FIXED:
            found.problems.append(_flagged(strange))
        if body_size < _SHORTEST_BODY:
            raise malformed(f"the body of the image has only {body_size} bytes")
        return int(header_size + body_size)

    def _areas(self, body_end: int) -> tuple[int, int]:
        """Reads both areas of TLVs; gives where what is hashed and where the image ends."""
        size = self._found.protected_size
        magic = mcuboot.TLV_PROTECTED_MAGIC
        hashed = mcuboot.read_tlvs(self._data, body_end, magic, size, self._protected)
        magic = mcuboot.TLV_INFO_MAGIC
        return hashed, mcuboot.read_tlvs(self._data, hashed, magic, None, self._plain)

    def _say_tlvs(self) -> None:
        """What the TLVs say, as far as they were read."""
        found = self._found
        protected, plain = dict(self._protected), dict(self._plain)
        for kind, name in mcuboot.HASHES.items():
            if kind in plain and not found.digest:
                found.digest, found.digest_algorithm = plain[kind], name
        for kind, name in mcuboot.SIGNATURES.items():
            if kind in plain and not found.signature_algorithm:
                found.signature_algorithm = name
        found.signature = plain.get(mcuboot.TLV_ED25519, b"")
        if found.signature_algorithm == "ECDSA":
            curve = "P-384" if found.digest_algorithm == "SHA-384" else "P-256"
            found.signature_algorithm += f" {curve}"
        found.key_hash = plain.get(mcuboot.TLV_KEY_HASH, b"")
        known = mcuboot.UNPROTECTED | mcuboot.PROTECTED  # The latter are misplaced, a problem.
        found.strange_tlvs = tuple(kind for kind in plain if kind not in known)
        found.dependencies = tuple(
            mcuboot.format_dependency(value)
            for kind, value in (*self._protected, *self._plain)
            if kind == mcuboot.TLV_DEPENDENCY
        )
        texts = {
            kind: value.decode("latin-1")
            for kind, value in protected.items()
            if is_text(value.decode("latin-1"))
        }
        found.name = texts.get(mcuboot.TLV_NAME, "")
        found.build_time = texts.get(mcuboot.TLV_BUILD_TIME, "")
        found.hardware_id = texts.get(mcuboot.TLV_HARDWARE_ID, "")
        counter = protected.get(mcuboot.TLV_SECURITY_COUNTER)
        found.security_counter = None if counter is None else int.from_bytes(counter, "little")
        data_format = protected.get(mcuboot.TLV_USERDATA_FORMAT, b"\x01")
        found.userdata_format = int.from_bytes(data_format, "little")
        delta_version = protected.get(mcuboot.TLV_DELTA_VERSION, b"\x01")
        found.delta_version = int.from_bytes(delta_version, "little")

    def _check_tlvs(self) -> None:
        problems = self._found.problems
        protected, plain = dict(self._protected), dict(self._plain)
        for area in (self._protected, self._plain):
            kinds = [kind for kind, _ in area if kind != mcuboot.TLV_DEPENDENCY]
            if len(kinds) != len(set(kinds)):
                twice = next(kind for at, kind in enumerate(kinds) if kind in kinds[:at])
                problems.append(malformed(f"the image has TLV 0x{twice:04x} twice"))
        size = len(self._found.key_hash)
        if size not in (0, mcuboot.KEY_HASH_SIZE) and not self._hashed_otherwise():
            what = f"TLV 0x{mcuboot.TLV_KEY_HASH:04x} of the image has {size} bytes"
            problems.append(malformed(what))
        misplaced = mcuboot.PROTECTED & plain.keys() | mcuboot.UNPROTECTED & protected.keys()
        problems += [
            malformed(f"TLV 0x{kind:04x} of the image is in the wrong area")
            for kind in sorted(misplaced)
        ]

    def _hashed_otherwise(self) -> bool:
        """Whether the image has a hash, and none that a terminal checks."""
        return self._found.digest_algorithm not in ("", "SHA-256")

    def _check_hash(self, hashed: int) -> None:
        found = self._found
        if not found.digest:
            found.problems.append(malformed("the image has no SHA-256"))
            return
        if mcuboot.TLV_PURE in dict(self._plain):
            what = "the signature is over the image itself (pure), terminals check one over a hash"
            found.problems.append(ImageError(what, hint="sign it without --pure"))
        elif self._hashed_otherwise():
            name = found.digest_algorithm
            what = f"the image is hashed by {name}, terminals check SHA-256"
            hint = f"sign it without --sha {name.removeprefix('SHA-')}"
            if found.signature_algorithm not in ("", OUR_SIGNATURE):
                hint = USE_OUR_KEY
            found.problems.append(ImageError(what, hint=hint))
        if mcuboot.is_encrypted(found.flags or 0):
            return  # What was hashed is not what is here.
        digest = _HASHES[found.digest_algorithm](memoryview(self._data)[:hashed]).digest()
        if digest != found.digest:
            found.problems.append(
                ImageError(
                    f"the image is damaged: its {found.digest_algorithm} does not match its"
                    " contents",
                    hint="copy it again, or build and sign it anew",
                )
            )

    def _check_texts(self) -> None:
        protected, missing = dict(self._protected), []
        for kind, what in (
            (mcuboot.TLV_NAME, "name"),
            (mcuboot.TLV_BUILD_TIME, "build time"),
            (mcuboot.TLV_HARDWARE_ID, "hardware id"),
            (mcuboot.TLV_SECURITY_COUNTER, "security counter"),
        ):
            if kind not in protected:
                missing.append(what)
            elif kind != mcuboot.TLV_SECURITY_COUNTER and not is_text(
                protected[kind].decode("latin-1")
            ):
                text = f"the {what} of the image is not a text of 1 to {TEXT_LIMIT} characters"
                self._found.problems.append(malformed(text))
        if missing:
            adds = "them" if len(missing) > 1 else "it"
            self._found.problems.append(
                ImageError(
                    f"the image has no {', no '.join(missing)}", hint=f"{_SIGN}, which adds {adds}"
                )
            )


def _no_image(data: bytes, magic: int) -> ImageError:
    if data.startswith(mcuboot.MAGIC.to_bytes(4, "big")):
        return ImageError("the image is big-endian", hint="sign it without --endian big")
    what = f"not an image: it begins with 0x{magic:08x} instead of 0x{mcuboot.MAGIC:08x}"
    for begin, other, hint in _OTHER_FILES:
        if re.match(begin, data):
            return ImageError(f"{what}, as {other} would", hint=hint)
    return ImageError(
        what, hint="give a signed image: `unbrick image sign` makes one from a binary"
    )


def _flagged(flags: int) -> ImageError:
    known = [flag for flag in mcuboot.STRANGE_FLAGS if flags & flag.bits]
    words = "".join(f", {flag.what}" for flag in known)
    options = " and ".join(flag.option for flag in known)
    return ImageError(
        f"the image has flags that this terminal does not know: 0x{flags:08x}{words}",
        hint=f"sign it without {options}" if options else _SIGN,
    )


def _followed(data: bytes, end: int) -> ImageError:
    """The error of an image that does not end where it says."""
    rest = data[end:]
    what = f"{len(rest)} bytes follow the end of the image"
    if mcuboot.is_trailer(rest):
        return ImageError(
            f"{what}: it is padded to a slot, with MCUboot's trailer at the end",
            hint="sign it without --pad, --test and --confirm",
        )
    if any(not rest.strip(blank) for blank in _BLANK):
        return ImageError(f"{what}, all of them blank", hint=f"cut it to {end} bytes")
    return malformed(what)
