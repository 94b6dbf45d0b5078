"""Where a localizer's positions really are: by how much its maps lie beside the objects.

Pretrained kernels keep their habits when strides are taken out of a network: each position then
describes a spot half a position away, and masks lie beside their objects. How far depends on the
weights, so it is measured for each model, from pictures alone: the map of a mirrored picture is
the mirrored map, but for twice the offset. Neither the paper nor BAS does this: it is our choice.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from wsol_tf.model.score_maps import resize

PLACES = 4  # positions of a placed map to each of the map itself
LEAST_IMAGES = 8  # with fewer maps nothing is measured
LARGEST_ERROR = 0.15  # positions; a less certain offset is taken for none


def measure(
    predict: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Measures by how much maps lie beside what they show.

    Each picture is mirrored left to right, and upside down. Where the positions of the map are
    where they seem to be, its bright part is mirrored with it; otherwise it is moved by twice the
    offset.

    Args:
        predict: function of pictures uint8 `[batch, height, width, 3]` that returns their maps,
            float `[batch, h, w]`.
        images: pictures uint8 `[height, width, 3]` of one size; some dozens are enough.

    Returns:
        (down, right), in positions of the map; the median over the pictures. 0 where the pictures
        don't agree, or fewer than 8 have a map with a bright part.
    """
    if len(images) < LEAST_IMAGES:
        return 0.0, 0.0
    pictures = np.stack(images)

    def centres(seen):
        maps = [np.asarray(predict(seen[i : i + 32])) for i in range(0, len(seen), 32)]
        maps = np.concatenate(maps).astype(np.float64)
        return _centres(maps), np.array(maps.shape[1:]) - 1

    straight, last = centres(pictures)
    down = straight[:, 0] - (last[0] - centres(pictures[:, ::-1])[0][:, 0])
    right = straight[:, 1] - (last[1] - centres(pictures[:, :, ::-1])[0][:, 1])
    return _offset(down), _offset(right)


def _centres(maps):
    """Centre (row, column) of the upper half of each map's range; NaN for a constant map."""
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    bright = maps > (low + high) / 2
    count = bright.sum((1, 2))
    centres = np.full((len(maps), 2), np.nan)
    for axis, others in ((0, 2), (1, 1)):
        places = np.arange(maps.shape[1 + axis])
        np.divide(
            (bright.sum(others) * places).sum(1), count, out=centres[:, axis], where=count > 0
        )
    return centres


def _offset(moved):
    """Half of the median of what maps have moved; 0 where that is uncertain."""
    moved = moved[np.isfinite(moved)]
    if len(moved) < LEAST_IMAGES:
        return 0.0
    low, median, high = np.quantile(moved / 2, (0.25, 0.5, 0.75))
    # Of a median; the distance of the quartiles is 1.35 standard deviations.
    error = 1.25 * (high - low) / 1.35 / math.sqrt(len(moved))
    return round(float(median), 3) if error <= LARGEST_ERROR else 0.0


def placed(score_map: np.ndarray, offset: tuple[float, float]) -> np.ndarray:
    """Puts a map where what it shows is: four times as large, and moved back by its offset.

    Moving by whole positions of the larger map blurs nothing; the border is repeated.

    Args:
        score_map: float `[h, w]`.
        offset: (down, right) by which it lies beside the objects, in its own positions.

    Returns:
        float32 `[4 h, 4 w]`; the map itself without an offset.
    """
    if not any(whole_moves(offset)):
        return score_map
    height, width = (PLACES * side for side in score_map.shape)
    rows, columns = read_positions(offset, height, width)
    return resize(score_map, height, width)[rows][:, columns]


def whole_moves(offset: tuple[float, float]) -> tuple[int, int]:
    """Returns an offset (down, right) in whole positions of the map of `placed`."""
    return round(PLACES * offset[0]), round(PLACES * offset[1])


def read_positions(
    offset: tuple[float, float], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which row of a larger map each row of a placed map is, and which column each column.

    Args:
        offset: (down, right), in positions of the map itself.
        height: of the larger map.
        width: of the larger map.
    """
    down, right = whole_moves(offset)
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    return rows, np.clip(np.arange(width) + right, 0, width - 1)
