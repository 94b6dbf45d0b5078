import json
import types

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import arrays_in
from wsol_tf.evaluation import metrics
from wsol_tf.evaluation.iou import (
    bas_box_iou,
    bas_view_boxes,
    box_iou,
    boxes_at,
    mask_iou,
    mask_ious_at,
)
from wsol_tf.model import score_maps
from wsol_tf.model.localization import Localization

SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = hnp.arrays(bool, SIDES)
# Few levels, so that ties and equal thresholds happen.
MAPS = hnp.arrays(np.float32, SIDES, elements=st.integers(0, 8).map(lambda level: level / 8))


def _components(mask):
    """All 8-connected components as sorted lists of (row, column), found by flooding."""
    left = {tuple(point) for point in np.argwhere(mask).tolist()}
    found = []
    while left:
        component, front = [], [min(left)]
        left.discard(front[0])
        while front:
            row, column = front.pop()
            component.append((row, column))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (row + dy, column + dx)
                    if near in left:
                        left.discard(near)
                        front.append(near)
        found.append(sorted(component))
    return found


def test_normalize_stretches_to_zero_and_one():
    stretched = score_maps.normalize([[2, 4], [3, 6]])
    assert stretched.dtype == np.float32
    np.testing.assert_array_equal(stretched, [[0, 0.5], [0.25, 1]])


def test_normalize_ignores_scale_and_offset():
    score_map = np.random.default_rng(0).random((7, 9), np.float32)
    expected = score_maps.normalize(score_map)
    np.testing.assert_allclose(score_maps.normalize(4 * score_map - 3), expected, atol=1e-6)


@pytest.mark.parametrize("value", [0, 1, -5, np.nan, np.inf, -np.inf, 3e38])
def test_normalize_gives_zeros_where_there_is_no_stretch(value):
    assert not score_maps.normalize(np.full((3, 4), value)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_normalize_gives_zeros_for_one_position_that_is_not_finite(value):
    score_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    score_map[1, 2] = value
    assert not score_maps.normalize(score_map).any()


def test_normalize_refuses_what_is_no_map():
    with pytest.raises(ValueError, match=r"Received shape: \(2, 2, 1\)"):
        score_maps.normalize(np.zeros((2, 2, 1)))
    with pytest.raises(ValueError, match=r"Received shape: \(0, 3\)"):
        score_maps.normalize(np.zeros((0, 3)))


def test_resize_is_bilinear_with_centred_pixels():
    # Doubled: positions -1/4, 1/4, 3/4, 5/4 of the two values, clamped at the ends.
    np.testing.assert_allclose(score_maps.resize([[0, 1]], 1, 4), [[0, 0.25, 0.75, 1]])
    np.testing.assert_allclose(score_maps.resize([[0], [1]], 4, 1), [[0], [0.25], [0.75], [1]])


def test_threshold_is_strict_and_compared_as_float32():
    score_map = np.float32([[0.1, 0.15, 0.2]])
    assert score_maps.threshold_mask(score_map, 0.15).tolist() == [[False, False, True]]
    assert score_maps.threshold_mask(score_map, np.float64(0.1)).tolist() == [[False, True, True]]


def test_otsu_takes_the_middle_between_two_levels():
    # Bins 0 and 255: every split between them is equally good, and the middle one is 1/2.
    assert score_maps.otsu(np.float32([[0, 0, 0, 1]])) == pytest.approx(0.5, abs=1 / 256)
    # Levels .25 (bin 64) and .75 (bin 192): splits after bins 64..191, that is at 65/256..192/256.
    assert score_maps.otsu(np.float32([[0.25, 0.75]])) == pytest.approx((65 + 192) / 512)


def test_otsu_of_a_constant_map_is_a_number():
    assert score_maps.otsu(np.zeros((4, 4))) == 0.5


@given(hnp.arrays(np.uint8, st.tuples(st.integers(2, 6), st.integers(2, 6))))
@settings(max_examples=50, deadline=None)
def test_otsu_splits_as_well_as_any_of_256_thresholds(levels):
    score_map = (levels.astype(np.float64) + 0.5) / 256

    def within_variance(threshold):
        sides = [levels[score_map > threshold], levels[score_map <= threshold]]
        return sum(side.size * side.astype(float).var() for side in sides if side.size)

    best = min(within_variance(k / 256) for k in range(257))
    assert within_variance(score_maps.otsu(score_map)) == pytest.approx(best, abs=1e-6)


def test_min_cross_entropy_takes_the_middle_between_two_levels():
    assert score_maps.min_cross_entropy(np.float32([[0, 0, 0, 1]])) == pytest.approx(0.5, abs=1e-2)
    assert score_maps.min_cross_entropy(np.float32([[0.25, 0.75]])) == (65 + 192) / 512
    for constant in (np.zeros((4, 4)), np.full((4, 4), 0.3)):
        assert score_maps.min_cross_entropy(constant) == 0.5


def test_min_cross_entropy_by_hand():
    # Levels 1, 9 and 49 halves: one split gives means 1 and 29, the other 5 and 49.
    score_map = np.array([[0.5, 4.5, 24.5]]) / 256
    split_low = 1 * np.log(1) + 58 * np.log(29)  # 195.3
    split_high = 10 * np.log(5) + 49 * np.log(49)  # 206.8, kept better
    assert split_high > split_low
    assert score_maps.min_cross_entropy(score_map) * 256 == pytest.approx((5 + 24) / 2)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(2, 6), st.integers(2, 6))))
