"""MaxBoxAcc, MaxBoxAccV2, PxAP and pIoU exactly as wsolevaluation computes them.

The definitions are those of Choe et al., "Evaluating Weakly Supervised Object Localization Methods
Right" (CVPR 2020; arXiv 2007.04178) and of the code they published with it. Only numpy and OpenCV
are needed, so the score maps may come from anywhere. A score map here is float `[height, width]`
in [0, 1]; boxes are x0, y0, x1, y1 in its pixels, the last ones inclusive. Figures are fractions.

    boxes = BoxAccuracy()
    for image_id, raw_map, true_boxes, size in ...:  # size: (width, height) of the picture
        boxes.add(image_id, standard_map(raw_map), resize_boxes(true_boxes, size))
    boxes.result()["max_box_acc_v2"]["value"]
"""

import cv2
import numpy as np

from wsol_tf.evaluation import level_sets

SIZE = 224
THRESHOLDS = np.arange(0, 1, 0.001)
IOU_LEVELS = (0.3, 0.5, 0.7)
NAMED = 20  # How many bad maps of one kind are named; all are counted.


def standard_map(raw_map, height=SIZE, width=SIZE):
    """Makes a score map out of raw scores: cubic to the picture's size, then min-max.

    Args:
        raw_map: `[h, w]` at any resolution.
        height, width: size of the result.

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


def problem_of(score_map, *, shape=None, raw=False):
    """Says what is wrong with a score map, or None.

    Args:
        score_map: any array.
        shape: the (height, width) that it must have; None takes any.
        raw: whether values outside [0, 1] are right, as before `standard_map`.

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


def resize_boxes(boxes, image_size, map_size=(SIZE, SIZE)):
    """Takes boxes from a picture to its score map; corners are cut down to whole pixels.

    Args:
        boxes: `[num_boxes, 4]` in pixels of the picture.
        image_size, map_size: (width, height).

    Returns:
        int64 `[num_boxes, 4]`.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return (boxes * np.tile(map_size, 2) / np.tile(image_size, 2)).astype(np.int64)


def combine_masks(masks, ignored, height=SIZE, width=SIZE):
    """Makes the true mask of a picture out of those of its instances.

    Args:
        masks: `[num_instances, h, w]`, what is above 0 is the object.
        ignored: `[h, w]`, what is above 0 is not judged, unless it is object; or None.
        height, width: size of the result; masks are sampled at the nearest pixel.

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


def to_levels(score_map, thresholds):
    """Rounds a score map and the thresholds down to the 256 grey levels that are compared.

    Returns:
        (image uint8 `[height, width]`, level int `[num_thresholds]`): the mask of a threshold is
        `image > level`. A threshold is relative to the map's maximum.
    """
    image = (np.asarray(score_map, np.float64) * 255).astype(np.uint8)
    return image, (np.asarray(thresholds, np.float64) * int(image.max())).astype(int)


def boxes_at(image, level, *, contours, found=None):
    """Finds the boxes that the masks of a grey image are said to show.

    Args:
        image: uint8 `[height, width]`.
        level: int `[num_thresholds]`, see `to_levels`.
        contours: "single" (the box of the contour with the largest area, the first of equals) or
            "multi" (those of all contours, holes included).
        found: `level_sets.components` of the image, with areas for "single"; None computes it.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`): each box and the level it is found
        at, in no order. The last corner is one past the contour, or the last pixel of the image
        where there is none past it. An empty mask has the box 0, 0, 0, 0.
    """
    if found is None:
        found = level_sets.components(image, areas="contour" if contours == "single" else None)
    search = level_sets.largest_boxes if contours == "single" else level_sets.all_boxes
    box_level, boxes = search(image, found, level)
    boxes = np.minimum(boxes, [*image.shape[::-1]] * 2 - np.array([0, 0, 1, 1]))
    empty = np.zeros(256, bool)
    empty[level] = True
    empty[box_level] = False
    empty = np.flatnonzero(empty)
    return np.append(box_level, empty), np.append(boxes, np.zeros((len(empty), 4), int), axis=0)


