"""One picture: read, localized, and made what is known of it; its crops are written."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from wsol_tf.annotations.crops import write_crops
from wsol_tf.annotations.names import relative_to
from wsol_tf.annotations.polygons import component_in, polygon
from wsol_tf.annotations.record import Annotated, Object
from wsol_tf.annotations.uncertainty import doubts
from wsol_tf.data import images
from wsol_tf.report.templates import data_uri

NO_CLASS = "object"  # of a model that tells no classes

# A function of a picture, uint8 [height, width, 3], that returns its Found, of
# wsol_tf.model.score_maps or of edge.runtime, and the mask of the class activation map, bool
# [height, width], or None. FloatingPointError makes it a picture that can't be used.
Localize = Callable[[np.ndarray], tuple[Any, np.ndarray | None]]


@dataclasses.dataclass(frozen=True)
class Looking:
    """How pictures are looked at; kept with what is found, which no other settings may join.

    Attributes:
        tolerance: pixels that a polygon may be from the edges of the mask.
        thumbnail: longer side of the thumbnails in the review page, in pixels.
        crops: whether to write a crop of each object.
        crop_margin: see `crops.crop_window`.
        crop_aspect: see `crops.crop_window`.
    """

    tolerance: float = 2.0
    thumbnail: int = 256
    crops: bool = False
    crop_margin: float = 0.1
    crop_aspect: float = 0.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A picture that is to be localized.

    Attributes:
        path: the file, absolute.
        name: its name among files that are written, see `Annotated`.
        version: see `version_of`.
    """

    path: str
    name: str
    version: tuple[int, int] | None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        path: the file.
        picture: what is known of it; None where it can't be used.
        reason: why it can't be used; empty where it can.
        notes: how it was repaired.
    """

    path: str
    picture: Annotated | None
    reason: str = ""
    notes: tuple[str, ...] = ()


def version_of(path: str) -> tuple[int, int] | None:
    """Returns a file's size in bytes and time of change in nanoseconds; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def look(
    wanted: Wanted, *, localize: Localize, output_dir: str, root: str, looking: Looking
) -> Outcome:
    """Localizes a picture, and writes its crops if they are asked for.

    Args:
        wanted: the picture.
        localize: see Localize.
        output_dir: an existing folder.
        root: the folder that all pictures lie in, see `names.root_of`.
        looking: how pictures are looked at.
    """
    notes: list[str] = []
    try:
        if wanted.version is None:
            raise images.BadImage(wanted.path, "there is no such file")
        image = images.read_image(wanted.path, note=notes.append)
        found, cam_mask = localize(image)
    except (images.BadImage, FloatingPointError) as error:
        reason = getattr(error, "reason", str(error).rstrip("."))
        return Outcome(wanted.path, None, reason, tuple(notes))
    picture = Annotated(
        path=wanted.path,
        version=wanted.version,
        relative=relative_to(wanted.path, root),
        name=wanted.name,
        height=image.shape[0],
        width=image.shape[1],
        probability=found.probability,
        doubts=doubts(
            found.score_map, found.mask, cam_mask=cam_mask, probability=found.probability
        ),
        objects=tuple(
            known for part in (found, *found.others) for known in _objects(part, looking.tolerance)
        ),
        thumbnail=_thumbnail(image, looking.thumbnail),
    )
    if looking.crops:
        write_crops(
            output_dir, image, picture, margin=looking.crop_margin, aspect=looking.crop_aspect
        )
    return Outcome(wanted.path, picture, notes=tuple(notes))


def _objects(found, tolerance):
    """The objects of one class."""
    for box, score, area in zip(found.boxes, found.scores, found.areas, strict=True):
        ring = polygon(component_in(found.mask, box, int(area)), tolerance) + np.int32(box[:2])
        yield Object(
            found.class_name or NO_CLASS,
            round(float(score), 4),
            tuple(map(int, box)),
            int(area),
            ring.tolist(),
        )


def _thumbnail(image, side):
    scale = side / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in (image.shape[1], image.shape[0])]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return data_uri(Image.fromarray(image), "webp", quality=60)
