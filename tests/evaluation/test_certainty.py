"""How sure the figures of one scoring are."""

import numpy as np
import pytest

from helpers import add_map
from wsol_tf.evaluation import paired
from wsol_tf.evaluation.certainty import certainty_of, hits_of_best_centered_box
from wsol_tf.evaluation.metrics import LocalizationMetrics

VIEW = 10
OBJECT = [0, 0, 4, 4]  # in a corner: a centred box gets it only where it is large
SCORES = np.array([2.0, 1.0])


def scored_maps(boxes, *, label=0):
    """What is accumulated of maps that are 1 in a box each: of pictures "0", "1", ..."""
    accumulator = LocalizationMetrics()
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        score_map = np.zeros((VIEW, VIEW), np.float32)
        score_map[y0:y1, x0:x1] = 1
        add_map(accumulator, str(i), label, SCORES, score_map, [OBJECT], VIEW)
    return accumulator


def test_a_localizer_is_compared_with_cam_and_a_box_on_the_same_pictures():
    elsewhere = [6, 6, 9, 9]
    maps = {
        "mean": scored_maps([OBJECT] * 7 + [elsewhere]),
        "cam": scored_maps([OBJECT] + [elsewhere] * 7),
    }
    found = certainty_of(maps, "mean", {"mean": 0.3, "cam": 0.3})
    cam = found["above_baselines"]["classifier_cam"]
    assert (cam["difference"], cam["gained"], cam["lost"], cam["p"]) == (0.75, 6, 0, 0.03125)
    assert cam["verdict"] == "better" and 0 < cam["interval"][0] < 0.75 < cam["interval"][1] <= 1
    box = found["above_baselines"]["centered_box_oracle"]  # no centred box has an IoU of 1/2
    assert (box["difference"], box["gained"], box["lost"]) == (7 / 8, 7, 0)
    low, high = found["intervals"]["gt_known_loc"]
    assert low < 7 / 8 < high == 1
    assert found["intervals"]["top1_cls"] == [1, 1]  # right everywhere
    assert "miou_mask" not in found["intervals"]  # there is none


def test_few_pictures_show_no_difference():
    maps = {"mean": scored_maps([OBJECT] * 3), "cam": scored_maps([OBJECT, [6, 6, 9, 9], OBJECT])}
    cam = certainty_of(maps, "mean", {})["above_baselines"]["classifier_cam"]
    assert (cam["gained"], cam["lost"], cam["p"]) == (1, 0, 1)
    assert cam["verdict"] == "no difference shown"


def test_cam_is_not_compared_with_itself():
    maps = {"cam": scored_maps([OBJECT]), "mean": scored_maps([OBJECT])}
    assert set(certainty_of(maps, "cam", {})["above_baselines"]) == {"centered_box_oracle"}


def test_without_boxes_only_the_class_has_an_interval():
    accumulator = LocalizationMetrics()
    for name in "ab":
        add_map(accumulator, name, 0, SCORES, np.eye(VIEW, dtype=np.float32), None, VIEW)
    found = certainty_of({"mean": accumulator}, "mean", {})
    assert found == {"intervals": {"top1_cls": [1, 1]}, "above_baselines": {}}


def test_the_interval_is_that_of_the_pictures_and_not_of_their_pairs():
    one_each, two_each = LocalizationMetrics(), LocalizationMetrics()
    score_map = np.zeros((VIEW, VIEW), np.float32)
    score_map[:4, :4] = 1
    for i in range(20):
        true = OBJECT if i % 2 else [6, 6, 9, 9]
        for label in (0, 1):
            add_map(two_each, str(i), label, SCORES, score_map, [true], VIEW)
        add_map(one_each, str(i), 0, SCORES, score_map, [true], VIEW)
    found = [
        certainty_of({"mean": scored}, "mean", {})["intervals"]["gt_known_loc"]
        for scored in (one_each, two_each)
    ]
    assert found[0] == pytest.approx(found[1])  # 40 pairs say no more than 20 pictures


def test_the_best_centred_box_has_one_size_for_all_pairs():
    ious = np.array([[0.6, 0.6], [0.1, 0.7], [0.9, 0.2], [np.nan, np.nan], [0.0, 0.5]])
    np.testing.assert_array_equal(hits_of_best_centered_box(ious), [1, 1, 0, np.nan, 1])
    assert np.isnan(hits_of_best_centered_box(np.full((2, 3), np.nan))).all()


def test_large_data_sets_are_drawn_less_often_and_have_the_same_interval(rng):
    hits = rng.random(30_000) < 0.7
    mean, low, high = paired.bootstrap_mean(hits)
    error = np.sqrt(mean * (1 - mean) / len(hits))
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=error / 4)
