"""Outlines that are not what COCO means: read where that is plain, named otherwise, bounded."""

import math
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from wsol_tf.data import coco_masks
from wsol_tf.data.coco_masks import (
    CocoObject,
    decode_runs,
    draw_mask,
    fill_polygons,
    read_outline,
    unpack_counts,
)

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]


@pytest.mark.parametrize("segmentation", [None, [], [[]], [[], []]])
def test_nothing_is_no_outline(segmentation):
    assert read_outline(segmentation) == (None, None)


@pytest.mark.parametrize(
    ("segmentation", "repair"),
    [
        ([SQUARE], None),
        ([[str(value) for value in SQUARE]], None),
        ([[[2, 2], [6, 2], [6, 6], [2, 6]]], None),
        (SQUARE, "a flat list of numbers, taken for one polygon"),
        ([[2, 2], [6, 2], [6, 6], [2, 6]], "a list of points, taken for one polygon"),
        ([SQUARE, [1, 1, 2, 2]], "polygons of fewer than three points, left out"),
    ],
)
def test_polygons_are_read_where_their_meaning_is_plain(segmentation, repair):
    outline, said = read_outline(segmentation)
    assert said == repair
    expected = np.zeros((10, 10), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(fill_polygons(outline, (10, 10)), expected)


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[10, 10, 50, 10, 50]], "odd count"),
        ([10, 10, 50, 10, 50], "odd count"),
        ([[1, 1, 2, 2]], "fewer than three points"),
        ([[5, 5, math.nan, 5, 9, 9]], "no finite numbers"),
        ([[5, 5, math.inf, 5, 9, 9]], "no finite numbers"),
        ([[5, 5, None, 5, 9, 9]], "no finite numbers"),
        ([[5, 5, 1e30, 5, 9, 9]], "beyond 500,000 pixels"),
        ([[5, 5, 10**400, 5, 9, 9]], "no list of numbers"),
        ([["a", "b", "c", "d", "e", "f"]], "no list of numbers"),
        ([{"x": 1}], "no list of numbers"),
        ([[[[1, 2], [3, 4]]]], "no list of numbers"),
        ([SQUARE, 5], "no list of numbers"),
        ("SQUARE", "it is text, neither polygons nor run lengths"),
        (7, "it is a number"),
        (True, "it is true or false"),
        ({}, "size of the runs"),
        ({"size": 10, "counts": [100]}, "size of the runs"),
        ({"size": [10, 0], "counts": [0]}, "size of the runs"),
        ({"size": [10, 10]}, "no list of numbers"),
        ({"size": [10, 10], "counts": {"a": 1}}, "no list of numbers"),
        ({"size": [10, 10], "counts": [50, 50.5]}, "no whole numbers from 0"),
        ({"size": [10, 10], "counts": [150, -50]}, "no whole numbers from 0"),
        ({"size": [10, 10], "counts": [math.nan]}, "no whole numbers from 0"),
        ({"size": [10, 10], "counts": [None, 100]}, "no whole numbers from 0"),
    ],
)  # fmt: skip
def test_outlines_that_mean_nothing_are_refused(segmentation, reason):
    with pytest.raises(ValueError, match=reason):
        read_outline(segmentation)


def test_run_lengths_may_be_floats_or_text():
    expected = np.zeros((4, 5), bool)
    expected[:, 1] = True
    for counts in ([4, 4, 12], [4.0, 4.0, 12.0], ["4", "4", "12"], "44<"):
        runs = {"size": ["4", 5.0], "counts": counts}
        np.testing.assert_array_equal(decode_runs(runs, (4, 5)), expected)


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [10, 10], "counts": [10**12]},
        {"size": [10, 10], "counts": [0, 2**70]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [10, 10], "counts": [50, 49]},
        {"size": [20, 5], "counts": [100]},
    ],
)
def test_runs_are_added_up_before_they_are_expanded(runs):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="the picture has 10 x 10"):
            decode_runs(runs, (10, 10))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\u00e9", "other characters"),
        ("P" * 1_000_000, "longer than any picture"),
        ("4P", "end within a number"),
        ("O", "negative"),
    ],
)
def test_compressed_runs_that_are_damaged_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        unpack_counts(text)


def drawn(*objects, size=(10, 10)):
    reasons = []
    mask = draw_mask(objects, size, lambda known, reason: reasons.append((known.name, reason)))
    return mask, reasons


GOOD = CocoObject(0, (2, 2, 6, 6), False, [np.float32(SQUARE).reshape(-1, 2)], name="good")
LONG = {"size": [10, 10], "counts": [10**12]}


