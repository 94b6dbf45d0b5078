"""The score-map threshold that a single map suggests without any box.

A threshold cuts a map into object and background. Two things say which cut is a good one: what
the classifier sees of the class, which lies mostly on the object, and the colours of the picture,
which differ between an object and what is around it. Our choice: docs/results.md compares it with
others.
"""

import cv2
import numpy as np

from wsol_tf.model import score_maps

MOST = 56  # positions along a side that are looked at
LEVELS = 256


def suggested_threshold(
    score_map: np.ndarray, activation: np.ndarray | None, colours: np.ndarray | None
) -> float:
    """Finds the threshold whose mask is best explained by activation and colours together.

    Args:
        score_map: float `[height, width]` in 0..1.
        activation: positive part of the class's score map F_c, `[h, w]`; None: not known.
        colours: the picture as `colours_of` gives it; None: not known.

    Returns:
        The threshold in 0..1 with the largest sum of two shares: of the mask's variance that the
        activation explains, and of that which the colours explain, each by a linear fit. Where no
        activation is known, or none is positive and finite, the threshold of least cross-entropy.
    """
    if activation is None or not 0 < np.max(activation) < np.inf:
        return score_maps.min_cross_entropy(score_map)
    height, width = (min(side, MOST) for side in score_map.shape)
    small = cv2.resize(score_map, (width, height), interpolation=cv2.INTER_AREA)
    levels = np.clip((small.ravel() * LEVELS).astype(np.int64), 0, LEVELS - 1)
    seen = score_maps.resize(activation / np.max(activation), height, width).astype(np.float64)
    by_activation, rises = explained(levels, seen.reshape(-1, 1))
    shares = np.where(rises[:, 0] > 0, by_activation, 0)
    if colours is not None:
        shares += explained(levels, colours.reshape(-1, 3).astype(np.float64))[0]
    best = np.flatnonzero(shares >= shares.max() - 1e-9)
    return float((best[0] + best[-1] + 2) / (2 * LEVELS))


def colours_of(image: np.ndarray) -> np.ndarray:
    """Returns a picture, uint8 `[height, width, 3]`, in at most 56 positions along a side."""
    height, width = (min(side, MOST) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def explained(levels: np.ndarray, evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes how much of each mask that a map can give is explained by evidence.

    The masks are `levels >= 1` to `levels >= 255`.

    Args:
        levels: int `[positions]` in 0..255.
        evidence: float64 `[positions, channels]`.

    Returns:
        (share, rises): `[255]`, the share of each mask's variance that its best linear fit by the
        channels explains, in 0..1, 0 for a mask that is empty or everything; and
        `[255, channels]`, covariances of each mask with each channel.
    """
    count = len(levels)
    centred = evidence - evidence.mean(0)
    inverse = np.linalg.pinv(centred.T @ centred / count, rcond=1e-6, hermitian=True)
    above = np.bincount(levels, minlength=LEVELS)[::-1].cumsum()[::-1][1:] / count
    sums = [np.bincount(levels, channel, LEVELS)[::-1].cumsum()[::-1][1:] for channel in centred.T]
    rises = np.stack(sums, axis=1) / count
    variance = above * (1 - above)
    fitted = np.einsum("ti,ij,tj->t", rises, inverse, rises)
    return np.divide(fitted, variance, out=np.zeros(LEVELS - 1), where=variance > 0), rises
