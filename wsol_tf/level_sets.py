"""Boxes of the contours of a uint8 map at all of its levels at once: numpy and OpenCV only.

The mask at a level is `image > level`. OpenCV's `findContours` finds one outer contour for each of
its 8-connected components and one for each of its holes. Masks of rising levels are nested, so
the components of all levels form a tree (the max-tree of mathematical morphology), and so do the
holes. Built once, the trees tell what tracing the contours of 255 masks would. Boxes are x0, y0,
x1, y1 edges in pixels, half-open, and equal to those of OpenCV's contours.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

LEVELS = np.arange(255)  # At level 255 every mask is empty.
POSITION_BITS = 23  # A value and a position share the 31 bits of a sortable key.
FEW = 40  # Tracing so many levels takes about as long as building a tree.


class Components(NamedTuple):
    """The 8-connected components of `image > level` at all levels 0..254.

    level: int `[num]`, the level of each.
    boxes: int `[num, 4]`.
    areas: int `[num]`, twice the area without holes, between the centres of pixels as OpenCV
        counts it; None unless asked for.
    num_holes: int `[255]`, holes at each level.
    """

    level: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray | None
    num_holes: np.ndarray


def traced(image, level):
    """Traces the contours of `image > level`: the plain way, one level at a time.

    Returns:
        (boxes int `[num_contours, 4]`, areas float `[num_contours]`), in OpenCV's order.
    """
    mask = cv2.threshold(image, int(level), 255, cv2.THRESH_BINARY)[1]
    contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], int).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([cv2.contourArea(contour) for contour in contours])


def all_boxes(image, found, levels):
    """Finds the boxes of all contours at each level, those around holes included.

    Args:
        image: uint8 `[height, width]`.
        found: its `components`.
        levels: ints in 0..254.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`); levels with an empty mask have none.
    """
    wanted = np.isin(LEVELS, levels)
    with_holes = wanted & (found.num_holes > 0)
    if np.count_nonzero(with_holes) > FEW:
        hole_level, hole_boxes = holes(image)
        kept, kept_holes = wanted[found.level], wanted[hole_level]
        level = [found.level[kept], hole_level[kept_holes]]
        boxes = [found.boxes[kept], hole_boxes[kept_holes]]
    else:
        kept = (wanted & ~with_holes)[found.level]
        level, boxes = [found.level[kept]], [found.boxes[kept]]
        for each in np.flatnonzero(with_holes):
            boxes.append(traced(image, each)[0])
            level.append(np.full(len(boxes[-1]), each))
    return np.concatenate(level), np.concatenate(boxes)


def largest_boxes(image, found, levels):
    """Finds the box of the contour with the largest area at each level, the first of equals.

    Args:
        image: uint8 `[height, width]`.
        found: its `components`, with areas.
        levels: ints in 0..254.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`); levels with an empty mask have none.
    """
    kept = np.isin(LEVELS, levels)[found.level]
    level, boxes, areas = found.level[kept], found.boxes[kept], found.areas[kept]
    # Holes count in the area of a contour, and how large they are is not known here: it lies
    # between these two.
    with_holes = found.num_holes[level] > 0
    most = np.where(with_holes, 2 * (boxes[:, 2:] - boxes[:, :2] - 1).prod(1), areas)
    order = np.lexsort((areas, level))
    last = np.append(level[order][1:] != level[order][:-1], True)[: len(order)]
    best = order[last]
    rival = np.full(len(LEVELS), -1)
    np.maximum.at(rival, level[order[~last]], most[order[~last]])
    certain = areas[best] > rival[level[best]]
    # A component without area of its own has no larger contour than its hole.
    certain &= (areas[best] > 0) | ~with_holes[best]
    chosen = boxes[best]
    for i in np.flatnonzero(~certain):
        candidates, candidate_areas = traced(image, level[best[i]])
        chosen[i] = candidates[candidate_areas.argmax()]
    return level[best], chosen


def components(image, *, areas=False):
    """Finds the components of `image > level` at all levels; image uint8 `[height, width]`.

    Returns:
        Components, with areas if asked for.

    Raises:
        ValueError: for 2**23 pixels or more.
    """
    if not image.any():
        none = np.zeros(0, int)
        return Components(none, np.zeros((0, 4), int), none, np.zeros(len(LEVELS), int))
    # A frame of zeros keeps the ends of rows apart, so that rows can be shifted as one line.
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    values, width = framed.ravel(), framed.shape[1]
    node, bottom, top, merges = _tree(values, width, diagonal=True)
    extents = _extents(values, width, node, len(top), diagonal=True)
    area = _areas(values, width, node, len(top)) if areas else None
    for child, into, level in merges:
        shared = extents[into, :, :level]
        np.minimum(shared, extents[child, :, :level], out=shared)
        if areas:
            area[into, :level] += area[child, :level]
    alive = (bottom[:, None] <= LEVELS) & (LEVELS < top[:, None])
    index, level = np.nonzero(alive)
    return Components(
        level,
        extents[index, :, level] * [1, 1, -1, -1] + [-1, -1, 0, 0],
        area[index, level] if areas else None,
        alive.sum(0) - _euler_numbers(values, width),
    )


def holes(image):
    """Finds the boxes of the contours around the holes of `image > level` at all levels.

    A hole is a 4-connected component of the rest that does not reach the border; its contour runs
    through the pixels around it.

    Args:
        image: uint8 `[height, width]`.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`), in no order.
    """
    # All that is outside is one component, of which the frame is the highest part.
    framed = 255 - cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    values, width = framed.ravel(), framed.shape[1]
    node, bottom, top, merges = _tree(values, width, diagonal=False, outside=0)
    extents = _extents(values, width, node, len(top), diagonal=False)
    for child, into, level in merges:
        shared = extents[into, :, :level]
        np.minimum(shared, extents[child, :, :level], out=shared)
    alive = (bottom[:, None] <= LEVELS) & (LEVELS < top[:, None]) & (top[:, None] <= 255)
    index, level = np.nonzero(alive)
    return 254 - level, extents[index, :, level] * [1, 1, -1, -1] + [-2, -2, 1, 1]


def _tree(values, width, *, diagonal, outside=None):
    """Builds the tree of the connected components of `values > level`.

    Each pixel climbs over its highest neighbours to a peak; the pixels of one peak are a basin.
    Above the highest pass between two basins they are apart, and below it they are one.

    Args:
        values: uint8 `[num_pixels]`, rows one after the other.
        width: length of a row.
        diagonal: whether pixels are 8-connected (else 4-connected).
        outside: position of a pixel whose component swallows all others and is swallowed by none.

    Returns:
        (node of each pixel, bottom `[nodes]`, top `[nodes]`, merges): a node is a component of its
        own at levels bottom..top - 1; merges is a list of (node, node that it joins, bottom).
    """
    basin, peaks = _basins(values, width, diagonal)
    top = values[peaks].astype(int)
    if outside is not None:
        top[basin[outside]] = 256
    merges = _merges(*_passes(values, width, basin, len(peaks), diagonal), top.tolist())
    # Basins that never stand apart, such as parts of a plateau, are no nodes.
    bottom, parent = np.zeros(len(peaks), int), np.arange(len(peaks))
    for child, into, level in reversed(merges):
        bottom[child] = level
        if level == top[child]:
            parent[child] = parent[into]
    nodes = np.flatnonzero((parent == np.arange(len(peaks))) & (top > 0))
    number = np.zeros(len(peaks), int)
    number[nodes] = np.arange(len(nodes))
    merges = [
        (number[child], number[into], level)
        for child, into, level in merges
        if parent[child] == child
    ]
    return number[parent].take(basin), bottom[nodes], top[nodes], merges


def _basins(values, width, diagonal):
    """Returns (basin of each pixel, position of the peak of each basin)."""
    if values.size >= 2**POSITION_BITS:
        raise ValueError(f"A map must have fewer than 2**23 pixels. Received: {values.size}.")
    position = np.arange(values.size, dtype=np.int32)
    # Equal values climb to the higher position, so that no path is a circle.
    key = (values.astype(np.int32) << POSITION_BITS) | position
    row = _highest(key, 1)
    highest = _highest(row, width) if diagonal else np.maximum(row, _highest(key, width))
    parent = (highest & (2**POSITION_BITS - 1)).astype(np.intp)
    while not np.array_equal(further := parent.take(parent), parent):
        parent = further
    peaks = np.flatnonzero(parent == position)
    number = np.empty_like(position)
    number[peaks] = np.arange(len(peaks))
    return number.take(parent), peaks


def _highest(values, shift):
    """Returns the maximum of each entry, the one a shift before it and the one behind it."""
    highest = values.copy()
    np.maximum(highest[shift:], values[:-shift], out=highest[shift:])
    np.maximum(highest[:-shift], values[shift:], out=highest[:-shift])
    return highest


def _passes(values, width, basin, num_basins, diagonal):
    """Returns the highest pass above 0 between neighbouring basins: lists one, other, value."""
    found = []
    for shift in (1, width - 1, width, width + 1) if diagonal else (1, width):
        at = np.flatnonzero(basin[shift:] != basin[:-shift])
        value = np.minimum(values.take(at), values.take(at + shift))
        one, other = basin.take(at).astype(int), basin.take(at + shift)
        pair = np.minimum(one, other) * num_basins + np.maximum(one, other)
        found.append((pair << 8) | value)
    found = np.sort(np.concatenate(found))
    pair = found >> 8
    found = found[np.append(pair[1:] != pair[:-1], True)[: len(found)]]
    found = found[(found & 255) > 0]
    found = found[np.argsort(-(found & 255), kind="stable")]
    pair = found >> 8
    return (pair // num_basins).tolist(), (pair % num_basins).tolist(), (found & 255).tolist()


def _merges(one, other, value, top):
    """Joins basins over falling passes; returns a list of (basin, higher one, value of pass)."""
    parent = list(range(len(top)))

    def root(basin):
        while parent[basin] != basin:
            parent[basin] = parent[parent[basin]]
            basin = parent[basin]
        return basin

    merges = []
    for child, into, level in zip(one, other, value, strict=True):
        child, into = root(child), root(into)
        if child != into:
            if top[child] > top[into]:
                child, into = into, child
            parent[child] = into
            merges.append((child, into, level))
    return merges


def _extents(values, width, node, num_nodes, *, diagonal):
    """Returns x0, y0, -x1, -y1 of each node's own pixels above each level, [nodes, 4, 255].

    Where a neighbour further out is as high, it is in the component as well, and the pixel can be
    left out: the extents of components stay what they are.
    """
    cells = node * 256 + values
    extents = np.full((4, num_nodes * 256), 2**POSITION_BITS, np.int32)
    x, y = _coordinates(len(values) // width, width)
    for coordinate, shift, along, first, last in (
        (x, 1, width, extents[0], extents[2]),
        (y, width, 1, extents[1], extents[3]),
    ):
        neighbour = _highest(values, along) if diagonal else values
        at = np.flatnonzero(values[shift:] > neighbour[:-shift]) + shift
        np.minimum.at(first, cells.take(at), coordinate.take(at))
        at = np.flatnonzero(values[:-shift] > neighbour[shift:])
        np.minimum.at(last, cells.take(at), -coordinate.take(at))
    extents = extents.reshape(4, num_nodes, 256)[..., ::-1]
    above = np.minimum.accumulate(extents, axis=-1)[..., -2::-1]
    return np.ascontiguousarray(above.transpose(1, 0, 2))


@functools.lru_cache(maxsize=4)
def _coordinates(height, width):
    """Returns x and y of each pixel of a shape, int32 [height * width]."""
    y, x = np.indices((height, width), np.int32).reshape(2, -1)
    return x, y


def _areas(values, width, node, num_nodes):
    """Returns twice the area of each node's own pixels above each level, [nodes, 255].

    Between the centres of four pixels, three of which are above, lies half a pixel of area; a
    whole one if all four are.
    """
    corners = values[: -width - 1], values[1:-width], values[width:-1], values[width + 1 :]
    low, high = np.minimum(*corners[:2]), np.maximum(*corners[:2])
    low_below, high_below = np.minimum(*corners[2:]), np.maximum(*corners[2:])
    four = np.minimum(low, low_below)
    three = np.minimum(np.maximum(low, low_below), np.minimum(high, high_below))
    # Of two opposite corners one is above when three of the four are.
    owner = np.where(corners[0] >= corners[3], node[: -width - 1], node[width + 1 :]) * 256
    size = num_nodes * 256
    counts = np.bincount(owner + four, minlength=size) + np.bincount(owner + three, minlength=size)
    return np.cumsum(counts.reshape(num_nodes, 256)[:, ::-1], axis=1)[:, -2::-1].copy()


def _euler_numbers(values, width):
    """Returns components minus holes at each level, int [255]: faces - edges + vertices."""
    across = np.maximum(values[:-1], values[1:])
    down = np.maximum(values[:-width], values[width:])
    corners = np.maximum(across[:-width], across[width:])
    count = _histogram(values) - _histogram(across) - _histogram(down) + _histogram(corners)
    return np.cumsum(count[::-1])[-2::-1]


def _histogram(values):
    counts = cv2.calcHist([values.reshape(1, -1)], [0], None, [256], [0, 256])
    return counts.ravel().astype(int)
