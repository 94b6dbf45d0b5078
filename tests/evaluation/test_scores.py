"""Scores of parts of a data set: they merge into those of the whole, in any order."""

import itertools
import pickle

import numpy as np
import pytest

from wsol_tf.data.registry import open_dataset
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.score import compute_scored, score
from wsol_tf.evaluation.scores import accumulate_scores, maker_of_scores

METRICS = ("max_box_acc_v2", "pxap")


def by_colour(images):
    colours = images[:, ::8, ::8] / 255.0
    maps = np.concatenate([colours, colours.mean(-1, keepdims=True)], axis=-1)  # four classes
    return {
        "logits": maps.mean((1, 2)) * 9,
        "score_map": maps,
        "localization_map": maps[..., ::-1],
    }


@pytest.fixture(scope="module")
def source():
    return open_dataset("shapes", "", "val", image_size=40, num_examples=9)


METHOD = Method(
    predict=by_colour, view=View(32, 40, "crop"), kinds=("true", "cam"),
    thresholds={"true": 0.4}, threshold_from="given", presence=0.2,
)  # fmt: skip


def test_parts_merge_into_the_whole_in_any_order(source):
    expected, lines, _ = score(METHOD, source, metrics=METRICS)
    parts = [
        pickle.dumps(accumulate_scores(METHOD, source, range(i, i + 3), metrics=METRICS))
        for i in (0, 3, 6)
    ]
    make_scores = pickle.loads(pickle.dumps(maker_of_scores(METHOD, len(source.classes), METRICS)))
    for order in itertools.permutations(parts):
        whole = make_scores()
        for part in order:
            whole.merge(pickle.loads(part))
        assert compute_scored(whole, METHOD, source) == expected
        assert sorted(map(str, whole.predictions)) == sorted(map(str, lines))


def test_nothing_is_merged_into_a_part_that_was_given(source):
    whole, part = (accumulate_scores(METHOD, source, [i], metrics=METRICS) for i in (0, 1))
    before = pickle.dumps(part)
    whole.merge(part)
    whole.merge(accumulate_scores(METHOD, source, [2], metrics=METRICS))
    assert pickle.dumps(part) == before
