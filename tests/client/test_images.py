"""Images: nothing but the picture leaves, and no image is unpacked that is too large."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, PngImagePlugin

from chatchain.client import images
from chatchain.client.images import (
    MAX_PREVIEW_SIDE,
    image_format,
    preview_again,
    preview_pixels,
    thumbnail,
    without_metadata,
)
from chatchain.errors import RefusedError, TooLarge

FORMATS = ("JPEG", "PNG", "WEBP")
SECRET = b"taken at 48.8584 N 2.2945 E"


def picture(width: int = 120, height: int = 80, mode: str = "RGB") -> Image.Image:
    """A gradient whose left upper corner is dark and whose right lower one is bright."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return ImageChops.add(across, down, scale=2).convert(mode)


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """The image in a format."""
    target = BytesIO()
    image.save(target, name, **options)
    return target.getvalue()


def with_metadata(name: str, orientation: int = 1) -> bytes:
    """A photograph as a telephone makes it: place, maker and, where there is room for it, a comment."""
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    options: dict[str, Any] = {"exif": exif}
    if name == "JPEG":
        options |= {"comment": SECRET, "quality": 92}
    if name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Comment", SECRET.decode())
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", SECRET.decode())
    if name == "WEBP":
        options |= {"xmp": SECRET, "lossless": True}
    return saved(picture(), name, **options)


