"""The thresholds of a run: chosen on training pictures, by every rule that can."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol_tf.config import choices
from wsol_tf.data import transforms
from wsol_tf.data.source import Source
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.score import choose_thresholds
from wsol_tf.evaluation.scores import accumulate
from wsol_tf.model.localization import Localization
from wsol_tf.model.score_maps import PLAIN

MAX_IMAGES = 1000  # more do not move a median any further
MAX_HELD = 5000  # of a million pictures, a tenth would take hours


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The thresholds that each rule gives.

    Attributes:
        by_rule: rule -> kind of map -> threshold. The rule "boxes" is there where some of the
            held-out pictures have boxes, at least for comparison.
        num_images: rule -> number of pictures that it looked at.
        quartiles: of the thresholds that the pictures suggest one by one by the rule "maps", for
            the kind of map that is scored: the first, the median and the third.
        held: positions of the held-out pictures that could be read, and of those without any
            object, which say nothing of a threshold and were not read.
        presence: the probability from which on a class counts as present, see
            `choose_presence_threshold`.
    """

    by_rule: dict[str, dict[str, float]]
    num_images: dict[str, int]
    quartiles: list[float]
    held: np.ndarray
    presence: float


def choose_by_rule(model: Localization, source: Source, held: Sequence[int], kind: str) -> Chosen:
    """Chooses a threshold for every kind of map from pictures of a training.

    The rule "maps" needs labels alone, which the model was trained with, so it may look at every
    picture; up to 1,000 are enough. The rule "boxes" looks at held-out pictures: what a run knows
    of boxes must come from a few. Where none was held out, or none of those can be read, the other
    ones serve.

    Args:
        model: the trained model.
        source: the pictures, those that were trained on and those that were held out.
        held: positions of the held-out ones, of which up to 5,000 are looked at.
        kind: the kind of map that is scored.

    Raises:
        ValueError: no picture can be read, or no map is finite.
    """
    kinds = list(dict.fromkeys([kind, *choices("map")]))
    if model.refine != "none":
        kinds.append(PLAIN)
    view = transforms.View(model.input_size, model.resize_size)
    usable = with_object(source.labels, model.background_id)
    held = np.asarray(held, np.int64)
    held = held[spread([source.labels[i] for i in held], MAX_HELD)]
    spread_out = usable[spread([source.labels[i] for i in usable], MAX_IMAGES)]
    positions = np.union1d(spread_out, np.intersect1d(usable, held)).astype(np.int64)
    pairs = predict_pairs(
        model.predict_on_batch,
        source,
        positions,
        kinds=kinds,
        view=view,
        offset=model.offset,
        refine=model.refine,
        top_k=model.top_k,
    )
    logits: dict[str, np.ndarray] = {}
    all_of_them = accumulate(_noting(pairs, logits), kinds)
    held_ids = {source.image_ids[i] for i in held}
    of_held = {name: metrics.subset(held_ids) for name, metrics in all_of_them.items()}
    read = of_held[kind].image_ids
    if not read:
        of_held = all_of_them
    looked_at = of_held[kind].image_ids
    of_presence = [i for i in positions if source.image_ids[i] in looked_at]
    empty = set(held) - set(usable)
    by_rule = {"maps": choose_thresholds(all_of_them, "maps")}
    with contextlib.suppress(ValueError):  # no boxes
        by_rule["boxes"] = choose_thresholds(of_held, "boxes")
    return Chosen(
        by_rule=by_rule,
        num_images={
            "maps": len(all_of_them[kind].image_ids),
            "boxes": len(of_held[kind].image_ids),
        },
        quartiles=all_of_them[kind].suggested_quartiles(),
        held=np.array([i for i in held if source.image_ids[i] in read or i in empty], np.int64),
        presence=_presence(source, of_presence, logits),
    )


def with_object(labels: Sequence[np.ndarray], background_id: int | None) -> np.ndarray:
    """Returns the positions of the pictures that show an object, int64, ascending.

    Args:
        labels: per picture, its class ids.
        background_id: id of the class of pictures without any object, or None.
    """
    return np.array([i for i, own in enumerate(labels) if background_id not in own], np.int64)


def _presence(source, positions, logits):
    """The presence threshold of pictures whose logits are known by their names."""
    present = np.zeros((len(positions), len(source.classes)), bool)
    for row, position in enumerate(positions):
        present[row, source.labels[position]] = True
    scores = np.stack([logits[source.image_ids[i]] for i in positions])
    return choose_presence_threshold(scores, present)


def _noting(pairs, logits):
    """Passes pairs on, and notes the logits of each picture."""
    for pair in pairs:
        logits[pair.image_id] = pair.logits
        yield pair


def choose_presence_threshold(logits: np.ndarray, present: np.ndarray) -> float:
    """Chooses from which probability on a class counts as present: labels alone are needed.

    A classifier of one label for each picture shares its probability among the classes that it
    sees, so that the right threshold depends on how many there are. This one gives the classes that
    are found the largest F1 with those that the labels name, over all pictures together; the
    highest-ranked class of a picture always counts as found, as in `Localization.localize`. It
    stands in the middle between the least probability that still counts and the next lower one.
    (Our own choice; no source.)

    Args:
        logits: `[pictures, classes]`; pictures with a NaN or an infinity play no part.
        present: bool `[pictures, classes]`, what the labels say.

    Returns:
        The threshold, 0..1.
    """
    finite = np.isfinite(logits).all(1)
    logits, present = logits[finite], present[finite]
    if not len(logits):
        return 1.0
    probabilities = transforms.softmax(logits.astype(np.float64))
    first = np.zeros(present.shape, bool)
    first[np.arange(len(first)), probabilities.argmax(1)] = True
    values, right = probabilities[~first], present[~first]
    order = np.argsort(-values)
    values, right = np.append(1.0, values[order]), np.append(0, right[order])
    hits = (present & first).sum() + np.cumsum(right)
    f1 = 2 * hits / (len(first) + np.arange(len(values)) + present.sum())
    lower = np.append(values[1:], 0.0)
    f1[lower == values] = -1  # equal probabilities can't be parted
    best = int(f1.argmax())
    return float((values[best] + lower[best]) / 2)


def spread(labels: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Chooses pictures so that each class, a picture's first, has its share.

    Args:
        labels: per picture, its class ids.
        count: at most so many pictures.

    Returns:
        int64 ascending positions; all where there are no more than `count`.
    """
    first = np.array([label[0] for label in labels], np.int64)
    ranks = np.empty(len(first))  # where a picture stands among those of its class, in 0..1
    for class_id in np.unique(first):
        members = np.flatnonzero(first == class_id)
        shuffled = np.random.default_rng(0).permutation(members)
        ranks[shuffled] = np.arange(0.5, len(members)) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:count])


def compare_rules(chosen: Chosen, kind: str, figures: dict[str, Any]) -> dict[str, float | None]:
    """Returns each rule's threshold for one kind of map, and the GT-known Loc at it.

    Args:
        chosen: the thresholds.
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
    for rule, thresholds in chosen.by_rule.items():
        compared[f"threshold_by_{rule}"] = thresholds[kind]
        compared[f"gt_known_loc_by_{rule}"] = reached.get(thresholds[kind])
    return compared
