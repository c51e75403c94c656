"""Images as the worker `files` takes them: nothing in them but the picture, and no bombs."""

import os
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import pictures
from tests.pictures import SECRET_BYTES, animation, halves, opened, picture
from workers.files import images
from workers.files.errors import Refused
from workers.files.images import Images
from workers.files.kinds import IMAGES, kind_of
from workers.files.metadata import without_metadata
from workers.files.spool import Spool

pytestmark = pytest.mark.anyio

LIMIT = 20 * 1024 * 1024
PIXELS = 4_000_000


class Taken(NamedTuple):
    width: int
    height: int
    data: bytes
    thumbnail: bytes


async def everything(spool: Spool) -> bytes:
    chunks: AsyncIterator[bytes] = spool.read()
    return b"".join([chunk async for chunk in chunks])


async def take(folder: Path, data: bytes, *, pixels: int = PIXELS) -> Taken:
    looking = Images(pixels=pixels, file_bytes=LIMIT)
    known_as = IMAGES[kind_of(data[:8192])]
    with (
        Spool(str(folder), LIMIT) as spool,
        Spool(str(folder), LIMIT) as cleaned,
        Spool(str(folder), LIMIT) as thumbnail,
    ):
        await spool.write(data)
        await spool.flush()
        found = await looking.look(spool, known_as, cleaned, thumbnail)
        return Taken(
            found.width, found.height, await everything(cleaned), await everything(thumbnail)
        )


def pixels_of(data: bytes) -> bytes:
    return opened(data).convert("RGB").tobytes()


@pytest.mark.parametrize("format", pictures.FORMATS)
async def test_what_an_image_tells_is_gone_and_the_picture_is_the_same(
    format: str, tmp_path: Path
) -> None:
    data = picture(format)
    assert SECRET_BYTES in data
    taken = await take(tmp_path, data)
    assert (taken.width, taken.height) == (640, 400)
    for made in (taken.data, taken.thumbnail):
        assert SECRET_BYTES not in made
        assert b"Exif" not in made
        assert not dict(opened(made).getexif())
    assert opened(taken.data).format == format
    assert pixels_of(taken.data) == pixels_of(data), "not even coded anew"
    thumbnail = opened(taken.thumbnail)
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (512, 320))


@pytest.mark.parametrize("format", pictures.FORMATS)
@pytest.mark.parametrize("orientation", [3, 6, 8])
async def test_a_turned_image_is_kept_as_it_is_to_be_seen(
    format: str, orientation: int, tmp_path: Path
) -> None:
    taken = await take(tmp_path, picture(format, halves(64, 48), orientation=orientation))
    size = (64, 48) if orientation == 3 else (48, 64)
    corner = {3: (0, 0), 6: (0, 0), 8: (47, 0)}[orientation]
    assert (taken.width, taken.height) == size
    for made in (taken.data, taken.thumbnail):
        image = opened(made)
        assert image.size == size
        assert not dict(image.getexif())
        red, _, blue = image.convert("RGB").getpixel(corner)  # type: ignore[misc]
        assert blue > 200 > red + 100, "the lower half came to this corner"
    assert SECRET_BYTES not in taken.data


async def test_colours_stay_what_they_are(tmp_path: Path) -> None:
    profile = b"\0" * 24 + b"a profile" + b"\0" * 100
    data = picture("JPEG", icc_profile=profile)
    taken = await take(tmp_path, data)
    assert opened(taken.data).info["icc_profile"] == profile
    turned = await take(tmp_path, picture("JPEG", orientation=6, icc_profile=profile))
    assert opened(turned.data).info["icc_profile"] == profile


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
async def test_an_animation_goes_on_moving(format: str, tmp_path: Path) -> None:
    data = animation(format)
    taken = await take(tmp_path, data)
    image = opened(taken.data)
    assert (getattr(image, "n_frames", 1), image.info.get("loop")) == (3, 0)
    assert SECRET_BYTES not in taken.data
    assert getattr(opened(taken.thumbnail), "n_frames", 1) == 1


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
async def test_a_bomb_is_refused_before_it_is_decoded(format: str, tmp_path: Path) -> None:
    data = pictures.bomb(format)
    assert len(data) < 3_000_000
    with pytest.raises(Refused, match="at most 4000000 pixels") as caught:
        await take(tmp_path, data)
    assert caught.value.code == "too_large"


async def test_a_picture_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """A GIF says how large it is, and then brings a frame that is larger."""
    frame = struct.pack("<BHHHH", 0x2C, 0, 0, 300, 200)
    data = animation("GIF", frames=1)
    assert data.count(frame) == 1
    larger = data.replace(frame, struct.pack("<BHHHH", 0x2C, 0, 0, 60_000, 60_000))
    with pytest.raises(Refused) as caught:
        await take(tmp_path, larger)
    assert caught.value.code == "too_large"


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


async def test_text_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 200_000_000, 9))
    data = picture("PNG", halves(10, 10))
    bomb = data[:33] + text + data[33:]
    with pytest.raises(Refused, match="cannot be read") as caught:
        await take(tmp_path, bomb)
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"x" * 100,
        b"\xff\xd8\xff\xe0" + b"\0" * 100,
        b"GIF89a" + b"\0" * 10,
        b"RIFF\xff\0\0\0WEBPVP8X" + b"\0" * 20,
        picture("JPEG")[:3000],
        picture("PNG")[:3000],
    ],
    ids=["png", "jpeg", "gif", "webp", "half a jpeg", "half a png"],
)
async def test_what_only_looks_like_an_image_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="file: the image cannot be read") as caught:
        await take(tmp_path, data)
    assert (caught.value.code, caught.value.retryable) == ("invalid", False)


async def test_a_process_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, told = tmp_path / "python", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {told}\nexec /bin/sleep 600\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(images, "DEADLINE_S", 0)
    with pytest.raises(Refused, match="cannot be read"):
        await take(tmp_path, SMALL["PNG"])
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_bytes()), 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGBA"])
async def test_every_kind_of_pixel_has_a_thumbnail(mode: str, tmp_path: Path) -> None:
    data = picture("PNG", Image.new(mode, (700, 50)))
    taken = await take(tmp_path, data)
    assert opened(taken.thumbnail).size == (512, 37)
    assert ("A" in opened(taken.thumbnail).mode) is ("A" in mode)


@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "WEBP"]),
    st.integers(0, 3000),
    st.binary(min_size=1, max_size=8),
)
@settings(max_examples=300)
def test_taking_metadata_out_ends_with_any_bytes(format: str, at: int, noise: bytes) -> None:
    whole = SMALL[format]
    at %= len(whole)
    data = whole[:at] + noise + whole[at + len(noise) :]
    try:
        made = b"".join(without_metadata(memoryview(data), format))
    except ValueError:
        return
    assert len(made) <= len(data) + 12


SMALL = {
    **{each: picture(each, halves(20, 20)) for each in pictures.FORMATS},
    "GIF": animation("GIF"),
}
