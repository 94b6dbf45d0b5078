import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import add_map, arrays_in
from wsol_tf.evaluation import scored_pair
from wsol_tf.evaluation.iou import bas_box_iou, box_iou
from wsol_tf.evaluation.localized_map import OUTCOMES, THRESHOLDS, outcomes_of
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.model import score_maps

VIEW = 10


def _map_of(box, *, faint=None):
    """A map at the view's own size: 1 in the box, 0.5 in the faint box around it, 0 elsewhere."""
    score_map = np.zeros((VIEW, VIEW), np.float32)
    for value, edges in ((0.5, faint), (1, box)):
        if edges:
            x0, y0, x1, y1 = edges
            score_map[y0:y1, x0:x1] = value
    return score_map


def _four_pairs():
    """Four pairs with IoU 1, 1/2, 1/4 and 0 at thresholds below 1; ranks 0, 1, 0, 5."""
    scored = LocalizationMetrics()
    six = np.arange(6, 0, -1)  # class 0 first, class 5 last
    add_map(scored, "a", 0, six, _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    add_map(scored, "b", 1, six, _map_of([0, 0, 4, 4]), [[0, 0, 4, 2]], VIEW)
    add_map(scored, "c", 0, six, _map_of([0, 0, 2, 2]), [[0, 0, 4, 4]], VIEW)
    add_map(scored, "d", 5, six, _map_of([0, 0, 2, 2]), [[8, 8, 10, 10]], VIEW)
    return scored


def test_figures_by_hand():
    figures = _four_pairs().result(0.3)
    assert figures["gt_known_loc"] == 2 / 4  # IoU exactly one half counts
    assert figures["top1_loc"] == 1 / 4
    assert figures["top5_loc"] == 2 / 4
    assert figures["top1_cls"] == 2 / 4
    assert figures["top5_cls"] == 3 / 4
    assert figures["miou_box"] == (1 + 1 / 2 + 1 / 4) / 4
    assert figures["gt_known_loc_otsu"] == 2 / 4
    assert figures["miou_mask"] is None
    assert figures["miou_mask_oracle"] is None
    assert figures["threshold"] == 0.3
    assert (figures["num_images"], figures["num_pairs"]) == (4, 4)


@pytest.mark.parametrize(
    "box, true_boxes, outcome",
    [
        ([0, 0, 10, 10], [[0, 0, 10, 10]], "right"),
        ([0, 0, 10, 10], [[0, 0, 10, 5]], "right"),  # IoU exactly one half
        ([0, 0, 10, 4.9], [[0, 0, 10, 10]], "part_only"),
        ([0, 0, 10, 10], [[0, 0, 10, 4.9]], "too_big"),
        # Half of the box lies in the object: neither a part nor, at 4/10 of it, too big.
        ([0, 0, 10, 8], [[0, 4, 10, 14]], "missed"),
        ([0, 0, 10, 8], [[0, 3.9, 10, 13.9]], "part_only"),
        ([0, 0, 10, 10], [[20, 20, 30, 30]], "missed"),
        ([0, 0, 10, 10], [], "missed"),
        # Two objects, 4 by 10 each, under one box; it must cover more than 0.3 of both.
        ([0, 0, 10, 10], [[0, 0, 4, 10], [6, 0, 10, 10]], "several_objects"),
        ([0, 0, 10, 10], [[0, 0, 4, 10], [8.8, 0, 12.8, 10]], "too_big"),
        ([0, 0, 10, 10], [[0, 0, 4, 10], [8.7, 0, 12.7, 10]], "several_objects"),
        # A right box over a second object stays right.
        ([0, 0, 10, 10], [[0, 0, 6, 10], [6, 0, 10, 10]], "right"),
        ([0, 0, 0, 0], [[0, 0, 4, 4]], "missed"),
        # Of several objects the nearest is that with the largest IoU.
        ([0, 0, 10, 4], [[0, 3, 10, 30], [0, 0, 10, 20]], "part_only"),
        ([0, 0, 10, 4], [[0, 3, 10, 30], [0, 2, 10, 6]], "missed"),
    ],
)
def test_outcomes_by_hand(box, true_boxes, outcome):
    true_boxes = np.reshape(true_boxes, (-1, 4))
    for swap in (1, -1):  # the order of the true boxes plays no part
        found = outcomes_of([box], true_boxes[::swap], True)
        assert OUTCOMES[found[0]] == outcome
    wrong = outcomes_of([box], true_boxes, False)
    # A wrong class changes the name of a right box, and hides no wrong one.
    expected = "wrong_class" if outcome == "right" else outcome
    assert OUTCOMES[wrong[0]] == expected


@given(st.integers(0, 99), st.sampled_from([0.0, 0.3, 0.6, "otsu"]))
@settings(max_examples=25, deadline=None)
def test_outcomes_count_each_pair_once_and_agree_with_the_figures(seed, threshold):
    scored = _random_metrics(8, seed)
    add_map(scored, "out of view", 0, [1.0, 0.0, 0.0], np.ones((4, 4)), np.zeros((0, 4)), 40)
    add_map(scored, "no box", 0, [1.0, 0.0, 0.0], np.ones((4, 4)), None, 40)
    figures = scored.result(threshold)
    counts = figures["outcomes"]
    assert tuple(counts) == OUTCOMES
    assert sum(counts.values()) == 9  # the pair without boxes is left out
    assert counts["right"] == round(9 * figures["top1_loc"])
    assert counts["right"] + counts["wrong_class"] == round(9 * figures["gt_known_loc"])
    assert counts["missed"] >= 1


def test_outcomes_of_bad_maps_are_misses_and_without_boxes_there_are_none():
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [1.0], np.full((4, 4), np.nan), [[0, 0, 10, 10]], VIEW)
    assert scored.result(0.3)["outcomes"]["missed"] == 1
    bare = LocalizationMetrics()
    add_map(bare, "a", 0, [1.0], np.ones((4, 4)), None, VIEW)
    assert bare.result(0.3)["outcomes"] is None
    assert bare.threshold_curves() is None


