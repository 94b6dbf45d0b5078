import dataclasses
import json

import numpy as np
import pytest

from helpers import add_picture
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.iou import box_iou
from wsol_tf.evaluation.localized_map import (
    OUTCOMES,
    THRESHOLDS,
    LocalizedMap,
    column_of,
    measured_thresholds,
    rank_of,
)
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.pairs import Method, Pair
from wsol_tf.evaluation.score import score
from wsol_tf.model.score_maps import localize

SIDE = 40


def pair_of(score_map, **known):
    view = np.zeros((SIDE, SIDE, 0), np.uint8)
    return Pair(0, view, "a", (SIDE, SIDE), 0, maps={"own": score_map}, **known)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.99, "otsu"])
@pytest.mark.parametrize("boxes", [None, np.array([[5, 5, 25, 30]], np.float32)])
def test_mask_and_box_are_those_of_localize(threshold, boxes, rng):
    score_map = rng.random((9, 7))
    localized = LocalizedMap(pair_of(score_map, boxes=boxes), "own", threshold)
    stretched, mask, box = localize(score_map, SIDE, SIDE, threshold)
    np.testing.assert_array_equal(localized.score_map, stretched)
    np.testing.assert_array_equal(localized.mask, mask)
    np.testing.assert_array_equal(localized.box, box)
    if boxes is not None:
        np.testing.assert_array_equal(localized.boxes[localized.column], box)
        assert localized.box_ious[localized.column] == box_iou(box, boxes)[0, 0]


def test_nothing_is_computed_twice_nor_before_it_is_asked_for(rng):
    localized = LocalizedMap(pair_of(rng.random((9, 7))), "own", 0.5)
    assert set(vars(localized)) == {field.name for field in dataclasses.fields(localized)}
    assert localized.score_map is localized.score_map
    assert "boxes" not in vars(localized)
    assert localized.box is localized.box and "boxes" not in vars(localized)  # no true boxes


def test_what_is_unknown_is_none(rng):
    localized = LocalizedMap(pair_of(rng.random((9, 7))), "own")
    assert localized.box_ious is None and localized.outcomes is None
    assert localized.mask_ious is None
    assert np.isnan(localized.class_rank[0])


def test_the_class_that_is_not_allowed_does_not_outrank_the_label():
    assert rank_of([1, 3, 2], 2) == (1, True)
    assert rank_of([1, 3, 2], 2, [True, False, True]) == (0, True)
    assert rank_of([1, np.nan, 2], 2)[1] is False


def test_thresholds_are_measured_once_each_in_rising_order():
    np.testing.assert_array_equal(measured_thresholds([0.5, 0.1, "otsu", 0.1 + 1e-9]), [0.1, 0.5])
    assert column_of(THRESHOLDS, 0.29) == 29
    assert column_of(THRESHOLDS, "otsu") == -1


def test_maps_that_were_localized_otherwise_are_not_added(rng):
    scored = LocalizationMetrics([0.3])
    with pytest.raises(ValueError, match="add a map that was localized with different thresholds"):
        scored.add(LocalizedMap(pair_of(rng.random((9, 7))), "own", 0.3))
    other = LocalizedMap(
        pair_of(rng.random((9, 7))), "own", 0.3, scored.thresholds, box_iou=lambda *_: None
    )
    with pytest.raises(ValueError, match="add a map that was localized with different IoUs"):
        scored.add(other)


# --- figures and predictions ---------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Two classes in the first picture, a single one in the others, one object at the very rim."""
    add_picture(tmp_path, "two", [("cat", (0, 0, 20, 15)), ("dog", (20, 15, 40, 30))])
    for name, box in (("b", (10, 5, 30, 25)), ("c", (4, 2, 38, 28)), ("d", (12, 8, 22, 16))):
        add_picture(tmp_path, name, [("cat", box), ("cat", (30, 0, 38, 8))])
    add_picture(tmp_path, "rim", [("fox", (0, 0, 40, 1))])
    return open_dataset("voc_folder", tmp_path, "val")


@pytest.fixture
def unboxed(tmp_path):
    add_picture(tmp_path, "none", [("cat", None)])
    add_picture(tmp_path, "neither", [("dog", None)])
    return open_dataset("voc_folder", tmp_path, "val")


def noise(rng, shape):
    return rng.random(shape)


def with_nan(rng, shape):
    maps = rng.random(shape)
    maps[::2, 0, 0] = np.nan
    return maps


def with_infinity(rng, shape):
    maps = rng.random(shape)
    maps[0, 3, 3] = -np.inf
    return maps


def beyond_float32(rng, shape):
    return rng.random(shape) * 1e300


def constant(rng, shape):
    return np.full(shape, 0.4)


def zeros(rng, shape):
    return np.zeros(shape)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("broken_logits", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.1234567, 0.0, 1.0, "otsu"])
