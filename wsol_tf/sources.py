"""Source: one split of a data set with random access, and the report of what was wrong in it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from wsol_tf import images
from wsol_tf.images import BadImage
from wsol_tf.records import Example, make_example

ON_BAD_IMAGE = ("skip", "fail")


class StopAtBadImage(ValueError):
    """A picture cannot be read, and `on_bad_image` is `fail`; the text names it and the reason."""


class Report:
    """Counts and names what was left out or changed while reading a data set.

    Attributes:
        on_bad_image: `skip`, or `fail`: the first picture that cannot be read ends the reading.
        failure: the sentence of that picture, else None.
        skipped: dict of name -> reason, what was left out.
        noted: dict of name -> reason, what was used after a repair.
    """

    def __init__(self, on_bad_image: str = "skip"):
        if on_bad_image not in ON_BAD_IMAGE:
            raise ValueError(
                f"Unknown on_bad_image {on_bad_image!r}. Legal: {', '.join(ON_BAD_IMAGE)}."
            )
        self.on_bad_image = on_bad_image
        self.failure = None
        self.skipped = {}
        self.noted = {}
        self._lock = threading.Lock()  # pictures are read by several threads

    def skip(self, name: str, reason: str):
        """Records that `name` is left out; each name counts once, with its first reason."""
        with self._lock:
            self.skipped.setdefault(name, reason)

    def bad_image(self, name: str, error: BadImage):
        """Records a picture that cannot be read.

        Raises:
            StopAtBadImage: where `on_bad_image` is `fail`.
        """
        if self.on_bad_image == "fail":
            with self._lock:
                self.failure = self.failure or (
                    f"{error} Mend or remove it, or let such pictures be skipped and named: "
                    "--on_bad_image=skip."
                )
            raise StopAtBadImage(self.failure)
        self.skip(name, error.reason)

    def note(self, name: str, reason: str):
        """Records that `name` is used, but not as it stands in the file."""
        with self._lock:
            self.noted.setdefault(name, reason)

    def watch(self, batches: Iterable):
        """Passes batches on; an error that tf.data makes of a failure becomes StopAtBadImage."""
        try:
            yield from batches
        except tf.errors.OpError as error:
            if self.failure is None:
                raise
            raise StopAtBadImage(self.failure) from error

    def summary(self) -> str:
        """Returns what happened in lines to print: counts by reason and the first ten names."""
        with self._lock:
            skipped, noted = dict(self.skipped), dict(self.noted)
        if not skipped and not noted:
            return "Nothing was skipped."
        lines = []
        for title, entries in (("Skipped", skipped), ("Repaired", noted)):
            if entries:
                lines.append(f"{title}: {len(entries)}")
            for reason, count in Counter(entries.values()).most_common():
                names = sorted(name for name in entries if entries[name] == reason)
                more = f" and {count - 10} more" if count > 10 else ""
                lines.append(f"  {count} x {reason}: {', '.join(names[:10])}{more}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Source:
    """One split of a data set, with random access.

    Attributes:
        name: data set and split, for messages.
        classes: class names; the position is the class id.
        image_ids: one string per picture.
        labels: per picture int32 [num_labels], ascending class ids.
        has_boxes, has_masks: whether any picture has them.
        report: what was left out or repaired, so far.
        read_image: position -> uint8 [height, width, 3]; raises BadImage. Touches no annotation.
        read_example: position -> Example of numpy arrays; raises BadImage.
    """

    name: str
    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    has_boxes: bool
    has_masks: bool
    report: Report
    read_image: Callable[[int], np.ndarray]
    read_example: Callable[[int], Example]

    def __len__(self):
        return len(self.image_ids)

    def examples(self, positions: Sequence[int]) -> tf.data.Dataset:
        """Examples at these positions, in that order; unreadable ones go to the report."""
        return example_dataset(self, positions)


def subset(source: Source, positions: Sequence[int]) -> Source:
    """The same data set with the pictures at these positions only."""
    positions = np.asarray(positions, np.int64)
    return Source(
        name=source.name,
        classes=source.classes,
        image_ids=tuple(source.image_ids[i] for i in positions),
        labels=tuple(source.labels[i] for i in positions),
        has_boxes=source.has_boxes,
        has_masks=source.has_masks,
        report=source.report,
        read_image=lambda i: source.read_image(int(positions[i])),
        read_example=lambda i: source.read_example(int(positions[i])),
    )


def example_dataset(
    source: Source,
    positions: Sequence[int],
    transform: Callable[[Example], Example] = lambda example: example,
) -> tf.data.Dataset:
    """Reads and transforms Examples in parallel, in order; pictures that fail are skipped.

    Args:
        source: where the Examples come from.
        positions: which ones, in which order.
        transform: a function of numpy Examples.

    Returns:
        A `tf.data.Dataset` of single Examples.
    """
    nothing = make_example(np.zeros((0, 0, 3)))

    def read(position):
        try:
            example = transform(source.read_example(int(position)))
        except BadImage as error:
            source.report.bad_image(source.image_ids[position], error)
            example = nothing
        return example._replace(image_id=np.bytes_(example.image_id.encode()))

    dtypes = Example(tf.uint8, tf.int32, tf.float32, tf.int32, tf.uint8, tf.string, tf.int32)
    shapes = Example([None, None, 3], [None], [None, 4], [None], [None, None], [], [2])

    def load_one(position):
        tensors = tf.numpy_function(read, [position], list(dtypes))
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape(shape)
        return Example(*tensors)

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64))
    dataset = dataset.map(load_one, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.filter(lambda example: tf.size(example.image) > 0)


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
            f"None of the classes asked for ({some(classes)}) is in {where}, which has "
            f"{some(own_classes)}. Use the data set that the model was trained for, or rename."
        )
    return classes


def some(names: Sequence[str]) -> str:
    """Names the first ten."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def is_picture(path) -> bool:
    """Whether a file is taken for a picture by its suffix."""
    return os.path.splitext(path)[1].lower() in images.SUFFIXES