@settings(max_examples=50, deadline=None)
def test_min_cross_entropy_splits_as_well_as_any_of_255_thresholds(levels):
    score_map = (levels.astype(np.float64) + 0.5) / 256

    def cross_entropy(threshold):
        sides = [score_map[score_map > threshold], score_map[score_map <= threshold]]
        return sum((side * np.log(side / side.mean())).sum() for side in sides if side.size)

    best = min(cross_entropy(k / 256) for k in range(1, 256))
    assert cross_entropy(score_maps.min_cross_entropy(score_map)) == pytest.approx(best, abs=1e-6)


def test_largest_component_counts_pixels_not_extent():
    mask = np.bool_([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1] * 5])
    kept = score_maps.largest_component(mask)
    assert np.argwhere(kept).tolist() == [[4, column] for column in range(5)]


def test_diagonal_neighbours_are_connected():
    mask = np.eye(4, dtype=bool)
    np.testing.assert_array_equal(score_maps.largest_component(mask), mask)


def test_of_equal_components_the_first_row_by_row_is_kept():
    # Found in 2x2 blocks, the pixel at the left comes first; row by row, the one at the right.
    mask = np.zeros((2, 6), bool)
    mask[1, 0] = mask[0, 4] = True
    assert np.argwhere(score_maps.largest_component(mask)).tolist() == [[0, 4]]


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_largest_component_is_what_flooding_finds(mask):
    components = _components(mask)
    expected = max(components, key=len) if components else []  # max keeps the first of equals
    found = score_maps.largest_component(mask)
    assert [tuple(point) for point in np.argwhere(found).tolist()] == expected


def test_box_is_half_open():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 7:11] = True
    box = score_maps.box_of(mask)
    assert box.dtype == np.float32
    assert box.tolist() == [7, 2, 11, 5]


def test_box_of_nothing_is_the_whole_picture():
    assert score_maps.box_of(np.zeros((10, 20), bool)).tolist() == [0, 0, 20, 10]


@given(MASKS)
@settings(max_examples=200, deadline=None)
def test_components_are_what_flooding_finds(mask):
    """The largest first; `_components` lists them by their first pixel, and sorting is stable."""
    values = np.random.default_rng(0).random(mask.shape, np.float32)
    boxes, scores, areas = [], [], []
    for component in sorted(_components(mask), key=len, reverse=True):
        rows, columns = zip(*component, strict=True)
        boxes.append([min(columns), min(rows), max(columns) + 1, max(rows) + 1])
        scores.append(np.mean([float(values[point]) for point in map(tuple, component)]))
        areas.append(len(component))
    found = score_maps.components(mask, values)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.boxes.shape == (len(boxes), 4)
    assert found.boxes.tolist() == boxes and found.areas.tolist() == areas
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    if boxes:
        box = score_maps.box_of(score_maps.largest_component(mask))
        np.testing.assert_array_equal(found.boxes[0], box)