@pytest.mark.parametrize(
    "make_maps", [noise, with_nan, with_infinity, beyond_float32, constant, zeros]
)
def test_predictions_averaged_are_the_figures(make_maps, threshold, broken_logits, pictures):
    figures, lines = scored(make_maps, threshold, pictures, broken_logits)
    assert len(lines) == figures["num_pairs"] == 6
    lines = sorted(
        lines, key=lambda line: (line["image_id"], pictures.classes.index(line["label"]))
    )
    right = [line["outcome"] in ("right", "wrong_class") for line in lines]
    assert figures["gt_known_loc"] == np.mean(right)
    assert figures["gt_known_loc"] == np.mean([line["iou"] >= 0.5 for line in lines])
    assert figures["top1_loc"] == np.mean([line["outcome"] == "right" for line in lines])
    assert figures["miou_box"] == np.mean([line["iou"] for line in lines])
    for outcome in OUTCOMES:
        count = sum(line["outcome"] == outcome for line in lines)
        assert figures["outcomes"][outcome] == count
    assert {line["threshold"] for line in lines} == {figures["threshold"]} == {threshold}
    bad = {line["image_id"] for line in lines if line["image_id"] in figures["bad_maps"]}
    assert all(line["iou"] == 0 for line in lines if line["image_id"] in bad)


@pytest.mark.parametrize("make_maps", [noise, with_nan, constant])
def test_without_boxes_there_is_nothing_to_average(make_maps, unboxed):
    figures, lines = scored(make_maps, 0.3, unboxed, False)
    assert figures["gt_known_loc"] is None and figures["outcomes"] is None
    assert not any({"iou", "outcome", "true_boxes"} & set(line) for line in lines)
    assert all(line["box"] for line in lines)


def scored(make_maps, threshold, source, broken_logits):
    rng = np.random.default_rng(0)

    def own_maps(batch):
        logits = rng.normal(size=(len(batch), len(source.classes)))
        if broken_logits:
            logits[0, 0], logits[-1] = np.inf, np.nan
        return {"own": make_maps(rng, (len(batch), 8, 8)), "logits": logits}

    method = Method(
        lambda images: {}, View(32, 36), ("own",), {"own": threshold}, "given", own_maps=own_maps
    )
    figures, lines, _ = score(method, source)
    json.dumps([figures, lines], allow_nan=False)
    return figures, lines


# --- objects that touch --------------------------------------------------------------------------


def two_blocks():
    """Two blocks of 0.9 on a grid of 56 x 56, the left one larger, with a bridge of 0.5."""
    score_map = np.zeros((56, 56), np.float32)
    score_map[20:35, 4:39] = 0.5
    score_map[20:35, 4:22] = score_map[20:35, 24:39] = 0.9
    return score_map


def test_only_the_prediction_takes_objects_apart():
    evidence = np.zeros((7, 7), np.float32)
    evidence[:, 4:] = 1  # of the class is the right one
    left, right = np.float32([4, 20, 22, 35]), np.float32([24, 20, 39, 35])
    view = np.zeros((56, 56, 0), np.uint8)
    pair = Pair(
        0, view, "a", (56, 56), 0, maps={"own": two_blocks()}, activation=evidence,
        boxes=np.stack([right]), logits=np.float32([1, 0]),
    )  # fmt: skip
    whole = LocalizedMap(pair, "own", 0.4)
    apart = LocalizedMap(pair, "own", 0.4, separate=True)
    np.testing.assert_array_equal(whole.box, [4, 20, 39, 35])
    np.testing.assert_array_equal(apart.box, [23, 20, 39, 35])  # the bridge is shared
    np.testing.assert_array_equal(apart.boxes, whole.boxes)
    np.testing.assert_array_equal(apart.box_ious, whole.box_ious)
    assert whole.iou == pytest.approx(15 / 35) and apart.iou == pytest.approx(15 / 16)
    assert OUTCOMES[whole.outcome] == "too_big" and OUTCOMES[apart.outcome] == "right"
    assert len(apart.objects_at(0.4).boxes) == 2 and len(whole.objects_at(0.4).boxes) == 1
    assert whole.mask.sum() - apart.mask.sum() == 15
    # Without evidence the larger one is the first.
    other = LocalizedMap(dataclasses.replace(pair, activation=None), "own", 0.4, separate=True)
    assert box_iou(other.box, np.stack([left]))[0, 0] > 0.9

    metrics, before = (LocalizationMetrics([0.4, 0.6]) for _ in range(2))
    metrics.add(dataclasses.replace(apart, thresholds=metrics.thresholds))
    before.add(dataclasses.replace(whole, thresholds=before.thresholds))
    figures, plain = metrics.result(0.4), before.result(0.4)
    assert figures["gt_known_loc"] == 1 and plain["gt_known_loc"] == 0
    assert figures["miou_box"] == pytest.approx(15 / 16)
    assert figures["outcomes"]["right"] == 1 and plain["outcomes"]["too_big"] == 1
    # At other thresholds, and where the best one is looked for, components are as they are.
    assert metrics.result(0.6)["gt_known_loc"] == before.result(0.6)["gt_known_loc"]
    assert metrics.threshold_curves() == before.threshold_curves()
    for name in ("gt_known_loc_oracle", "oracle_threshold", "miou_box_oracle"):
        assert figures[name] == plain[name]


def test_what_is_unknown_stays_so_where_objects_are_taken_apart(rng):
    apart = LocalizedMap(pair_of(rng.random((9, 7))), "own", 0.5, separate=True)
    assert apart.iou is None and apart.outcome is None and apart.box.shape == (4,)
    empty = LocalizedMap(pair_of(np.zeros((9, 7))), "own", 0.5, separate=True)
    np.testing.assert_array_equal(empty.box, [0, 0, SIDE, SIDE])
    broken = pair_of(np.full((9, 7), np.nan), boxes=np.float32([[0, 0, SIDE, SIDE]]))
    assert LocalizedMap(broken, "own", 0.5, separate=True).iou == 0
