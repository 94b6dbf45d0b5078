"""Outlines of COCO's objects, checked before they are drawn, and the masks that they make."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from wsol_tf.data.example import IGNORE
from wsol_tf.data.values import kind, whole

MAX_COORDINATE = 500_000  # of a polygon, in pixels: 2,048 times as much still fits in 32 bits
TILE_WIDTH, TILE_PIXELS = 4096, 2**21  # of a picture, drawn at once at 8 x 8 times the size
MAX_COVER = 64  # of an object's polygons together, in times of the picture
LONGEST_RUN = 2**48


class CocoObject(NamedTuple):
    """An object of a picture.

    Attributes:
        label: its class id.
        box: edges x0, y0, x1, y1 in pixels, or None.
        crowd: whether it stands for many objects.
        outline: polygons, a list of float32 [points, 2]; run lengths as COCO has them; or None.
        broken: why the outline that it has can't be read.
        name: for messages.
    """

    label: int
    box: tuple[float, float, float, float] | None
    crowd: bool
    outline: list[np.ndarray] | dict | None
    broken: str = ""
    name: str = ""


# --- reading -------------------------------------------------------------------------------------


def read_outline(segmentation: Any) -> tuple[list[np.ndarray] | dict | None, str | None]:
    """Reads what stands under `segmentation`.

    Args:
        segmentation: a list of polygons, run lengths, or nothing: null, [] and [[]].

    Returns:
        The outline of a CocoObject, and what had to be repaired, or None.

    Raises:
        ValueError: it is something else, or its numbers cannot be right.
    """
    if isinstance(segmentation, dict):
        _run_size(segmentation)
        if not isinstance(segmentation.get("counts"), str):  # text is unpacked when it is drawn
            _run_counts(segmentation)
        return segmentation, None
    if segmentation is None or segmentation == []:
        return None, None
    if not isinstance(segmentation, list):
        raise ValueError(f"it is {kind(segmentation)}, neither polygons nor run lengths")
    repair = None
    if not any(isinstance(part, (list, dict)) for part in segmentation):
        segmentation, repair = [segmentation], "a flat list of numbers, taken for one polygon"
    elif len(segmentation) > 2 and all(_is_pair(part) for part in segmentation):
        segmentation, repair = [segmentation], "a list of points, taken for one polygon"
    polygons = [_polygon(part) for part in segmentation if part != []]
    areas = [points for points in polygons if len(points) >= 3]
    if polygons and not areas:
        raise ValueError("a polygon has fewer than three points")
    if len(areas) < len(polygons):
        repair = "polygons of fewer than three points, left out"
    return areas or None, repair


def _is_pair(part):
    return isinstance(part, list) and len(part) == 2 and not isinstance(part[0], (list, dict))


def _polygon(values):
    """A flat list x, y, x, y, ... or a list of points as float32 [points, 2]."""
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 2):
        raise ValueError("a polygon is no list of numbers")
    if array.size % 2:
        raise ValueError("a polygon has an odd count of numbers")
    largest = np.abs(array).max(initial=0)
    if not np.isfinite(largest):
        raise ValueError("a polygon has values that are no finite numbers")
    if largest > MAX_COORDINATE:
        raise ValueError(f"a polygon has values beyond {MAX_COORDINATE:,} pixels")
    return array.astype(np.float32).reshape(-1, 2)


def _run_size(segmentation):
    """Height and width that run lengths are for."""
    size = segmentation.get("size")
    sides = [whole(side) for side in size] if isinstance(size, list) else []
    if len(sides) != 2 or not all(side is not None and side > 0 for side in sides):
        raise ValueError("the size of the runs is not a height and a width")
    return sides[0], sides[1]


def _run_counts(segmentation):
    """Run lengths as float64, which holds all whole numbers below 2 ** 53."""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return np.array(unpack_counts(counts), np.float64)
    try:
        array = np.array(counts if isinstance(counts, list) else None, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(())
    if array.ndim != 1:
        raise ValueError("the run lengths are no list of numbers")
    with np.errstate(invalid="ignore"):
        if not (np.isfinite(array) & (array >= 0) & (array % 1 == 0)).all():
            raise ValueError("some run lengths are no whole numbers from 0")
    return array


def unpack_counts(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    A character holds 5 bits, the least significant first. From the fourth count on, what is stored
    is the difference from the count two places before.

    Raises:
        ValueError: the text has other characters, ends within a count, or means impossible ones.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError("the compressed run lengths have other characters than COCO's")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
            if counts[-1] < 0:
                raise ValueError("some compressed run lengths are negative")
        if shift > 50 or (counts and counts[-1] > LONGEST_RUN):
            raise ValueError("some compressed run lengths are longer than any picture")
    if shift:
        raise ValueError("the compressed run lengths end within a number")
    return counts


# --- drawing -------------------------------------------------------------------------------------


def draw_mask(
    objects: Sequence[CocoObject],
    size: tuple[int, int],
    unusable: Callable[[CocoObject, str], None],
) -> np.ndarray | None:
    """Paints the outlines of a picture's objects: smaller ones over larger ones, crowds ignored.

    Where an outline can't be used, the object's box is ignored as far as no other object lies in
    it: as background, its pixels would count against a mask that finds the object.

    Args:
        objects: those with an outline, readable or broken.
        size: height and width in pixels.
        unusable: is told which outlines can't be drawn, and why.

    Returns:
        uint8 [height, width], 0 background, 1 + class id, 255 ignored. None if no outline can be
        used, or one of an object without a box can't.
    """
    mask = np.zeros(size, np.uint8)
    rank = np.full(size, 2**30, np.int32)  # of what was painted: its area, more if it is ignored
    drawn = lost = 0
    for known in objects:
        inside = _covered(known, size, unusable)
        if inside is not None:
            drawn += 1
            ignored = known.crowd or known.label + 1 >= IGNORE
            own = int(np.count_nonzero(inside)) + (2**29 if ignored else 0)
        elif known.box is None:
            return None
        else:
            lost += 1
            inside, ignored, own = _box_pixels(known.box, size), True, 2**30
        window = _window(inside)
        paint = inside[window] & (own <= rank[window])
        rank[window][paint] = own
        mask[window][paint] = IGNORE if ignored else known.label + 1
    if not drawn or (lost and not (mask[mask != 0] != IGNORE).any()):
        return None
    return mask


def _covered(known, size, unusable):
    """The pixels of an object's outline, or None where it can't be used."""
    if known.broken or not known.outline:
        return None
    try:
        if isinstance(known.outline, dict):
            inside = decode_runs(known.outline, size)
        else:
            inside = fill_polygons(known.outline, size)
        if not inside.any():
            raise ValueError("the outline covers no pixel of the picture")
        return inside
    except ValueError as error:
        unusable(known, str(error))
        return None


def _box_pixels(box, size):
    inside = np.zeros(size, bool)
    x0, y0, x1, y1 = np.clip(box, 0, (size[1], size[0]) * 2)
    inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return inside


def _window(inside):
    """Slices around all pixels that are set; empty ones if none is."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels that some polygon covers by half or more.

    Polygons are drawn 8 times as large and reduced, because OpenCV fills every pixel that an edge
    touches; what would take much memory in tiles, where edges may be an eighth of a pixel off.

    Args:
        polygons: float32 [points, 2] each, x and y in pixels.
        size: height and width.

    Returns:
        bool [height, width].

    Raises:
        ValueError: there are so many large polygons that drawing them would take hours.
    """
    inside = np.zeros(size, bool)
    left = MAX_COVER * inside.size
    for points in polygons:
        low = np.clip(np.floor(points.min(axis=0)), 0, size[::-1]).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)), 0, size[::-1]).astype(int)
        left -= np.prod(high - low)
        if left < 0:
            raise ValueError(f"the polygons together are over {MAX_COVER} times the picture")
        fixed = np.rint(((points - low) * 8 - 0.5) * 256).astype(np.int32)
        width = max(min(high[0] - low[0], TILE_WIDTH), 1)
        height = TILE_PIXELS // width
        for y in range(low[1], high[1], height):
            for x in range(low[0], high[0], width):
                tile = inside[y : min(y + height, high[1]), x : min(x + width, high[0])]
                tile |= _fill_tile(
                    fixed - np.array([x - low[0], y - low[1]], np.int32) * 2048, tile.shape
                )
    return inside


def _fill_tile(fixed, shape):
    """The pixels of a tile that a polygon covers by half or more; 2,048 units are a pixel."""
    large = np.zeros((8 * shape[0], 8 * shape[1]), np.uint8)
    cv2.fillPoly(large, [fixed], 255, cv2.LINE_8, 8)
    return cv2.resize(large, shape[::-1], interpolation=cv2.INTER_AREA) >= 128


def decode_runs(segmentation: dict, size: tuple[int, int]) -> np.ndarray:
    """Decodes COCO's run lengths, which go down the columns and start with background.

    Args:
        segmentation: `counts`, a list or a compressed string, and `size`, height and width.
        size: height and width of the picture.

    Returns:
        bool [height, width].

    Raises:
        ValueError: the runs do not cover the picture.
    """
    height, width = _run_size(segmentation)
    counts = _run_counts(segmentation)
    covered = int(counts.sum())
    if (height, width) != tuple(size) or covered != height * width:  # before they are expanded
        raise ValueError(
            f"the runs are for {width} x {height} pixels and cover {covered}, the picture has "
            f"{size[1]} x {size[0]}"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts.astype(np.int64)).reshape(width, height).T
