"""Picture files to RGB arrays: the one decoder of all programs."""

import io
import os

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MIN_SIDE = 8
MAX_PIXELS = 200_000_000

# Pillow warns above this many pixels and refuses above twice as many; we refuse at our limit.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class BadImage(ValueError):
    """A picture that cannot be used; the text is one sentence with the file and the reason.

    Attributes:
        reason: the sentence without the file, so that equal reasons can be counted together.
    """

    def __init__(self, path, reason: str):
        super().__init__(f"{path}: {reason}.")
        self.reason = reason


def read_image(path, max_side: int | None = None, data: bytes | None = None) -> np.ndarray:
    """Reads a picture file as uint8 [height, width, 3] RGB, upright.

    EXIF rotation is applied, transparency is laid on white, and gray, palette, CMYK and 16-bit
    pictures (scaled, not clipped) are converted. Only the first frame of an animation is read.

    Args:
        path: the file.
        max_side: where given, a picture whose longer side is at least twice as long is read
            reduced by a whole factor, so that its longer side is at least `max_side`. JPEG files
            are reduced while decoding, which keeps memory low.
        data: the file's bytes where they are not read from `path`, which then is only a name.

    Raises:
        BadImage: the file is missing, empty, truncated or no picture, has a side below
            8 pixels, more than 200 million pixels, or float samples of unknown range.
    """
    return read_image_and_size(path, max_side, data)[0]


def read_image_and_size(
    path, max_side: int | None = None, data: bytes | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_image`, with the upright (height, width) before any reduction."""
    try:
        with Image.open(path if data is None else io.BytesIO(data)) as picture:
            width, height = picture.size
            _check_size(path, width, height)
            if picture.mode == "F":
                raise BadImage(
                    path,
                    "the samples are floats of unknown range; save the picture with 8 or 16 bits "
                    "a channel",
                )
            if max_side is not None:
                # Only JPEG decodes to a fraction; the rest of the factor comes after decoding.
                factor = max(max(width, height) // max_side, 1)
                picture.draft(None, (width // factor, height // factor))
            upright = _to_rgb(ImageOps.exif_transpose(picture))
            if picture.getexif().get(0x0112) in (5, 6, 7, 8):  # orientations that swap the sides
                width, height = height, width
            if max_side is not None:
                upright = upright.reduce(max(max(upright.size) // max_side, 1))
            return np.array(upright), (height, width)
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, "there is no such file") from None
    except Exception as error:  # decoders raise many types on damaged files
        raise BadImage(path, _what_is_wrong(path, data, error)) from error


def _check_size(path, width, height):
    if min(width, height) < MIN_SIDE:
        raise BadImage(
            path,
            f"the picture is {width} x {height} pixels; both sides must be at least {MIN_SIDE}",
        )
    if width * height > MAX_PIXELS:
        raise BadImage(
            path,
            f"the picture is {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million; "
            "make it smaller",
        )


def _to_rgb(picture):
    if picture.mode.startswith("I"):  # 16 bits a sample, also where Pillow says 32
        samples = np.clip(np.asarray(picture).astype(np.int64), 0, 65535)
        return Image.fromarray(np.rint(samples / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def _what_is_wrong(path, data, error):
    if isinstance(error, Image.DecompressionBombError):
        return f"the picture has more than {2 * MAX_PIXELS // 10**6} million pixels"
    if os.path.isdir(path):
        return "this is a folder, not a picture"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if data is None:
        with open(path, "rb") as file:
            data = file.read(512)
    if not data:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        start = data[:512].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "this is a web page or XML, not a picture"
        return "this is not a picture in a known format"
    return f"the picture cannot be decoded ({error})"
