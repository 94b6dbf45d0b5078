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
from numpy.typing import ArrayLike

LEVELS = np.arange(255)  # At level 255 every mask is empty.
FEW = 40  # Tracing so many levels of a smooth map takes about as long as building its tree.


class Components(NamedTuple):
    """The 8-connected components of `image > level` at all levels 0..254.

    Attributes:
        level: int `[num]`, the level of each.
        boxes: int `[num, 4]`.
        areas: int `[num]` of the kind that was asked for, see `components`; else empty.
        num_holes: int `[255]`, holes at each level.
    """

    level: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    num_holes: np.ndarray


def traced(image: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Traces the contours of `image > level`: the plain way, one level at a time.

    Args:
        image: uint8 `[height, width]`.
        level: int in 0..255.

    Returns:
        (boxes int `[num_contours, 4]`, areas float `[num_contours]`), in OpenCV's order.
    """
    mask = cv2.threshold(image, int(level), 255, cv2.THRESH_BINARY)[1]
    contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], int).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array([cv2.contourArea(contour) for contour in contours])


def all_boxes(
    image: np.ndarray, found: Components, levels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the boxes of all contours at each level, those around holes included.

    Args:
        image: uint8 `[height, width]`.
        found: its `components`.
        levels: ints in 0..254.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`); levels with an empty mask have none.
    """
    wanted = _flags(levels)
    with_holes = wanted & (found.num_holes > 0)
    if np.count_nonzero(with_holes) > FEW:
        hole_level, hole_boxes = holes(image)
        kept, kept_holes = wanted[found.level], wanted[hole_level]
        level = [found.level[kept], hole_level[kept_holes]]
        boxes = [found.boxes[kept], hole_boxes[kept_holes]]
    else:
        kept = (wanted & ~with_holes)[found.level]
        level, boxes = [found.level[kept]], [found.boxes[kept]]
        for each in np.flatnonzero(with_holes).tolist():
            boxes.append(traced(image, each)[0])
            level.append(np.full(len(boxes[-1]), each))
    return np.concatenate(level), np.concatenate(boxes)


def largest_boxes(
    image: np.ndarray, found: Components, levels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the box of the contour with the largest area at each level, the first of equals.

    Args:
        image: uint8 `[height, width]`.
        found: its `components`, with their areas between the centres of pixels.
        levels: ints in 0..254.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`); levels with an empty mask have none.
    """
    kept = _flags(levels)[found.level]
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


def _flags(levels):
    """Whether each level is among the given ones, bool [255]."""
    flags = np.zeros(256, bool)
    flags[levels] = True
    return flags[:255]


def components(image: np.ndarray, *, areas: str | None = None) -> Components:
    """Finds the components of `image > level` at all levels.

    Args:
        image: uint8 `[height, width]`.
        areas: None, "contour" (twice the area without holes, between the centres of pixels as
            OpenCV counts it) or "pixels" (their number).

    Returns:
        Components, with areas if asked for.
    """
    if not image.any():
        none = np.zeros(0, int)
        return Components(none, np.zeros((0, 4), int), none, np.zeros(len(LEVELS), int))
    # A frame of zeros keeps the ends of rows apart, so that rows can be shifted as one line.
    framed = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    values, width = framed.ravel(), framed.shape[1]
    pixel_cell, extents, bottom, top, merges = _tree(values, width, diagonal=True)
    area = None
    if areas == "contour":
        area = _areas(values, width, pixel_cell, len(top))
    elif areas:
        area = _above(np.bincount(pixel_cell + values, minlength=256 * len(top)), len(top))
    for child, into, level in merges:
        shared = extents[into, :, :level]
        np.minimum(shared, extents[child, :, :level], out=shared)
        if area is not None:
            area[into, :level] += area[child, :level]
    alive = (bottom[:, None] <= LEVELS) & (top[:, None] > LEVELS)
    index, level = np.nonzero(alive)
    return Components(
        level,
        extents[index, :, level] * [1, 1, -1, -1] + [-1, -1, 0, 0],
        np.zeros(0, int) if area is None else area[index, level],
        alive.sum(0) - _euler_numbers(values, width),
    )


def holes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the boxes of the contours around the holes of `image > level` at all levels.

    A hole is a 4-connected component of the rest that does not reach the border; its contour runs
    through the pixels around it.

    Args:
        image: uint8 `[height, width]`.

    Returns:
        (level int `[num_boxes]`, boxes int `[num_boxes, 4]`), in no order.
    """
    if not image.any():
        return np.zeros(0, int), np.zeros((0, 4), int)
    # All that is outside is one component, of which the frame is the highest part.
    framed = 255 - cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    values, width = framed.ravel(), framed.shape[1]
    _, extents, bottom, top, merges = _tree(values, width, diagonal=False, outside=True)
    for child, into, level in merges:
        shared = extents[into, :, :level]
        np.minimum(shared, extents[child, :, :level], out=shared)
    alive = (bottom[:, None] <= LEVELS) & (top[:, None] > LEVELS) & (top[:, None] <= 255)
    index, level = np.nonzero(alive)
    return 254 - level, extents[index, :, level] * [1, 1, -1, -1] + [-2, -2, 1, 1]


def _tree(values, width, *, diagonal, outside=False):
    """Builds the tree of the connected components of `values > level`.

    The line of pixels is cut in its valleys. A piece rises to one peak and falls, so what of it is
    above a level is connected; pieces are joined at the highest passes between them.

    Args:
        values: uint8 `[num_pixels]`, rows one after the other, with a frame.
        width: length of a row.
        diagonal: whether pixels are 8-connected (else 4-connected).
        outside: whether the frame's component swallows all others and is swallowed by none.

    Returns:
        (pixel_cell, extents, bottom, top, merges): 256 times the node of each pixel; x0, y0, -x1,
        -y1 of each node's own pixels above each level, int `[nodes, 4, 255]`; the levels bottom..
        top - 1 at which it is a component, int `[nodes]` each; and a list of (node, node that it
        joins, bottom), in which a node joins another only after all others have joined it.
    """
    steps = 1 + np.flatnonzero(values[1:] != values[:-1])
    rises = values.take(steps) > values.take(steps - 1)
    cuts = np.append(steps[0], steps[1:][rises[1:] & ~rises[:-1]])
    lengths = np.diff(cuts, append=len(values))
    lengths[0] += cuts[0]
    height = np.maximum.reduceat(values, cuts)
    # Numbered from the lowest peak to the highest.
    order = np.argsort(height, kind="stable")
    if outside:
        order = np.append(order[order > 0], 0)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    top = height[order].astype(int)
    if outside:
        top[-1] = 256
    one, other, value = _passes(values, width, cuts, lengths, diagonal)
    into, bottom = _merges(number[one], number[other], value, len(top))
    # Pieces that never stand apart are no nodes.
    apart = bottom < top
    owner = _roots(np.where(apart, np.arange(len(top)), into))
    node = np.maximum(np.cumsum(apart) - 1, 0)
    joining = np.flatnonzero(apart & (into != np.arange(len(top))))
    merges = np.stack([node[joining], node[owner[into[joining]]], bottom[joining]], 1).tolist()
    cell = 256 * node[owner][number]
    pixel_cell = np.repeat(cell, lengths)

    x0, y0, x1, y1 = extents = np.full((4, 256 * np.count_nonzero(apart)), 2**30, np.int32)
    # A piece lies in one row; what of it is in others is frame.
    y = (cuts // width).astype(np.int32)
    np.minimum.at(y0, cell + height, y)
    np.minimum.at(y1, cell + height, -y)
    # Where a neighbour further out is as high, it is in the component as well, and the pixel can
    # be left out: the extents of components stay what they are.
    neighbour = _highest(values, width) if diagonal else values
    x = _columns(len(values), width)
    at = 1 + np.flatnonzero(values[1:] > neighbour[:-1])
    np.minimum.at(x0, pixel_cell.take(at) + values.take(at), x.take(at))
    at = np.flatnonzero(values[:-1] > neighbour[1:])
    np.minimum.at(x1, pixel_cell.take(at) + values.take(at), -x.take(at))
    extents = extents.reshape(4, -1, 256)[..., ::-1]
    extents = np.minimum.accumulate(extents, axis=-1)[..., -2::-1].transpose(1, 0, 2)
    return pixel_cell, np.ascontiguousarray(extents), bottom[apart], top[apart], merges


@functools.lru_cache(maxsize=4)
def _columns(num_pixels, width):
    """Returns the column of each pixel in a line of rows, int32 [num_pixels]."""
    return np.arange(num_pixels, dtype=np.int32) % width


def _highest(values, shift):
    """Returns the maximum of each entry, the one a shift before it and the one behind it."""
    highest = values.copy()
    np.maximum(highest[shift:], values[:-shift], out=highest[shift:])
    np.maximum(highest[:-shift], values[shift:], out=highest[:-shift])
    return highest


def _roots(parent):
    """Follows each entry to the end of its path."""
    while ((further := parent.take(parent)) != parent).any():
        parent = further
    return parent


def _passes(values, width, cuts, lengths, diagonal):
    """Returns the passes above 0 between neighbouring pieces: int arrays (one, other, value)."""
    piece = np.repeat(np.arange(len(cuts)), lengths)
    one, other = [np.arange(len(cuts) - 1)], [np.arange(1, len(cuts))]
    value = [values[cuts[1:] - 1]]
    for shift in (width - 1, width, width + 1) if diagonal else (width,):
        # Where one of two pieces in neighbouring rows ends, two others meet.
        starts = np.sort(np.concatenate([[0], cuts, np.maximum(cuts - shift, 0)]))
        starts = starts[starts < len(values) - shift]
        one.append(piece[starts])
        other.append(piece[starts + shift])
        between = np.minimum(values[:-shift], values[shift:])
        value.append(np.maximum.reduceat(between, starts))
    one, other, value = np.concatenate(one), np.concatenate(other), np.concatenate(value)
    kept = (value > 0) & (one != other)
    return one[kept], other[kept], value[kept].astype(int)


def _merges(one, other, value, num_pieces):
    """Joins pieces over falling passes.

    A piece whose highest pass leads to one with a higher peak joins it there; what is joined is one
    piece from then on. (These are the steps of Boruvka's minimum spanning tree.)

    Args:
        one: int `[num_passes]`, a piece at each pass.
        other: int `[num_passes]`, the other piece.
        value: int `[num_passes]`, the values of the passes.
        num_pieces: their number; pieces are numbered from the lowest peak to the highest.

    Returns:
        (into, bottom): the piece that each one joins, or itself, and the value of the pass.
    """
    into, bottom = np.arange(num_pieces), np.zeros(num_pieces, int)
    while len(value):
        # Of equal passes, the one to the higher peak.
        best = np.full(num_pieces, -1)
        np.maximum.at(best, one, value * num_pieces + other)
        np.maximum.at(best, other, value * num_pieces + one)
        neighbour = best % num_pieces
        joining = np.flatnonzero((best >= 0) & (neighbour > np.arange(num_pieces)))
        into[joining], bottom[joining] = neighbour[joining], best[joining] // num_pieces
        root = _roots(into)
        one, other = root[one], root[other]
        left = one != other
        one, other, value = one[left], other[left], value[left]
    return into, bottom


def _areas(values, width, pixel_cell, num_nodes):
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
    owner = np.where(corners[0] >= corners[3], pixel_cell[: -width - 1], pixel_cell[width + 1 :])
    size = num_nodes * 256
    counts = np.bincount(owner + four, minlength=size) + np.bincount(owner + three, minlength=size)
    return _above(counts, num_nodes)


def _above(counts, num_nodes):
    """Sums what each node has in cells above each level: int [nodes * 256] -> [nodes, 255]."""
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
