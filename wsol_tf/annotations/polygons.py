"""From the mask of an object to a polygon: its outline, holes cut in, in edges of pixels."""

from collections.abc import Sequence

import cv2
import numpy as np

from wsol_tf import files


def component_in(mask: np.ndarray, box: Sequence[float] | np.ndarray, area: int) -> np.ndarray:
    """Finds the component of a mask that a box belongs to.

    Args:
        mask: bool `[height, width]`.
        box: x0, y0, x1, y1, the tight box of one of its 8-connected components.
        area: pixels of that component.

    Returns:
        bool `[y1 - y0, x1 - x0]`, the pixels of the component within its box.

    Raises:
        ValueError: no component has this box and area.
    """
    x0, y0, x1, y1 = map(int, box)
    part = np.ascontiguousarray(mask[y0:y1, x0:x1], bool)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        part.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    # Others may reach into the box, but only this one spans it.
    fits = (stats[1:] == (0, 0, x1 - x0, y1 - y0, area)).all(axis=1)
    if not fits.any():
        raise ValueError(
            f"The mask has no component with this box and {files.counted(area, 'pixel')}. "
            f"Received: {[x0, y0, x1, y1]}."
        )
    return labels == 1 + int(fits.argmax())


def rings(component: np.ndarray) -> list[np.ndarray]:
    """Traces the edges of a component's pixels.

    Args:
        component: bool `[height, width]`, one 8-connected component.

    Returns:
        int32 `[points, 2]` each, x and y of corners of pixels: first around the outside, then
        around each hole. Filled even-odd they give exactly the component.
    """
    # Drawn twice as large, a pixel has its first and its last row, and what OpenCV traces, centres
    # of pixels, becomes edges: half of (2 i) + 1 is i, half of (2 i + 1) + 1 is i + 1.
    large = np.ascontiguousarray(component, np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not len(found):
        return []
    order = np.argsort(tree[0, :, 3] >= 0, kind="stable")  # holes name the outline around them
    return [_corners((found[i].reshape(-1, 2) + 1) // 2) for i in order]


def _corners(points):
    """Leaves out the points of a ring on a straight line between their neighbours."""
    points = points[np.any(points != np.roll(points, 1, axis=0), axis=1)]
    ahead, behind = np.roll(points, -1, axis=0) - points, points - np.roll(points, 1, axis=0)
    turns = ahead[:, 0] * behind[:, 1] != ahead[:, 1] * behind[:, 0]
    back = (ahead * behind).sum(axis=1) < 0  # a line of no width, there and back
    return points[turns | back].astype(np.int32)


def simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Leaves out points of a ring that are no further than a tolerance from what remains.

    Douglas and Peucker's rule (Cartographica 10, 1973), as OpenCV has it.

    Args:
        ring: int32 `[points, 2]`.
        tolerance: in pixels; 0 keeps every corner.

    Returns:
        int32 `[points, 2]`; fewer than three where nothing of the area is left.
    """
    if tolerance <= 0:
        return ring
    return cv2.approxPolyDP(ring.reshape(-1, 1, 2), tolerance, closed=True).reshape(-1, 2)


def area(ring: np.ndarray) -> float:
    """Computes the area inside a ring `[points, 2]`, in pixels."""
    x, y = np.asarray(ring, np.float64).T if len(ring) else np.zeros((2, 0))
    return abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2


def joined(outline: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """Cuts holes into an outline, so that one ring describes both.

    From a point of the outline the ring goes to a hole, around it, and back on the same line: a cut
    of no width. Every format that has polygons can say this, and few can say more.

    Args:
        outline: `[points, 2]`.
        holes: the same, each.

    Returns:
        `[points, 2]`.
    """
    parts: list[list[np.ndarray]] = [[point[None]] for point in outline]
    for hole in holes:
        at = _nearest(outline, hole[0])
        around = np.roll(hole, -_nearest(hole, outline[at]), axis=0)
        parts[at] += [around, around[:1], outline[at][None]]
    return np.concatenate([piece for part in parts for piece in part])


def _nearest(points, point):
    """Index of the point that is nearest to another."""
    return int(((points.astype(np.float64) - point) ** 2).sum(axis=1).argmin())


def polygon(component: np.ndarray, tolerance: float) -> np.ndarray:
    """Describes a component by one ring, holes cut in.

    Holes and an outline of which the tolerance leaves no area: the former are filled, the latter is
    kept as it is.

    Args:
        component: bool `[height, width]`, one 8-connected component.
        tolerance: how far the ring may be from the edges of the pixels, see `simplified`.

    Returns:
        int32 `[points, 2]`, x and y of corners of pixels.
    """
    outline, *holes = rings(component)
    shape = simplified(outline, tolerance)
    if area(shape) == 0:
        shape = outline
    cut = [hole for hole in (simplified(hole, tolerance) for hole in holes) if area(hole) > 0]
    return joined(shape, cut)
