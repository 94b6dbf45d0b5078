"""Crops of objects: thumbnails, and pictures for a classifier that looks at the object alone."""

import contextlib
import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from wsol_tf.annotations.names import fit_text
from wsol_tf.annotations.record import Annotated

CROPS = "crops"


def crop_window(
    box: Sequence[float], height: int, width: int, *, margin: float, aspect: float
) -> tuple[int, int, int, int]:
    """Widens a box to what is cropped.

    Args:
        box: x0, y0, x1, y1 in pixels.
        height: of the picture.
        width: of the picture.
        margin: added on each side, as a share of the box's longer side.
        aspect: width by height that the crop is to have; 0: the box's own. Only ever widened, and
            moved into the picture; where the picture has no room, less than the aspect.

    Returns:
        x0, y0, x1, y1, whole pixels within the picture.
    """
    x0, y0, x1, y1 = box
    more = margin * max(x1 - x0, y1 - y0)
    wide, high = x1 - x0 + 2 * more, y1 - y0 + 2 * more
    if aspect:
        wide, high = max(wide, high * aspect), max(high, wide / aspect)
    left, right = _within((x0 + x1) / 2, wide, width)
    top, bottom = _within((y0 + y1) / 2, high, height)
    return left, top, right, bottom


def _within(centre, length, limit):
    """Whole edges of an interval, moved and cut so that it lies in 0..limit."""
    length = min(max(1, round(length)), limit)
    start = min(max(0, round(centre - length / 2)), limit - length)
    return start, start + length


def write_crops(
    output_dir: str, image: np.ndarray, picture: Annotated, *, margin: float, aspect: float
) -> None:
    """Writes a JPEG of each object to crops/CLASS/NAME_NUMBER.jpg, as an image folder is laid out.

    Args:
        output_dir: the folder of the annotation.
        image: uint8 `[height, width, 3]`.
        picture: what was found in it.
        margin: see `crop_window`.
        aspect: see `crop_window`.
    """
    for known, place in zip(picture.objects, _places(output_dir, picture), strict=True):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        x0, y0, x1, y1 = crop_window(
            known.box, picture.height, picture.width, margin=margin, aspect=aspect
        )
        # Not forced to the disk: until the journal has the picture, it is done again.
        Image.fromarray(image[y0:y1, x0:x1]).save(place, "JPEG", quality=95)


def remove_crops(output_dir: str, picture: Annotated) -> None:
    """Removes what `write_crops` wrote of a picture."""
    for place in _places(output_dir, picture):
        with contextlib.suppress(FileNotFoundError):
            os.remove(place)


def _places(output_dir, picture):
    """The files of the crops of a picture, one for each object."""
    return [
        os.path.join(
            output_dir, CROPS, folder_name(known.class_name), f"{picture.stem}_{number}.jpg"
        )
        for number, known in enumerate(picture.objects, 1)
    ]


def folder_name(class_name: str) -> str:
    """Returns the name of a class as that of a folder on any system."""
    name = re.sub(r"[\\/:*?\"<>|]", "_", fit_text(class_name)).strip(" .")
    return name if name else "_"