def test_without_class_scores_a_right_box_is_right():
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, None, _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    assert scored.result(0.3)["outcomes"]["right"] == 1


def test_threshold_curves_are_the_figures_at_each_threshold():
    scored = _random_metrics(10, seed=3)
    curves = scored.threshold_curves()
    assert curves["score_map_thresholds"] == scored.thresholds.tolist()
    expected = [scored.result(t)["gt_known_loc"] for t in scored.thresholds]
    assert curves["gt_known_loc_iou_50"] == expected
    low, middle, high = (np.array(curves[f"gt_known_loc_iou_{n}"]) for n in (30, 50, 70))
    assert (low >= middle).all() and (middle >= high).all() and (low > high).any()


def test_per_class_means_weigh_classes_not_pairs():
    per_class = _four_pairs().result(0.3)["per_class"]
    assert per_class["gt_known_loc"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert per_class["miou_box"] == pytest.approx((5 / 8 + 1 / 2 + 0) / 3)
    assert set(per_class["classes"]) == {"0", "1", "5"}
    assert per_class["classes"]["0"]["num_pairs"] == 2
    assert per_class["classes"]["0"]["miou_box"] == 5 / 8


def test_classes_are_named_when_names_are_given():
    names = ["ant", "bee", "cat", "dog", "elk", "fox"]
    table = _four_pairs().result(0.3, class_names=names)["per_class"]["classes"]
    assert set(table) == {"ant", "bee", "fox"}


def test_map_is_resized_to_the_view():
    scored = LocalizationMetrics()
    score_map = np.zeros((7, 7), np.float32)
    score_map[2:5, 3:6] = 4.0  # a block of ones once stretched; each position covers 32 pixels
    add_map(scored, "a", 0, [1.0], score_map, [[96, 64, 192, 160]], 224)
    # Bilinear edges cross one half on the block's own edges.
    assert scored.result(0.5)["miou_box"] == 1.0


def test_best_of_several_boxes_counts():
    scored = LocalizationMetrics()
    boxes = [[8, 8, 10, 10], [2, 2, 6, 6], [0, 0, 10, 10]]
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6]), boxes, VIEW)
    assert scored.result(0.3)["miou_box"] == 1.0