def test_components_by_hand():
    mask = np.zeros((6, 12), bool)
    mask[5, 0:2] = mask[0, 9:11] = mask[0, 5:7] = True
    mask[2:5, 3:6] = True
    values = np.where(mask, np.float32(0.5), np.float32(0.1))
    values[0, 9:11] = 0.75, 1.0
    found = score_maps.components(mask, values)
    assert found.boxes.tolist() == [[3, 2, 6, 5], [5, 0, 7, 1], [9, 0, 11, 1], [0, 5, 2, 6]]
    assert found.areas.tolist() == [9, 2, 2, 2]
    assert found.scores.tolist() == [0.5, 0.5, 0.875, 0.5]
    for settings_, count in (
        ({"min_area": 2 / 9}, 4),
        ({"min_area": 0.23}, 1),  # 2 of 9 pixels are a smaller share
        ({"min_area": 1.0}, 1),
        ({"min_picture_area": 2 / 72}, 4),  # of 6 x 12 pixels
        ({"min_picture_area": 0.03}, 1),
        ({"min_picture_area": 0.13}, 0),  # the largest has 9 of 72, which is 0.125
        ({"min_area": 0.1, "min_picture_area": 0.125}, 1),
        ({"max_objects": 3}, 3),
        ({"min_area": 0.2, "max_objects": 2}, 2),
    ):
        kept = score_maps.components(mask, values, **settings_)
        assert [part.tolist() for part in kept] == [part[:count].tolist() for part in found]
    empty = score_maps.components(np.zeros((3, 4), bool), np.zeros((3, 4)), min_area=0.5)
    assert [part.shape for part in empty] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize(
    ("kind", "channels", "top_k", "expected"),
    [("mean", 7, 5, None), ("topk", 7, 5, 5), ("topk", 3, 5, 3), ("predicted", 7, 5, 1),
     ("true", 7, 5, 1), ("cam", 7, 5, 1), ("topk", 1, 5, None), ("predicted", 1, 5, None)],
)  # fmt: skip
def test_channels_that_make_the_foreground_mask(kind, channels, top_k, expected):
    assert score_maps.averaged_channels(kind, channels, top_k) == expected


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", ["mean", "topk", "predicted"])
def test_the_mask_of_numpy_is_that_of_the_keras_model(kind, channels, rng):
    maps = rng.random((5, 6, channels), np.float32)
    scores = rng.normal(size=4).astype(np.float32)
    parts = types.SimpleNamespace(map=kind, top_k=3)
    keras_mask = Localization.foreground_mask(parts, maps[None], scores[None])[0]
    mask = score_maps.map_of(kind, maps, None, scores, 0, top_k=3)
    assert mask.dtype == np.float32 and mask.shape == (5, 6)
    np.testing.assert_allclose(keras_mask, mask, rtol=1e-6)


CUTS = st.sampled_from([-0.1, 0, 0.2, 0.25, 0.5, 0.7, 0.874, 0.875, 0.9, 1, 2])


@given(MAPS, st.lists(CUTS, max_size=3) | st.lists(CUTS, min_size=12, max_size=20))
@settings(max_examples=300, deadline=None)
def test_boxes_at_equals_one_threshold_at_a_time(score_map, thresholds):
    expected = [
        score_maps.box_of(score_maps.largest_component(score_maps.threshold_mask(score_map, t)))
        for t in thresholds
    ]
    found = boxes_at(score_map, thresholds)
    assert found.shape == (len(thresholds), 4)
    np.testing.assert_array_equal(found, np.reshape(expected, (-1, 4)))


def test_boxes_at_may_switch_component_as_the_threshold_rises():
    score_map = np.zeros((6, 12), np.float32)
    score_map[1:5, 1:5] = 0.5  # large and faint
    score_map[2:4, 8:10] = 0.9  # small and strong
    boxes = boxes_at(score_map, [0.8, 0.2, 0.95])
    assert boxes.tolist() == [[8, 2, 10, 4], [1, 1, 5, 5], [0, 0, 12, 6]]
    many = boxes_at(score_map, np.linspace(0.05, 0.95, 300))
    np.testing.assert_array_equal(many[[0, 140, 200, 299]], boxes[[1, 1, 0, 2]])


def test_box_iou_by_hand():
    boxes = [[0, 0, 4, 4], [0, 0, 2, 2], [5, 5, 5, 9]]
    others = [[0, 0, 4, 4], [2, 2, 6, 6], [4, 0, 8, 4]]
    expected = [[1, 4 / 28, 0], [4 / 16, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(box_iou(boxes, others), expected)


def test_box_iou_of_no_boxes_has_their_shape():
    assert box_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert box_iou(np.zeros((3, 4)), []).shape == (3, 0)


def test_bas_box_iou_adds_a_pixel_to_each_side():
    # 2x2 and 2x2 side by side: 0 in truth; with a pixel more 3x3 each, sharing a column of 3.
    assert bas_box_iou([0, 0, 2, 2], [2, 0, 4, 2])[0, 0] == pytest.approx(3 / 15)


INTEGER_BOXES = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 9)] * 2).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)


