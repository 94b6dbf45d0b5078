"""Batches of pictures: shuffled and augmented to train on, in order and whole to score."""

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence

import cv2
import numpy as np
import tensorflow as tf

from wsol_tf.data.example import IGNORE, Example
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Source, example_dataset
from wsol_tf.data.transforms import center_crop, crop_image, resize, resize_fast

CACHES = ("none", "memory", "disk")
CACHE_BYTES = 4 * 2**30
# Batches that are made at a time. tf.data's own choice starts with one, and stays there for long
# where an epoch has few batches.
PARALLEL = min(2 * (os.cpu_count() or 1), 16)


def num_samples(source: Source, indices: Sequence[int]) -> int:
    """How many (picture, class present) there are at these positions."""
    return sum(len(source.labels[i]) for i in indices)


def training_batches(
    source: Source,
    indices: Sequence[int],
    *,
    input_size: int,
    resize_size: int,
    batch_size: int,
    seed: int,
    epochs: int = 1,
    start: int = 0,
    parts: int = 1,
    replicas: int = 1,
    worker: int = 0,
    workers: int = 1,
    pairs: bool = True,
    cache: str = "memory",
    cache_dir: str | None = None,
    deterministic: bool = True,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of pictures with one class each; no boxes, no masks.

    One sample is one (picture, class present). All epochs are one stream: a batch runs across the
    end of an epoch into the next one, so that all batches are full and no sample is left out; the
    last batch of all is filled up from an epoch that isn't trained. Order and crops of each epoch
    are functions of the seed and the position in the stream alone: it can begin anywhere, and
    any number of workers together see the same batches. A sample whose picture cannot be read goes
    to the report, and the next readable sample takes its place.

    Args:
        source: the data set.
        indices: positions in the source to train on.
        input_size: side in pixels of the crops.
        resize_size: side in pixels that pictures are resized to before the crop.
        batch_size: samples in a batch, over all replicas together.
        seed: fixes order and augmentation.
        epochs: how often each sample is seen.
        start: batches that are left out at the beginning, because they were seen already.
        parts: parts that each batch comes in, one after the other.
        replicas: devices that share each part: it comes in so many pieces.
        worker, workers: this worker's share: the pieces of its own replicas.
        pairs: whether pictures with several classes are legal; then batches have a third part.
        cache: where resized pictures stay after their first use: `none`, `memory` (only where
            all of them take at most 4 GiB) or `disk` (a file that goes with the process).
        cache_dir: folder of that file; by default that of temporary files.
        deterministic: whether batches come in an order that the seed fixes. Otherwise a batch
            that is read slowly lets others pass.

    Returns:
        A dataset of (image uint8 [piece, input_size, input_size, 3], label int32 [piece]) with
        piece = batch_size / parts / replicas or, where some picture of the source has several
        classes, (image, label, allowed bool [piece, classes]), False for the other classes present.

    Raises:
        ValueError: fewer samples than a batch, batches that replicas can't share evenly, several
            classes in a picture without `pairs`, `resize_size` below `input_size`, or too little
            room on the disk.
    """
    if resize_size < input_size:
        raise ValueError(
            f"resize_size must be at least input_size. Received: {resize_size} < {input_size}."
        )
    if batch_size % (parts * replicas):
        raise ValueError(
            f"A batch of {batch_size} can't be shared evenly by {replicas} replicas in {parts} "
            f"parts. Set --batch_size to a multiple of {parts * replicas}."
        )
    several = any(len(labels) > 1 for labels in source.labels)
    if several and not pairs:
        raise ValueError(
            f"Some pictures of {source.name} have several classes: train with pairs=True, which "
            "makes one sample of each class present."
        )
    samples = [(int(i), int(label)) for i in indices for label in source.labels[i]]
    if len(samples) < batch_size:
        raise ValueError(
            f"{source.name}: {len(samples)} training samples do not fill a batch of {batch_size}. "
            "Lower --batch_size or give more pictures."
        )
    read = _reader(source, indices, resize_size, cache, cache_dir)
    places = resize_size - input_size + 1

    @functools.lru_cache(maxsize=3)  # batches at the end of an epoch reach into the next
    def order(epoch):
        return np.random.default_rng([seed, epoch]).permutation(len(samples))

    def make_batch(stream):
        images = np.empty((len(stream), input_size, input_size, 3), np.uint8)
        labels = np.empty(len(stream), np.int32)
        allowed = np.ones((len(stream), len(source.classes)), bool)
        for i, (epoch, place) in enumerate(zip(*divmod(stream, len(samples)), strict=True)):
            rng = np.random.default_rng([seed, epoch, place])
            top, left, mirrored = rng.integers([places, places, 2])
            image, position, label = _next_readable(
                source, samples, int(order(int(epoch))[place]), read
            )
            image = crop_image(image, int(top), int(left), input_size, resize_size)
            images[i] = cv2.flip(image, 1) if mirrored else image
            labels[i] = label
            allowed[i, source.labels[position]] = False
            allowed[i, label] = True
        return images, labels, allowed

    piece = batch_size // parts // replicas

    def load_batch(stream):
        # A call for each batch: calls cost, and what works in them leaves Python's lock anyway.
        images, labels, allowed = tf.numpy_function(
            make_batch, [stream], [tf.uint8, tf.int32, tf.bool], stateful=False
        )
        images.set_shape([piece, input_size, input_size, 3])
        labels.set_shape([piece])
        allowed.set_shape([piece, len(source.classes)])
        return (images, labels, allowed) if several else (images, labels)

    batches = -(-epochs * len(samples) // batch_size)
    share = batch_size // parts // workers  # of each part, one after the other in the stream
    first, last = (step * parts * workers for step in (start, batches))
    blocks = tf.data.Dataset.range(first + worker, last, workers)
    dataset = blocks.flat_map(lambda b: tf.data.Dataset.range(b * share, (b + 1) * share))
    dataset = dataset.batch(piece, drop_remainder=True).map(
        load_batch, num_parallel_calls=PARALLEL, deterministic=deterministic
    )
    pieces = max(0, batches - start) * parts * replicas // workers
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(pieces))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _reader(source, indices, resize_size, cache, cache_dir):
    """Returns position -> picture; with a cache it is resized to resize_size and remembered."""
    if cache not in CACHES:
        raise ValueError(f"Unknown cache {cache!r}. Legal: {', '.join(CACHES)}.")
    row_of = {int(position): row for row, position in enumerate(sorted(set(indices)))}
    shape = (len(row_of), resize_size, resize_size, 3)
    num_bytes = int(np.prod(shape, dtype=np.int64))
    if cache == "none" or (cache == "memory" and num_bytes > CACHE_BYTES):
        return source.read_image
    if cache == "memory":
        pictures = np.empty(shape, np.uint8)  # takes memory only where it is written
    else:
        folder = cache_dir or tempfile.gettempdir()
        if num_bytes > shutil.disk_usage(folder)[2]:
            raise ValueError(
                f"The resized pictures of {source.name} take {num_bytes / 2**30:.1f} GiB, more "
                f"than is free in {folder}. Use --cache=none, or another folder."
            )
        pictures = np.memmap(tempfile.TemporaryFile(dir=folder), np.uint8, shape=shape)
    known = np.zeros(len(row_of), bool)

    def remember(position):
        row = row_of[position]
        if not known[row]:
            pictures[row] = resize_fast(source.read_image(position), resize_size)
            known[row] = True  # after the picture: other threads look here first
        return pictures[row]

    return remember


def _next_readable(source, samples, start, read):
    for offset in range(len(samples)):
        position, label = samples[(start + offset) % len(samples)]
        image_id = source.image_ids[position]
        if image_id in source.report.skipped:
            continue
        try:
            return read(position), position, label
        except BadImage as error:
            source.report.bad_image(image_id, error)
    raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")


def evaluation_batches(
    source: Source,
    indices: Sequence[int],
    *,
    input_size: int,
    resize_size: int,
    batch_size: int,
    view: str = "crop",
) -> tf.data.Dataset:
    """Batches of Examples in the order of `indices`, without augmentation.

    Args:
        source: the data set.
        indices: positions in the source.
        input_size: side in pixels of the pictures in the batch.
        resize_size: side before the centre crop; used by view `crop` only.
        batch_size: Examples in a batch; the last one may be smaller.
        view: `crop` (resize to `resize_size`, then centre crop) or `whole` (resize to
            `input_size`). Boxes and masks follow.

    Returns:
        A dataset of batched Examples: labels, box_labels and boxes are padded with -1, missing
        masks with 255 (or [batch, 0, 0] where no picture of the batch has one).

    Raises:
        ValueError: an unknown view, or `resize_size` below `input_size` with view `crop`.
    """
    if view not in ("crop", "whole"):
        raise ValueError(f"Unknown view {view!r}. Legal: crop, whole.")
    if view == "crop" and resize_size < input_size:
        raise ValueError(
            f"resize_size must be at least input_size. Received: {resize_size} < {input_size}."
        )

    def transform(example):
        if view == "whole":
            return resize(example, input_size)
        return center_crop(resize(example, resize_size), input_size)

    def fix_shape(example):
        return example._replace(image=tf.ensure_shape(example.image, [input_size, input_size, 3]))

    dataset = example_dataset(source, indices, transform).map(fix_shape)
    shapes = Example([input_size, input_size, 3], [None], [None, 4], [None], [None, None], [], [2])
    values = Example(0, -1, -1, -1, IGNORE, b"", 0)
    padding = tf.nest.map_structure(
        lambda value, spec: np.array(value, spec.dtype.as_numpy_dtype),
        values,
        dataset.element_spec,
    )
    return dataset.padded_batch(batch_size, shapes, padding).prefetch(tf.data.AUTOTUNE)
