"""The boxes that wsolevaluation finds in a score map at each threshold, and how it compares them.

A score map is float `[height, width]` in [0, 1]; it is cut at 256 grey levels, and each contour of
the mask has a box, holes included. Boxes are x0, y0, x1, y1 in pixels of the map, the last ones
inclusive.
"""

import numpy as np
from numpy.typing import ArrayLike

from wsol_tf.evaluation import level_sets

THRESHOLDS = np.arange(0, 1, 0.001)


def to_levels(score_map: np.ndarray, thresholds: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a score map and the thresholds down to the 256 grey levels that are compared.

    Args:
        score_map: float `[height, width]` in [0, 1].
        thresholds: `[num_thresholds]`.

    Returns:
        (image uint8 `[height, width]`, level int `[num_thresholds]`): the mask of a threshold is
        `image > level`. A threshold is relative to the map's maximum.
    """
    image = (np.asarray(score_map, np.float64) * 255).astype(np.uint8)
    return image, (np.asarray(thresholds, np.float64) * int(image.max())).astype(int)


def boxes_at(
    image: np.ndarray,
    level: np.ndarray,
    *,
    contours: str,
    found: level_sets.Components | None = None,
) -> tuple[np.ndarray, np.ndarray]:
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


def inclusive_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU of every box with every other one, last pixels inclusive.

    Args:
        boxes: int `[num_boxes, 4]`.
        others: int `[num_others, 4]`.

    Returns:
        float64 `[num_boxes, num_others]`.
    """
    boxes, others = np.asarray(boxes)[:, None], np.asarray(others)[None]
    overlap = np.minimum(boxes[..., 2:], others[..., 2:]) + 1
    overlap = np.maximum(overlap - np.maximum(boxes[..., :2], others[..., :2]), 0).prod(-1)
    union = (boxes[..., 2:] - boxes[..., :2] + 1).prod(-1) - overlap
    return overlap / (union + (others[..., 2:] - others[..., :2] + 1).prod(-1))


def best_ious(
    score_map: np.ndarray,
    boxes: np.ndarray,
    thresholds: ArrayLike = THRESHOLDS,
    *,
    contours: str,
) -> np.ndarray:
    """Returns the best IoU of a found box with a true one at each threshold.

    Args:
        score_map: float `[height, width]` in [0, 1].
        boxes: true ones, int `[num_boxes, 4]`; without any, all IoUs are 0.
        thresholds: `[num_thresholds]`.
        contours: "single" or "multi", see `boxes_at`.

    Returns:
        float64 `[num_thresholds]`.
    """
    return best_ious_at(*to_levels(score_map, thresholds), boxes, contours=contours)


def best_ious_at(
    image: np.ndarray,
    level: np.ndarray,
    boxes: np.ndarray,
    *,
    contours: str,
    found: level_sets.Components | None = None,
) -> np.ndarray:
    """Returns what `best_ious` does, of a grey image and levels; see `boxes_at`."""
    box_level, found_boxes = boxes_at(image, level, contours=contours, found=found)
    best = np.zeros(256)
    np.maximum.at(best, box_level, inclusive_iou(found_boxes, boxes).max(1, initial=0))
    return best[level]