def inclusive_iou(boxes, others):
    """Returns the IoU of every box [N, 4] with every other [M, 4], last pixels inclusive.

    Both int; float64 [N, M].
    """
    boxes, others = np.asarray(boxes)[:, None], np.asarray(others)[None]
    overlap = np.minimum(boxes[..., 2:], others[..., 2:]) + 1
    overlap = np.maximum(overlap - np.maximum(boxes[..., :2], others[..., :2]), 0).prod(-1)
    union = (boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) - overlap
    return overlap / (union + (others[..., 2:] - others[..., :2] + 1).prod(-1))


def best_ious(score_map, boxes, thresholds=THRESHOLDS, *, contours):
    """Returns the best IoU of a found box with a true one at each threshold, float64.

    Args:
        score_map: float `[height, width]` in [0, 1].
        boxes: true ones, int `[num_boxes, 4]`; without any, all IoUs are 0.
        thresholds: `[num_thresholds]`.
        contours: "single" or "multi", see `boxes_at`.
    """
    image, level = to_levels(score_map, thresholds)
    return _best_ious(image, level, boxes, contours, None)


def _best_ious(image, level, boxes, contours, found):
    box_level, found_boxes = boxes_at(image, level, contours=contours, found=found)
    best = np.zeros(256)
    np.maximum.at(best, box_level, inclusive_iou(found_boxes, boxes).max(1, initial=0))
    return best[level]


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

    def __init__(self, thresholds=THRESHOLDS, iou_levels=IOU_LEVELS, contours=("single", "multi")):
        self.thresholds = _checked(thresholds)
        self.iou_levels = tuple(iou_levels)
        if not set(contours) <= {"single", "multi"} or isinstance(contours, str):
            raise ValueError(f"contours must hold 'single' or 'multi'. Received: {contours!r}.")
        if "single" in contours and 0.5 not in self.iou_levels:
            raise ValueError(f"MaxBoxAcc needs the IoU level 0.5. Received: {iou_levels}.")
        self.num_images = 0
        self.num_correct = {
            kind: np.zeros((len(self.iou_levels), len(self.thresholds)), np.int64)
            for kind in contours
        }
        self._bad = _BadMaps()

    def add(self, image_id, score_map, boxes, *, problem=None):
        """Scores one image.

        Args:
            image_id: its name.
            score_map: float `[height, width]` in [0, 1], see `standard_map`.
            boxes: true ones in pixels of the map, int `[num_boxes, 4]`, see `resize_boxes`; an
                image without any is never right.
            problem: what was wrong with the map before, such as `problem_of(raw_map, raw=True)`
                or "missing"; then only that is reported of it.

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
            ious = _best_ious(image, level, boxes, kind, found)
            num_correct += ious >= np.array(self.iou_levels)[:, None]
        self.num_images += 1

    def merge(self, other):
        """Adds the images of another accumulator that was made with the same arguments."""
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

    def accuracy(self, contours):
        """Returns the fraction of images that are right, float64 [iou_levels, thresholds]."""
        self._check_filled()
        return self.num_correct[contours] / self.num_images

    def result(self):
        """Returns the figures as a dict for JSON; of equally good thresholds the lowest."""
        self._check_filled()
        figures = {}
        for kind, name in (("single", "max_box_acc"), ("multi", "max_box_acc_v2")):
            if kind not in self.num_correct:
                continue
            curves = self.accuracy(kind)
            levels = {
                f"{level:g}": {
                    "accuracy": float(curve.max()),
                    "threshold": float(self.thresholds[curve.argmax()]),
                }
                for level, curve in zip(self.iou_levels, curves, strict=True)
            }
            figures[name] = {"value": float(curves.max(1).mean()), "iou_levels": levels}
            if kind == "single":
                half = levels["0.5"]
                figures[name].update(value=half["accuracy"], threshold=half["threshold"])
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

    def __init__(self, thresholds=THRESHOLDS):
        self.thresholds = _checked(thresholds)
        if self.thresholds[0] != 0 or (np.diff(self.thresholds) <= 0).any():
            raise ValueError(f"Thresholds must rise from 0. Received: {thresholds}.")
        self._edges = np.append(self.thresholds, [1.0, 2.0, 3.0])
        self.num_images = 0
        self.histograms = np.zeros((2, len(self._edges) - 1), np.int64)  # Others, the object.
        self._bad = _BadMaps()

    def add(self, image_id, score_map, mask, *, problem=None):
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

    def merge(self, other):
        """Adds the images of another accumulator with the same thresholds."""
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("Cannot merge accumulators that were made with different thresholds.")
        self.num_images += other.num_images
        self.histograms += other.histograms
        self._bad.merge(other._bad)

    def piou(self):
        """Returns the pIoU at the lower edge of each bin, float64 [thresholds + 2]."""
        false, true = self.histograms[:, ::-1].cumsum(1)[:, ::-1]
        return true / np.maximum(true[0] + false, 1)

    def result(self):
        """Returns the figures as a dict for JSON; None where no mask shows an object."""
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
        figures["pxap"]["value"] = float(steps[(true + false)[1:] > 0].sum())
        piou = self.piou()
        figures["piou"]["value"] = float(piou.max())
        figures["piou"]["threshold"] = float(self._edges[piou.argmax()])
        return figures


def _checked(thresholds):
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.ndim != 1 or not thresholds.size or not np.all(abs(thresholds - 0.5) <= 0.5):
        raise ValueError(f"Thresholds must be a list of numbers in 0..1. Received: {thresholds}.")
    return thresholds


# Metrics of wsolevaluation that can be asked for; see `standard_metrics`.
METRICS = ("max_box_acc", "max_box_acc_v2", "pxap", "piou")


class Standard:
    """The metrics of wsolevaluation over pairs; see `standard_metrics`.

    Args:
        metrics: names of METRICS; no others are computed.
        view: the View that the pairs are seen in.
    """

    def __init__(self, metrics, view):
        self.metrics, self.view = tuple(metrics), view
        kinds = {"max_box_acc": "single", "max_box_acc_v2": "multi"}
        contours = [kinds[name] for name in metrics if name in kinds]
        self.boxes = BoxAccuracy(contours=contours) if contours else None
        self.pixels = PixelPrecision() if {"pxap", "piou"} & {*metrics} else None

    def add(self, pair, score_map):
        """Scores the map `[h, w]`, of any range, of a pair."""
        height, width = pair.image.shape[:2]
        problem = problem_of(score_map, raw=True)
        if self.metrics:
            score_map = standard_map(score_map, height, width)
        if self.boxes and pair.boxes is not None:
            boxes = _inclusive(pair.boxes, pair.size, self.view)
            self.boxes.add(pair.image_id, score_map, boxes, problem=problem)
        if self.pixels and pair.mask is not None:
            self.pixels.add(pair.image_id, score_map, pair.mask, problem=problem)

    def merge(self, other):
        """Adds the pairs of another one with the same metrics."""
        for own, others in ((self.boxes, other.boxes), (self.pixels, other.pixels)):
            if own:
                own.merge(others)

    def result(self):
        """The figures by name; None where the data has no boxes or no masks."""
        figures = {}
        for accumulator in (self.boxes, self.pixels):
            if accumulator and accumulator.num_images:
                figures |= accumulator.result()
        return {name: figures.get(name, {"value": None}) for name in self.metrics}


def _inclusive(boxes, size, view):
    """Turns boxes in the view into wsolevaluation's: whole pixels, the last ones inclusive.

    Its boxes are whole pixels of the picture, whose corners are scaled and cut down.
    """
    height, width = size
    in_picture = np.round([view.to_picture(box, height, width) for box in boxes]).reshape(-1, 4)
    in_picture[:, 2:] = np.maximum(in_picture[:, 2:] - 1, in_picture[:, :2])
    offset, side = view.offset_and_side()
    # Multiplied first, as in `standard_metrics.resize_boxes`: a cut is sensitive to rounding.
    scaled = in_picture * side / np.array([width, height] * 2) - offset
    return np.clip(scaled.astype(int), 0, view.input_size - 1)
