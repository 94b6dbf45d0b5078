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
# Half of a position of 32 pixels, the largest that a backbone has with all its strides: what lies
# further beside the objects lies there for another reason, such as that the bright part of a map
# is always at the bottom, whatever the picture shows.
MOST_PIXELS = 16
LEAST_PIXELS = 0.5  # of the picture; nearer than this in both directions, a map stays as it is


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
        don't agree, or fewer than 8 have a map with a bright part, and 0 in both where neither is
        half a pixel of the picture, or one is more than 16.
    """
    if len(images) < LEAST_IMAGES:
        return 0.0, 0.0
    pictures = np.stack(images)

    def centres(seen):
        maps = [np.asarray(predict(seen[i : i + 32])) for i in range(0, len(seen), 32)]
        height, width = (PLACES * side for side in maps[0].shape[1:])
        # Enlarged: of few positions, each bright or not, the centre moves in steps.
        maps = np.stack([resize(one, height, width) for part in maps for one in part])
        return _centres(maps.astype(np.float64)), np.array(maps.shape[1:])

    straight, sides = centres(pictures)
    down = straight[:, 0] - (sides[0] - 1 - centres(pictures[:, ::-1])[0][:, 0])
    right = straight[:, 1] - (sides[1] - 1 - centres(pictures[:, :, ::-1])[0][:, 1])
    offset = _offset(down / PLACES), _offset(right / PLACES)
    pixels = (np.abs(offset) * PLACES * np.array(pictures.shape[1:3]) / sides).max()
    return offset if LEAST_PIXELS <= pixels <= MOST_PIXELS else (0.0, 0.0)


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

    Between the positions of the larger map values are interpolated, which blurs by less than a
    quarter of the map's own positions; the border is repeated.

    Args:
        score_map: float `[h, w]`.
        offset: (down, right) by which it lies beside the objects, in its own positions.

    Returns:
        float32 `[4 h, 4 w]`; the map itself without an offset.
    """
    if not any(offset):
        return score_map
    height, width = (PLACES * side for side in score_map.shape)
    moved = resize(score_map, height, width)
    for axis, distance in enumerate(offset):
        before, after, share = read_positions(distance, moved.shape[axis])
        first = moved.take(before, axis)
        moved = first + share * (moved.take(after, axis) - first)
    return moved


def read_positions(distance: float, side: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Says what each row of a placed map is made of; columns alike.

    Args:
        distance: by which the map lies beside the objects, in positions of the map itself.
        side: rows of the larger map.

    Returns:
        (before, after, share): row i is what lies between the rows `before[i]` and `after[i]` of
        the larger map, `share` (0 <= share < 1) of the way from the first to the second.
    """
    whole = math.floor(PLACES * distance)
    rows = np.arange(side) + whole
    share = np.float32(PLACES * distance - whole)
    return np.clip(rows, 0, side - 1), np.clip(rows + 1, 0, side - 1), share
