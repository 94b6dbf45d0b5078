"""MaxBoxAcc, MaxBoxAccV2, PxAP and pIoU exactly as wsolevaluation computes them.

The definitions are those of Choe et al., "Evaluating Weakly Supervised Object Localization Methods
Right" (CVPR 2020; arXiv 2007.04178) and of the code they published with it. Only numpy and OpenCV
are needed, so the score maps may come from anywhere. A score map here is float `[height, width]`
in [0, 1]; boxes are x0, y0, x1, y1 in its pixels, the last ones inclusive. Figures are fractions;
`percent` is the number that wsolevaluation prints, to the last bit.

    boxes = BoxAccuracy()
    for image_id, raw_map, true_boxes, size in ...:  # size: (width, height) of the picture
        boxes.add(image_id, standard_map(raw_map), resize_boxes(true_boxes, size))
    boxes.result()["max_box_acc_v2"]["value"]
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsol_tf.evaluation import level_sets
from wsol_tf.evaluation.contour_boxes import THRESHOLDS, best_ious_at, to_levels

CONTOURS = {"max_box_acc": "single", "max_box_acc_v2": "multi"}  # those that a box metric looks at
METRICS = (*CONTOURS, "pxap", "piou")
SIZE = 224
IOU_LEVELS = (0.3, 0.5, 0.7)
NAMED = 20  # How many bad maps of one kind are named; all are counted.


def standard_map(raw_map: np.ndarray, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """Makes a score map out of raw scores: cubic to the picture's size, then min-max.

    Args:
        raw_map: `[h, w]` at any resolution.
        height: rows of the result.
        width: columns of the result.

    Returns:
        float64 `[height, width]`: zeros for a map that is constant or holds a NaN, as in
        wsolevaluation (unless the map is larger than the result and the NaN is passed over there),
        and for one with an infinity or without two axes, where that ends with an error.
        `problem_of(raw_map, raw=True)` tells them apart.
    """
    raw_map = np.asarray(raw_map, np.float64)
    if raw_map.ndim != 2 or not raw_map.size or not np.isfinite(raw_map).all():
        return np.zeros((height, width))
    resized = cv2.resize(raw_map, (width, height), interpolation=cv2.INTER_CUBIC)
    if resized.min() == resized.max():
        return np.zeros((height, width))
    resized -= resized.min()
    return resized / resized.max()


def problem_of(
    score_map: np.ndarray, *, shape: tuple[int, int] | None = None, raw: bool = False
) -> str | None:
    """Names what is wrong with a score map.

    Args:
        score_map: any array.
        shape: the (height, width) that it must have; None takes any.
        raw: whether values outside [0, 1] are legal, as before `standard_map`.

    Returns:
        "shape", "not finite", "out of range", "constant" (which is scored all the same) or None.
    """
    score_map = np.asarray(score_map)
    if score_map.ndim != 2 or not score_map.size or shape not in (None, score_map.shape):
        return "shape"
    low, high = score_map.min(), score_map.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "not finite"
    if not raw and (low < 0 or high > 1):
        return "out of range"
    return "constant" if low == high else None


def resize_boxes(
    boxes: np.ndarray, image_size: tuple[int, int], map_size: tuple[int, int] = (SIZE, SIZE)
) -> np.ndarray:
    """Takes boxes from a picture to its score map; corners are cut down to whole pixels.

    Args:
        boxes: `[num_boxes, 4]` in pixels of the picture.
        image_size: (width, height) of the picture.
        map_size: (width, height) of the map.

    Returns:
        int64 `[num_boxes, 4]`.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return (boxes * np.tile(map_size, 2) / np.tile(image_size, 2)).astype(np.int64)


def combine_masks(
    masks: Sequence[np.ndarray],
    ignored: np.ndarray | None,
    height: int = SIZE,
    width: int = SIZE,
) -> np.ndarray:
    """Makes the true mask of a picture out of those of its instances.

    Args:
        masks: `[num_instances, h, w]`; values above 0 are the object.
        ignored: `[h, w]`; values above 0 are not judged, unless they are object; or None.
        height: rows of the result; masks are sampled at the nearest pixel.
        width: columns of the result.

    Returns:
        uint8 `[height, width]`: 1 object, 0 not, 255 ignored.
    """

    def resized(mask):
        mask = (np.asarray(mask) > 0).astype(np.uint8)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0

    truth = np.any([resized(mask) for mask in masks], axis=0).astype(np.uint8)
    if ignored is not None:
        truth[resized(ignored) & (truth == 0)] = 255
    return truth


class _BadMaps:
    """Counts bad maps by what is wrong with them, and names the first of each kind."""

    def __init__(self):
        self.counts, self.names = {}, {}

    def add(self, problem, image_id):
        self.counts[problem] = self.counts.get(problem, 0) + 1
        # The first ones by name, so that the order of images does not matter.
        self.names[problem] = sorted([*self.names.get(problem, []), str(image_id)])[:NAMED]

    def merge(self, other):
        for problem, count in other.counts.items():
            self.counts[problem] = self.counts.get(problem, 0) + count
            names = self.names.get(problem, []) + other.names[problem]
            self.names[problem] = sorted(names)[:NAMED]

    def result(self):
        return {
            problem: {"count": self.counts[problem], "image_ids": self.names[problem]}
            for problem in sorted(self.counts)
        }


