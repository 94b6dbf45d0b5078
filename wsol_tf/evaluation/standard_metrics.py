"""The metrics of wsolevaluation over pairs: each map and its true boxes as that code wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol_tf.data.transforms import View
from wsol_tf.evaluation import wsolevaluation
from wsol_tf.evaluation.localized_map import LocalizedMap
from wsol_tf.evaluation.wsolevaluation import (
    CONTOURS,
    METRICS,
    SIZE,
    BoxAccuracy,
    PixelPrecision,
)


class StandardMetrics:
    """Accumulates metrics of wsolevaluation over pairs; see `wsolevaluation`.

    Args:
        metrics: names out of METRICS; no others are computed.
        view: what the pairs are seen in.

    Raises:
        ValueError: for an unknown metric.
    """

    def __init__(self, metrics: Sequence[str], view: View):
        unknown = sorted(set(metrics) - set(METRICS))
        if unknown:
            raise ValueError(f"Unknown metric '{unknown[0]}'. Legal: {', '.join(METRICS)}.")
        self.metrics, self.view = tuple(metrics), view
        contours = [CONTOURS[name] for name in metrics if name in CONTOURS]
        self.boxes = BoxAccuracy(contours=contours) if contours else None
        self.pixels = PixelPrecision() if {*metrics} - {*CONTOURS} else None

    def add(self, localized: LocalizedMap) -> None:
        """Scores the raw map of a pair; boxes and masks count where the pair has them.

        Of a whole picture of wsolevaluation's own lists, their boxes and masks are used as they
        stand, and a stored map that is as that code wants it is not stretched.
        """
        if not self.metrics:
            return
        pair, raw_map = localized.pair, localized.raw_map
        problem = wsolevaluation.problem_of(raw_map, raw=True)
        boxes, mask, as_it_is = pair.standard_boxes, pair.standard_mask, False
        size = SIZE, SIZE
        if self.view.kind != "whole" or (boxes is None and mask is None):
            size, mask, boxes = localized.view_size, pair.mask, pair.boxes
            if boxes is not None:
                boxes = whole_pixel_boxes(boxes, pair.size, self.view)
        elif localized.kind == "stored" and _is_standard(raw_map):
            as_it_is = True
        score_map = raw_map if as_it_is else wsolevaluation.standard_map(raw_map, *size)
        if self.boxes and boxes is not None:
            self.boxes.add(pair.image_id, score_map, boxes, problem=problem)
        if self.pixels and mask is not None:
            self.pixels.add(pair.image_id, score_map, mask, problem=problem)

    def merge(self, other: "StandardMetrics") -> None:
        """Adds the pairs of another accumulator of the same metrics."""
        if self.boxes and other.boxes:
            self.boxes.merge(other.boxes)
        if self.pixels and other.pixels:
            self.pixels.merge(other.pixels)

    def result(self) -> dict[str, dict[str, Any]]:
        """Computes the figures by name; without boxes or masks their value is None."""
        figures: dict[str, Any] = {}
        for accumulator in (self.boxes, self.pixels):
            if accumulator and accumulator.num_images:
                figures |= accumulator.result()
        return {name: figures.get(name, {"value": None}) for name in self.metrics}


def _is_standard(raw_map):
    """Whether wsolevaluation's command scores a map as it stands: it is 224 x 224, in 0..1."""
    problem = wsolevaluation.problem_of(raw_map, shape=(SIZE, SIZE))
    return problem in (None, "constant")


def whole_pixel_boxes(boxes: np.ndarray, size: tuple[int, int], view: View) -> np.ndarray:
    """Turns boxes in the view into wsolevaluation's: whole pixels, the last ones inclusive.

    Its boxes are whole pixels of the picture, whose corners are scaled and cut down.

    Args:
        boxes: `[num_boxes, 4]` in pixels of the view, half-open.
        size: (height, width) of the picture in pixels.
        view: what of the picture is seen.

    Returns:
        int `[num_boxes, 4]` in pixels of the view.
    """
    height, width = size
    in_picture = np.round([view.to_picture(box, height, width) for box in boxes]).reshape(-1, 4)
    in_picture[:, 2:] = np.maximum(in_picture[:, 2:] - 1, in_picture[:, :2])
    offset, side = view.offset_and_side()
    # Multiplied first, as in `wsolevaluation.resize_boxes`: a cut is sensitive to rounding.
    scaled = in_picture * side / np.array([width, height] * 2) - offset
    return np.clip(scaled.astype(int), 0, view.input_size - 1)
