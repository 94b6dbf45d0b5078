"""Source: one split of a data set with random access, and the report of what was wrong in it."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsol_tf import config, files
from wsol_tf.data.example import Example
from wsol_tf.data.images import BadImage

if TYPE_CHECKING:
    import tensorflow as tf

# Decoding and resizing leave Python's lock, so threads share the cores.
THREADS = min(2 * (os.cpu_count() or 1), 16)


class StopAtBadImage(ValueError):
    """A picture cannot be read, and `on_bad_image` is `fail`; the text names it and the reason."""


class Report:
    """Counts and names what was left out or changed while a data set was read.

    Attributes:
        on_bad_image: `skip`, or `fail`: the first picture that cannot be read ends the reading.
        failure: the sentence about that picture, else None.
        skipped: dict of name -> reason, what was left out.
        noted: dict of name -> reason, what was used after a repair.
    """

    def __init__(self, on_bad_image: str = "skip"):
        legal = config.choices("on_bad_image")
        if on_bad_image not in legal:
            raise ValueError(f"Unknown on_bad_image '{on_bad_image}'. Legal: {', '.join(legal)}.")
        self.on_bad_image = on_bad_image
        self.failure: str | None = None
        self.skipped: dict[str, str] = {}
        self.noted: dict[str, str] = {}
        self._lock = threading.Lock()  # pictures are read by several threads

    def skip(self, name: str, reason: str) -> None:
        """Records that `name` is left out; each name counts once, with its first reason."""
        with self._lock:
            self.skipped.setdefault(name, reason)

    def bad_image(self, name: str, error: BadImage) -> None:
        """Records a picture that cannot be read.

        Raises:
            StopAtBadImage: `on_bad_image` is `fail`.
        """
        if self.on_bad_image == "fail":
            with self._lock:
                self.failure = self.failure or (
                    f"{error} Repair or remove it, or let such pictures be skipped and named: "
                    "`on_bad_image=skip`."
                )
            raise StopAtBadImage(self.failure)
        self.skip(name, error.reason)

    def note(self, name: str, reason: str) -> None:
        """Records that `name` is used, but not as it stands in the file."""
        with self._lock:
            self.noted.setdefault(name, reason)

    def summary(self) -> str:
        """Returns what happened as lines to print: counts by reason and the first ten names."""
        with self._lock:
            skipped, noted = dict(self.skipped), dict(self.noted)
        if not skipped and not noted:
            return "Nothing was skipped."
        lines = []
        for title, entries in (("Skipped", skipped), ("Repaired", noted)):
            if entries:
                lines.append(f"{title}: {len(entries)}")
            for reason, count in collections.Counter(entries.values()).most_common():
                names = sorted(name for name in entries if entries[name] == reason)
                more = f" and {count - 10} more" if count > 10 else ""
                lines.append(
                    files.printable(f"  {count} x {reason}: {', '.join(names[:10])}{more}")
                )
        return "\n".join(lines)


@dataclass(frozen=True)
class Source:
    """One split of a data set, with random access.

    Attributes:
        name: data set and split, for messages.
        classes: class names; the position is the class id.
        image_ids: one string per picture.
        labels: per picture int32 [num_labels], ascending class ids.
        has_boxes: whether any picture has boxes.
        has_masks: whether any picture has a mask.
        report: what was left out or repaired so far.
        read_image: position -> uint8 [height, width, 3]; raises BadImage. It reads no annotation.
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

    def __len__(self) -> int:
        return len(self.image_ids)

    def read_examples(
        self,
        positions: Iterable[int] | None = None,
        transform: Callable[[Example], Example] | None = None,
        *,
        ahead: int = 64,
    ) -> Iterator[Example]:
        """Yields Examples in order, read and transformed by several threads.

        Pictures that cannot be read go to the report and are left out.

        Args:
            positions: which pictures, in which order; all of them by default.
            transform: a pure function that each Example goes through, such as a resize.
            ahead: how many Examples may be read before they are asked for.

        Raises:
            StopAtBadImage: a picture cannot be read, and the report says `fail`.
        """

        def read(position):
            try:
                example = self.read_example(position)
                return transform(example) if transform else example
            except BadImage as error:
                self.report.bad_image(self.image_ids[position], error)
                return None

        positions = range(len(self)) if positions is None else positions
        waiting: collections.deque[Future] = collections.deque()
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="read_examples")
        try:
            for position in positions:
                waiting.append(pool.submit(read, int(position)))
                if len(waiting) > ahead and (example := waiting.popleft().result()):
                    yield example
            while waiting:
                if example := waiting.popleft().result():
                    yield example
        finally:  # also where the caller stops early, or a picture ends the reading
            pool.shutdown(cancel_futures=True)

    def batches(
        self,
        batch_size: int = 32,
        *,
        input_size: int = 224,
        resize_size: int = 0,
        min_crop: float = 0.6,
        seed: int = 0,
        shuffle: bool = True,
        augment: bool = True,
        cache: str = "memory",
        cache_dir: str | None = None,
    ) -> tf.data.Dataset:
        """Batches for `model.fit(dataset, epochs=N)`: each pass is the next epoch.

        An epoch has one sample for each picture and class in it, in an order and with crops of its
        own that the seed fixes. Boxes and masks are never read. For `validation_data` pass
        `shuffle=False, augment=False`.

        Args:
            batch_size: samples of a batch.
            input_size: side in pixels of the network's input.
            resize_size: side in pixels that pictures are resized to before they are cropped; 0 is
                8/7 of `input_size`. The aspect ratio is ignored.
            min_crop: the least side of a random crop as a share of `input_size`.
            seed: fixes the order and the augmentation of every epoch.
            shuffle: give each epoch an order of its own, in full batches alone; what does not fill
                the last one is left out. Otherwise in the source's order, the last batch smaller.
            augment: crop at random and mirror half of the pictures; otherwise crop the centre.
            cache: where resized pictures stay after the first pass: `memory` (if all of them take
                at most 4 GiB), `disk` or `none`, see `cache.cached_reader`.
            cache_dir: folder of the cache on the disk.

        Returns:
            A dataset, with a length, of (image uint8 [batch, input_size, input_size, 3] in 0..255,
            label int32 [batch]) or, where some picture has several classes, (image, label, allowed
            bool [batch, classes]): False for the other classes that are present.

        Raises:
            ValueError: fewer samples than in a batch, an unknown cache, too little room on the
                disk, or `resize_size` below `input_size`.
        """
        from wsol_tf.data import batches, stream
        from wsol_tf.data.cache import cached_reader

        resize_size = config.resize_side(input_size, resize_size)
        positions = range(len(self))
        samples = stream.TrainingStream(
            self,
            positions,
            batch_size=batch_size,
            input_size=input_size,
            resize_size=resize_size,
            min_crop=min_crop,
            seed=seed,
            shuffle=shuffle,
            augment=augment,
            read=cached_reader(self, positions, resize_size, cache, cache_dir),
        )
        return batches.epoch_batches(samples)


def subset(source: Source, positions: Sequence[int]) -> Source:
    """Returns the same data set with the pictures at these positions only."""
    chosen = np.asarray(positions, np.int64)
    return Source(
        name=source.name,
        classes=source.classes,
        image_ids=tuple(source.image_ids[i] for i in chosen),
        labels=tuple(source.labels[i] for i in chosen),
        has_boxes=source.has_boxes,
        has_masks=source.has_masks,
        report=source.report,
        read_image=lambda i: source.read_image(int(chosen[i])),
        read_example=lambda i: source.read_example(int(chosen[i])),
    )
