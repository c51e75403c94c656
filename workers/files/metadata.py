"""Takes out of an image what it tells beside the picture: EXIF, XMP, IPTC, comments, what follows.

The picture is not touched: known parts are copied as they are, all others are left out. The parts
that stay are those by which pixels are decoded and coloured, and by which an animation runs. Raises
`ValueError` for what is no image of its kind.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

Data: TypeAlias = "bytes | memoryview"
Parts = Iterator[Data]

_NOT_IMAGE = "it ends too early, or is no image of this kind"

# --- JPEG (ITU T.81, annex B) ---

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_COMMENT, _APP0 = 0xFE, 0xE0
_KEPT_APPS = {
    0xE0: b"JFIF\0",
    0xE2: b"ICC_PROFILE\0",
    0xEE: b"Adobe",
}
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _jpeg(data: memoryview) -> Parts:
    if bytes(data[:2]) != b"\xff\xd8":
        raise ValueError(_NOT_IMAGE)
    yield data[:2]
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(_NOT_IMAGE)
        while data[at + 1] == 0xFF:
            at += 1
        marker = data[at + 1]
        if marker == _EOI:
            yield data[at : at + 2]
            return
        if marker in _BARE:
            yield data[at : at + 2]
            at += 2
            continue
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == _SOS:
            found = _AFTER_SCAN.search(data, end)
            end = found.start() if found else len(data)
        if _stays(marker, data[at + 4 : end]):
            yield data[at:end]
        if end >= len(data):
            if marker == _SOS:
                return  # Cut off; what there is of it can be shown.
            raise ValueError(_NOT_IMAGE)
        at = end


def _stays(marker: int, content: memoryview) -> bool:
    if marker == _COMMENT:
        return False
    if _APP0 <= marker <= _APP0 + 15:
        kept = _KEPT_APPS.get(marker)
        return kept is not None and bytes(content[: len(kept)]) == kept
    return True


# --- PNG and APNG ---

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNKS = frozenset(
    {
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP"),
        *(b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
    }
)


def _png(data: memoryview) -> Parts:
    if bytes(data[:8]) != _PNG:
        raise ValueError(_NOT_IMAGE)
    yield data[:8]
    at = 8
    while True:
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            raise ValueError(_NOT_IMAGE)
        if kind in _CHUNKS:
            yield data[at:end]
        if kind == b"IEND":
            return
        at = end


# --- GIF ---

_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_IMAGE, _EXTENSION, _END = 0x2C, 0x21, 0x3B
_CONTROL, _APPLICATION = 0xF9, 0xFF


def _gif(data: memoryview) -> Parts:
    if bytes(data[:6]) not in (b"GIF87a", b"GIF89a"):
        raise ValueError(_NOT_IMAGE)
    at = 13 + _table(data[10])
    yield data[:at]
    while True:
        kind = data[at]
        if kind == _END:
            yield data[at : at + 1]
            return
        if kind == _IMAGE:
            end = _blocks(data, at + 11 + _table(data[at + 9]))
            yield data[at:end]
        elif kind == _EXTENSION:
            end = _blocks(data, at + 2)
            loops = data[at + 1] == _APPLICATION and bytes(data[at + 3 : at + 14]) in _LOOPS
            if loops or data[at + 1] == _CONTROL:
                yield data[at:end]
        else:
            raise ValueError(_NOT_IMAGE)
        at = end


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks(data: memoryview, at: int) -> int:
    """Where a row of sub-blocks ends."""
    while size := data[at]:
        at += size + 1
    return at + 1


# --- WebP ---

_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_EXIF_AND_XMP = 0x08 | 0x04


def _webp(data: memoryview) -> Parts:
    if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WEBP":
        raise ValueError(_NOT_IMAGE)
    length = 8 + struct.unpack_from("<I", data, 4)[0]
    if length > len(data):
        raise ValueError(_NOT_IMAGE)
    parts: list[Data] = []
    at = 12
    while at + 8 <= length:
        kind, size = struct.unpack_from("<4sI", data, at)
        end = at + 8 + size + size % 2
        if at + 8 + size > length:
            raise ValueError(_NOT_IMAGE)
        if kind == b"VP8X":
            flags = bytes([data[at + 8] & ~_EXIF_AND_XMP])
            parts += [data[at : at + 8], flags, data[at + 9 : end]]
        elif kind in _KEPT:
            parts.append(data[at:end])
            if len(parts[-1]) % 2:
                parts.append(b"\0")
        at = end
    yield struct.pack("<4sI4s", b"RIFF", 4 + sum(map(len, parts)), b"WEBP")
    yield from parts


_FORMATS: dict[str, Callable[[memoryview], Parts]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
}


def without_metadata(data: memoryview, format: str) -> Parts:
    """The image without its metadata, in parts; `format` is Pillow's name for it."""
    try:
        yield from _FORMATS[format](data)
    except (IndexError, struct.error):
        raise ValueError(_NOT_IMAGE) from None