def opened(data: bytes) -> Image.Image:
    """The image, unpacked."""
    image = Image.open(BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_is_removed_and_the_picture_stays(name: str) -> None:
    """Neither EXIF, XMP nor comments, in the bytes or as Pillow reads them; format and size are the same."""
    before = with_metadata(name)
    assert SECRET in before
    after = without_metadata(before)
    image = opened(after)
    assert SECRET not in after
    assert b"Exif" not in after
    assert b"EXIF" not in after
    assert not image.getexif()
    assert not {"exif", "xmp", "comment", "Comment", "XML:com.adobe.xmp"} & image.info.keys()
    assert (image.format, image.size) == (name, (120, 80))
    difference = ImageChops.difference(image.convert("RGB"), picture())
    assert max(difference.tobytes()) <= 12


@pytest.mark.parametrize("name", FORMATS)
def test_what_stands_behind_the_end_is_removed(name: str) -> None:
    """A tail is no picture."""
    assert SECRET not in without_metadata(saved(picture(), name) + SECRET)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_turned_upright(orientation: int) -> None:
    """The orientation went with the metadata, so it is applied first."""
    before = with_metadata("JPEG", orientation)
    after = opened(without_metadata(before))
    assert after.size == ((120, 80) if orientation <= 4 else (80, 120))
    shown = thumbnail(before)
    assert (shown.width, shown.height) == after.size
    assert opened(shown.jpeg).size == after.size


def test_a_profile_and_transparency_stay() -> None:
    """Colours are part of the picture."""
    paletted = picture(mode="P")
    after = opened(without_metadata(saved(paletted, "PNG", transparency=3, icc_profile=b"profile")))
    assert (after.mode, after.info["transparency"], after.info["icc_profile"]) == ("P", 3, b"profile")
    glass = picture(mode="RGBA")
    glass.putalpha(0)
    clear = opened(without_metadata(saved(glass, "WEBP", lossless=True)))
    assert clear.getchannel("A").getextrema() == (0, 0)
    assert opened(thumbnail(saved(glass, "PNG")).jpeg).convert("L").getextrema() == (255, 255)


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_an_animation_stays_one(name: str) -> None:
    """Frames and their times come through, the metadata does not."""
    frames = [picture(), picture().rotate(180), Image.new("RGB", (120, 80), "red")]
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    before = saved(
        frames[0], name, save_all=True, append_images=frames[1:], duration=[100, 200, 300], exif=exif
    )
    after = without_metadata(before)
    assert SECRET in before
    assert SECRET not in after
    assert getattr(opened(after), "n_frames", 1) == 3
    assert opened(thumbnail(before).jpeg).size == (120, 80)


def test_a_picture_of_several_pictures_gives_its_first() -> None:
    """A telephone's JPEG may hold a second image with a depth map or what was cut off."""
    before = saved(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (120, 80), "red")])
    after = opened(without_metadata(before))
    assert (after.format, getattr(after, "n_frames", 1)) == ("JPEG", 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_pixel_has_a_thumbnail(mode: str) -> None:
    """A JPEG of at most 320 pixels."""
    source = picture(700, 500, "L").convert(mode) if mode != "I;16" else Image.new(mode, (700, 500), 9999)
    shown = thumbnail(saved(source, "PNG"))
    assert (shown.width, shown.height) == (700, 500)
    assert max(opened(shown.jpeg).size) == images.THUMBNAIL_SIDE


def test_a_thumbnail_has_a_bound_also_for_noise() -> None:
    """Noise cannot be packed well, so it is shown smaller."""
    shown = thumbnail(saved(Image.effect_noise((900, 900), 200).convert("RGB"), "PNG"))
    assert len(shown.jpeg) <= images.MAX_THUMBNAIL_BYTES


def test_a_thumbnail_carries_no_metadata() -> None:
    """It is made from pixels too."""
    shown = thumbnail(with_metadata("JPEG"))
    assert SECRET not in shown.jpeg
    assert not opened(shown.jpeg).getexif()


# --- previews that came -------------------------------------------------------------------------------


@pytest.mark.parametrize(("box", "size"), [((40, 24), (36, 24)), ((9, 40), (9, 6)), ((999, 999), (120, 80))])
def test_a_preview_fits_into_its_box_and_never_grows(box: tuple[int, int], size: tuple[int, int]) -> None:
    """Pixels in rows, three bytes each; dark above on the left, bright below on the right."""
    small = preview_pixels(thumbnail(saved(picture(), "PNG")).jpeg, *box)
    assert ((small.width, small.height), len(small.rgb)) == (size, 3 * size[0] * size[1])
    assert max(small.rgb[:3]) < 60
    assert min(small.rgb[-3:]) > 200


def test_a_preview_of_one_line_is_still_seen() -> None:
    """No side becomes nothing."""
    small = preview_pixels(saved(picture(400, 1), "JPEG"), 40, 24)
    assert (small.width, small.height) == (40, 1)


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_a_preview_in_other_colours_becomes_ours(mode: str) -> None:
    """Whatever a JPEG may hold, a screen gets red, green and blue."""
    small = preview_pixels(saved(picture(mode=mode), "JPEG"), 12, 12)
    assert len(small.rgb) == 3 * small.width * small.height


HOSTILE = {
    "nothing": b"",
    "text": b"GIF89a or what",
    "another format": saved(picture(), "PNG"),
    "an animation's head": saved(picture(), "GIF"),
    "too wide": saved(picture(MAX_PREVIEW_SIDE + 1, 1), "JPEG"),
    "in passes": saved(picture(), "JPEG", progressive=True),
    "too many bytes": saved(picture(), "JPEG") + bytes(16 * 1024),
    "cut": saved(picture(), "JPEG")[:700],
    "a bomb": bytes.fromhex("ffd8ffc0001108ffffffff03011100021100031100"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_preview_is_refused(what: str) -> None:
    """With the one error that is documented."""
    for work in (lambda data: preview_pixels(data, 40, 24), preview_again):
        with pytest.raises(RefusedError):
            work(HOSTILE[what])


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_a_damaged_preview_is_pixels_or_refused(at: int, junk: bytes) -> None:
    """Wherever its bytes are changed, nothing else escapes."""
    whole = saved(picture(), "JPEG")
    damaged = whole[: at % len(whole)] + junk + whole[at % len(whole) + len(junk) :]
    try:
        small = preview_pixels(damaged, 40, 24)
    except RefusedError:
        return
    assert len(small.rgb) == 3 * small.width * small.height <= 3 * 40 * 24


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7072, 9500, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_unopened(side: int) -> None:
    """Just over the limit, over Pillow's warning, over its error, and the largest that a PNG can claim."""
    for work in (without_metadata, thumbnail):
        with pytest.raises((TooLarge, RefusedError)):
            work(bomb(side, side))
    if side < 2**31 - 1:
        with pytest.raises(TooLarge):
            without_metadata(bomb(side, side))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("length", [12, 60, -40])
def test_a_truncated_image_is_refused(name: str, length: int) -> None:
    """It would otherwise leave as it is, with all that it says."""
    cut = with_metadata(name)[:length]
    for work in (without_metadata, thumbnail):
        with pytest.raises(RefusedError):
            work(cut)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (saved(picture(), "JPEG"), "JPEG"),
        (saved(picture(), "PNG"), "PNG"),
        (saved(picture(), "WEBP"), "WEBP"),
        (saved(picture(), "GIF"), None),
        (b"RIFF1234WAVE", None),
        (b"", None),
    ],
)
def test_an_image_is_known_by_its_first_bytes(data: bytes, name: str | None) -> None:
    """Not by its name."""
    assert image_format(data) == name


@given(st.sampled_from(FORMATS), st.integers(0), st.binary(min_size=1, max_size=8))
@settings(deadline=None, max_examples=150)
def test_only_refusals_escape(name: str, at: int, garbage: bytes) -> None:
    """Whatever bytes of a real image are overwritten."""
    data = with_metadata(name)
    at %= len(data)
    broken = data[:at] + garbage + data[at + len(garbage) :]
    for work in (without_metadata, thumbnail):
        try:
            work(broken)
        except RefusedError:
            continue
