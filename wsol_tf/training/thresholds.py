"""The score-map threshold of a run: chosen on held-out pictures, by every rule that can."""

import contextlib
from collections.abc import Sequence
from typing import Any

from wsol_tf.config import choices
from wsol_tf.data import transforms
from wsol_tf.data.source import Source
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.score import accumulate, choose_thresholds
from wsol_tf.model.localization import Localization


def choose_by_rule(
    model: Localization, source: Source, held: Sequence[int], kept: Sequence[int], kind: str
) -> tuple[dict[str, dict[str, float]], Sequence[int]]:
    """Chooses a threshold for every kind of map from pictures that were not trained on.

    Where none was held out, or none of those can be read, the pictures that were trained on serve.

    Args:
        model: the trained model.
        source: the pictures.
        held: positions of the held-out pictures.
        kept: positions of those that were trained on.
        kind: the kind of map that is scored.

    Returns:
        (thresholds, positions): rule -> kind of map -> threshold, and the positions that were used.
        The rule "boxes" is there where some of these pictures have boxes, at least for comparison.
    """
    kinds = list(dict.fromkeys([kind, *choices("map")]))
    view = transforms.View(model.input_size, model.resize_size)
    for positions in (held, kept):
        pairs = predict_pairs(
            model.predict_on_batch, source, positions, kinds=kinds, view=view, top_k=model.top_k
        )
        accumulators = accumulate(pairs, kinds)
        if len(accumulators[kind]):
            break
    by_rule = {"maps": choose_thresholds(accumulators, "maps")}
    with contextlib.suppress(ValueError):  # no boxes
        by_rule["boxes"] = choose_thresholds(accumulators, "boxes")
    return by_rule, positions


def compare_rules(
    by_rule: dict[str, dict[str, float]], kind: str, figures: dict[str, Any]
) -> dict[str, float | None]:
    """Returns each rule's threshold for one kind of map, and the GT-known Loc at it.

    Args:
        by_rule: rule -> kind of map -> threshold.
        kind: the kind of map.
        figures: those of the scored pictures, with their `threshold_curves`.
    """
    curves = figures["threshold_curves"] or {}
    reached = dict(
        zip(
            curves.get("score_map_thresholds", ()),
            curves.get("gt_known_loc_iou_50", ()),
            strict=True,
        )
    )
    compared: dict[str, float | None] = {}
    for rule, thresholds in by_rule.items():
        compared[f"threshold_by_{rule}"] = thresholds[kind]
        compared[f"gt_known_loc_by_{rule}"] = reached.get(thresholds[kind])
    return compared
