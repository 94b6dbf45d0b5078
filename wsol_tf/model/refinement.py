"""Edge-aware refinement of a score map by its picture.

A localizer's map is coarse, and bright a little beyond the object. The guided filter (He et al.,
Guided Image Filtering, ECCV 2010) replaces it in every window by the linear function of the
picture's colours that fits it best, so that it ends where the picture has an edge. Neither the
paper nor BAS refines: it is our choice, measured in docs/results.md.
"""

import functools
from typing import Any

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
    whole = picture[: height * PIXELS, : width * PIXELS].astype(np.uint16)
    rows = functools.reduce(np.add, [whole[i::PIXELS] for i in range(PIXELS)])
    sums = functools.reduce(np.add, [rows[:, i::PIXELS] for i in range(PIXELS)])
    guide = sums / (PIXELS**2 * 255)
    down, across = window_means(height), window_means(width).T
    return np.clip(guided_filter(coarse, guide, down, across), 0, 1).astype(np.float32)


def refine_batch(maps: Any, images: Any) -> Any:
    """Refines maps as `refine` does, in the training step, and returns them at their own size.

    Args:
        maps: `[batch, h, w]`; each is stretched to 0..1.
        images: `[batch, height, width, 3]` in 0..255.

    Returns:
        float32 `[batch, h, w]` in 0..1.
    """
    from keras import ops  # `refine` needs no TensorFlow

    maps = ops.cast(maps, "float32")
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (ops.min, ops.max))
    stretched = (maps - low) / (high - low + 1e-6)
    guide = ops.average_pool(ops.cast(images, "float32") / 255, PIXELS, strides=PIXELS)
    height, width = guide.shape[1:3]
    coarse = ops.image.resize(stretched[..., None], (height, width), interpolation="bilinear")
    means = (window_means(height), window_means(width).T)
    down, across = (ops.convert_to_tensor(matrix, "float32") for matrix in means)
    refined = ops.clip(guided_filter(coarse[..., 0], guide, down, across), 0.0, 1.0)
    rows, columns = maps.shape[1:3]
    if height % rows or width % columns:  # features of a network of one's own
        size = (rows, columns)
        return ops.image.resize(refined[..., None], size, interpolation="bilinear")[..., 0]
    factors = (height // rows, width // columns)
    return ops.average_pool(refined[..., None], factors, strides=factors)[..., 0]


def guided_filter(values: Any, guide: Any, down: Any, across: Any) -> Any:
    """Filters values by a guide of three colours (He et al., ECCV 2010, equations 19 to 21).

    It is made of arithmetic alone, so that arrays of numpy and tensors go through it alike.

    Args:
        values: `[..., height, width]`.
        guide: `[..., height, width, 3]` in 0..1.
        down: `[height, height]`, averages over windows along the columns, see `window_means`.
        across: `[width, width]`, the same along the rows, transposed.

    Returns:
        As `values`.
    """

    def mean(plane):
        return down @ plane @ across

    red, green, blue = (guide[..., channel] for channel in range(3))
    r, g, b, v = (mean(plane) for plane in (red, green, blue, values))
    rv, gv, bv = (
        mean(red * values) - r * v,
        mean(green * values) - g * v,
        mean(blue * values) - b * v,
    )
    rr = mean(red * red) - r * r + EPSILON
    rg = mean(red * green) - r * g
    rb = mean(red * blue) - r * b
    gg = mean(green * green) - g * g + EPSILON
    gb = mean(green * blue) - g * b
    bb = mean(blue * blue) - b * b + EPSILON
    # The inverse of each window's symmetric 3 x 3 matrix of covariances, by its cofactors.
    i_rr, i_rg, i_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    i_gg, i_gb, i_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * i_rr + rg * i_rg + rb * i_rb
    slope_r = (i_rr * rv + i_rg * gv + i_rb * bv) / determinant
    slope_g = (i_rg * rv + i_gg * gv + i_gb * bv) / determinant
    slope_b = (i_rb * rv + i_gb * gv + i_bb * bv) / determinant
    offset = v - slope_r * r - slope_g * g - slope_b * b
    return mean(slope_r) * red + mean(slope_g) * green + mean(slope_b) * blue + mean(offset)


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
