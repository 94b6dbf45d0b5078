"""Pictures, boxes and masks together: resize, crop, flip, and batches of them.

The transforms are pure functions from numpy Examples to numpy Examples; `tf.data` carries them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from wsol_tf.images import BadImage
from wsol_tf.records import IGNORE, Example, make_example
from wsol_tf.sources import Source, example_dataset

CACHE_BYTES = 4 * 2**30


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to [size, size, 3]: bilinear, antialiased, no aspect."""
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize(example: Example, size: int) -> Example:
    """Resizes picture (bilinear, antialiased), boxes and mask (nearest) to [size, size]."""
    height, width = example.image.shape[:2]
    scale = np.array([size / width, size / height] * 2, np.float32)
    mask = example.mask
    if mask.size:
        nearest = Image.Resampling.NEAREST
        mask = np.array(Image.fromarray(mask).resize((size, size), nearest))
    return example._replace(
        image=resize_image(example.image, size), boxes=example.boxes * scale, mask=mask
    )


def crop(example: Example, top: int, left: int, size: int) -> Example:
    """Cuts out a square; boxes are clipped to it, and those with no area left are dropped.

    Raises:
        ValueError: the square is not inside the picture.
    """
    height, width = example.image.shape[:2]
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise ValueError(
            f"A crop of {size} pixels at row {top}, column {left} is not inside the picture of "
            f"{height} x {width}. Resize the picture to at least {size} first."
        )
    rows, columns = slice(top, top + size), slice(left, left + size)
    shift = np.array([left, top, left, top], np.float32)
    boxes = np.clip(example.boxes - shift, 0, size)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return example._replace(
        image=example.image[rows, columns],
        boxes=boxes[keep],
        box_labels=example.box_labels[keep],
        mask=example.mask[rows, columns],
    )


def center_crop(example: Example, size: int) -> Example:
    """Cuts the square of `size` pixels out of the middle."""
    height, width = example.image.shape[:2]
    return crop(example, (height - size) // 2, (width - size) // 2, size)


def flip(example: Example) -> Example:
    """Mirrors left and right."""
    width = example.image.shape[1]
    x0, y0, x1, y1 = example.boxes.T
    return example._replace(
        image=example.image[:, ::-1],
        boxes=np.stack([width - x1, y0, width - x0, y1], axis=1),
        mask=example.mask[:, ::-1],
    )


def ten_crops(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yields the four corners and the centre of a batch of pictures, then the same mirrored.

    Args:
        images: uint8 `[batch, height, width, 3]`.
        size: side in pixels of the crops.

    Yields:
        ten times uint8 `[batch, size, size, 3]`.

    Raises:
        ValueError: the pictures are smaller than the crops.
    """
    height, width = images.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"Crops of {size} pixels need larger pictures. Received: {images.shape}.")
    below, right = height - size, width - size
    corners = (0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)
    for mirrored in (images, images[:, :, ::-1]):
        for top, left in corners:
            yield mirrored[:, top : top + size, left : left + size]


def ten_crop_probabilities(
    classify: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int
) -> np.ndarray:
    """Averages class probabilities over ten crops, as BAS does for Top-1 and Top-5.

    Args:
        classify: any function from uint8 `[batch, size, size, 3]` to logits `[batch, classes]`.
        images: uint8 `[batch, height, width, 3]`, resized but not cropped: 256 for a size of 224.
        size: side in pixels of the crops.

    Returns:
        float64 `[batch, classes]`.
    """
    total = 0.0
    for crops in ten_crops(images, size):
        logits = np.asarray(classify(crops), np.float64)
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        total = total + exponents / exponents.sum(-1, keepdims=True)
    return total / 10


def random_crop_flip(example: Example, size: int, seed: int) -> Example:
    """Cuts a random square and mirrors every second picture; the same seed does the same."""
    height, width = example.image.shape[:2]
    rng = np.random.default_rng(seed)
    top = int(rng.integers(max(height - size, 0) + 1))
    left = int(rng.integers(max(width - size, 0) + 1))
    example = crop(example, top, left, size)
    return flip(example) if rng.random() < 0.5 else example


def training_batches(
    source: Source,
    indices: Sequence[int],
    *,
    input_size: int,
    resize_size: int,
    batch_size: int,
    seed: int,
    pairs: bool = True,
    cache: bool = True,
    drop_remainder: bool = True,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of pictures with one class each; no boxes, no masks.

    One sample is one (picture, class present). Each epoch has another order and other crops, all
    of them fixed by the seed. A sample whose picture cannot be read goes to the report, and the
    next readable sample takes its place, so the number of batches is known in advance.

    Args:
        source: the data set.
        indices: positions in the source to train on.
        input_size: side in pixels of the crops.
        resize_size: side in pixels that pictures are resized to before the crop.
        batch_size: samples in a batch.
        seed: fixes order and augmentation.
        pairs: whether pictures with several classes are legal; then batches have a third part.
        cache: whether resized pictures stay in memory after their first use; only where all
            of them take at most 4 GiB.
        drop_remainder: whether the last, smaller batch of an epoch is left out.

    Returns:
        A dataset of (image uint8 [batch, input_size, input_size, 3], label int32 [batch]) or,
        where some picture of the source has several classes, (image, label,
        allowed bool [batch, classes]), False for the other classes present.

    Raises:
        ValueError: fewer samples than a batch, several classes in a picture without `pairs`, or
            `resize_size` below `input_size`.
    """
    if resize_size < input_size:
        raise ValueError(
            f"resize_size must be at least input_size. Received: {resize_size} < {input_size}."
        )
    several = any(len(labels) > 1 for labels in source.labels)
    if several and not pairs:
        raise ValueError(
            f"Some pictures of {source.name} have several classes: train with pairs=True, which "
            "makes one sample of each class present."
        )
    samples = [(int(i), int(label)) for i in indices for label in source.labels[i]]
    if len(samples) < (batch_size if drop_remainder else 1):
        raise ValueError(
            f"{source.name}: {len(samples)} training samples do not fill a batch of {batch_size}. "
            "Lower --batch_size or give more pictures."
        )
    read = _resized_reader(source, resize_size, cache and len(set(indices)))

    def make_sample(start, crop_seed):
        image, position, label = _next_readable(source, samples, start, read)
        image = random_crop_flip(make_example(image), input_size, crop_seed).image
        allowed = np.ones(len(source.classes), bool)
        allowed[source.labels[position]] = False
        allowed[label] = True
        return np.ascontiguousarray(image), np.int32(label), allowed

    def load_one(start, crop_seed):
        image, label, allowed = tf.numpy_function(
            make_sample, [start, crop_seed], [tf.uint8, tf.int32, tf.bool]
        )
        image.set_shape([input_size, input_size, 3])
        label.set_shape([])
        allowed.set_shape([len(source.classes)])
        return (image, label, allowed) if several else (image, label)

    order = tf.data.Dataset.range(len(samples)).shuffle(len(samples), seed=seed)
    crop_seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    dataset = tf.data.Dataset.zip(order, crop_seeds)
    dataset = dataset.map(load_one, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size, drop_remainder=drop_remainder).prefetch(tf.data.AUTOTUNE)


def _resized_reader(source, resize_size, num_cached):
    """Returns position -> resized picture, remembered where all of them fit into memory."""
    remember = 0 < num_cached * resize_size**2 * 3 <= CACHE_BYTES
    pictures = {}

    def read(position):
        image = pictures.get(position)
        if image is None:
            image = resize_image(source.read_image(position), resize_size)
            if remember:
                pictures[position] = image
        return image

    return read


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
