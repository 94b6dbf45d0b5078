"""The metrics of wsolevaluation over pairs: each map and its true boxes as that code wants them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol_tf.data.transforms import View
from wsol_tf.evaluation import wsolevaluation
from wsol_tf.evaluation.localized_map import LocalizedMap
from wsol_tf.evaluation.wsolevaluation import CONTOURS, METRICS, BoxAccuracy, PixelPrecision


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
        """Scores the raw map of a pair; boxes and masks count where the pair has them."""
        if not self.metrics:
            return
        pair, raw_map = localized.pair, localized.raw_map
        problem = wsolevaluation.problem_of(raw_map, raw=True)
        score_map = wsolevaluation.standard_map(raw_map, *localized.view_size)
        if self.boxes and pair.boxes is not None:
            boxes = whole_pixel_boxes(pair.boxes, pair.size, self.view)
            self.boxes.add(pair.image_id, score_map, boxes, problem=problem)
        if self.pixels and pair.mask is not None:
            self.pixels.add(pair.image_id, score_map, pair.mask, problem=problem)

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
