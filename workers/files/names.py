"""Names of files as they are kept and shown: never a path, nothing that deceives the eye."""

import re
import unicodedata
from urllib.parse import quote

MAX_BYTES = 255
NAMELESS = "file"

_EXTENSION_BYTES = 32
_DECEIVING = "\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u2060\ufeff"
_TURNING = re.compile(f"[{_DECEIVING}\u202a-\u202e\u2066-\u206f\ufff9-\ufffb\U000e0000-\U000e007f]")
"""What turns the order of letters around (`gpj.exe` read backwards), or cannot be seen."""

_UNFIT = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def clean(name: str) -> str:
    """The last part of a path, of at most 255 bytes, fit for a folder of any system."""
    name = re.split(r"[/\\]", name)[-1]
    name = unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode())
    name = "".join(each for each in name if unicodedata.category(each) != "Cc")
    name = _UNFIT.sub("_", _TURNING.sub("", name))
    name = name.strip(" .").strip()
    if _RESERVED.match(name):
        name = f"_{name}"
    return _cut(name) or NAMELESS


def _cut(name: str) -> str:
    """Within the limit, with its extension."""
    if len(name.encode()) <= MAX_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem or len(extension.encode()) > _EXTENSION_BYTES:
        stem, extension = name, ""
    room = MAX_BYTES - len((dot + extension).encode() if extension else b"")
    stem = stem.encode()[:room].decode(errors="ignore").rstrip(" .")
    return f"{stem}.{extension}" if extension else stem


def disposition(kind: str, name: str) -> str:
    """A `Content-Disposition` for any name (RFC 6266, RFC 8187)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = plain.replace("\\", "_").replace('"', "_").replace("%", "_").strip()
    if plain.rpartition(".")[0] == "":
        plain = NAMELESS + plain if plain.startswith(".") else plain or NAMELESS
    value = f'{kind}; filename="{plain}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"