class BoxAccuracy:
    """Accumulates MaxBoxAcc and MaxBoxAccV2 over images; needs no more memory for more images.

    At each score-map threshold an image counts as right when a found box and a true one have an
    IoU of at least the IoU level; the threshold is the same for all images, and the best one is
    taken, so the figures are oracles. MaxBoxAcc takes the box of the largest contour and the IoU
    level 0.5; MaxBoxAccV2 the boxes of all contours and the mean over the IoU levels.

    A map that is not finite, out of [0, 1] or without two axes is named in `bad_maps` and scored as
    a map of zeros, that is by the box 0, 0, 0, 0. (wsolevaluation makes zeros of a map with NaN
    when it resizes it, and ends with an error at the others.) A constant map is named as well and
    scored as it is: if it is above 0, its box is the whole image at every threshold.

    Args:
        thresholds: floats in 0..1.
        iou_levels: floats in 0..1, 0.5 among them.
        contours: which of "single" (MaxBoxAcc) and "multi" (MaxBoxAccV2) are counted.
    """

    def __init__(
        self,
        thresholds: ArrayLike = THRESHOLDS,
        iou_levels: Sequence[float] = IOU_LEVELS,
        contours: Sequence[str] = tuple(CONTOURS.values()),
    ):
        self.thresholds = _checked(thresholds)
        self.iou_levels = tuple(iou_levels)
        if not set(contours) <= {*CONTOURS.values()} or isinstance(contours, str):
            raise ValueError(f"contours must hold 'single' or 'multi'. Received: {contours!r}.")
        if "single" in contours and 0.5 not in self.iou_levels:
            raise ValueError(f"MaxBoxAcc needs the IoU level 0.5. Received: {iou_levels}.")
        self.num_images = 0
        self.num_correct = {
            kind: np.zeros((len(self.iou_levels), len(self.thresholds)), np.int64)
            for kind in contours
        }
        self._bad = _BadMaps()

    def add(
        self,
        image_id: str,
        score_map: np.ndarray,
        boxes: np.ndarray,
        *,
        problem: str | None = None,
    ) -> None:
        """Scores one image.

        Args:
            image_id: its name.
            score_map: float `[height, width]` in [0, 1], see `standard_map`.
            boxes: true ones in pixels of the map, int `[num_boxes, 4]`, see `resize_boxes`; an
                image without any is never right.
            problem: what was wrong with the map before, such as `problem_of(raw_map, raw=True)`
                or "missing"; it is then all that is reported of the map.

        Raises:
            ValueError: for boxes with corners that are negative or in the wrong order.
        """
        boxes = np.asarray(boxes).reshape(-1, 4).astype(np.int64)
        if (boxes < 0).any() or (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError(
                f"{image_id}: boxes must be x0, y0, x1, y1 with 0 <= x0 <= x1 and 0 <= y0 <= y1. "
                f"Received: {boxes.tolist()}."
            )
        problem = problem or problem_of(score_map)
        if problem:
            self._bad.add(problem, image_id)
            if problem != "constant":
                score_map = np.zeros((1, 1))
        image, level = to_levels(score_map, self.thresholds)
        areas = "contour" if "single" in self.num_correct else None
        found = level_sets.components(image, areas=areas)
        for kind, num_correct in self.num_correct.items():
            ious = best_ious_at(image, level, boxes, contours=kind, found=found)
            num_correct += ious >= np.array(self.iou_levels)[:, None]
        self.num_images += 1

    def merge(self, other: "BoxAccuracy") -> None:
        """Adds the images of another accumulator.

        Raises:
            ValueError: the other one was made with different arguments.
        """
        if (
            not np.array_equal(self.thresholds, other.thresholds)
            or self.iou_levels != other.iou_levels
            or self.num_correct.keys() != other.num_correct.keys()
        ):
            raise ValueError("Cannot merge accumulators that were made with different arguments.")
        self.num_images += other.num_images
        for kind, num_correct in self.num_correct.items():
            num_correct += other.num_correct[kind]
        self._bad.merge(other._bad)

    def accuracy(self, contours: str) -> np.ndarray:
        """Returns the fraction of images that are right, float64 `[iou_levels, thresholds]`."""
        self._check_filled()
        return self.num_correct[contours] / self.num_images

    def result(self) -> dict[str, Any]:
        """Computes the figures, a dict for JSON; of equally good thresholds the lowest is named."""
        self._check_filled()
        figures: dict[str, Any] = {}
        for name, kind in CONTOURS.items():
            if kind not in self.num_correct:
                continue
            curves = self.accuracy(kind)
            # Multiplied before they are divided, as there: 100 times a fraction rounds otherwise.
            percent = (self.num_correct[kind] * 100.0 / float(self.num_images)).max(1)
            levels = {
                f"{level:g}": {
                    "accuracy": float(curve.max()),
                    "threshold": float(self.thresholds[curve.argmax()]),
                }
                for level, curve in zip(self.iou_levels, curves, strict=True)
            }
            figures[name] = {
                "value": float(curves.max(1).mean()),
                "percent": float(np.average(percent)),
                "iou_levels": levels,
            }
            if kind == "single":
                half = levels["0.5"]
                figures[name].update(value=half["accuracy"], threshold=half["threshold"])
                figures[name]["percent"] = float(percent[list(levels).index("0.5")])
        figures["num_images"] = self.num_images
        figures["bad_maps"] = self._bad.result()
        return figures

    def _check_filled(self):
        if not self.num_images:
            raise ValueError("There is nothing to report: no image has been scored.")


class PixelPrecision:
    """Accumulates PxAP and the peak pIoU over images; needs no more memory for more images.

    The scores of all pixels of all images are counted in bins between the thresholds, apart for
    pixels of the object and others. PxAP is the area under the curve of precision over recall;
    pIoU at a threshold is the IoU of all pixels at or above it with all pixels of objects. Both
    weigh pixels, not images.

    A map that is not finite, out of [0, 1] or not of the mask's shape is named in `bad_maps` and
    scored as zeros, a constant one as it is; wsolevaluation as in `BoxAccuracy`.

    Args:
        thresholds: rising floats in 0..1, the first 0.
    """

    def __init__(self, thresholds: ArrayLike = THRESHOLDS):
        self.thresholds = _checked(thresholds)
        if self.thresholds[0] != 0 or (np.diff(self.thresholds) <= 0).any():
            raise ValueError(f"Thresholds must rise from 0. Received: {thresholds!r}.")
        self._edges = np.append(self.thresholds, [1.0, 2.0, 3.0])
        self.num_images = 0
        self.histograms = np.zeros((2, len(self._edges) - 1), np.int64)  # Others, the object.
        self._bad = _BadMaps()

    def add(
        self,
        image_id: str,
        score_map: np.ndarray,
        mask: np.ndarray,
        *,
        problem: str | None = None,
    ) -> None:
        """Scores one image.

        Args:
            image_id: its name.
            score_map: float `[height, width]` in [0, 1], see `standard_map`.
            mask: uint8 `[height, width]`: 1 object, 0 not, 255 ignored, see `combine_masks`.
            problem: as in `BoxAccuracy.add`.
        """
        mask = np.asarray(mask)
        problem = problem or problem_of(score_map, shape=mask.shape)
        if problem:
            self._bad.add(problem, image_id)
            if problem != "constant":
                score_map = np.zeros(mask.shape)
        score_map = np.asarray(score_map, np.float64)
        for value, histogram in enumerate(self.histograms):
            histogram += np.histogram(score_map[mask == value], bins=self._edges)[0]
        self.num_images += 1

    def merge(self, other: "PixelPrecision") -> None:
        """Adds the images of another accumulator.

        Raises:
            ValueError: the other one has different thresholds.
        """
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("Cannot merge accumulators that were made with different thresholds.")
        self.num_images += other.num_images
        self.histograms += other.histograms
        self._bad.merge(other._bad)

    def piou(self) -> np.ndarray:
        """Returns the pIoU at the lower edge of each bin, float64 `[thresholds + 2]`."""
        false, true = self.histograms[:, ::-1].cumsum(1)[:, ::-1]
        return true / np.maximum(true[0] + false, 1)

    def result(self) -> dict[str, Any]:
        """Computes the figures, a dict for JSON; None where no mask shows an object."""
        if not self.num_images:
            raise ValueError("There is nothing to report: no image has been scored.")
        figures = {
            "pxap": {"value": None},
            "piou": {"value": None, "threshold": None},
            "num_images": self.num_images,
            "bad_maps": self._bad.result(),
        }
        # From the highest bin down.
        false, true = self.histograms[:, ::-1].cumsum(1).astype(np.float64)
        if not true[-1]:
            return figures
        seen = np.maximum(true + false, 1)
        steps = (true / seen)[1:] * np.diff(true / true[-1])
        # Empty bins are left out of the sum, which then rounds as wsolevaluation's does.
        area = steps[(true + false)[1:] > 0].sum()
        figures["pxap"].update(value=float(area), percent=float(area * 100))
        piou = self.piou()
        figures["piou"]["value"] = float(piou.max())
        figures["piou"]["threshold"] = float(self._edges[piou.argmax()])
        return figures


def _checked(thresholds):
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.ndim != 1 or not thresholds.size or not np.all(abs(thresholds - 0.5) <= 0.5):
        raise ValueError(f"Thresholds must be a list of numbers in 0..1. Received: {thresholds}.")
    return thresholds
