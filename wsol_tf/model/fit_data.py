"""What `fit` is given: its batches counted, its labels and pixels checked as they are read."""

import contextlib
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_ILLEGAL = "Labels must lie in 0..{last}, the ids of the {count} classes. Received"


def steps_of(x: Any, batch_size: int | None, held: float) -> int:
    """Counts the batches of an epoch.

    Args:
        x: what `fit` is given: arrays, a tf.data.Dataset or a PyDataset.
        batch_size: of arrays; None: 32.
        held: share of an array that `fit` keeps for validation.

    Returns:
        Their number.

    Raises:
        ValueError: it isn't known.
    """
    steps = None
    if hasattr(x, "cardinality"):
        steps = int(x.cardinality())
    elif hasattr(x, "num_batches"):
        steps = x.num_batches
    elif hasattr(x, "shape"):
        steps = math.ceil(math.floor(x.shape[0] * (1 - held)) / (batch_size or 32))
    if steps is None or steps < 0:
        raise ValueError(
            "The length of the data is unknown, but the losses set in at shares of the whole "
            "training. Pass steps_per_epoch to fit, or total_steps to compile."
        )
    return steps


def check_labels(labels: Any, num_classes: int) -> None:
    """Refuses class ids that there are none of; a GPU would take them for something.

    Args:
        labels: int `[batch]`, an array or a tensor with values.
        num_classes: number of classes.

    Raises:
        ValueError: with the legal range and what was received.
    """
    values = np.asarray(labels)
    if values.size and values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{_illegal(num_classes)}: {low} to {high}.")


def _illegal(num_classes):
    return _ILLEGAL.format(last=num_classes - 1, count=num_classes)


def warn_of_scaled(images: Any) -> None:
    """Warns of pictures that are no longer in 0..255: the network scales them itself."""
    values = np.asarray(images)
    if values.dtype.kind != "f" or not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if 0 <= low <= high <= 1 and high > 0:
        warnings.warn(
            f"The pictures of the first batch lie in {low:.3g}..{high:.3g}. A Localization takes "
            "them raw, in 0..255, and scales them itself: don't divide them by 255 before.",
            stacklevel=2,
        )


def checked(x: Any, y: Any, num_classes: int) -> Any:
    """Returns what `fit` is given for x, with labels and pixels checked as they are read.

    Labels are checked where they are on the CPU: a graph on a GPU, and XLA everywhere, would pass
    over them. Pixels are looked at in the first batch alone.

    Args:
        x: arrays, a tf.data.Dataset, a PyDataset or a generator; others are left as they are.
        y: labels, where x are arrays.
        num_classes: number of classes.

    Raises:
        ValueError: for illegal labels in arrays; those of the others are found when they are read,
            see `plain_label_errors`.
    """
    if y is not None and hasattr(x, "shape"):
        check_labels(y, num_classes)
        warn_of_scaled(x[:32])
    elif isinstance(x, tf.data.Dataset):
        return _checked_dataset(x, num_classes)
    elif isinstance(x, keras.utils.PyDataset):
        return _CheckedPyDataset(x, num_classes)
    elif hasattr(x, "__next__"):
        return (_checked_batch(batch, i == 0, num_classes) for i, batch in enumerate(x))
    return x


def checked_validation(data: Any, num_classes: int) -> Any:
    """Returns what `fit` is given for validation_data, `checked`: data, (x, y, ...) or None."""
    if not isinstance(data, tuple | list):
        return checked(data, None, num_classes)
    images, *others = data
    return (checked(images, others[0] if others else None, num_classes), *others)


def _checked_batch(batch, first, num_classes):
    if isinstance(batch, Sequence) and len(batch) > 1:
        check_labels(batch[1], num_classes)
        if first:
            warn_of_scaled(batch[0])
    return batch


class _CheckedPyDataset(keras.utils.PyDataset):
    """Another PyDataset, whose batches are checked."""

    def __init__(self, inner, num_classes):
        super().__init__(inner.workers, inner.use_multiprocessing, inner.max_queue_size)
        self.inner, self.num_classes, self.first = inner, num_classes, True

    def __getitem__(self, index):
        first, self.first = self.first, False
        return _checked_batch(self.inner[index], first, self.num_classes)

    @property
    def num_batches(self):
        return self.inner.num_batches

    def on_epoch_begin(self):
        self.inner.on_epoch_begin()

    def on_epoch_end(self):
        self.inner.on_epoch_end()


def _checked_dataset(dataset, num_classes):
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2 or not isinstance(spec[1], tf.TensorSpec):
        return dataset

    def check(i, batch):
        images, labels, *rest = batch
        if labels.dtype.is_integer:
            low, high = tf.reduce_min(labels), tf.reduce_max(labels)
            legal = (low >= 0) & (high < num_classes) | (tf.size(labels) == 0)
            with tf.control_dependencies(
                [tf.debugging.Assert(legal, [_illegal(num_classes), low, high])]
            ):
                labels = tf.identity(labels)
        if isinstance(images, tf.Tensor) and images.dtype.is_floating:

            def look():
                return tf.py_function(warn_of_scaled, [tf.cast(images, tf.float32)], [])

            with tf.control_dependencies([tf.cond(i == 0, look, tf.no_op)]):
                labels = tf.identity(labels)
        return (images, labels, *rest)

    return dataset.enumerate().map(check)


@contextlib.contextmanager
def plain_label_errors() -> Iterator[None]:
    """Turns what TensorFlow makes of an illegal label in `checked` data into its sentence.

    Raises:
        ValueError: with the legal range and what was received.
    """
    try:
        yield
    except tf.errors.OpError as error:
        sentence = _ILLEGAL.format(last=r"\d+", count=r"\d+")
        found = re.search(rf"({sentence})[^\d-]+(-?\d+)[^\d-]+(-?\d+)", str(error))
        if not found:
            raise
        raise ValueError(f"{found[1]}: {found[2]} to {found[3]}.") from None
