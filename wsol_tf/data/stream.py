"""Training samples as one endless stream with random access, by seed and place alone."""

import functools
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from wsol_tf import config
from wsol_tf.data.example import competing_classes
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import crop_image


class TrainingStream:
    """An endless stream of training samples: `stream[i]` is the i-th batch, as numpy arrays.

    A sample is a picture and one class that is present in it; it has no boxes and no mask. All
    epochs are one stream, so a batch may run across the end of an epoch into the next one. The
    order and the crops of each epoch are functions of the seed and the place in the stream alone:
    reading can start anywhere, and any number of readers together see the same batches. A sample
    whose picture cannot be read is reported, and the next readable sample takes its place.

    Attributes:
        num_samples: samples of an epoch.
        several: whether some picture of the source has several classes.
        source, batch_size, input_size, resize_size, min_crop, seed, shuffle, augment: as they were
            given.
    """

    def __init__(
        self,
        source: Source,
        positions: Sequence[int],
        *,
        batch_size: int,
        input_size: int = 224,
        resize_size: int = 0,
        min_crop: float = 0.6,
        seed: int = 0,
        shuffle: bool = True,
        augment: bool = True,
        read: Callable[[int], np.ndarray] | None = None,
    ):
        """Makes the stream; no picture is read yet.

        Args:
            source: the data set.
            positions: positions in the source of the pictures to train on.
            batch_size: samples of a batch.
            input_size: side in pixels of the crops.
            resize_size: side in pixels that pictures are resized to before they are cropped; 0 is
                8/7 of `input_size`.
            min_crop: the least side of a random crop as a share of `input_size`, in (0, 1]. Below 1
                sides are drawn between it and `resize_size`, small and large ones equally often on
                a logarithmic scale, and crops are resized to `input_size`; at 1 all crops are of
                `input_size`, as the papers have them.
            seed: fixes the order and the augmentation.
            shuffle: give each epoch an order of its own.
            augment: crop at random and mirror half of the crops.
            read: position -> picture uint8 [height, width, 3], see `cache.cached_reader`; by
                default the source's own `read_image`.

        Raises:
            ValueError: `resize_size` is smaller than `input_size`, or there are fewer samples than
                in a batch.
        """
        resize_size = config.resize_side(input_size, resize_size)
        if resize_size < input_size:
            raise ValueError(
                "`resize_size` must be at least `input_size`. Received: "
                f"{resize_size} < {input_size}."
            )
        self.source = source
        self.batch_size, self.input_size, self.resize_size = batch_size, input_size, resize_size
        self.seed, self.shuffle, self.augment = seed, shuffle, augment
        self.min_crop = min_crop
        self.several = any(len(labels) > 1 for labels in source.labels)
        self._samples = [(int(i), int(label)) for i in positions for label in source.labels[i]]
        self.num_samples = len(self._samples)
        if self.num_samples < (batch_size if shuffle else 1):
            raise ValueError(
                f"{source.name}: {self.num_samples} training samples do not fill a batch of "
                f"{batch_size}. Lower `batch_size`, or add pictures."
            )
        self._read = read or source.read_image
        # The last batches of an epoch reach into the next, and several are made at a time.
        self._order = functools.lru_cache(maxsize=3)(self._order_of)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Returns batch `index` of the stream, see `samples`; any index from 0 on is legal."""
        if index < 0:
            raise IndexError(f"Batches are counted from 0. Received: {index}.")
        return self.samples(index * self.batch_size, self.batch_size)

    def samples(self, first: int, count: int) -> tuple[np.ndarray, ...]:
        """Reads `count` samples from place `first` of the stream on.

        Returns:
            (image uint8 [count, input_size, input_size, 3], label int32 [count]) or, where some
            picture of the source has several classes, (image, label, allowed bool
            [count, classes]): False for the other classes that are present.

        Raises:
            ValueError: no picture can be read.
            StopAtBadImage: a picture cannot be read, and the report says `fail`.
        """
        places = [divmod(int(first) + i, self.num_samples) for i in range(count)]
        crops = [self._crop_at(epoch, place) for epoch, place in places]
        images = np.empty((count, self.input_size, self.input_size, 3), np.uint8)
        labels = np.empty(count, np.int32)
        allowed = np.empty((count, len(self.source.classes)), bool) if self.several else None
        for i, (epoch, place) in enumerate(places):
            image, position, labels[i] = self._next_readable(int(self._order(epoch)[place]))
            top, left, side, mirrored = crops[i]
            crop_image(image, top, left, side, self.resize_size, self.input_size, images[i])
            if mirrored:
                cv2.flip(images[i], 1, images[i])
            if allowed is not None:
                allowed[i] = competing_classes(
                    self.source.labels[position], labels[i], allowed.shape[1]
                )
        return (images, labels) if allowed is None else (images, labels, allowed)

    def _order_of(self, epoch):
        if not self.shuffle:
            return np.arange(self.num_samples)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def _crop_at(self, epoch, place):
        """First row, first column and side of the crop of a sample, and whether it is mirrored."""
        side, mirrored = self.input_size, False
        top = left = (self.resize_size - side) // 2
        if self.augment:
            rng = np.random.default_rng([self.seed, epoch, place])
            if self.min_crop < 1:
                sides = self.min_crop * self.input_size, self.resize_size
                side = max(1, round(math.exp(rng.uniform(*map(math.log, sides)))))
            places = self.resize_size - side + 1
            # One by one: from a list they are the same numbers, but take three times as long.
            top, left = int(rng.integers(places)), int(rng.integers(places))
            mirrored = bool(rng.integers(2))
        return top, left, side, mirrored

    def _next_readable(self, start):
        """The picture, position and label of the first readable sample from `start` on."""
        source = self.source
        for offset in range(self.num_samples):
            position, label = self._samples[(start + offset) % self.num_samples]
            image_id = source.image_ids[position]
            if image_id in source.report.skipped:
                continue
            try:
                return self._read(position), position, label
            except BadImage as error:
                source.report.bad_image(image_id, error)
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
