"""Textures that pretraining pictures are drawn with: 48 families, none of them a class of `shapes`.

A texture is a square tile of values with mean 0 and variance 1, made from a formula and a random
generator: noise of one period, sums and products of waves, motifs on a lattice, Voronoi cells,
tilings, contour lines. Formula-driven pictures as a source of features: Kataoka et al.,
arXiv 2101.08515; the formulas here are our own.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np

SIDE = 320  # pixels of a tile: enough for a picture of 160 that is turned and shrunk
TILES = 3  # tiles of each family
MOST = 2.5  # values of a tile lie in -MOST..MOST


@functools.cache
def tile(family: int, number: int) -> np.ndarray:
    """Returns a tile of a family; the same arguments give the same tile.

    Args:
        family: position in `FAMILIES`.
        number: 0 to TILES - 1; another number gives another tile of the family.

    Returns:
        float32 [SIDE, SIDE] in -MOST..MOST.
    """
    values = FAMILIES[family](np.random.default_rng([family, number]))
    values = (values - values.mean()) / values.std()
    return np.clip(values, -MOST, MOST).astype(np.float32)


def _grid():
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return x, y


def _noise(rng, period, width, focus, form):
    """Noise of about one period; `focus` above 0 lines it up along one direction."""
    frequency_x, frequency_y = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))
    radius = np.hypot(frequency_x, frequency_y) + 1e-9
    ring = np.exp(-0.5 * (np.log(radius * period) / width) ** 2)
    direction = np.exp(focus * (np.cos(2 * np.arctan2(frequency_y, frequency_x)) - 1))
    white = np.fft.fft2(rng.standard_normal((SIDE, SIDE)))
    values = np.fft.ifft2(white * ring * direction).real
    values /= values.std()
    match form:
        case "soft":
            return np.tanh(1.5 * values)
        case "ridges":
            return -np.abs(values)
        case "sparse":
            return np.where(values > 1.1, 1.0, 0.0)
        case "steps":
            return np.sign(np.sin(2.2 * values))


def _waves(rng, degrees, periods, form):
    x, y = _grid()
    waves = []
    for angle, period in zip(np.radians(degrees), periods, strict=True):
        along = (x * np.cos(angle) + y * np.sin(angle)) / period
        waves.append(np.sin(2 * np.pi * along + rng.uniform(0, 2 * np.pi)))
    match form:
        case "sum":
            return np.tanh(1.6 * np.sum(waves, axis=0))
        case "most":
            return np.tanh(1.6 * np.max(waves, axis=0))
        case "product":
            return np.tanh(2.5 * np.prod(waves, axis=0))
        case "gated":
            return np.tanh(1.6 * waves[0] * (waves[1] > 0))


def _motifs(rng, polygons, lattice, jitter):
    """A motif at every point of a lattice; where the points are jittered, turned at random."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    steps = np.array(lattice, float)
    reach = int(2 * SIDE / np.hypot(*steps.T).min())
    numbers = np.stack(np.meshgrid(*[np.arange(-reach, reach)] * 2), axis=-1).reshape(-1, 2)
    centers = numbers @ steps + SIDE / 2
    centers = centers[(np.abs(centers - SIDE / 2) < SIDE / 2 + 12).all(axis=1)]
    for center in centers + rng.normal(0, 1, centers.shape) * jitter:
        angle = rng.uniform(0, 2 * np.pi) if jitter else 0.0
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for polygon in polygons:
            points = np.rint((polygon @ axes + center) * 16).astype(np.int32)  # 4 bits below it
            cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32)


def _cells(rng, period, form):
    """Voronoi cells around one random point in each square of a grid."""
    x, y = (values / period for values in _grid())
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    count = int(SIDE / period) + 5
    points = rng.uniform(size=(count, count, 2))
    shades = rng.uniform(-1, 1, (count, count))
    nearest = np.full((SIDE, SIDE), np.inf)
    second, shade = nearest.copy(), np.zeros((SIDE, SIDE))
    for down in range(-2, 3):
        for right in range(-2, 3):
            i, j = (row + down) % count, (column + right) % count
            distance = np.hypot(
                column + right + points[i, j, 0] - x, row + down + points[i, j, 1] - y
            )
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            shade = np.where(closer, shades[i, j], shade)
            nearest = np.minimum(nearest, distance)
    match form:
        case "edges":
            return -np.minimum(second - nearest, 0.3)
        case "cones":
            return -nearest
        case "shades":
            return shade


