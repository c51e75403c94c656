"""The process that looks into one image: it may crash, hang or grow, and only it ends by that.

    python -m workers.files.image_process FORMAT PIXELS BYTES SECONDS CLEANED THUMBNAIL < image

The image is standard input, CLEANED and THUMBNAIL are open files to write into. The answer is a
line of JSON: `width` and `height`, or `code` and `message` of the refusal. No size is believed
before it is checked, and nothing is decoded whose pixels are more than PIXELS.
"""

import json
import mmap
import os
import resource
import signal
import sys
import warnings
from typing import Any, BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from .metadata import without_metadata

THUMBNAIL_PIXELS = 512
THUMBNAIL_QUALITY = 80
TURNED_QUALITY = 92
PROFILE_BYTES = 64 * 1024
BASE_BYTES = 512 * 1024 * 1024
BYTES_A_PIXEL = 16
"""Decoded as four bytes, turned into another, and converted for the thumbnail."""

_ORIENTATION = 0x0112
_SHOWN = ("icc_profile", "transparency", "progressive")
"""What belongs to the picture of all that a file tells."""


class Refused(Exception):
    """The image is not taken."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def main(argv: list[str]) -> None:
    """Look into standard input, and answer."""
    pixels, size, seconds, cleaned, thumbnail = map(int, argv[1:])
    _confine(pixels, size, seconds)
    try:
        answer = _looked_into(argv[0], pixels, cleaned, thumbnail)
    except Refused as refused:
        answer = {"code": refused.code, "message": str(refused)}
    except (MemoryError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        answer = _bomb(pixels)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        answer = {"code": "invalid", "message": f"file: the image cannot be read: {error}"[:200]}
    print(json.dumps(answer))


def _confine(pixels: int, size: int, seconds: int) -> None:
    memory = BASE_BYTES + BYTES_A_PIXEL * pixels + 2 * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size, 2 * size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(seconds)  # Also when nobody is there any more to end this.
    Image.MAX_IMAGE_PIXELS = pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _bomb(pixels: int) -> dict[str, Any]:
    return {"code": "too_large", "message": f"file: an image has at most {pixels} pixels"}


def _looked_into(format: str, pixels: int, cleaned: int, thumbnail: int) -> dict[str, Any]:
    with os.fdopen(os.dup(0), "rb") as file:
        file.seek(0)
        with Image.open(file, formats=[format]) as image:
            if image.width * image.height > pixels:
                return _bomb(pixels)
            shown = _turned(image, format) or image
            if shown is image:
                _strip(file, format, cleaned)
            else:
                _save(shown, format, cleaned)
            width, height = shown.size
            _save_thumbnail(shown, thumbnail)
    return {"width": width, "height": height}


def _turned(image: Image.Image, format: str) -> Image.Image | None:
    """The picture as it is to be seen, if it is not so yet. Animations stay as they are."""
    if image.getexif().get(_ORIENTATION, 1) in (0, 1):
        return None
    # A JPEG of several pictures is one with others behind it, which are left out anyway.
    if format != "JPEG" and getattr(image, "n_frames", 1) > 1:
        return None
    turned = ImageOps.exif_transpose(image)
    turned.info = {name: value for name, value in image.info.items() if name in _SHOWN}
    return turned


def _strip(file: BinaryIO, format: str, cleaned: int) -> None:
    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    with os.fdopen(os.dup(cleaned), "wb") as out:
        for part in without_metadata(data, format):
            out.write(part)


def _save(image: Image.Image, format: str, cleaned: int) -> None:
    options: dict[str, Any] = {}
    if format in ("JPEG", "WEBP"):
        options["quality"] = TURNED_QUALITY
    if format == "JPEG":
        options["progressive"] = "progressive" in image.info
    with os.fdopen(os.dup(cleaned), "wb") as out:
        image.save(out, format, icc_profile=image.info.get("icc_profile"), **options)


def _save_thumbnail(image: Image.Image, thumbnail: int) -> None:
    profile = image.info.get("icc_profile")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    image.draft("RGB", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    if image.mode not in ("RGB", "RGBA"):
        if image.mode not in ("P", "L", "LA", "1"):
            profile = None  # It is one of other colours, as those of print.
        image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    if profile is not None and len(profile) > PROFILE_BYTES:
        profile = None
    with os.fdopen(os.dup(thumbnail), "wb") as out:
        image.save(out, "WEBP", quality=THUMBNAIL_QUALITY, icc_profile=profile, exif=b"", xmp=b"")


if __name__ == "__main__":
    main(sys.argv[1:])
