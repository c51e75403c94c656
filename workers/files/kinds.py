"""What a file is, by its own bytes; what its sender calls it counts for nothing.

Only what no browser runs gets a type that it shows: known images, sound, film and plain text. All
else is given out as an attachment; what could be a page (HTML, SVG, XML) has no type but bytes.
"""

from typing import Final

import filetype

HEAD_BYTES = 8192
BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

IMAGES = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
}
"""Images that are looked into: type and Pillow's name."""

_SAME = {
    "audio/x-wav": "audio/wav",
    "audio/x-flac": "audio/flac",
    "video/x-m4v": "video/mp4",
    "image/apng": "image/png",
}
_INLINE = frozenset(
    {
        *IMAGES,
        *("audio/mpeg", "audio/mp4", "audio/ogg", "audio/wav", "audio/flac", "audio/aac"),
        *("video/mp4", "video/webm", "video/quicktime", "video/x-matroska", "video/ogg"),
        TEXT,
    }
)
_ATTACHED = frozenset(
    {
        *("image/heic", "image/avif", "image/tiff", "image/bmp", "application/pdf"),
        *("application/zip", "application/gzip", "application/x-7z-compressed"),
        *("application/x-tar", "application/x-bzip2", "application/x-xz", "application/zstd"),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        *("application/vnd.oasis.opendocument.text", "application/epub+zip"),
        *("application/vnd.oasis.opendocument.spreadsheet", "application/msword"),
        "application/vnd.oasis.opendocument.presentation",
    }
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")


def kind_of(head: bytes) -> str:
    """The content type of a file that begins with `head`, of up to `HEAD_BYTES`."""
    if _is_text(head):
        return BYTES if _is_markup(head) else TEXT
    guessed = filetype.guess_mime(head)
    found = _SAME.get(guessed, guessed)
    return found if found in _INLINE or found in _ATTACHED else BYTES


def is_inline(content_type: str) -> bool:
    """Whether a browser may show it, and not only save it."""
    return content_type in _INLINE


def _is_text(head: bytes) -> bool:
    if not head or not _CONTROLS.isdisjoint(head):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        # The last character may go on after the head.
        return len(head) >= HEAD_BYTES and error.start > len(head) - 4
    return True


def _is_markup(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"