def test_an_outline_that_cannot_be_drawn_leaves_its_box_ignored():
    mask, reasons = drawn(CocoObject(1, (5, 5, 9, 8), False, LONG, name="long"), GOOD)
    expected = np.zeros((10, 10), np.uint8)
    expected[5:8, 5:9] = 255
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(mask, expected)
    assert [name for name, _ in reasons] == ["long"] and "cover 1000000000000" in reasons[0][1]
    same, reasons = drawn(GOOD, CocoObject(1, (5, 5, 9, 8), False, None, broken="odd"))
    np.testing.assert_array_equal(same, expected)
    assert not reasons  # it was named when it was read


def test_a_mask_without_any_good_outline_is_none():
    assert drawn(CocoObject(1, (5, 5, 9, 8), False, LONG))[0] is None
    assert drawn(GOOD, CocoObject(1, None, False, LONG))[0] is None  # where is it?
    outside = [np.float32(SQUARE).reshape(-1, 2) + 50]
    mask, reasons = drawn(CocoObject(1, (5, 5, 9, 8), False, outside, name="outside"))
    assert mask is None
    assert reasons == [("outside", "the outline covers no pixel of the picture")]


def test_crowds_lie_below_all_objects():
    crowd = CocoObject(1, None, True, [np.float32([[0, 0], [3, 0], [3, 3], [0, 3]])])
    for objects in ((crowd, GOOD), (GOOD, crowd)):
        mask, _ = drawn(*objects)
        assert mask[2, 2] == 1 and mask[1, 1] == 255


def drawn_at_once(points, size):
    """As all polygons were drawn before there were tiles."""
    inside = np.zeros(size, bool)
    low = np.clip(np.floor(points.min(axis=0)), 0, size[::-1]).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), 0, size[::-1]).astype(int)
    if (low < high).all():
        large = np.zeros(8 * (high - low)[::-1], np.uint8)
        fixed = np.rint(((points - low) * 8 - 0.5) * 256).astype(np.int32)
        cv2.fillPoly(large, [fixed], 255, cv2.LINE_8, 8)
        cover = cv2.resize(large, (high - low).tolist(), interpolation=cv2.INTER_AREA)
        inside[low[1] : high[1], low[0] : high[0]] = cover >= 128
    return inside


def test_polygons_of_ordinary_pictures_are_drawn_at_once():
    rng = np.random.default_rng(0)
    for size in [(1080, 1920), *rng.integers(20, 300, (40, 2)).tolist()]:
        points = rng.uniform(-0.1, 1.1, (rng.integers(3, 30), 2)) * size[::-1]
        polygon = np.clip(points, -9, 1920).astype(np.float32)
        np.testing.assert_array_equal(
            fill_polygons([polygon], tuple(size)), drawn_at_once(polygon, tuple(size))
        )


def test_large_polygons_take_little_memory_and_the_same_pixels(monkeypatch):
    polygon = np.float32(
        [[10.3, 5.2], [2990.7, 20.1], [2800, 1990.5], [1500.2, 1200.9], [100, 1980]]
    )
    tracemalloc.start()
    try:
        tiled = fill_polygons([polygon], (2000, 3000))
        assert tracemalloc.get_traced_memory()[1] < 192 * 2**20  # at once they were 384 MiB
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(coco_masks, "TILE_PIXELS", 2**40)
    at_once = fill_polygons([polygon], (2000, 3000))
    different = tiled != at_once
    assert different.sum() < 1e-4 * at_once.sum()
    # Those that differ lie on an edge.
    rows, columns = np.nonzero(different)
    for row, column in zip(rows, columns, strict=True):
        around = at_once[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert around.any() and not around.all()


def test_a_rectangle_in_tiles_is_exact(monkeypatch):
    monkeypatch.setattr(coco_masks, "TILE_PIXELS", 60)
    monkeypatch.setattr(coco_masks, "TILE_WIDTH", 7)
    inside = fill_polygons([np.float32([[-9, 3], [33, 3], [33, 28], [-9, 28]])], (30, 40))
    expected = np.zeros((30, 40), bool)
    expected[3:28, :33] = True
    np.testing.assert_array_equal(inside, expected)


def test_points_far_outside_are_drawn_as_they_should():
    far = np.float32([[-5e5, -5e5], [5e5, -5e5], [5e5, 5e5], [-5e5, 5e5]])
    assert fill_polygons([far], (20, 30)).all()
    half = np.float32([[15, -5e5], [5e5, -5e5], [5e5, 5e5], [15, 5e5]])
    inside = fill_polygons([half], (20, 30))
    assert inside[:, 15:].all() and not inside[:, :15].any()


def test_polygons_that_would_be_drawn_for_hours_are_refused():
    whole = np.float32([[0, 0], [100, 0], [100, 100], [0, 100]])
    start = time.monotonic()
    with pytest.raises(ValueError, match="64 times the picture"):
        fill_polygons([whole] * 1_000_000, (100, 100))
    assert time.monotonic() - start < 20
