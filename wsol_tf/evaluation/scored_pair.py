"""What is kept of one (picture, class) pair once its map is scored, and the boxes without a map."""

import dataclasses
import functools

import numpy as np

from wsol_tf.evaluation.localized_map import LocalizedMap

CENTERED_AREAS = np.arange(0.05, 1.001, 0.05)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredPair:
    """What is kept of a LocalizedMap: figures about it, and no map.

    Attributes:
        rank: classes that score higher than the pair's; NaN where nothing says the class.
        suggested_threshold: see `LocalizedMap.suggested_threshold`.
        bad_map, constant_map, bad_scores: what was wrong with the map and the class scores.
        num_boxes: true boxes in the view; None where the data has none.
        box_ious, outcomes, mask_ious: at each threshold and then at Otsu's, see `LocalizedMap`.
        centered_ious: IoUs of the centred boxes of CENTERED_AREAS; None without boxes.
        false_areas: see `LocalizedMap`; None where the picture may have an object.
        separated: column of the threshold at which objects that touch were cut apart, and the IoU
            and the outcome of the box there; None where components are as they are.
    """

    rank: float
    suggested_threshold: float
    bad_map: bool
    constant_map: bool
    bad_scores: bool
    num_boxes: int | None
    box_ious: np.ndarray | None
    outcomes: np.ndarray | None
    mask_ious: np.ndarray | None
    centered_ious: np.ndarray | None
    false_areas: np.ndarray | None = None
    separated: tuple[int, float, int] | None = None

    def iou_at(self, column: int) -> float | None:
        """The IoU of the box that is predicted at a threshold; None without boxes."""
        if self.box_ious is None:
            return None
        if self.separated is not None and self.separated[0] == column:
            return self.separated[1]
        return float(self.box_ious[column])

    def outcome_at(self, column: int) -> int | None:
        """What became of the pair with the box that is predicted there; None without boxes."""
        if self.outcomes is None:
            return None
        if self.separated is not None and self.separated[0] == column:
            return self.separated[2]
        return int(self.outcomes[column])


def scored(localized: LocalizedMap) -> ScoredPair:
    """Measures a localized map against what is true of its pair."""
    true_boxes, centered = localized.pair.boxes, None
    if true_boxes is not None:
        boxes = _centered_boxes(*localized.view_size)
        centered = localized.box_iou(boxes, true_boxes).max(1, initial=0)
    rank, finite_scores = localized.class_rank
    separated = None
    if localized.separate and localized.iou is not None and localized.outcome is not None:
        separated = (localized.column, localized.iou, localized.outcome)
    return ScoredPair(
        rank=rank,
        suggested_threshold=localized.suggested_threshold,
        bad_map=not localized.is_finite,
        constant_map=localized.is_constant and not localized.pair.empty,
        bad_scores=not finite_scores,
        num_boxes=None if true_boxes is None else len(true_boxes),
        box_ious=localized.box_ious,
        outcomes=localized.outcomes,
        mask_ious=localized.mask_ious,
        centered_ious=centered,
        false_areas=localized.false_areas,
        separated=separated,
    )


def centered_box(view_size: int | tuple[int, int], area_fraction: float) -> np.ndarray:
    """Returns the centred box that covers a fraction of the view, in the view's aspect.

    Args:
        view_size: side, or (height, width), in pixels.
        area_fraction: in 0..1.

    Returns:
        float64 `[4]` in pixels of the view.
    """
    height, width = np.broadcast_to(view_size, 2).tolist()
    side = np.sqrt(area_fraction)
    return np.array([1 - side, 1 - side, 1 + side, 1 + side]) / 2 * [width, height, width, height]


@functools.lru_cache(maxsize=64)
def _centered_boxes(height, width):
    return np.stack([centered_box((height, width), area) for area in CENTERED_AREAS])