def _tiling(rng, period, form):
    x, y = (values / period for values in _grid())
    column, row, u, v = np.floor(x), np.floor(y), x % 1, y % 1
    flipped = rng.integers(0, 2, (SIDE, SIDE))[row.astype(int), column.astype(int)]
    match form:
        case "bricks":
            return ((v > 0.18) & ((0.5 * (x + row % 2)) % 1 > 0.1)).astype(float)
        case "zigzag":
            return np.tanh(3 * np.sin(2 * np.pi * (y + 1.8 * np.abs(x / 2 % 1 - 0.5))))
        case "triangles":
            return (u + v < 1).astype(float)
        case "basket":
            across = (x // 2 + y // 2) % 2 > 0
            return np.tanh(2 * np.sin(2 * np.pi * np.where(across, x, y)))
        case "scales":
            return np.cos(2.4 * np.pi * np.hypot((x + 0.5 * (row % 2)) % 1 - 0.5, v))
        case "arcs":  # Truchet's tiles
            u = np.where(flipped, 1 - u, u)
            from_arc = np.minimum(
                np.abs(np.hypot(u, v) - 0.5), np.abs(np.hypot(1 - u, 1 - v) - 0.5)
            )
            return (from_arc < 0.16).astype(float)
        case "maze":
            u = np.where(flipped, 1 - u, u)
            return (np.abs(u - v) < 0.22).astype(float)
        case "squares":
            return flipped.astype(float)


def _contours(rng, cells, lines):
    """Contour lines of smooth noise with this many cells along a side."""
    height = np.zeros((SIDE, SIDE), np.float32)
    for finer in (1, 2, 4):
        noise = rng.standard_normal((finer * cells, finer * cells)).astype(np.float32)
        height += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / finer
    return np.tanh(2 * np.sin(lines * height / height.std()))


_TRIANGLE = [(-4, -3), (4, -3), (0, 4)]
_SQUARE = [(-3, -3), (3, -3), (3, 3), (-3, 3)]
_BAR = [(-5, -1.2), (5, -1.2), (5, 1.2), (-5, 1.2)]
_POST = [(-1.2, -4), (1.2, -4), (1.2, 4), (-1.2, 4)]
_BOW = [(-4, -3), (4, 3), (4, -3), (-4, 3)]
_HOOK = [(-3, -4), (-0.6, -4), (-0.6, 2), (4, 2), (4, 4), (-3, 4)]
_CHEVRON = [(-4, -3), (-2, -3), (0, 1.5), (2, -3), (4, -3), (1, 4), (-1, 4)]
_TEE = [(-4, -4), (4, -4), (4, -2), (1.2, -2), (1.2, 4), (-1.2, 4), (-1.2, -2), (-4, -2)]

# (function, its arguments after the generator), periods and lengths in pixels
_FORMULAS: tuple[tuple[Callable, tuple], ...] = (
    (_noise, (5, 0.3, 0, "soft")),
    (_noise, (9, 0.25, 0, "soft")),
    (_noise, (16, 0.25, 0, "soft")),
    (_noise, (9, 0.2, 2, "soft")),
    (_noise, (6, 0.25, 6, "soft")),
    (_noise, (12, 0.25, 6, "soft")),
    (_noise, (14, 0.25, 0, "ridges")),
    (_noise, (20, 0.3, 2, "ridges")),
    (_noise, (6, 0.3, 0, "sparse")),
    (_noise, (12, 0.3, 0, "sparse")),
    (_noise, (10, 0.3, 5, "sparse")),
    (_noise, (24, 0.3, 0, "steps")),
    (_waves, ((0, 60, 120), (9, 9, 9), "sum")),
    (_waves, ((0, 60, 120), (9, 9, 9), "most")),
    (_waves, ((0, 45), (8, 8), "sum")),
    (_waves, ((0, 30), (9, 9), "product")),
    (_waves, ((0, 36, 72, 108, 144), (9, 9, 9, 9, 9), "sum")),
    (_waves, ((0, 90), (6, 18), "gated")),
    (_waves, ((0, 90), (8, 14), "most")),
    (_waves, ((0, 20), (10, 7), "sum")),
    (_motifs, ([_TRIANGLE], ((12, 0), (6, 10.4)), 0)),
    (_motifs, ([_BAR, _POST], ((12, 0), (4, 11)), 0)),
    (_motifs, ([_BAR], ((14, 0), (7, 7)), 0)),
    (_motifs, ([_HOOK], ((12, 2), (-2, 12)), 0)),
    (_motifs, ([_CHEVRON], ((11, 0), (0, 11)), 0)),
    (_motifs, ([_BOW], ((12, 0), (6, 9)), 0)),
    (_motifs, ([_TEE], ((12, 0), (6, 11)), 0)),
    (_motifs, ([_SQUARE], ((10, 0), (5, 9)), 1.5)),
    (_motifs, ([_TRIANGLE], ((11, 0), (5, 10)), 2.5)),
    (_motifs, ([_BAR], ((11, 0), (5, 9)), 2.5)),
    (_motifs, ([_BAR, _POST], ((13, 0), (6, 12)), 2.5)),
    (_motifs, ([_BOW], ((13, 0), (6, 12)), 2.5)),
    (_motifs, ([_HOOK], ((13, 0), (6, 12)), 2.5)),
    (_motifs, ([_TRIANGLE], ((20, 0), (10, 17)), 5)),
    (_cells, (9, "edges")),
    (_cells, (15, "edges")),
    (_cells, (10, "cones")),
    (_cells, (9, "shades")),
    (_tiling, (9, "bricks")),
    (_tiling, (9, "zigzag")),
    (_tiling, (10, "triangles")),
    (_tiling, (8, "basket")),
    (_tiling, (11, "scales")),
    (_tiling, (11, "arcs")),
    (_tiling, (9, "maze")),
    (_tiling, (6, "squares")),
    (_contours, (6, 5)),
    (_contours, (14, 2.5)),
)
FAMILIES = tuple(
    lambda rng, formula=formula, arguments=arguments: formula(rng, *arguments)
    for formula, arguments in _FORMULAS
)
