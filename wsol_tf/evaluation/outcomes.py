"""What became of every picture, as lines of a file, so that runs can be compared by picture."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.evaluation.localized_map import column_of
from wsol_tf.evaluation.metrics import LocalizationMetrics

LINES = "outcomes.jsonl"


def outcome_lines(
    accumulators: Mapping[str, LocalizationMetrics],
    thresholds: Mapping[str, float | str],
    class_names: Sequence[str],
) -> str:
    """Makes the text of outcomes.jsonl: one line per picture and class in it.

    Args:
        accumulators: kind of map -> what was accumulated, see `score.score`.
        thresholds: kind -> score-map threshold; kinds without one are at Otsu's.
        class_names: names of the classes.

    Returns:
        Lines of JSON with `image_id`, `class`, `class_rank` (how many classes scored higher; 0:
        right), `iou` and `mask_iou` (kind of map -> IoU at its threshold, null without a box or a
        mask) and `centered_ious` (of the centred boxes of `scored_pair.CENTERED_AREAS`).
    """
    columns = {
        kind: column_of(accumulator.thresholds, thresholds.get(kind, "otsu"))
        for kind, accumulator in accumulators.items()
    }
    lines = []
    for key, pair in sorted(next(iter(accumulators.values())).pairs.items()):
        maps = {kind: accumulator.pairs[key] for kind, accumulator in accumulators.items()}
        line: dict[str, Any] = {
            "image_id": key[0],
            "class": class_names[key[1]],
            "class_rank": None if np.isnan(pair.rank) else int(pair.rank),
            "iou": {kind: _cut(own.iou_at(columns[kind])) for kind, own in maps.items()},
            "mask_iou": {
                kind: None if own.mask_ious is None else _cut(own.mask_ious[columns[kind]])
                for kind, own in maps.items()
            },
            "centered_ious": None,
        }
        if pair.centered_ious is not None:
            line["centered_ious"] = [_cut(iou) for iou in pair.centered_ious]
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def parse_outcomes(text: str) -> list[dict[str, Any]]:
    """Reads the text of outcomes.jsonl.

    Raises:
        ValueError: it is damaged.
    """
    return [json.loads(line) for line in text.splitlines()]


def _cut(iou):
    """An IoU in 6 digits; cut, so that what is below 0.5 stays below."""
    return None if iou is None else int(iou * 1e6 + 1e-9) / 1e6
