"""Objects that touch in a mask, cut apart."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import arrays
from helpers import tiny_model
from wsol_tf.model import score_maps, separation
from wsol_tf.model.build import load_model

SIDE = 112  # two pixels a cell


def discs(*centres, radius=20, high=0.9, side=SIDE):
    """A map of cones: 0.9 in the middle of each disc, falling by 0.02 a pixel."""
    y, x = np.mgrid[:side, :side]
    away = [np.hypot(y - row, x - column) for row, column in centres]
    return np.clip(high - 0.02 * (np.min(away, axis=0)), 0, 1).astype(np.float32) * (
        np.min(away, axis=0) <= radius
    )


def boxes_of(score_map, threshold, **limits):
    mask = separation.separate(score_map > np.float32(threshold), score_map, threshold)
    return score_maps.components(mask, score_map, **limits).boxes


def test_two_discs_that_touch_are_two_objects():
    score_map = discs((56, 36), (56, 70))
    assert len(score_maps.components(score_map > 0.4, score_map).boxes) == 1
    left, right = sorted(boxes_of(score_map, 0.4).tolist())
    # They meet at column 53; the pixels of one side of the cut are gone.
    assert left[0] == 16 and 52 <= left[2] <= 54 and right[2] == 91 and 53 <= right[0] <= 55
    assert left[1] == right[1] == 36 and left[3] == right[3] == 77


def blocks(count, bridge, side=SIDE):
    """A map of blocks of 30 x 30 pixels in a row, 0.9, with bridges of 4 pixels between them."""
    score_map = np.zeros((side, side), np.float32)
    score_map[40:70, 4 : 34 * count] = bridge
    for number in range(count):
        score_map[40:70, 4 + 34 * number : 34 + 34 * number] = 0.9
    return score_map


def test_three_in_a_row_are_three_objects():
    found = boxes_of(blocks(3, bridge=0.5), 0.4)
    # The pixels on the left of a cut are gone, and the bridge is shared.
    assert sorted(found[:, 0].tolist()) == [4, 36, 70]
    assert sorted(found[:, 2].tolist()) == [35, 69, 102]


def test_bridges_of_different_heights_are_cut_one_after_the_other():
    score_map = blocks(3, bridge=0.5)
    score_map[40:70, 68:72] = 0.6
    assert len(boxes_of(score_map, 0.4)) == 3
    score_map[40:70, 68:72] = 0.65  # 0.24 above the threshold is not enough
    assert len(boxes_of(score_map, 0.4)) == 2


def test_the_mask_loses_the_cut_alone():
    score_map = discs((56, 36), (56, 70))
    mask = score_map > 0.4
    cut = mask & ~separation.separate(mask, score_map, 0.4)
    rows, columns = np.nonzero(cut)
    assert len(rows) > 15 and np.ptp(columns) <= 1 and 52 <= columns.min() <= 54
    assert np.unique(rows).tolist() == list(range(rows.min(), rows.max() + 1))


def test_one_object_stays_one():
    """Also one that bends, one with a hole, a ramp, and one with a speck that is higher."""
    bend = np.zeros((SIDE, SIDE), np.float32)
    bend[20:90, 20:40] = bend[70:90, 20:90] = bend[20:90, 70:90] = 0.8
    ring = discs((56, 56), radius=40) * (discs((56, 56), radius=12) == 0)
    ramp = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (SIDE, 1))
    speck = np.maximum(discs((56, 56), radius=30, high=0.7), discs((90, 90), radius=3))
    for score_map in (bend, ring, ramp, speck):
        mask = score_map > 0.3
        np.testing.assert_array_equal(separation.separate(mask, score_map, 0.3), mask)


def test_a_part_must_have_a_quarter_of_the_object():
    large, small = discs((56, 40), radius=30), discs((56, 84), radius=14)
    score_map = np.maximum(large, small)  # 616 of 3,400 pixels
    assert len(boxes_of(score_map, 0.3)) == 1


@pytest.mark.parametrize(("bridge", "count"), [(0.21, 2), (0.43, 2), (0.45, 1)])
def test_what_falls_too_little_between_is_one_object(bridge, count):
    assert len(boxes_of(blocks(2, bridge), 0.2)) == count


def test_objects_at_the_edge_of_the_picture_are_thick_there():
    """A strip of two cells along the edge is thin; an object that the edge cuts off is not."""
    score_map = discs((0, 36), (0, 70))
    assert len(boxes_of(score_map, 0.4)) == 2


def test_objects_that_do_not_touch_are_as_before():
    score_map = discs((30, 30), (80, 80))
    mask = score_map > 0.4
    np.testing.assert_array_equal(separation.separate(mask, score_map, 0.4), mask)


@pytest.mark.parametrize("empty", [True, False])
def test_all_or_nothing_is_not_cut(empty):
    score_map = np.full((40, 30), 0.0 if empty else 1.0, np.float32)
    mask = score_map > 0.5
    np.testing.assert_array_equal(separation.separate(mask, score_map, 0.5), mask)


def test_the_first_object_has_the_most_evidence():
    score_map = np.maximum(discs((56, 30), radius=24), discs((56, 90), radius=16))
    evidence = np.zeros((7, 7), np.float32)
    evidence[:, 5:] = 1
    areas = score_maps.components(score_map > 0.4, score_map).areas
    turned = score_maps.components(score_map > 0.4, score_map, evidence=evidence)
    assert areas.tolist() == turned.areas[::-1].tolist() and areas[0] > areas[1]
    for nothing in (None, np.zeros((7, 7)), np.full((7, 7), np.nan)):
        plain = score_maps.components(score_map > 0.4, score_map, evidence=nothing)
        np.testing.assert_array_equal(plain.areas, areas)
    # Shares of the largest one, although it comes second.
    limited = score_maps.components(score_map > 0.4, score_map, evidence=evidence, min_area=0.9)
    assert limited.areas.tolist() == areas[:1].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 160))
@settings(deadline=None, max_examples=60)
def test_numpy_alone_cuts_the_same_pixels(seed, height, width):
    rng = np.random.default_rng(seed)
    small = np.zeros((56, 56), np.float32)
    centre = rng.integers(14, 42, 2)
    for _ in range(rng.integers(1, 6)):
        row, column = (int(x) for x in centre + rng.integers(-14, 15, 2))
        cv2.circle(small, (column, row), int(rng.integers(4, 9)), float(rng.uniform(0.7, 1)), -1)
    small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(1, 3)))
    small += rng.normal(0, 0.01, small.shape).astype(np.float32)
    score_map = score_maps.resize(score_maps.normalize(small), height, width)
    threshold = float(rng.uniform(0.1, 0.4))
    mask = score_map > np.float32(threshold)
    cut = separation.separate(mask, score_map, threshold)
    np.testing.assert_array_equal(arrays.separate(mask, score_map, threshold), cut)
    assert not (cut & ~mask).any()
    # Cutting a second time finds each object whole, or cuts what is large again: never the rest.
    again = separation.separate(cut, score_map, threshold)
    assert not (again & ~cut).any()


def test_a_model_keeps_it_and_finds_what_is_cut_apart(tmp_path, monkeypatch):
    model = tiny_model(["a", "b"], separate=True, localizer="agnostic")
    assert model.separate is True
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.separate is True
    seen = blocks(2, bridge=0.4)[::2, ::2]
    outputs = {
        "logits": np.array([[2.0, 1.0]]),
        "score_map": np.zeros((1, 7, 7, 2)),
        "localization_map": seen[None, ..., None],
    }
    outputs["score_map"][0, :, 2:, 0] = 1.0  # the class is on the right
    monkeypatch.setattr(type(loaded), "predict_on_batch", lambda self, x: outputs)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    found = loaded.localize(image, threshold=0.3)
    assert len(found.boxes) == 2 and found.box is not None and found.box[0] > 30
    np.testing.assert_array_equal(found.box, found.boxes[0])
    assert cv2.connectedComponents(found.mask.astype(np.uint8))[0] == 3  # with the background
    loaded.separate = False
    whole = loaded.localize(image, threshold=0.3)
    assert len(whole.boxes) == 1 and whole.mask.sum() > found.mask.sum()
    with pytest.raises(ValueError, match="`separate` must be True or False. Received: 1"):
        type(model).from_config({**model.get_config(), "separate": 1})
