"""How sure the figures of one scoring are, and whether a localizer is better than doing without."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsol_tf.evaluation import paired
from wsol_tf.evaluation.localized_map import LOCALIZED
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.scored_pair import CENTERED_AREAS

FIGURES = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask")


def certainty_of(
    accumulators: Mapping[str, LocalizationMetrics],
    kind: str,
    thresholds: Mapping[str, float | str],
) -> dict[str, Any]:
    """Computes intervals for other pictures of the same kind, and differences on these ones.

    Args:
        accumulators: kind of map -> what was accumulated of the same pairs.
        kind: the kind that is scored.
        thresholds: kind -> threshold; kinds without one are at Otsu's.

    Returns:
        A dict for JSON: `intervals`, figure -> [low, high] (95 %, bootstrap over pictures); and
        `above_baselines`, by how much GT-known Loc is above that of "classifier_cam" and of
        "centered_box_oracle", each with its interval and McNemar's exact test. What can't be said
        is left out.
    """
    columns = accumulators[kind].columns(thresholds.get(kind, "otsu"))
    images = np.array([image_id for image_id, _ in sorted(accumulators[kind].pairs)])
    intervals = {}
    for name in FIGURES:
        mean, low, high = paired.bootstrap_mean(columns[name], images)
        if not np.isnan(mean):
            intervals[name] = [low, high]
    hits, others = columns["gt_known_loc"], {}
    if kind != "cam" and "cam" in accumulators:
        of_cam = accumulators["cam"].columns(thresholds.get("cam", "otsu"))
        others["classifier_cam"] = of_cam["gt_known_loc"]
    pairs = [accumulators[kind].pairs[key] for key in sorted(accumulators[kind].pairs)]
    unknown = np.full(len(CENTERED_AREAS), np.nan)
    ious = [unknown if pair.centered_ious is None else pair.centered_ious for pair in pairs]
    others["centered_box_oracle"] = hits_of_best_centered_box(np.array(ious))
    above = {}
    for name, baseline in others.items():
        difference = paired.difference_of(baseline[None], hits[None], images, True)
        if difference is not None:
            above[name] = {
                "difference": difference.mean,
                "interval": [difference.low, difference.high],
                "gained": difference.gained,
                "lost": difference.lost,
                "p": difference.p,
                "verdict": difference.verdict,
            }
    return {"intervals": intervals, "above_baselines": above}


def hits_of_best_centered_box(ious: np.ndarray) -> np.ndarray:
    """Says which pairs a centred box hits, of the one size that hits most of all of them.

    Args:
        ious: `[pairs, sizes]`, IoUs of the centred boxes; a pair without a true box has NaN.

    Returns:
        `[pairs]`: 1, 0, or NaN.
    """
    known = ~np.isnan(ious).any(1)
    hits = np.full(len(ious), np.nan)
    if known.any():
        boxed = ious[known] >= LOCALIZED
        hits[known] = boxed[:, boxed.mean(0).argmax()]
    return hits
