"""Classes as pixels: the semantic mIoU of the weakly supervised literature, background included."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np


def class_pixels(
    score_maps: Sequence[np.ndarray], masks: Sequence[np.ndarray], labels: Sequence[int]
) -> np.ndarray:
    """Gives each pixel the class whose map is highest there, of those whose mask holds it.

    This is how the weakly supervised literature reads class activation maps: stretched one by one,
    the background at the threshold, the largest one wins.

    Args:
        score_maps: a map in 0..1 `[height, width]` for each class that takes part.
        masks: bool `[height, width]` for each, where its map is above the threshold.
        labels: the class id of each.

    Returns:
        int64 `[height, width]`, 0 background, else 1 + class id; of equal maps the first wins.
    """
    above = np.stack([np.where(mask, m, -1) for m, mask in zip(score_maps, masks, strict=True)])
    best = above.argmax(0)
    return np.where(above.max(0) >= 0, 1 + np.asarray(labels, np.int64)[best], 0)


class SegmentationMetrics:
    """Accumulates how many pixels of each true class were given to which, over all pictures.

    Args:
        num_classes: number of classes, without the background.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.num_images = 0
        self._pixels: collections.Counter = collections.Counter()  # (true, found) -> number

    def add(self, found: np.ndarray, truth: np.ndarray) -> None:
        """Counts the pixels of a picture.

        Args:
            found: int `[height, width]`, 0 background, else 1 + class id.
            truth: the same, and -1 where a pixel is not counted.
        """
        side = self.num_classes + 1
        codes, numbers = np.unique((truth * side + found)[truth >= 0], return_counts=True)
        for code, number in zip(codes.tolist(), numbers.tolist(), strict=True):
            self._pixels[divmod(code, side)] += number
        self.num_images += 1

    def merge(self, other: "SegmentationMetrics") -> None:
        """Adds the pixels of another accumulator of the same classes."""
        self._pixels.update(other._pixels)
        self.num_images += other.num_images

    def result(self, class_names: Sequence[str]) -> dict[str, Any] | None:
        """Computes the IoU of each class over the pixels of all pictures together, and their mean.

        Args:
            class_names: names of the classes.

        Returns:
            A dict for JSON: `miou`, the mean over the classes and the background, and `iou` of
            each, None for a class that is neither true nor found anywhere (and in no mean). None
            without a picture.
        """
        if not self.num_images:
            return None
        right, union = np.zeros((2, self.num_classes + 1), np.int64)
        for (true, found), number in self._pixels.items():
            right[true] += number * (true == found)
            union[true] += number
            union[found] += number * (true != found)
        ious = [float(a / b) if b else None for a, b in zip(right, union, strict=True)]
        known = [iou for iou in ious if iou is not None]
        return {
            "miou": float(np.mean(known)) if known else None,
            "iou": dict(zip(("background", *class_names), ious, strict=True)),
            "num_images": self.num_images,
        }
