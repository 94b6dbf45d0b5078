"""How far boxes and masks overlap with true ones, at one score-map threshold or at many."""

import numpy as np

from wsol_tf.evaluation import level_sets
from wsol_tf.model.score_maps import box_of, largest_component

FEW = 5  # So many thresholds take about as long one by one as all at once.


def boxes_at(score_map, thresholds):
    """Returns the box of the largest component at each threshold, float32 [num_thresholds, 4].

    The same as `box_of(largest_component(threshold_mask(score_map, threshold)))` one by one.
    """
    score_map = np.asarray(score_map, np.float32)
    thresholds, position = np.unique(np.asarray(thresholds, np.float32), return_inverse=True)
    if not len(level_sets.LEVELS) >= len(thresholds) >= FEW:
        boxes = [box_of(largest_component(score_map > threshold)) for threshold in thresholds]
        return np.array(boxes, np.float32).reshape(-1, 4)[position]
    # All at once: a gray level is the number of thresholds that a position is above.
    image = np.searchsorted(thresholds, score_map).astype(np.uint8)
    found = level_sets.components(image, areas="pixels")
    boxes = np.empty((len(thresholds), 4), np.float32)
    boxes[:] = 0, 0, *image.shape[::-1]
    order = np.lexsort((found.areas, found.level))
    level, area = found.level[order], found.areas[order]
    boxes[level] = found.boxes[order]  # the last one of each level stays
    for tied in np.unique(level[1:][(level[1:] == level[:-1]) & (area[1:] == area[:-1])]):
        boxes[tied] = box_of(largest_component(image > tied))
    return boxes[position]


def box_iou(boxes, others):
    """Returns the IoU of every box [N, 4] with every other [M, 4] as float64 [N, M].

    Areas are half-open; two boxes without area have IoU 0.
    """
    overlap = box_overlap(boxes, others)
    union = box_area(boxes)[:, None] + box_area(others) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def box_overlap(boxes, others):
    """Returns the area that every box [N, 4] shares with every other [M, 4] as float64 [N, M]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, np.float64).reshape(1, -1, 4)
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(
        boxes[..., :2], others[..., :2]
    )
    return np.maximum(sides, 0).prod(-1)


def box_area(boxes):
    """Returns the areas of half-open boxes [N, 4] as float64 [N]."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def bas_box_iou(boxes, others):
    """IoU as BAS computes it, [N, M]: a pixel is added to the sides of half-open boxes.

    Only for comparison with its published code; see `box_iou` for the real one.
    """
    return box_iou(
        np.asarray(boxes, np.float64).reshape(-1, 4) + [0, 0, 1, 1],
        np.asarray(others, np.float64).reshape(-1, 4) + [0, 0, 1, 1],
    )


def bas_view_boxes(boxes, image_size, resize_size=256, crop_size=224):
    """Takes boxes from a picture to the view as BAS does: resized, then the centre crop.

    Args:
        boxes: `[num_boxes, 4]` in pixels of the picture.
        image_size: (width, height).
        resize_size, crop_size: sides of the resized picture and of its crop, in pixels.

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


def mask_iou(mask, truth):
    """Returns the IoU of a bool mask with uint8 truth {0, 1, 255 = ignored}, both [height, width].

    1.0 if both are empty.
    """
    mask, truth = np.asarray(mask, bool), np.asarray(truth)
    if mask.shape != truth.shape:
        raise ValueError(
            f"A mask and its truth must have one shape. Received: {mask.shape}, {truth.shape}."
        )
    mask = mask & (truth != 255)
    union = np.count_nonzero(mask | (truth == 1))
    return np.count_nonzero(mask & (truth == 1)) / union if union else 1.0


def mask_ious_at(score_map, truth, thresholds):
    """Returns `mask_iou(threshold_mask(score_map, t), truth)` for each threshold t, float64 [T]."""
    score_map, truth = np.asarray(score_map, np.float32), np.asarray(truth)
    if score_map.shape != truth.shape:
        raise ValueError(
            f"A map and its truth must have one shape. Received: {score_map.shape}, {truth.shape}."
        )
    thresholds = np.asarray(thresholds, np.float32)
    inside, outside = np.sort(score_map[truth == 1]), np.sort(score_map[truth == 0])
    overlap = inside.size - np.searchsorted(inside, thresholds, side="right")
    extra = outside.size - np.searchsorted(outside, thresholds, side="right")
    union = inside.size + extra
    return np.where(union > 0, overlap / np.maximum(union, 1), 1.0)