def test_view_that_is_not_square():
    scored = LocalizationMetrics()
    score_map = np.zeros((4, 8), np.float32)
    score_map[1:3, 5:8] = 1
    add_map(scored, "a", 0, [1.0], score_map, [[5, 1, 8, 3]], (4, 8))
    figures = scored.result(0.3)
    assert figures["miou_box"] == 1.0
    assert figures["baselines"]["whole_view"]["miou_box"] == 6 / 32


def test_oracle_is_the_best_threshold_and_is_named_apart():
    scored = LocalizationMetrics()
    # Right above one half; below it the faint surroundings give IoU 1/4.
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6], faint=[1, 1, 9, 9]), [[2, 2, 6, 6]], VIEW)
    low, high = scored.result(0.1), scored.result(0.8)
    assert (low["gt_known_loc"], high["gt_known_loc"]) == (0, 1)
    assert low["gt_known_loc_oracle"] == high["gt_known_loc_oracle"] == 1
    assert low["oracle_threshold"] == 0.74  # the middle of .50, .51, ... .99
    assert low["miou_box"] == 16 / 64
    assert low["miou_box_oracle"] == 1


def test_no_fixed_threshold_beats_the_oracle():
    scored = _random_metrics(12, seed=4)
    oracle = scored.result(0.0)
    for threshold in scored.thresholds:
        figures = scored.result(threshold)
        assert figures["gt_known_loc"] <= oracle["gt_known_loc_oracle"]
        assert figures["miou_box"] <= oracle["miou_box_oracle"]
        assert figures["miou_mask"] <= oracle["miou_mask_oracle"]
    at_oracle = scored.result(oracle["oracle_threshold"])
    assert at_oracle["gt_known_loc"] == oracle["gt_known_loc_oracle"]


def test_mask_iou_is_that_of_all_positions_above_the_threshold():
    scored = LocalizationMetrics()
    truth = np.zeros((VIEW, VIEW), np.uint8)
    truth[:4, :4] = 1
    truth[9] = 255
    score_map = _map_of([0, 0, 4, 2])
    score_map[6:9, 8] = 1  # a second component, of three pixels, counts too
    score_map[9] = 1  # ignored
    add_map(scored, "a", 0, [1.0], score_map, [[0, 0, 4, 4]], VIEW, mask=truth)
    assert scored.result(0.3)["miou_mask"] == pytest.approx(8 / (16 + 3))


@pytest.mark.parametrize(
    "mask", [None, np.zeros((0, 0), np.uint8), np.full((VIEW, VIEW), 255, np.uint8)]
)
def test_pairs_without_a_mask_make_no_mask_figure(mask):
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW, mask=mask)
    assert scored.result(0.3)["miou_mask"] is None


def test_otsu_uses_each_maps_own_threshold():
    scored = _random_metrics(6, seed=1)
    figures = scored.result("otsu")
    assert figures["threshold"] == "otsu"
    assert figures["gt_known_loc"] == figures["gt_known_loc_otsu"]
    ious = []
    for _, _, score_map, boxes, _ in _random_pairs(6, seed=1):
        resized = score_maps.resize(score_maps.normalize(score_map), 40, 40)
        mask = score_maps.threshold_mask(resized, score_maps.otsu(resized))
        box = score_maps.box_of(score_maps.largest_component(mask))
        ious.append(box_iou(box, boxes).max())
    assert figures["miou_box"] == pytest.approx(np.mean(ious))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_named_and_a_miss(value):
    score_map = _map_of([2, 2, 6, 6])
    score_map[0, 0] = value
    scored = LocalizationMetrics()
    whole = np.ones((VIEW, VIEW), np.uint8)
    # The whole view would be right here: a broken map must not profit from that.
    add_map(scored, "broken", 0, [1.0], score_map, [[0, 0, 10, 10]], VIEW, mask=whole)
    for threshold in (0.3, "otsu"):
        figures = scored.result(threshold)
        assert figures["bad_maps"] == ["broken"]
        assert figures["gt_known_loc"] == figures["gt_known_loc_oracle"] == 0
        assert figures["gt_known_loc_otsu"] == figures["miou_box"] == figures["miou_mask"] == 0
        assert figures["constant_maps"] == []


