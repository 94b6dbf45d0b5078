"""Edge-aware refinement of a score map by its picture: numpy only, one map at a time.

A localizer's map is coarse, and bright a little beyond the object. The guided filter (He et al.,
Guided Image Filtering, ECCV 2010) replaces it in every window by the linear function of the
picture's colours that fits it best, so that it ends where the picture has an edge. Neither the
paper nor BAS refines: it is our choice, measured in docs/results.md.
"""

import functools

import numpy as np

from wsol_tf.model import score_maps

PIXELS = 4  # a position of the refined map is so many pixels of the network's input wide
RADIUS = 1 / 7  # of a window, as a share of the picture's side
EPSILON = 3e-4  # variance of colours in 0..1 below which a window counts as flat


def refine(score_map: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Refines a score map by the picture that the network saw.

    Args:
        score_map: float `[h, w]`, in any range.
        picture: uint8 `[height, width, 3]`, the network's input.

    Returns:
        float32 `[height / 4, width / 4]` in 0..1. A map that is constant or not finite has nothing
        to refine and is returned as it is.
    """
    stretched = score_maps.normalize(score_map)
    if not stretched.any():
        return np.asarray(score_map, np.float32)
    height, width = (side // PIXELS for side in picture.shape[:2])
    coarse = score_maps.resize(stretched, height, width).astype(np.float64)
    guide = picture[: height * PIXELS, : width * PIXELS] / 255
    guide = guide.reshape(height, PIXELS, width, PIXELS, 3).mean((1, 3)).transpose(2, 0, 1)
    return np.clip(guided_filter(coarse, guide), 0, 1).astype(np.float32)


def guided_filter(values: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Filters values by a guide of three colours (He et al., ECCV 2010, equations 19 to 21).

    Args:
        values: float64 `[height, width]`.
        guide: float64 `[3, height, width]` in 0..1.

    Returns:
        float64 `[height, width]`.
    """
    down, across = (window_means(side) for side in values.shape)

    def mean(planes):
        return down @ planes @ across.T

    means, mean_value = mean(guide), mean(values)
    covariance = mean(guide * values) - means * mean_value
    red, green, blue = guide
    r, g, b = means
    rr = mean(red * red) - r * r + EPSILON
    rg = mean(red * green) - r * g
    rb = mean(red * blue) - r * b
    gg = mean(green * green) - g * g + EPSILON
    gb = mean(green * blue) - g * b
    bb = mean(blue * blue) - b * b + EPSILON
    # The inverse of each window's 3 x 3 matrix of covariances, by its cofactors.
    inverse = np.array(
        [
            [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb],
            [gb * rb - rg * bb, rr * bb - rb * rb, rb * rg - rr * gb],
            [rg * gb - gg * rb, rb * rg - rr * gb, rr * gg - rg * rg],
        ]
    )
    determinant = rr * inverse[0, 0] + rg * inverse[0, 1] + rb * inverse[0, 2]
    slopes = (inverse * covariance).sum(1) / determinant
    offset = mean_value - (slopes * means).sum(0)
    return (mean(slopes) * guide).sum(0) + mean(offset)


@functools.cache
def window_means(side: int) -> np.ndarray:
    """Returns the matrix that averages over windows along a side; the border is mirrored.

    Args:
        side: number of positions; a window reaches 1/7 of it in either direction.

    Returns:
        float64 `[side, side]`, rows of sum 1.
    """
    radius = max(1, round(RADIUS * side))
    inside = np.arange(side)[:, None] + np.arange(-radius, radius + 1)
    mirrored = np.mod(inside, 2 * side)  # ... 1 0 | 0 1 2 ... | 2 1 ...
    mirrored = np.minimum(mirrored, 2 * side - 1 - mirrored)
    means = np.zeros((side, side))
    np.add.at(means, (np.arange(side)[:, None], mirrored), 1 / inside.shape[1])
    return means
