"""Source: one split of a data set with random access, and the report of what was wrong in it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from wsol_tf.data.example import Example, make_example
from wsol_tf.data.images import BadImage

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