def test_a_constant_map_is_counted_and_its_box_is_the_whole_view():
    scored = LocalizationMetrics()
    add_map(scored, "flat", 0, [1.0], np.full((7, 7), 0.4), [[0, 0, 10, 10]], VIEW)
    figures = scored.result(0.3)
    assert figures["constant_maps"] == ["flat"]
    assert figures["bad_maps"] == []
    assert figures["miou_box"] == 1


def test_scores_that_are_not_finite_are_named_and_never_right():
    scored = LocalizationMetrics()
    add_map(scored, "nan", 0, [1, np.nan], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    figures = scored.result(0.3)
    assert figures["bad_scores"] == ["nan"]
    assert figures["top1_cls"] == figures["top5_cls"] == figures["top1_loc"] == 0
    assert figures["gt_known_loc"] == 1


def test_a_label_whose_own_score_is_nan_is_never_right():
    scored = LocalizationMetrics()
    scores = [1.0, np.nan]
    add_map(scored, "nan", 1, scores, _map_of([2, 2, 6, 6]), None, VIEW, allowed=[True, False])
    figures = scored.result(0.3)
    assert figures["bad_scores"] == ["nan"]
    assert figures["top1_cls"] == 0


def test_equal_scores_rank_as_argmax_does():
    scored = LocalizationMetrics()
    for label in range(3):
        add_map(scored, "same", label, np.zeros(3), _map_of([2, 2, 6, 6]), None, VIEW)
    assert scored.result(0.3)["top1_cls"] == pytest.approx(1 / 3)


def test_only_allowed_classes_compete():
    box = [[2, 2, 6, 6]]
    score_map, scores = _map_of(*box), [1.0, 3.0, 2.0]
    alone, among = LocalizationMetrics(), LocalizationMetrics()
    add_map(alone, "a", 2, scores, score_map, box, VIEW)
    add_map(among, "a", 2, scores, score_map, box, VIEW, allowed=[True, False, True])
    assert (alone.result(0.3)["top1_cls"], among.result(0.3)["top1_cls"]) == (0, 1)
    # The label itself always takes part, whatever its own entry says.
    itself = LocalizationMetrics()
    add_map(itself, "a", 2, scores, score_map, box, VIEW, allowed=[True, False, False])
    assert itself.result(0.3)["top1_cls"] == 1


def test_a_pair_without_box_in_view_is_a_miss_and_counted():
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6]), np.zeros((0, 4)), VIEW)
    add_map(scored, "b", 0, [1.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    figures = scored.result(0.3)
    assert figures["gt_known_loc"] == 0.5
    assert figures["pairs_without_box"] == ["a"]


@pytest.mark.parametrize("boxes", [None, np.zeros((0, 4))])
def test_data_without_boxes_makes_no_box_figure(boxes):
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6]), boxes, VIEW)
    figures = scored.result(0.3)
    for name in ("gt_known_loc", "top1_loc", "miou_box", "gt_known_loc_oracle", "baselines"):
        assert figures[name] is None
    assert figures["top1_cls"] == 1
    with pytest.raises(ValueError, match="choose_threshold_from_maps"):
        scored.choose_threshold_from_boxes()
    assert scored.choose_threshold_from_maps() == pytest.approx(0.5)


