"""Images before they are sent: without metadata, and small for the message itself.

A photograph carries where and when it was taken, by which device, and often a small copy of what was cut off.
`without_metadata` writes the picture anew from its pixels, turned upright, with nothing but its colour
profile; so nothing hides behind its end either. `thumbnail` makes the preview that travels inside of the
message.

Bytes in, bytes or pixels out. An image comes from anywhere, so its size is judged before a pixel is unpacked;
a preview comes from a stranger, and only what this program makes itself is read: one small plain JPEG.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chatchain.crypto.content import MAX_THUMBNAIL_BYTES as MAX_THUMBNAIL_SENT
from chatchain.errors import RefusedError, TooLarge

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS: Final = 50_000_000
"""Pixels of one image, all its frames together: 150 to 200 MB while it is open."""

MAX_FRAMES: Final = 500

THUMBNAIL_SIDE: Final = 320
MAX_THUMBNAIL_BYTES: Final = 12 * 1024
"""Leaves the message in one of the middle buckets of padding."""

MAX_PREVIEW_SIDE: Final = 512
"""Pixels of a side of a preview that came; ours have 320 at most."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_HEIF: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_WEBP_QUALITY: Final = 90
_ON_ITS_SIDE: Final = (5, 6, 7, 8)
"""Of the eight orientations of EXIF, those by which width and height change places."""
_ORIENTATION: Final = 0x0112

_MALFORMED: Final = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
)
"""What Pillow's readers raise for bytes that are no image."""


class Thumbnail(msgspec.Struct, frozen=True):
    """A preview as JPEG, and the size of the whole image, upright."""

    jpeg: bytes
    width: int
    height: int


class Picture(msgspec.Struct, frozen=True):
    """Pixels for a screen: rows from above, three bytes a pixel (red, green, blue)."""

    width: int
    height: int
    rgb: bytes


def image_format(data: bytes) -> str | None:
    """Gives "JPEG", "PNG" or "WEBP" by the first bytes, or None: any other file is sent as it is."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def other_image(data: bytes) -> str | None:
    """Names, by the first bytes, a format of pictures that carry the same and are not rewritten here."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        return "HEIF or AVIF"
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return "JPEG XL"
    return None


def without_metadata(data: bytes) -> bytes:
    """Gives the same picture in the same format, upright and without metadata; animations stay animated.

    Raises TooLarge for too many pixels, RefusedError for what cannot be read: it is not sent by mistake.
    """
    target = BytesIO()
    with _reading():
        image = _opened(data)
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            _save_animation(image, target)
        else:
            _save_still(image, target)
    return target.getvalue()


def thumbnail(data: bytes, side: int = THUMBNAIL_SIDE) -> Thumbnail:
    """Gives a preview of at most `side` pixels and 12 KiB; raises TooLarge and RefusedError as above."""
    from PIL.Image import Resampling

    with _reading():
        image = _opened(data)
        width, height = image.size
        # What is written there may be anything; only these four lay a picture on its side.
        if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
            width, height = height, width
        # A JPEG is unpacked at a fraction of its size.
        image.draft("RGB", (2 * side, 2 * side))
        small = _bare(_flat(_upright(image)))
        while True:
            small.thumbnail((side, side), Resampling.LANCZOS)
            for quality in (80, 65, 50, 35):
                target = BytesIO()
                small.save(target, "JPEG", quality=quality, optimize=True)
                if len(target.getvalue()) <= MAX_THUMBNAIL_BYTES:
                    return Thumbnail(target.getvalue(), width, height)
            side = side * 3 // 4


def preview_pixels(jpeg: bytes, width: int, height: int) -> Picture:
    """Gives the preview of a message in at most so many pixels; raises RefusedError for what is none."""
    image = _preview(jpeg)
    scale = min(width / image.width, height / image.height, 1.0)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize(size)
    return Picture(small.width, small.height, small.tobytes())


def preview_again(jpeg: bytes) -> bytes:
    """Gives the preview of a message as a JPEG written anew from its pixels; raises as above."""
    target = BytesIO()
    _preview(jpeg).save(target, "JPEG", quality=90)
    return target.getvalue()


def _preview(jpeg: bytes) -> Image:
    """Unpacks a preview. One that is built up in passes is refused: a few bytes each, they cost the whole
    picture's work.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    if len(jpeg) > MAX_THUMBNAIL_SENT or image_format(jpeg) != "JPEG":
        raise RefusedError("The preview is no small JPEG.")
    with _reading():
        image = JpegImageFile(BytesIO(jpeg))  # and nothing else that Pillow knows, whatever the bytes say
        if max(image.size) > MAX_PREVIEW_SIDE or "progressive" in image.info:
            raise RefusedError("The preview is no small JPEG.")
        return image.convert("RGB")


@contextmanager
def _reading() -> Iterator[None]:
    """Translates what Pillow says of malformed images, and keeps it from warning of what we refuse anyway."""
    from PIL.Image import DecompressionBombError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DecompressionBombError as exc:
        raise _too_many_pixels() from exc
    except _MALFORMED as exc:
        raise RefusedError(
            "The image cannot be read, so its metadata cannot be removed.",
            "Check the file, or send it with its metadata kept.",
        ) from exc


def _opened(data: bytes) -> Image:
    """Reads an image's head, and no pixel yet; raises TooLarge."""
    import PIL.Image

    image = PIL.Image.open(BytesIO(data), formats=_FORMATS)
    frames = getattr(image, "n_frames", 1)
    if frames > MAX_FRAMES or image.width * image.height * frames > MAX_PIXELS:
        raise _too_many_pixels()
    return image


def _save_still(image: Image, target: BytesIO) -> None:
    from PIL import JpegImagePlugin

    kept: dict[str, Any] = {}
    name = "JPEG" if image.format == "MPO" else str(image.format)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # The tables of the original: as good as it was, and not larger.
        kept = {"qtables": image.quantization, "subsampling": JpegImagePlugin.get_sampling(image)}
        if kept["subsampling"] < 0:
            del kept["subsampling"]
    elif name == "WEBP":
        kept = {"quality": _WEBP_QUALITY, "method": 4}
    upright = _bare(_upright(image))
    if profile := image.info.get("icc_profile"):
        kept["icc_profile"] = profile
    upright.save(target, name, optimize=True, **kept)


def _save_animation(image: Image, target: BytesIO) -> None:
    from PIL import ImageSequence

    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        durations.append(frame.info.get("duration", 0))
        frames.append(_bare(frame.copy()))
    kept: dict[str, Any] = {"duration": durations, "loop": image.info.get("loop", 0)}
    if image.format == "WEBP":
        kept["quality"] = _WEBP_QUALITY
    if profile := image.info.get("icc_profile"):
        kept["icc_profile"] = profile
    frames[0].save(target, image.format, save_all=True, append_images=frames[1:], **kept)


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _bare(image: Image) -> Image:
    """The pixels, and of all that was written about them only which colour is transparent."""
    image.info = {name: value for name, value in image.info.items() if name == "transparency"}
    return image


def _flat(image: Image) -> Image:
    """The picture on white, where it was transparent."""
    import PIL.Image

    image = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    if image.mode != "RGBA":
        return image
    ground = PIL.Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _too_many_pixels() -> TooLarge:
    return TooLarge(
        f"The image has more pixels than are unpacked here ({MAX_PIXELS:,}).",
        "Make it smaller, or send it with its metadata kept.",
    )
