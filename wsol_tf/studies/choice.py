"""Choosing a row by held-out training pictures: what that reaches, fold by fold."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from wsol_tf.evaluation.paired import Difference
from wsol_tf.studies import results
from wsol_tf.studies import trials as trials_


@dataclasses.dataclass(frozen=True)
class Choice:
    """What comes of choosing the row by held-out training pictures, fold by fold.

    Attributes:
        chosen: fold -> label of the row that was chosen in it.
        difference: of GT-known Loc to the first row, on all pictures.
        figure: GT-known Loc.
    """

    chosen: Mapping[int, str]
    difference: Difference
    figure: results.Figure


def choice_of(finished: Sequence[results.Finished]) -> Choice | None:
    """Chooses a row for each fold by its held-out pictures alone, and pools what those reached.

    The pictures of a fold play no part in what is chosen for it, so that the figure is not
    flattered by the choice, as that of the best row of a table is.

    Args:
        finished: the trials; the first one's row is what is compared with.

    Returns:
        The Choice; None with one row whose trials are all finished, or where a trial has no score
        of held-out pictures.
    """
    counts = Counter(each.trial.row.label for each in finished)
    labels = [label for label in counts if counts[label] == max(counts.values())]  # whole ones
    held: dict[int, dict[str, list[float]]] = {}
    finished = [each for each in finished if each.trial.row.label in labels]
    for each in finished:
        scores = trials_.held_scores(each.trial)
        if not scores:
            return None
        held.setdefault(each.trial.fold, {}).setdefault(each.trial.row.label, []).append(
            scores[-1][1]
        )
    if len(labels) < 2 or any(len(scores) < len(labels) for scores in held.values()):
        return None
    # Of equal scores that of the earlier row: it is the simpler one, or the one that is there now.
    chosen = {
        fold: max(labels, key=lambda label: np.mean(scores[label]))
        for fold, scores in sorted(held.items())
    }
    keys = sorted({results.key_of(line) for each in finished for line in each.lines})
    images = np.array([image_id for image_id, _ in keys])
    first = results.pool([each for each in finished if each.trial.row.label == labels[0]], keys)
    own = results.pool(
        [each for each in finished if chosen[each.trial.fold] == each.trial.row.label], keys
    )
    difference = results.compare(first, own, results.MAIN, images)
    figure = results.figures_of(own, images).get(results.MAIN)
    if difference is None or figure is None:
        return None
    return Choice(chosen, difference, figure)
