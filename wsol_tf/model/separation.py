"""Objects that touch in a mask: a component is cut where it comes apart at a higher threshold.

One score map for all objects of a picture, which hardly falls between neighbours, makes one
component of several. Where such a component, seen at rising thresholds, comes apart into parts that
each have a good share of it, the parts are objects, and each pixel is of the part that is nearest.
The rule is ours (C); the components of all thresholds are those of the max-tree of mathematical
morphology. BAS and the paper take components as they are.
"""

import cv2
import numpy as np

GRID = 56  # positions along each side at which a map is looked at, whatever the picture's size
STEP = 0.03  # between two thresholds
STEPS = 8  # above that of the mask
SHARE = 0.25  # of the cells of an object that a part must have
THICK = 3  # cells: what is thinner connects nothing


def separate(mask: np.ndarray, score_map: np.ndarray, threshold: float) -> np.ndarray:
    """Cuts the components of a mask into objects.

    Args:
        mask: bool `[height, width]`, where the map lies above the threshold.
        score_map: float `[height, width]` in 0..1.
        threshold: the score-map threshold.

    Returns:
        bool `[height, width]`: the mask without the pixels on one side of each cut, so that each
        object is a component of its own.
    """
    mask = np.ascontiguousarray(mask, bool)
    height, width = mask.shape
    rows, columns = (((np.arange(GRID) + 0.5) * side / GRID).astype(int) for side in mask.shape)
    seen = np.ix_(rows, columns)
    cell_of = np.ix_(np.arange(height) * GRID // height, np.arange(width) * GRID // width)
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    values, cells = np.asarray(score_map, np.float32)[seen], labels[seen]
    parts = np.zeros(mask.shape, np.int16)  # of each component by itself: no two of them touch
    for component in np.unique(cells[cells > 0]):
        part_of = _parts(values, cells == component, threshold)
        if part_of.any():
            own = labels == component
            parts[own] = 1 + part_of[cell_of][own]
    if not parts.any():  # nothing is cut
        return mask
    return mask & (_highest_around(parts) == parts)


def _highest_around(parts):
    """The highest number among each pixel and its eight neighbours."""
    rows = np.pad(parts, ((1, 1), (0, 0)))
    rows = np.maximum(np.maximum(rows[:-2], rows[1:-1]), rows[2:])
    columns = np.pad(rows, ((0, 0), (1, 1)))
    return np.maximum(np.maximum(columns[:, :-2], columns[:, 1:-1]), columns[:, 2:])


def _parts(values, inside, threshold):
    """Which part of a component each cell of the grid is nearest to, int16 [GRID, GRID], from 0."""
    part_of = np.zeros(inside.shape, np.int16)
    waiting = [(np.ones_like(inside), 1)]  # cells of a part, and the first step that may cut it
    count = 0
    while waiting:
        region, first = waiting.pop()
        own, seeds = region & inside, []
        for step in range(first, STEPS + 1):
            seeds = _seeds(own & (values > np.float32(threshold + step * STEP)), own.sum())
            if len(seeds) != 1:  # where there is none, there is none at a higher threshold
                break
        if len(seeds) > 1:
            nearest = np.argmin([_distances(seed) for seed in seeds], axis=0)
            parts = [region & (nearest == number) for number in range(len(seeds))]
            waiting += [(part, step + 1) for part in reversed(parts)]
        else:
            part_of[region] = count
            count += 1
    return part_of


def _seeds(cells, area):
    """The parts of a bool grid that are thick and large enough, row by row of their first cell."""
    square = np.ones((THICK, THICK), np.uint8)
    # Beyond the edge of the picture an object may go on, which erosion in OpenCV supposes too.
    opened = cv2.morphologyEx(cells.view(np.uint8), cv2.MORPH_OPEN, square)
    count, labels = cv2.connectedComponents(opened, connectivity=8, ltype=cv2.CV_32S)
    parts = [labels == label for label in range(1, count)]
    parts = [part for part in parts if part.sum() >= SHARE * area]
    return sorted(parts, key=lambda part: int(part.argmax()))


def _distances(seed):
    """The squared distance of each cell to the nearest one of a part, in cells: whole numbers."""
    distances = cv2.distanceTransform((~seed).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's root of one number isn't the same everywhere, in the last bits: ties would be none.
    return np.rint(distances**2)
