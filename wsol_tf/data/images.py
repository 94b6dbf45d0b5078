"""Picture files to RGB arrays: the one decoder of all programs."""

import io
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from wsol_tf import files
from wsol_tf.data import jpeg, samples
from wsol_tf.data.formats import MAX_BYTES, list_pictures, open_picture, what_is_no_picture

MIN_SIDE = 8
MAX_PIXELS = 200_000_000
PathLike = str | os.PathLike


class BadImage(ValueError):
    """A picture that cannot be used; the text is one sentence with the file and the reason.

    Attributes:
        reason: the sentence without the file, so that equal reasons can be counted together.
    """

    def __init__(self, path: PathLike, reason: str):
        super().__init__(f"{files.printable(os.fspath(path))}: {reason}.")
        self.reason = reason


# --- which files are pictures --------------------------------------------------------------------


def files_in(folder: PathLike) -> list[str]:
    """Lists the paths of all pictures in a folder, at any depth, sorted; unreadable ones too."""
    found = list_pictures(folder, deep=True)
    return sorted([*found.pictures, *found.unreadable])


def find_images(
    names: Iterable[str],
    warn: Callable[[str], Any] = warnings.warn,
    log: Callable[[str], Any] | None = None,
) -> list[str]:
    """Lists picture files: files as they are named, and for folders all pictures in them, sorted.

    Args:
        names: files and folders.
        warn: is told which folders have no picture.
        log: is told what of a folder is not taken, because it is no picture.

    Raises:
        ValueError: there is no picture at all.
    """
    paths = []
    for name in names:
        if not os.path.isdir(name):
            paths.append(name)
            continue
        found = list_pictures(name, deep=True)
        inside = sorted([*found.pictures, *found.unreadable])  # the latter are named when read
        if log:
            for line in _other_files(name, found.others):
                log(line)
        if not inside:
            warn(f"No picture in folder {files.printable(name)}.")
        paths += inside
    if not paths:
        raise ValueError("There is nothing to localize: name pictures or folders of pictures.")
    return paths


def _other_files(folder, others):
    """Lines that name what of a folder is not taken: the first ten names for each reason."""
    for reason in sorted(set(others.values())):
        names = [os.path.relpath(path, folder) for path, why in others.items() if why == reason]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        first = ", ".join(map(files.printable, names[:10]))
        yield f"Not taken from {files.printable(folder)}: {first}{more} ({reason})."


# --- reading -------------------------------------------------------------------------------------


def read_image(
    path: PathLike,
    min_side: int | None = None,
    data: bytes | None = None,
    note: Callable[[str], Any] | None = None,
) -> np.ndarray:
    """Reads a picture file as RGB, upright.

    EXIF rotation is applied, transparency is laid on white, and gray, palette, CMYK and 16-bit
    pictures (scaled by the range that they use, not clipped) are converted. Only the first frame
    of an animation is read.

    Args:
        path: the file.
        min_side: where given, a picture whose sides are both at least twice as long is read
            reduced by a whole factor, so that its shorter side is at least `min_side` pixels. JPEG
            files are reduced while decoding, which saves time and memory.
        data: the file's bytes if they have been read already; `path` is then only a name.
        note: is told of a picture that was read, but not as it stands in the file.

    Returns:
        uint8 [height, width, 3].

    Raises:
        BadImage: the file is missing, no regular file, empty, truncated or not a picture of a
            known format, has more than 1 GiB, a side below 8 pixels, more than 200 million pixels,
            or float samples of unknown range.
    """
    return read_image_and_size(path, min_side, data, note)[0]


def read_image_and_size(
    path: PathLike,
    min_side: int | None = None,
    data: bytes | None = None,
    note: Callable[[str], Any] | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_image`, with the upright (height, width) before any reduction."""
    try:
        if data is None:
            data = files.read_bytes(path, MAX_BYTES)
        header = jpeg.read_header(data)
        if header:
            _check_size(path, header.width, header.height)
            image = _read_plain(data, header, min_side)
            if image is not None:
                return image, (header.height, header.width)
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
            factor = _factor(width, height, min_side)
            # Only JPEG decodes to a fraction; the rest of the factor comes after decoding.
            picture.draft(None, (width // factor, height // factor))
            upright = _to_rgb(_turned(_loaded(data, picture, note), picture))
            if picture.format not in ("JPEG", "MPO"):
                width, height = upright.size
            elif orientation in (5, 6, 7, 8):  # these swap the sides
                width, height = height, width
            if factor > 1:
                upright = upright.reduce(_factor(upright.width, upright.height, min_side))
            return np.array(upright), (height, width)
    except BadImage:
        raise
    except files.BadFile as error:
        raise BadImage(path, error.reason) from None
    except Exception as error:  # decoders raise many types on damaged files
        raise BadImage(path, _what_is_wrong(data, error)) from error


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


def _factor(width, height, min_side):
    """The largest whole factor that leaves the shorter side at least `min_side` pixels."""
    return 1 if min_side is None else max(min(width, height) // min_side, 1)


def _read_plain(data, header, min_side):
    """Reads an ordinary JPEG that stands upright as it is; None for what Pillow has to read."""
    if header.has_app1:
        with open_picture(io.BytesIO(data)) as picture:
            if picture.getexif().get(0x0112, 1) != 1:
                return None
    factor = _factor(header.width, header.height, min_side)
    if factor == 1:
        return jpeg.decode(data, header)
    # The largest fraction that Pillow's `draft` would take.
    largest = min(side // (side // factor) for side in (header.width, header.height))
    image = jpeg.decode(data, header, next(scale for scale in (8, 4, 2, 1) if scale <= largest))
    if image is None:
        return None
    rest = _factor(image.shape[1], image.shape[0], min_side)
    return image if rest == 1 else np.array(Image.fromarray(image).reduce(rest))


def _loaded(data, picture, note):
    """The picture with its pixels loaded and at most 8 bits a sample."""
    if picture.format in ("JPEG", "MPO"):
        jpeg.load(data, picture)
    picture.load()
    deep = samples.read_deep(data, picture)
    if deep is None:
        return picture
    scaled, remark = samples.to_bytes(deep)
    if remark and note:
        note(remark)
    return Image.fromarray(scaled)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned(loaded, picture):
    """Turns what was loaded as the picture's EXIF says; of a TIFF it says nothing any more."""
    turn = _TURNS.get(picture.getexif().get(0x0112))
    return loaded if turn is None else loaded.transpose(turn)


def _to_rgb(picture):
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def _what_is_wrong(data, error):
    if data == b"":
        return "the file is empty"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if not isinstance(error, Image.UnidentifiedImageError):
        return f"the picture cannot be decoded ({error})"
    return what_is_no_picture(data)
