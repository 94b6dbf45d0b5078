"""Scores the maps of one training with the project's own evaluation; it needs no JAX."""

import dataclasses
import functools
import os
import pickle

import numpy as np

from jax_trainings import backend  # noqa: F401 - before anything of the project
from wsol_tf.data.source import Report, Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.outcomes import outcome_lines, parse_outcomes
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.scores import accumulate
from wsol_tf.model.score_maps import PLAIN


@dataclasses.dataclass(frozen=True)
class Maps:
    """What a trained network says about some pictures.

    Attributes:
        number: which training.
        known: positions that the threshold is chosen from.
        scored: positions that are scored.
        outputs: `logits`, `score_map` and `localization_map` of the former and then the latter.
        offset: see `alignment.measure`.
        kinds: kinds of map, the one that is scored first.
        top_k, refine: as in Config.
        view: what of a picture was seen.
    """

    number: int
    known: np.ndarray
    scored: np.ndarray
    outputs: dict
    offset: tuple[float, float]
    kinds: tuple[str, ...]
    top_k: int
    refine: str
    view: View


def kinds_of(config):
    """The kinds of map that are scored with the settings of a run."""
    plain = [PLAIN] if config.refine != "none" and config.map != "cam" else []
    return tuple(dict.fromkeys([config.map, *plain, "cam"]))


def store_pictures(folder, source, examples):
    """Leaves pictures in a folder, so that processes can share them.

    Args:
        folder: a folder of this run alone.
        source: the data set.
        examples: its Examples, all of the same size.
    """
    np.save(os.path.join(folder, "pictures.npy"), np.stack([e.image for e in examples]))
    names = ("name", "classes", "image_ids", "labels", "has_boxes", "has_masks")
    fields = {name: getattr(source, name) for name in names}
    with open(os.path.join(folder, "rest.pickle"), "wb") as file:
        pickle.dump((fields, [e._replace(image=None) for e in examples]), file)


@functools.lru_cache(maxsize=1)
def stored_source(folder):
    """The Source of the pictures in a folder, see `store_pictures`."""
    pictures = np.load(os.path.join(folder, "pictures.npy"), mmap_mode="r")
    with open(os.path.join(folder, "rest.pickle"), "rb") as file:
        fields, examples = pickle.load(file)

    def read_image(position):
        return np.asarray(pictures[position])

    def read_example(position):
        return examples[position]._replace(image=read_image(position))

    return Source(**fields, report=Report("fail"), read_image=read_image, read_example=read_example)


def score(maps, *, folder):
    """Scores one training: a threshold for each kind from pictures and labels alone, then boxes.

    Args:
        maps: a Maps.
        folder: see `store_pictures`.

    Returns:
        (number of the training, lines as outcomes.jsonl has them, kind -> threshold or, where no
        map is finite, None: all of those are misses).
    """
    source = stored_source(folder)
    pairs = predict_pairs(
        _in_order(maps.outputs),
        source,
        [*maps.known, *maps.scored],
        kinds=maps.kinds,
        view=maps.view,
        offset=maps.offset,
        refine=maps.refine,
        top_k=maps.top_k,
    )
    known, scored, is_known = [], [], set(maps.known.tolist())
    for pair in pairs:
        if pair.position in is_known:
            known.append(dataclasses.replace(pair, boxes=None, mask=None))
        else:
            scored.append(pair)
    thresholds = {kind: _threshold(m) for kind, m in accumulate(known, maps.kinds).items()}
    usable = {kind: value for kind, value in thresholds.items() if value is not None}
    found = accumulate(scored, maps.kinds, thresholds=usable.values())
    return maps.number, parse_outcomes(outcome_lines(found, usable, source.classes)), thresholds


def _threshold(metrics):
    try:
        return metrics.choose_threshold_from_maps()
    except ValueError:  # a training that has diverged: the others go on
        return None


def _in_order(outputs):
    """A `predict` that returns what was predicted before, in the order of the positions."""
    done = 0

    def predict(images):
        nonlocal done
        rows = slice(done, done + len(images))
        done = rows.stop
        return {name: values[rows] for name, values in outputs.items()}

    return predict
