"""Picture files to RGB arrays: the one decoder of all programs."""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MIN_SIDE = 8
MAX_PIXELS = 200_000_000

PathLike = str | os.PathLike

_PILLOW_LIMIT = threading.Lock()


class BadImage(ValueError):
    """A picture that cannot be used; the text is one sentence with the file and the reason.

    Attributes:
        reason: the sentence without the file, so that equal reasons can be counted together.
    """

    def __init__(self, path: PathLike, reason: str):
        super().__init__(f"{path}: {reason}.")
        self.reason = reason


def is_picture(path: PathLike) -> bool:
    """Whether a file is taken for a picture, by its suffix."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def files_in(folder: PathLike) -> list[str]:
    """Lists the paths of all pictures in a folder, at any depth, sorted."""
    return sorted(
        os.path.join(inside, name)
        for inside, _, names in os.walk(os.fspath(folder))
        for name in names
        if name.lower().endswith(SUFFIXES)
    )


def find_images(names: Iterable[str], warn: Callable[[str], Any] = warnings.warn) -> list[str]:
    """Lists picture files: files as they are named, and for folders all pictures in them, sorted.

    Args:
        names: files and folders.
        warn: is told which folders have no picture.

    Raises:
        ValueError: there is no picture at all.
    """
    paths = []
    for name in names:
        inside = files_in(name) if os.path.isdir(name) else [name]
        if not inside:
            warn(f"No picture in folder {name}.")
        paths += inside
    if not paths:
        raise ValueError("There is nothing to localize: name pictures or folders of pictures.")
    return paths


def read_image(
    path: PathLike, min_side: int | None = None, data: bytes | None = None
) -> np.ndarray:
    """Reads a picture file as RGB, upright.

    EXIF rotation is applied, transparency is laid on white, and gray, palette, CMYK and 16-bit
    pictures (scaled, not clipped) are converted. Only the first frame of an animation is read.

    Args:
        path: the file.
        min_side: where given, a picture whose sides are both at least twice as long is read
            reduced by a whole factor, so that its shorter side is at least `min_side` pixels. JPEG
            files are reduced while decoding, which saves time and memory.
        data: the file's bytes if they have been read already; `path` is then only a name.

    Returns:
        uint8 [height, width, 3].

    Raises:
        BadImage: the file is missing, empty, truncated or not a picture, has a side below
            8 pixels, more than 200 million pixels, or float samples of unknown range.
    """
    return read_image_and_size(path, min_side, data)[0]


def read_image_and_size(
    path: PathLike, min_side: int | None = None, data: bytes | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_image`, with the upright (height, width) before any reduction."""
    try:
        if data is None:
            with open(path, "rb") as file:
                data = file.read()
        with open_picture(io.BytesIO(data)) as picture:
            width, height = picture.size
            _check_size(path, width, height)
            if picture.mode == "F":
                raise BadImage(
                    path,
                    "the samples are floats of unknown range; save the picture with 8 or 16 bits "
                    "a channel",
                )
            orientation = picture.getexif().get(0x0112, 1)
            factor = 1 if min_side is None else max(min(width, height) // min_side, 1)
            if factor == 1 and orientation == 1:
                image = _decode_jpeg(data, picture)
                if image is not None:
                    return image, (height, width)
            # Only JPEG decodes to a fraction; the rest of the factor comes after decoding.
            picture.draft(None, (width // factor, height // factor))
            upright = _to_rgb(ImageOps.exif_transpose(picture))
            if orientation in (5, 6, 7, 8):  # these swap the sides
                width, height = height, width
            if factor > 1:
                upright = upright.reduce(max(min(upright.size) // min_side, 1))
            return np.array(upright), (height, width)
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(path, "there is no such file") from None
    except Exception as error:  # decoders raise many types on damaged files
        raise BadImage(path, _what_is_wrong(path, data, error)) from error


def open_picture(file: PathLike | IO[bytes]) -> Image.Image:
    """Opens a picture as `PIL.Image.open` does, but whatever its number of pixels.

    Only the header is read here: callers decide by the size that it names, before they decode.
    Pillow's own limit, a global, is back in place when this returns.
    """
    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_jpeg(data, picture):
    """Decodes an ordinary JPEG, faster than Pillow to the same pixels; None: leave it to Pillow.

    OpenCV fills what a truncated file lacks with gray and says nothing, so the end must be there.
    """
    if picture.format != "JPEG" or picture.mode not in ("RGB", "L") or data[-2:] != b"\xff\xd9":
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


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
    if os.path.isdir(path):
        return "this is a folder, not a picture"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if data == b"":
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        start = data[:512].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "this is a web page or XML, not a picture"
        return "this is not a picture in a known format"
    return f"the picture cannot be decoded ({error})"
