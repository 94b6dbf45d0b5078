"""Annotations of any kind, and the Source of picture files that they make."""

import functools
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from wsol_tf import files
from wsol_tf.data import formats, images
from wsol_tf.data.example import IGNORE, Example, make_example
from wsol_tf.data.names import plain
from wsol_tf.data.source import Report, Source


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


def make_annotation(
    labels: Iterable[int],
    boxes: ArrayLike = (),
    box_labels: ArrayLike = (),
    size: tuple[int, int] | None = None,
) -> Annotation:
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
    items: Sequence[tuple[str, images.PathLike, Annotation]],
    *,
    read_mask: Callable[[int, tuple[int, int]], np.ndarray | None] | None = None,
) -> Source:
    """Makes a Source of picture files whose annotations are already in memory.

    Args:
        name: data set and split, for messages.
        classes: class names; the position is the class id.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.
        items: per picture its id, its path and its annotation.
        read_mask: where there are masks, position and (height, width) of the stored picture ->
            uint8 [height, width] with 0, 1 + class id and 255, or None.

    Raises:
        ValueError: there is no picture.
    """
    if not items:
        raise ValueError(f"{name} has no usable picture.\n{report.summary()}")

    def noting(image_id):
        return functools.partial(report.note, image_id)

    def read_image(position):
        image_id, path, _ = items[position]
        return images.read_image(path, image_size, note=noting(image_id))

    def read_example(position):
        image_id, path, annotation = items[position]
        image, size = images.read_image_and_size(path, image_size, note=noting(image_id))
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


def annotated_example(
    image_id: str,
    image: np.ndarray,
    size: tuple[int, int],
    annotation: Annotation,
    mask: np.ndarray | None,
    report: Report,
) -> Example:
    """Puts a picture, reduced or not, and its annotation together.

    Args:
        image_id: name of the picture.
        image: uint8 [height, width, 3].
        size: height and width of the picture as it is stored.
        annotation: in pixels of the stored picture.
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


# --- classes -------------------------------------------------------------------------------------


class OtherClasses(ValueError):
    """A split has none of the classes that are asked for."""


def check_classes(
    classes: tuple[str, ...], own_classes: tuple[str, ...], where: object
) -> tuple[str, ...]:
    """Returns the classes asked for.

    Args:
        classes: names asked for.
        own_classes: names that the data set has.
        where: the data set, for the message.

    Raises:
        ValueError: a name comes twice.
        OtherClasses: the data set has none of them.
    """
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise ValueError(f"Class names must be unique. Received twice: {', '.join(twice)}.")
    if not set(classes) & set(own_classes):
        raise OtherClasses(
            f"None of the classes asked for ({first_ten(classes)}) is in {where}, which has "
            f"{first_ten(own_classes)}. Use the data set that the model was trained for, or rename "
            "the classes."
        )
    return classes


def note_similar_classes(classes: Iterable[str], report: Report) -> None:
    """Notes names that differ in case, spaces or how accents are composed alone: perhaps one class.

    Args:
        classes: names of a data set; they stay apart.
        report: takes the note.
    """
    similar: dict[str, list[str]] = {}
    for name in dict.fromkeys(classes):
        similar.setdefault(" ".join(plain(name).split()), []).append(name)
    for names in similar.values():
        if len(names) > 1:
            report.note(
                f"classes {', '.join(map(repr, sorted(names)))}",
                "the names differ in case, spaces or accents alone; they count as different "
                "classes, rename them where they are one",
            )


def new_class_ids(own_classes: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Maps a data set's own class ids to ids in a list of names.

    Args:
        own_classes: names of the data set; the position is its own id.
        classes: the list.

    Returns:
        int32 [own classes], -1 for those that are not in the list.
    """
    ids = {name: i for i, name in enumerate(classes)}
    return np.array([ids.get(name, -1) for name in own_classes], np.int32)


def first_ten(names: Sequence[str]) -> str:
    """Lists the first ten names in a message, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


# --- masks ---------------------------------------------------------------------------------------


def read_mask_file(
    file: images.PathLike | bytes, size: tuple[int, int] | None = None, *, convert: bool = False
) -> np.ndarray:
    """Reads the values of a mask PNG: palette indices or gray levels.

    Args:
        file: a path, or the bytes of a file.
        size: height and width that the mask must have.
        convert: turn a mask in colours or of 1 bit into gray levels.

    Returns:
        uint8 [height, width].

    Raises:
        ValueError: no regular file, a mask in colours that is not to be converted, or of another
            size; what Pillow raises for damaged files comes through.
    """
    data = file if isinstance(file, bytes) else files.read_bytes(file, formats.MAX_BYTES)
    with formats.open_picture(io.BytesIO(data)) as picture:
        if picture.width * picture.height > images.MAX_PIXELS:
            raise ValueError(f"the mask has {picture.width} x {picture.height} pixels")
        if picture.mode not in ("P", "L", "1") and not convert:
            raise ValueError(f"the mask must be a palette or gray PNG, not {picture.mode}")
        if size and picture.size != (size[1], size[0]):
            raise ValueError(
                f"the mask has {picture.width} x {picture.height} pixels, the picture "
                f"{size[1]} x {size[0]}"
            )
        if convert and picture.mode not in ("P", "L"):
            return np.asarray(picture.convert("L"), np.uint8)
        return np.asarray(picture, np.uint8)


def mask_values(new_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Maps values of a mask file to those of an Example: `mask_values(new_ids)[mask]`.

    Args:
        new_ids: per class of the data set its id in the list, or -1, see `new_class_ids`.

    Returns:
        uint8 [256]: background stays 0, 1 + own id becomes 1 + new id, and all else is ignored:
        classes that are not in the list or have no room in a byte, and 255.
    """
    values = np.full(256, IGNORE, np.uint8)
    values[0] = 0
    for own, new in enumerate(new_ids[: IGNORE - 1]):
        if 0 <= new < IGNORE - 1:
            values[1 + own] = 1 + new
    return values
