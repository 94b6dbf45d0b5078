"""How far boxes and masks overlap with true ones, at one score-map threshold or at many."""

import numpy as np
from numpy.typing import ArrayLike

from wsol_tf.evaluation import level_sets
from wsol_tf.model.score_maps import box_of, largest_component

FEW = 5  # From so many thresholds on, all at once is faster than one by one.


def boxes_at(score_map: np.ndarray, thresholds: ArrayLike) -> np.ndarray:
    """Returns the box of the largest component at each threshold.

    The same as `box_of(largest_component(threshold_mask(score_map, threshold)))` one by one.

    Args:
        score_map: float `[height, width]`.
        thresholds: `[num_thresholds]`.

    Returns:
        float32 `[num_thresholds, 4]`, half-open; the whole picture where nothing is above one.
    """
    score_map = np.asarray(score_map, np.float32)
    cuts, position = np.unique(np.asarray(thresholds, np.float32), return_inverse=True)
    if not len(level_sets.LEVELS) >= len(cuts) >= FEW:
        one_by_one = [box_of(largest_component(score_map > cut)) for cut in cuts]
        return np.array(one_by_one, np.float32).reshape(-1, 4)[position]
    # All at once: a gray level is the number of thresholds that a position is above.
    image = np.searchsorted(cuts, score_map).astype(np.uint8)
    found = level_sets.components(image, areas="pixels")
    boxes = np.empty((len(cuts), 4), np.float32)
    boxes[:] = 0, 0, *image.shape[::-1]
    order = np.lexsort((found.areas, found.level))
    level, area = found.level[order], found.areas[order]
    boxes[level] = found.boxes[order]  # the last one of each level stays
    for tied in np.unique(level[1:][(level[1:] == level[:-1]) & (area[1:] == area[:-1])]):
        boxes[tied] = box_of(largest_component(image > tied))
    return boxes[position]


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU of every box with every other one.

    Args:
        boxes: `[num_boxes, 4]`, half-open edges x0, y0, x1, y1.
        others: `[num_others, 4]`.

    Returns:
        float64 `[num_boxes, num_others]`; two boxes without area have IoU 0.
    """
    overlap = box_overlap(boxes, others)
    union = box_area(boxes)[:, None] + box_area(others) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def box_overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the area that every box shares with every other one, as `box_iou` has them."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, np.float64).reshape(1, -1, 4)
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(
        boxes[..., :2], others[..., :2]
    )
    return np.maximum(sides, 0).prod(-1)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Returns the areas of half-open boxes `[num_boxes, 4]` as float64 `[num_boxes]`."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def bas_box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU as BAS computes it: a pixel is added to the sides of half-open boxes.

    Only for comparison with its published code; see `box_iou` for the real one.
    """
    pixel = np.array([0, 0, 1, 1])
    return box_iou(
        np.asarray(boxes, np.float64).reshape(-1, 4) + pixel,
        np.asarray(others, np.float64).reshape(-1, 4) + pixel,
    )


def bas_view_boxes(
    boxes: np.ndarray,
    image_size: tuple[int, int],
    resize_size: int = 256,
    crop_size: int = 224,
) -> np.ndarray:
    """Takes boxes from a picture to the view as BAS does: resized, then the centre crop.

    Args:
        boxes: `[num_boxes, 4]` in pixels of the picture.
        image_size: (width, height).
        resize_size: side of the resized picture in pixels.
        crop_size: side of its centre crop in pixels.

    Returns:
        float64 `[num_boxes, 4]` in pixels of the crop, cut off at its borders; a box that lies
        outside of it has its corners in the wrong order.
    """
    scale = np.tile(resize_size / np.asarray(image_size, np.float64), 2)
    offset = round((resize_size - crop_size) / 2)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
    first = np.maximum(boxes[:, :2], offset)
    last = np.minimum(boxes[:, 2:], offset + crop_size)
    # Divided and multiplied, as there: the last bits are the same.
    return (np.concatenate([first, last], axis=1) - offset) / crop_size * crop_size


def mask_iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Returns the IoU of a mask with the true one; 1.0 if both are empty.

    Args:
        mask: bool `[height, width]`.
        truth: uint8 `[height, width]`: 1 object, 0 not, 255 ignored.

    Raises:
        ValueError: the two have different shapes.
    """
    mask, truth = np.asarray(mask, bool), np.asarray(truth)
    if mask.shape != truth.shape:
        raise ValueError(
            f"A mask and its truth must have one shape. Received: {mask.shape}, {truth.shape}."
        )
    mask = mask & (truth != 255)
    union = np.count_nonzero(mask | (truth == 1))
    return np.count_nonzero(mask & (truth == 1)) / union if union else 1.0


def mask_ious_at(score_map: np.ndarray, truth: np.ndarray, thresholds: ArrayLike) -> np.ndarray:
    """Returns `mask_iou(threshold_mask(score_map, threshold), truth)` for each threshold.

    Args:
        score_map: float `[height, width]`.
        truth: uint8 `[height, width]`: 1 object, 0 not, 255 ignored.
        thresholds: `[num_thresholds]`.

    Returns:
        float64 `[num_thresholds]`.

    Raises:
        ValueError: map and truth have different shapes.
    """
    score_map, truth = np.asarray(score_map, np.float32), np.asarray(truth)
    if score_map.shape != truth.shape:
        raise ValueError(
            f"A map and its truth must have one shape. Received: {score_map.shape}, {truth.shape}."
        )
    cuts = np.asarray(thresholds, np.float32)
    inside, outside = np.sort(score_map[truth == 1]), np.sort(score_map[truth == 0])
    overlap = inside.size - np.searchsorted(inside, cuts, side="right")
    extra = outside.size - np.searchsorted(outside, cuts, side="right")
    union = inside.size + extra
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0)
