"""Batches of pictures: a training stream as a `tf.data.Dataset`, and Examples to score."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsol_tf.data.example import Example
from wsol_tf.data.source import Source
from wsol_tf.data.stream import TrainingStream
from wsol_tf.data.transforms import View, view_example

if TYPE_CHECKING:
    import tensorflow as tf

# Batches that are made at a time. tf.data's own choice starts with one, and stays there for long
# where an epoch has few batches.
PARALLEL = min(2 * (os.cpu_count() or 1), 16)
BATCH_SIZE = 32  # pictures that are scored together


def training_batches(
    stream: TrainingStream,
    *,
    epochs: int = 1,
    start: int = 0,
    parts: int = 1,
    replicas: int = 1,
    worker: int = 0,
    workers: int = 1,
    deterministic: bool = True,
) -> tf.data.Dataset:
    """The batches of a run as a dataset, each in pieces that devices share.

    All batches are full and no sample is left out: the last batch of all is filled up from an
    epoch that is not trained.

    Args:
        stream: where the batches come from.
        epochs: how often each sample is seen.
        start: batches that are left out at the beginning, because they were seen already.
        parts: parts that each batch comes in, one after the other.
        replicas: devices, over all workers, that share each part: it comes in so many pieces.
        worker: which worker this is; it gets the pieces of its own replicas.
        workers: how many workers there are.
        deterministic: whether batches come in the order of the stream. Otherwise a batch that is
            read slowly lets others pass.

    Returns:
        A dataset of what `TrainingStream.samples` gives, `batch_size / parts / replicas` at a time.

    Raises:
        ValueError: replicas and parts cannot share the batches evenly.
    """
    import tensorflow as tf

    if stream.batch_size % (parts * replicas):
        raise ValueError(
            f"A batch of {stream.batch_size} can't be shared evenly by {replicas} replicas in "
            f"{parts} parts. Set `batch_size` to a multiple of {parts * replicas}."
        )
    size = stream.batch_size // parts // replicas
    own = replicas // workers  # pieces of each part that are this worker's, one after the other
    batches = -(-epochs * stream.num_samples // stream.batch_size)
    first, last = (batch * parts * workers for batch in (start, batches))
    shares = tf.data.Dataset.range(first + worker, last, workers)
    pieces = shares.flat_map(lambda share: tf.data.Dataset.range(share * own, (share + 1) * own))
    dataset = pieces.map(
        lambda piece: _load(stream, piece * size, size),
        num_parallel_calls=PARALLEL,
        deterministic=deterministic,
    )
    count = max(0, batches - start) * parts * own
    return _ready(dataset, count)


def epoch_batches(stream: TrainingStream) -> tf.data.Dataset:
    """A dataset whose passes are the epochs of a stream in turn, as `model.fit` wants it.

    The first pass is the first epoch, the next pass the next one, whoever makes it. Where the
    stream is shuffled, samples that do not fill a last batch are left out of a pass; otherwise the
    last batch is smaller.

    Args:
        stream: where the batches come from.

    Returns:
        A dataset of known length of what `TrainingStream.samples` gives.
    """
    import tensorflow as tf

    total, size = stream.num_samples, stream.batch_size
    count = total // size if stream.shuffle else -(-total // size)
    passes = itertools.count()

    def next_epoch():
        return np.int64(next(passes))

    def load(epoch, batch):
        rest = size if stream.shuffle else tf.minimum(total - batch * size, size)
        return _load(stream, epoch * total + batch * size, rest)

    # A function of Python in a map is called anew in each pass.
    epoch = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(next_epoch, [], tf.int64))
    dataset = epoch.flat_map(
        lambda epoch: tf.data.Dataset.range(count).map(lambda batch: (epoch, batch))
    )
    dataset = dataset.map(load, num_parallel_calls=PARALLEL)
    return _ready(dataset, count)


def _ready(dataset, count):
    """A dataset of `count` batches, of which two wait, ready, for those who ask.

    Nothing is left for tf.data to tune, and its tuning is off: with it, an iterator that goes away
    waits for seconds now and then.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset.prefetch(2).with_options(options)


def _load(stream, first, count):
    """`stream.samples` as tensors: a call for each piece, because calls cost.

    What works in them leaves Python's lock anyway.
    """
    import tensorflow as tf

    dtypes = [tf.uint8, tf.int32, tf.bool][: 3 if stream.several else 2]
    found = tf.numpy_function(stream.samples, [first, count], dtypes, stateful=False)
    static = count if isinstance(count, int) else None
    side = stream.input_size
    shapes = ([static, side, side, 3], [static], [static, len(stream.source.classes)])
    for tensor, shape in zip(found, shapes, strict=False):
        tensor.set_shape(shape)
    return tuple(found)


def evaluation_batches(
    source: Source, positions: Sequence[int], view: View, batch_size: int = BATCH_SIZE
) -> Iterator[list[Example]]:
    """Yields Examples as a View shows them, in the order of `positions` and without augmentation.

    Args:
        source: the data set.
        positions: positions in the source. A picture that cannot be read is reported and missing
            from its batch: which pictures go through a network together, and with it the last
            digit of what comes out, depends on the positions alone.
        view: which part of a picture, and at what size. Boxes and masks follow.
        batch_size: positions of a batch; the last one may have fewer.

    Raises:
        StopAtBadImage: a picture cannot be read, and the report says `fail`.
    """
    examples = source.read_examples(
        positions,
        transform=lambda example: view_example(example, view),
        ahead=2 * batch_size,
    )
    ids = (source.image_ids[int(position)] for position in positions)
    batch_of = {image_id: place // batch_size for place, image_id in enumerate(ids)}
    for _, batch in itertools.groupby(examples, key=lambda example: batch_of[example.image_id]):
        yield list(batch)