@given(INTEGER_BOXES, INTEGER_BOXES)
@settings(max_examples=100, deadline=None)
def test_box_iou_is_the_mask_iou_of_filled_boxes(box, other):
    filled = np.zeros((2, 20, 20), bool)
    for mask, (x0, y0, x1, y1) in zip(filled, (box, other), strict=True):
        mask[y0:y1, x0:x1] = True
    expected = mask_iou(filled[0], filled[1].astype(np.uint8))
    assert box_iou(box, other)[0, 0] == pytest.approx(expected)
    assert box_iou(other, box)[0, 0] == box_iou(box, other)[0, 0]


def test_mask_iou_leaves_ignored_positions_out():
    truth = np.uint8([[1, 1, 0, 255], [0, 0, 255, 1]])
    mask = np.bool_([[1, 0, 1, 1], [0, 0, 0, 1]])
    assert mask_iou(mask, truth) == 2 / 4


def test_mask_iou_of_two_empty_masks_is_one():
    assert mask_iou(np.zeros((2, 2), bool), np.uint8([[0, 255], [0, 0]])) == 1
    assert mask_iou(np.ones((2, 2), bool), np.uint8([[0, 255], [0, 0]])) == 0


def test_mask_iou_refuses_two_shapes():
    with pytest.raises(ValueError, match=r"Received: \(2, 2\), \(2, 3\)"):
        mask_iou(np.zeros((2, 2), bool), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"Received: \(2, 2\), \(2, 3\)"):
        mask_ious_at(np.zeros((2, 2)), np.zeros((2, 3), np.uint8), [0.5])


@given(MAPS, st.data())
@settings(max_examples=100, deadline=None)
def test_mask_ious_at_equals_one_threshold_at_a_time(score_map, data):
    truth = data.draw(hnp.arrays(np.uint8, score_map.shape, elements=st.sampled_from([0, 1, 255])))
    thresholds = [-0.1, 0, 0.125, 0.3, 0.5, 1]
    expected = [mask_iou(score_maps.threshold_mask(score_map, t), truth) for t in thresholds]
    np.testing.assert_allclose(mask_ious_at(score_map, truth, thresholds), expected)


def test_searching_all_thresholds_at_once_loses_nothing_at_full_size():
    rng = np.random.default_rng(3)
    noise = cv2.GaussianBlur(rng.random((28, 28), np.float32), (0, 0), 1.5)
    score_map = score_maps.resize(score_maps.normalize(noise), 224, 224)
    expected = [
        score_maps.box_of(score_maps.largest_component(score_maps.threshold_mask(score_map, t)))
        for t in metrics.THRESHOLDS
    ]
    np.testing.assert_array_equal(boxes_at(score_map, metrics.THRESHOLDS), expected)


@pytest.mark.realdata
def test_boxes_equal_those_of_bas(shared_dir):
    vectors = arrays_in(shared_dir / "vectors" / "bas_vectors_open.npz")
    meaning = json.loads((shared_dir / "vectors" / "bas_vectors_open.json").read_text())
    assert "largest 8-connected" in meaning["arrays_doc"]["box_*"]
    thresholds = vectors["box_thresholds"]
    for i, score_map in enumerate(vectors["box_maps28"]):
        resized = score_maps.resize(score_maps.normalize(score_map), 224, 224)
        np.testing.assert_array_equal(resized, np.nan_to_num(vectors["box_maps224"][i]))
        boxes = boxes_at(resized, thresholds)
        np.testing.assert_array_equal(boxes, vectors["box_xyxy"][i])
        ious = bas_box_iou(boxes, vectors["box_gt_xyxy"][i])[:, 0]
        np.testing.assert_array_equal(ious, vectors["box_iou"][i])
        for threshold, pixels in zip(thresholds, vectors["box_component_pixels"][i], strict=True):
            mask = score_maps.largest_component(score_maps.threshold_mask(resized, threshold))
            assert mask.sum() == pixels


def test_bas_view_boxes_by_hand():
    # 512 x 128 -> 256 x 256: x halves, y doubles; then 16 less, cut off at 0 and 224.
    boxes = bas_view_boxes([[100, 20, 300, 60], [0, 0, 512, 128]], (512, 128))
    assert boxes.tolist() == [[34, 24, 134, 104], [0, 0, 224, 224]]
    assert bas_view_boxes([], (5, 5)).shape == (0, 4)


@pytest.mark.realdata
def test_view_boxes_equal_those_of_bas(shared_dir):
    vectors = arrays_in(shared_dir / "vectors" / "bas_vectors_open.npz")
    for box, size, expected in zip(
        vectors["gt_original_xyxy"],
        vectors["gt_image_wh"],
        vectors["gt_in_crop_xyxy"],
        strict=True,
    ):
        np.testing.assert_array_equal(bas_view_boxes(box, size)[0], expected)
