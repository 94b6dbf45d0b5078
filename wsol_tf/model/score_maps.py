"""From a score map to a mask and boxes: numpy and OpenCV only, one map at a time.

The steps are those of BAS (Wu et al., CVPR 2022, arXiv 2112.00580): min-max to [0, 1], bilinear to
the picture's size, `> threshold`, largest component, tight box. Boxes are x0, y0, x1, y1 edges in
pixels, half-open: x1 - x0 is the width.
"""

import numbers
from typing import Any, NamedTuple

import cv2
import numpy as np

from wsol_tf.config import MAPS

# In scoring, the kind of map that is scored, once more: before it was refined, with its components
# as they are; and refined, with its components as they are.
PLAIN, WHOLE = "plain", "whole"


class Components(NamedTuple):
    """The 8-connected components of a mask, in an order, see `components`.

    Attributes:
        boxes: float32 `[N, 4]`, the tight box of each: x0, y0, x1, y1 edges in pixels, half-open.
        scores: float32 `[N]`, the mean of the score map over each one's pixels, 0..1.
        areas: int64 `[N]`, the number of its pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray


def averaged_channels(kind: str, channels: int, top_k: int) -> int | None:
    """Says which channels of a localization map make the foreground mask of a kind.

    This is the one definition that numpy (`map_of`), the Keras model and exported graphs share.

    Args:
        kind: "mean", "topk" or "predicted"; without a label "true" and "cam" are "predicted".
        channels: channels of the localization map: the number of classes, or 1 for all of them.
        top_k: classes that "topk" averages over.

    Returns:
        k, where the mask is the mean over the channels of the k highest-scoring classes; None where
        it is the mean over all channels.
    """
    if kind == "mean" or channels == 1:
        return None
    return min(top_k, channels) if kind == "topk" else 1


def map_of(
    kind: str,
    localization_map: np.ndarray | None,
    score_map: np.ndarray | None,
    logits: np.ndarray | None,
    label: int,
    *,
    top_k: int = 5,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """Picks the score map `[h, w]` of one kind for one picture.

    Args:
        kind: "true" (the channel of `label`), "predicted" (of the class with the highest logit),
            "mean" (over all channels), "topk" (mean over the top_k classes) or "cam" (the
            classifier's score map of `label`: class activation map).
        localization_map: `[h, w, channels]`, channels = classes or 1 (then all kinds but "cam"
            are that channel).
        score_map: `[h, w, classes]`.
        logits: `[classes]`.
        label: class id.
        top_k: classes that "topk" averages over.
        allowed: bool `[classes]`; classes that may be predicted. None allows all.

    Returns:
        float `[h, w]`.

    Raises:
        ValueError: for an unknown kind.
    """
    check_kind(kind)
    if kind == "cam":
        return score_map[..., label]
    channels = localization_map.shape[-1]
    if kind == "true" and channels > 1:
        return localization_map[..., label]
    best = averaged_channels(kind, channels, top_k)
    if best is None:
        return localization_map.mean(-1)
    ranked = logits if allowed is None else np.where(allowed, logits, -np.inf)
    return localization_map[..., np.argsort(-ranked, kind="stable")[:best]].mean(-1)


def check_kind(kind: str) -> None:
    """Refuses what is no kind of map.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in MAPS:
        raise ValueError(f"Unknown map '{kind}'. Legal: {', '.join(MAPS)}.")


def normalize(score_map: np.ndarray) -> np.ndarray:
    """Stretches a map [height, width] to float32 in [0, 1] by its own minimum and maximum.

    A map that is constant or holds a NaN or an infinity has no such stretch and becomes zeros.
    """
    score_map = np.asarray(score_map, np.float32)
    if score_map.ndim != 2 or score_map.size == 0:
        raise ValueError(
            "A score map must have shape [height, width] with at least one position. "
            f"Received shape: {score_map.shape}."
        )
    low, high = score_map.min(), score_map.max()
    with np.errstate(over="ignore", invalid="ignore"):
        span = high - low
    if not np.isfinite(span) or span <= 0:
        return np.zeros_like(score_map)
    return (score_map - low) / span


def resize(score_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples a map [h, w] bilinearly to float32 [height, width]."""
    score_map = np.asarray(score_map, np.float32)
    if score_map.shape == (height, width):
        return score_map
    return cv2.resize(score_map, (width, height), interpolation=cv2.INTER_LINEAR)


def threshold_mask(score_map: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the bool mask of positions above a threshold, both compared as float32."""
    return np.asarray(score_map, np.float32) > np.float32(threshold)


def otsu(score_map: np.ndarray) -> float:
    """Finds Otsu's threshold of a map in [0, 1]: a float that needs no boxes.

    It splits the 256-bin histogram where the variance between the two sides is largest (Otsu,
    1979); among equally good splits it takes the middle one. A constant map gives 0.5.
    """
    values = np.asarray(score_map, np.float64).ravel()
    bins = np.clip((values * 256).astype(np.int64), 0, 255)
    counts = np.bincount(bins, minlength=256).astype(np.float64)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moments = np.cumsum(counts * np.arange(256))
    total_moment, moments = moments[-1], moments[:-1]
    excess = np.maximum((total_moment - moments) * below - moments * above, 0)
    between = excess**2 / np.maximum(below * above, 1)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((best[0] + best[-1] + 2) / 512)


def min_cross_entropy(score_map: np.ndarray) -> float:
    """Finds the threshold of least cross-entropy of a map in [0, 1]: a float that needs no boxes.

    It splits the 256-bin histogram so that the map, replaced by the mean of each side, stays
    closest to itself in cross-entropy (Li and Lee, Pattern Recognition 26, 1993); among equally
    good splits it takes the middle one. It is lower than Otsu's where most of a map is dark and
    the rim of what is bright fades slowly. A constant map gives 0.5.
    """
    values = np.asarray(score_map, np.float64).ravel()
    bins = np.clip((values * 256).astype(np.int64), 0, 255)
    counts = np.bincount(bins, minlength=256).astype(np.float64)
    levels = np.arange(256) + 0.5
    count, moment = np.cumsum(counts), np.cumsum(counts * levels)
    below, above = count[:-1], count[-1] - count[:-1]
    low, high = moment[:-1], moment[-1] - moment[:-1]
    split = np.flatnonzero((below > 0) & (above > 0))
    if not len(split):
        return 0.5
    below, above, low, high = below[split], above[split], low[split], high[split]
    kept = low * np.log(low / below) + high * np.log(high / above)
    best = split[kept >= kept.max() - 1e-9 * abs(kept.max())]
    return float((best[0] + best[-1] + 2) / 512)


def _largest(mask):
    """Returns (labels, index, stats row) of the largest 8-connected component, or None."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    if count == 1:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    index = 1 + int(areas.argmax())
    ties = 1 + np.flatnonzero(areas == areas.max())
    if len(ties) > 1:
        # OpenCV numbers components in the order of 2x2 blocks, not of pixels.
        index = int(labels.flat[np.isin(labels, ties).argmax()])
    return labels, index, stats[index]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keeps the largest component of a bool mask [height, width]: 8-connected, by pixel count.

    Of equally large components, the one that comes first row by row is kept. An empty mask stays
    empty.
    """
    mask = np.ascontiguousarray(mask, bool)
    found = _largest(mask)
    if found is None:
        return np.zeros_like(mask)
    labels, index, _ = found
    return labels == index


def box_of(mask: np.ndarray) -> np.ndarray:
    """Returns the tight box of a bool mask as float32 [4]; the whole picture if it is empty."""
    mask = np.ascontiguousarray(mask, bool)
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    if not w:
        return np.array([0, 0, width, height], np.float32)
    return np.array([x, y, x + w, y + h], np.float32)


def components(
    mask: np.ndarray,
    score_map: np.ndarray,
    *,
    min_area: float = 0.0,
    min_picture_area: float = 0.0,
    max_objects: int = 0,
    evidence: np.ndarray | None = None,
) -> Components:
    """Finds the 8-connected components of a mask that count as objects.

    Args:
        mask: bool `[height, width]`.
        score_map: float `[height, width]` in 0..1.
        min_area: components with fewer pixels than this share of the largest one's are left out,
            0..1; the largest one stays.
        min_picture_area: those with fewer pixels than this share of the picture's are left out,
            0..1, the largest one too.
        max_objects: at most so many are kept, the first; 0: all.
        evidence: `[h, w]`, 0 or more, such as where the classifier sees the class: the component
            with the most of it comes first. None, or where there is none: that with the most
            pixels.

    Returns:
        Components: the one with the most evidence or pixels first, equal ones in the order of their
        first pixel row by row; all three are empty where nothing is left.

    Raises:
        ValueError: one of the limits is out of its range.
    """
    check_objects(min_area, min_picture_area, max_objects)
    mask = np.ascontiguousarray(mask, bool)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    inside = np.flatnonzero(mask)
    labels = labels.ravel()[inside]
    # The last position written wins: backwards, that is the first pixel of each component.
    first = np.zeros(count, np.int64)
    first[labels[::-1]] = inside[::-1]
    weights = areas
    if evidence is not None and 0 < np.max(evidence) < np.inf:
        amounts = resize(evidence, *mask.shape)[mask].astype(np.float64)
        weights = np.bincount(labels, amounts, minlength=count)
    order = 1 + np.lexsort((first[1:], -weights[1:]))
    if len(order):
        least = max(min_area * areas[order].max(), min_picture_area * mask.size)
        order = order[areas[order] >= least]
    order = order[: max_objects or None]
    sums = np.bincount(labels, np.ravel(score_map)[inside], minlength=count)
    left, top, width, height = (stats[order, i] for i in range(4))
    boxes = np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)
    return Components(boxes, (sums[order] / areas[order]).astype(np.float32), areas[order])


def check_objects(min_area: Any, min_picture_area: Any, max_objects: Any) -> None:
    """Refuses settings that `components` can't work with.

    Raises:
        ValueError: an area is no number in 0..1, or `max_objects` is no whole number from 0 on.
    """
    for name, share in (("min_area", min_area), ("min_picture_area", min_picture_area)):
        if not isinstance(share, numbers.Real) or not 0 <= share <= 1:
            raise ValueError(f"`{name}` must be a share in 0..1. Received: {share!r}.")
    if not isinstance(max_objects, numbers.Integral) or max_objects < 0:
        raise ValueError(
            "`max_objects` must be a whole number, at least 0 (which keeps all). "
            f"Received: {max_objects!r}."
        )


def localize(
    score_map: np.ndarray, height: int, width: int, threshold: float | str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Goes from a map at its own resolution to what it says about a picture.

    Args:
        score_map: float `[h, w]`.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        threshold: a number in 0..1, or "otsu" for the map's own.

    Returns:
        (map, mask, box): the stretched map float32 `[height, width]`, the bool mask of all
        positions above the threshold, and the box of its largest component, float32 [4].
    """
    resized = resize(normalize(score_map), height, width)
    mask = threshold_mask(resized, otsu(resized) if threshold == "otsu" else threshold)
    return resized, mask, box_of(largest_component(mask))
