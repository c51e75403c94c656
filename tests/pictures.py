"""Images for tests, made by Pillow, with everything in them that must not stay."""

import io
from typing import Any

from PIL import Image, PngImagePlugin

SECRET = "5ecret"
SECRET_BYTES = SECRET.encode()
FORMATS = ("JPEG", "PNG", "WEBP")


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[0x010E] = f"{SECRET} description"
    made[0x0112] = orientation
    made[0x8825] = {1: "N", 2: (35.0, 41.0, 22.0), 3: "E", 4: (139.0, 41.0, 30.0)}
    return made


def noise(width: int, height: int) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below."""
    made = Image.new("RGB", (width, height), (255, 0, 0))
    made.paste((0, 0, 255), (0, height // 2, width, height))
    return made


def picture(
    format: str, image: Image.Image | None = None, *, orientation: int = 1, **options: Any
) -> bytes:
    """An image with EXIF, XMP, comments, and something behind it."""
    image = image or noise(640, 400)
    if format == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", SECRET)
        info.add_itxt("XML:com.adobe.xmp", f"<x>{SECRET}</x>", zip=False)
        options["pnginfo"] = info
    if format == "JPEG":
        options["comment"] = SECRET_BYTES
    if format in ("WEBP", "JPEG"):
        options["xmp"] = f"<x>{SECRET}</x>".encode()
    out = io.BytesIO()
    image.save(out, format, exif=exif(orientation), **options)
    return out.getvalue() + (b"" if format == "WEBP" else SECRET_BYTES)


def animation(format: str, frames: int = 3) -> bytes:
    pictures = [Image.new("RGB", (300, 200), (80 * n, 0, 255 - 80 * n)) for n in range(frames)]
    out = io.BytesIO()
    options: dict[str, Any] = {"comment": SECRET_BYTES} if format == "GIF" else {}
    if format == "WEBP":
        options = {"xmp": SECRET_BYTES}
    pictures[0].save(
        out, format, save_all=True, append_images=pictures[1:], duration=50, loop=0, **options
    )
    return out.getvalue()


def bomb(format: str) -> bytes:
    """Few bytes that say they are hundreds of millions of pixels; those of a PNG are there."""
    out = io.BytesIO()
    if format == "WEBP":
        Image.new("RGB", (1, 1)).save(out, "WEBP", lossless=True)
        made = bytearray(out.getvalue())
        made[21:25] = (16_383 | 16_383 << 14).to_bytes(4, "little")
        return bytes(made)
    if format == "GIF":
        made = bytearray(animation("GIF", frames=1))
        made[6:10] = b"\xff\xff\xff\xff"
        return bytes(made)
    Image.new("1", (20_000, 20_000)).save(out, format)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