def test_pairs_with_and_without_boxes_mix():
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [2.0, 1.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    add_map(scored, "b", 1, [1.0, 2.0], _map_of([2, 2, 6, 6]), None, VIEW)
    figures = scored.result(0.3)
    assert figures["gt_known_loc"] == 1
    assert figures["per_class"]["gt_known_loc"] == 1
    assert figures["per_class"]["classes"]["1"]["gt_known_loc"] is None


def test_pictures_without_any_object_are_left_out_of_localization_and_reported_apart():
    scored, plain = LocalizationMetrics(), LocalizationMetrics()
    for metrics_ in (scored, plain):
        add_map(metrics_, "a", 0, [2.0, 1.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
        add_map(metrics_, "b", 0, [2.0, 1.0], _map_of([0, 0, 2, 2]), [[8, 8, 10, 10]], VIEW)
    area = _map_of([0, 0, 5, 2], faint=[0, 0, 10, 2])  # 10 of 100 pixels, 20 below 0.5
    add_map(scored, "c", 1, [1.0, 2.0], area, None, VIEW, empty=True)  # its class is predicted
    add_map(scored, "d", 1, [2.0, 1.0], area, None, VIEW, empty=True)
    add_map(scored, "e", 1, [2.0, 1.0], np.full((2, 2), 0.3), None, VIEW, empty=True)
    figures, without = scored.result(0.3), plain.result(0.3)
    assert figures["num_empty"] == 3
    assert figures["false_area"] == pytest.approx((0 + 0.2 + 0) / 3)
    assert figures["found_nothing"] == pytest.approx(2 / 3)
    assert scored.result(0.6)["false_area"] == pytest.approx(0.1 / 3)
    assert not {"num_empty", "false_area", "found_nothing"} & set(without)
    for name in ("gt_known_loc", "miou_box", "outcomes", "baselines", "gt_known_loc_oracle"):
        assert figures[name] == without[name]
    assert figures["constant_maps"] == []  # nothing is wrong with a flat map where nothing is
    assert figures["top1_cls"] == 3 / 5
    json.dumps(figures, allow_nan=False)


def test_duplicates_are_named_and_counted_once():
    scored = LocalizationMetrics()
    for box in ([2, 2, 6, 6], [0, 0, 2, 2]):
        add_map(scored, "twice", 0, [1.0], _map_of(box), [[2, 2, 6, 6]], VIEW)
    figures = scored.result(0.3)
    assert (figures["num_pairs"], figures["miou_box"]) == (1, 1)
    assert figures["duplicates"] == ["twice"]


def test_two_classes_of_one_picture_are_two_pairs():
    scored = LocalizationMetrics()
    for label in (0, 1):
        add_map(scored, "a", label, [1.0, 2.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    figures = scored.result(0.3)
    assert (figures["num_images"], figures["num_pairs"]) == (1, 2)


def _random_pairs(count, seed):
    rng = np.random.default_rng(seed)
    for i in range(count):
        x0, y0 = rng.integers(0, 20, 2)
        w, h = rng.integers(5, 20, 2)
        box = [x0, y0, x0 + w, y0 + h]
        score_map = rng.random((8, 8), np.float32)
        score_map[y0 // 5 : (y0 + h) // 5 + 1, x0 // 5 : (x0 + w) // 5 + 1] += 1.0
        mask = np.zeros((40, 40), np.uint8)
        mask[y0 : y0 + h, x0 : x0 + w] = 1
        yield f"picture {i}", int(rng.integers(3)), score_map, [box], mask


def _random_metrics(count, seed, order=None):
    scored = LocalizationMetrics()
    pairs = list(_random_pairs(count, seed))
    for i in range(count) if order is None else order:
        image_id, label, score_map, boxes, mask = pairs[i]
        scores = np.random.default_rng(i).random(3)
        add_map(scored, image_id, label, scores, score_map, boxes, 40, mask=mask)
    return scored


@given(st.randoms(use_true_random=False), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_order_and_merging_change_nothing(shuffler, cut):
    order = list(range(9))
    shuffler.shuffle(order)
    expected = _random_metrics(9, seed=2)
    shuffled = _random_metrics(9, seed=2, order=order)
    first = _random_metrics(9, seed=2, order=order[:cut])
    first.merge(_random_metrics(9, seed=2, order=order[cut:]))
    for threshold in (0.25, "otsu"):
        assert shuffled.result(threshold) == expected.result(threshold)
        assert first.result(threshold) == expected.result(threshold)
    assert first.choose_threshold_from_boxes() == expected.choose_threshold_from_boxes()
    assert first.choose_threshold_from_maps() == expected.choose_threshold_from_maps()


def test_merging_overlapping_parts_counts_each_pair_once():
    whole = _random_metrics(6, seed=5)
    left = _random_metrics(6, seed=5, order=[0, 1, 2, 3])
    left.merge(_random_metrics(6, seed=5, order=[3, 4, 5]))
    figures = left.result(0.3)
    assert figures.pop("duplicates") == ["picture 3"]
    assert figures == {k: v for k, v in whole.result(0.3).items() if k != "duplicates"}


def test_merge_refuses_other_thresholds_and_another_iou():
    with pytest.raises(ValueError, match="different thresholds"):
        LocalizationMetrics().merge(LocalizationMetrics([0.1, 0.2]))
    with pytest.raises(ValueError, match="different IoUs"):
        LocalizationMetrics().merge(LocalizationMetrics(box_iou=bas_box_iou))


def test_result_is_json_without_nan():
    scored = _random_metrics(5, seed=0)
    add_map(scored, "no box", 2, [0.0, 0.0, 1.0], np.full((8, 8), np.nan), None, 40)
    figures = scored.result(np.float64(0.3))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_result_refuses_a_threshold_that_was_not_measured():
    scored = _four_pairs()
    with pytest.raises(ValueError, match="Threshold 0.155 was not measured"):
        scored.result(0.155)
    with pytest.raises(ValueError, match="Unknown threshold 'otso'. Legal: a number, 'otsu'."):
        scored.result("otso")
    with pytest.raises(ValueError, match="no picture has been scored"):
        LocalizationMetrics().result(0.3)


def test_own_thresholds_are_measured():
    scored = LocalizationMetrics([*THRESHOLDS, 0.155])
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6]), [[2, 2, 6, 6]], VIEW)
    assert scored.result(0.155)["threshold"] == 0.155
    assert len(scored.thresholds) == 101


def test_add_refuses_a_label_without_score():
    with pytest.raises(ValueError, match="Label 3 has no score. Received scores for 2 classes."):
        add_map(LocalizationMetrics(), "a", 3, [1.0, 2.0], _map_of([0, 0, 2, 2]), None, VIEW)


def test_chosen_threshold_is_the_middle_of_a_plateau():
    scored = LocalizationMetrics()
    # IoU 1 from .50 to .99 and 1/4 below; smoothing over five keeps .52 .. .99 near the top.
    add_map(scored, "a", 0, [1.0], _map_of([2, 2, 6, 6], faint=[1, 1, 9, 9]), [[2, 2, 6, 6]], VIEW)
    assert scored.choose_threshold_from_boxes() == pytest.approx((0.52 + 0.99) / 2, abs=0.0051)


def test_chosen_threshold_is_not_moved_by_one_lucky_picture():
    scored = LocalizationMetrics()
    for i in range(24):  # right from .50 on
        box = [2, 2, 6, 6]
        add_map(scored, f"{i}", 0, [1.0], _map_of(box, faint=[1, 1, 9, 9]), [box], VIEW)
    # One picture is right below .50 only; the accuracy of the others must decide.
    add_map(
        scored, "odd", 0, [1.0], _map_of([2, 2, 6, 6], faint=[1, 1, 9, 9]), [[1, 1, 9, 9]], VIEW
    )
    assert scored.choose_threshold_from_boxes() > 0.5


def test_chosen_threshold_prefers_two_right_boxes_to_one_perfect_one():
    scored = LocalizationMetrics()
    # Below .50 the IoUs are 1 and 1/3, above 2/3 and 3/5: a lower mean, but both right.
    tall = [0, 0, 10, 9]
    add_map(scored, "a", 0, [1.0], _map_of([0, 0, 10, 6], faint=tall), [tall], VIEW)
    add_map(scored, "b", 0, [1.0], _map_of([0, 0, 10, 5], faint=tall), [[0, 0, 10, 3]], VIEW)
    assert scored.result(0.3)["miou_box"] > scored.result(0.7)["miou_box"]
    assert scored.choose_threshold_from_boxes() > 0.5


def test_threshold_without_boxes_goes_by_what_the_classifier_sees():
    scored, plain = LocalizationMetrics(), LocalizationMetrics()
    score_map = np.full((VIEW, VIEW), 0.0, np.float32)
    score_map[2:8, 2:8] = 0.4
    score_map[3:6, 3:6] = 1
    for i, seen in enumerate([score_map > 0.2, score_map > 0.2, score_map > 0.6]):
        activation = np.float32(seen) * np.float32(1e30)  # how much it is says nothing
        add_map(scored, f"{i}", 0, [1.0], score_map, None, VIEW, activation=activation)
        add_map(plain, f"{i}", 0, [1.0], score_map, None, VIEW)
    assert scored.choose_threshold_from_maps() == pytest.approx(0.2, abs=0.006)  # the median
    for i, value in enumerate([0, np.nan, np.inf] * 2, 3):  # no activation to go by
        activation = np.full((VIEW, VIEW), value, np.float32)
        add_map(scored, f"{i}", 0, [1.0], score_map, None, VIEW, activation=activation)
    assert scored.choose_threshold_from_maps() == plain.choose_threshold_from_maps()


def test_threshold_without_boxes_is_the_median_of_least_cross_entropy():
    scored = LocalizationMetrics()
    maps = []
    for i in range(5):
        level = 0.1 + 0.1 * i  # two levels, 0 and `level`, and a single pixel of 1
        score_map = np.zeros((VIEW, VIEW), np.float32)
        score_map[2:8, 2:8] = level
        score_map[0, 0] = 1
        maps.append(score_map)
        add_map(scored, f"{i}", 0, [1.0], score_map, None, VIEW)
    add_map(scored, "broken", 0, [1.0], np.full((4, 4), np.nan), None, VIEW)
    median = np.median([score_maps.min_cross_entropy(score_map) for score_map in maps])
    assert abs(scored.choose_threshold_from_maps() - median) <= 0.005 + 1e-9


def test_threshold_without_boxes_needs_one_finite_map():
    scored = LocalizationMetrics()
    add_map(scored, "broken", 0, [1.0], np.full((4, 4), np.nan), None, VIEW)
    with pytest.raises(ValueError, match="no picture with a finite map"):
        scored.choose_threshold_from_maps()


def test_centered_box_has_the_area_and_the_middle():
    np.testing.assert_allclose(scored_pair.centered_box(100, 0.25), [25, 25, 75, 75])
    np.testing.assert_allclose(scored_pair.centered_box((50, 100), 1.0), [0, 0, 100, 50])
    np.testing.assert_allclose(scored_pair.centered_box((50, 100), 0.25), [25, 12.5, 75, 37.5])


def test_baselines_by_hand():
    scored = LocalizationMetrics()
    add_map(scored, "a", 0, [1.0], _map_of([0, 0, 1, 1]), [[2.5, 2.5, 7.5, 7.5]], VIEW)
    add_map(scored, "b", 0, [1.0], _map_of([0, 0, 1, 1]), [[0, 0, 10, 6]], VIEW)
    baselines = scored.result(0.3)["baselines"]
    assert baselines["whole_view"]["gt_known_loc"] == 0.5
    assert baselines["whole_view"]["miou_box"] == pytest.approx((0.25 + 0.6) / 2)
    # Box "a" is centred: its IoU with area f is min(f, 1/4) / max(f, 1/4), at least 1/2 for f in
    # .15 .. .50. Box "b" needs more: f = .5 has side .7071, overlap .7071 * (.6 - .1464) = .3207,
    # IoU .3207 / (.5 + .6 - .3207) = .4116, so no fraction finds both.
    assert baselines["centered_box_oracle"]["gt_known_loc"] == 0.5
    assert baselines["centered_box_oracle"]["area_fraction"] == 0.15


def test_baselines_of_centred_objects():
    scored = LocalizationMetrics()
    box = scored_pair.centered_box(VIEW, 0.6)
    add_map(scored, "a", 0, [1.0], _map_of([0, 0, 1, 1]), [box], VIEW)
    baselines = scored.result(0.3)["baselines"]
    assert baselines["whole_view"]["miou_box"] == pytest.approx(0.6)
    assert baselines["centered_box_oracle"]["gt_known_loc"] == 1


@pytest.mark.realdata
def test_bas_boxes_give_the_same_accuracy(shared_dir):
    vectors = arrays_in(shared_dir / "vectors" / "bas_vectors_open.npz")
    thresholds = np.round(vectors["box_thresholds"], 6)
    scored = LocalizationMetrics(thresholds)
    for i, score_map in enumerate(vectors["box_maps28"]):
        # A constant map is no broken one: BAS's NaN stands for the whole picture there.
        add_map(scored, f"{i:03}", 0, [1.0], score_map, vectors["box_gt_xyxy"][i][None], 224)
    for column, threshold in enumerate(thresholds):
        boxes = vectors["box_xyxy"][:, column]
        pairs = zip(boxes, vectors["box_gt_xyxy"], strict=True)
        ious = np.array([box_iou(box, truth)[0, 0] for box, truth in pairs])
        figures = scored.result(threshold)
        assert figures["gt_known_loc"] == (ious >= 0.5).mean()
        assert figures["miou_box"] == pytest.approx(ious.mean())


@pytest.mark.realdata
def test_means_over_pictures_and_over_classes_equal_those_of_bas(shared_dir):
    vectors = arrays_in(shared_dir / "vectors" / "bas_vectors_open.npz")
    meaning = json.loads((shared_dir / "vectors" / "bas_vectors_open.json").read_text())
    expected = meaning["derived_loc"]
    scored = LocalizationMetrics(box_iou=bas_box_iou)
    for i, score_map in enumerate(vectors["box_maps28"]):
        label, scores = vectors["agg_class"][i], vectors["agg_scores"][i]
        add_map(scored, f"{i}", label, scores, score_map, vectors["box_gt_xyxy"][i][None], 224)
    figures = scored.result(expected["threshold"])
    for name, ours in (("gt_known", "gt_known_loc"), ("top1", "top1_loc"), ("top5", "top5_loc")):
        assert figures["per_class"][ours] == pytest.approx(expected[name], rel=1e-12)
        assert figures[ours] == pytest.approx(expected[f"micro_{name}"], rel=1e-12)


def test_a_subset_has_the_pairs_of_its_pictures_alone():
    scored = LocalizationMetrics()
    box = [[2, 2, 6, 6]]
    add_map(scored, "a", 0, [1.0, 0.0], _map_of([2, 2, 6, 6]), box, VIEW)
    add_map(scored, "a", 1, [1.0, 0.0], _map_of([8, 8, 9, 9]), box, VIEW)
    add_map(scored, "b", 0, [1.0, 0.0], _map_of([8, 8, 9, 9]), box, VIEW)
    assert scored.subset(["a"]).result(0.3)["gt_known_loc"] == 0.5
    assert scored.subset(["b"]).result(0.3)["num_pairs"] == 1
    assert len(scored.subset([])) == 0 and len(scored) == 3
