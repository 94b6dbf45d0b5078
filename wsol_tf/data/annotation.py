"""Annotations of any kind, and the Source of picture files that they make."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsol_tf.data import images
from wsol_tf.data.example import Example, make_example
from wsol_tf.data.source import Report, Source

# --- what several kinds of data sets share -------------------------------------------------------


@dataclass(frozen=True)
class Annotation:
    """What is known about a picture before its file is read.

    Attributes:
        labels: int32 [num_labels], ascending class ids.
        boxes: float64 [num_boxes, 4], edges in pixels of the stored picture, not yet clipped.
        box_labels: int32 [num_boxes].
        size: height and width of the picture that the boxes were made for, or None.
    """

    labels: np.ndarray
    boxes: np.ndarray
    box_labels: np.ndarray
    size: tuple[int, int] | None = None


def make_annotation(labels, boxes=(), box_labels=(), size=None) -> Annotation:
    """Builds an Annotation with the right dtypes and shapes; labels are sorted, each once."""
    return Annotation(
        labels=np.array(sorted(set(labels)), np.int32),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        box_labels=np.array(box_labels, np.int32),
        size=size,
    )


def file_source(
    name: str,
    classes: tuple[str, ...],
    image_size: int,
    report: Report,
    items: Sequence[tuple[str, str, Annotation]],
    *,
    read_mask: Callable[[int, tuple[int, int]], np.ndarray | None] | None = None,
) -> Source:
    """A Source of picture files whose annotations are already in memory.

    Args:
        name, classes, report: as in Source.
        image_size: as in `datasets.load`.
        items: per picture its id, its path and its annotation.
        read_mask: where there are masks, position and (height, width) of the stored picture ->
            uint8 [height, width] with 0, 1 + class id and 255, or None.

    Raises:
        ValueError: there is no picture.
    """
    if not items:
        raise ValueError(f"{name} has no usable picture.\n{report.summary()}")

    def read_image(position):
        return images.read_image(items[position][1], image_size)

    def read_example(position):
        image_id, path, annotation = items[position]
        image, size = images.read_image_and_size(path, image_size)
        mask = read_mask(position, size) if read_mask else None
        return annotated_example(image_id, image, size, annotation, mask, report)

    return Source(
        name=name,
        classes=classes,
        image_ids=tuple(item[0] for item in items),
        labels=tuple(item[2].labels for item in items),
        has_boxes=any(len(item[2].boxes) for item in items),
        has_masks=read_mask is not None,
        report=report,
        read_image=read_image,
        read_example=read_example,
    )


def annotated_example(image_id, image, size, annotation, mask, report) -> Example:
    """Puts a picture, read reduced or not, and its annotation together.

    Args:
        image_id: name of the picture.
        image: uint8 [height, width, 3].
        size: height and width of the picture as it is stored.
        annotation: an Annotation in pixels of the stored picture.
        mask: None, or uint8 of the stored picture's size.
        report: takes the boxes that do not fit.
    """
    boxes, box_labels = _boxes_in_picture(image_id, annotation, size, report)
    scale = np.array([image.shape[1] / size[1], image.shape[0] / size[0]] * 2)
    if mask is not None and mask.shape != image.shape[:2]:
        rows = (np.arange(image.shape[0]) + 0.5) * mask.shape[0] / image.shape[0]
        columns = (np.arange(image.shape[1]) + 0.5) * mask.shape[1] / image.shape[1]
        mask = mask[rows.astype(int)][:, columns.astype(int)]
    return make_example(image, annotation.labels, boxes * scale, box_labels, mask, image_id, size)


def _boxes_in_picture(image_id, annotation, size, report):
    """Clips boxes to the picture [height, width]; drops those with nothing left."""
    if annotation.size not in (None, size) and len(annotation.boxes):
        (height, width), (true_height, true_width) = annotation.size, size
        report.skip(
            f"{image_id} boxes",
            f"they are for {width} x {height} pixels, the picture has {true_width} x {true_height}",
        )
        return np.zeros((0, 4)), np.zeros(0, np.int32)
    limit = np.array([size[1], size[0]] * 2)
    clipped = np.clip(annotation.boxes, 0, limit)
    keep = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    for i, (box, whole) in enumerate(zip(annotation.boxes, clipped, strict=True)):
        if not keep[i]:
            report.skip(f"{image_id} box {i + 1}", "the box is outside the picture")
        elif (box != whole).any():
            report.note(f"{image_id} box {i + 1}", "the box leaves the picture and was clipped")
    return clipped[keep], annotation.box_labels[keep]


def check_classes(
    classes: tuple[str, ...], own_classes: tuple[str, ...], where: str
) -> tuple[str, ...]:
    """Returns the classes asked for.

    Raises:
        ValueError: a name comes twice, or the data set has none of them.
    """
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise ValueError(f"Class names must be unique. Received twice: {', '.join(twice)}.")
    if not set(classes) & set(own_classes):
        raise ValueError(
            f"None of the classes asked for ({first_ten(classes)}) is in {where}, which has "
            f"{first_ten(own_classes)}. Use the data set that the model was trained for, or rename."
        )
    return classes


def first_ten(names: Sequence[str]) -> str:
    """Names the first ten."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def is_picture(path) -> bool:
    """Whether a file is taken for a picture by its suffix."""
    return os.path.splitext(path)[1].lower() in images.SUFFIXES
