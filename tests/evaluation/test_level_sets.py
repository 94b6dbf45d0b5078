import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_tf.evaluation import level_sets

ALL = np.arange(255)
# Few grey levels make ties and plateaus, many make deep trees.
IMAGES = st.integers(1, 255).flatmap(
    lambda top: hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, top)
    )
)


def _smooth(image, size):
    """Large plateaus, slopes and rings, as in score maps."""
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)


def _boxes_by_level(level, boxes):
    return [sorted(map(tuple, boxes[level == each].tolist())) for each in ALL]


def _check(image):
    """All that the trees tell against tracing each level."""
    traced = [level_sets.traced(image, level) for level in ALL]
    found = level_sets.components(image, areas="contour")
    expected = [sorted(map(tuple, boxes.tolist())) for boxes, _ in traced]
    assert _boxes_by_level(*level_sets.all_boxes(image, found, ALL)) == expected
    # Both ways to the holes, whichever of them all_boxes took.
    hole_level, hole_boxes = level_sets.holes(image)
    both = np.append(found.level, hole_level), np.append(found.boxes, hole_boxes, axis=0)
    assert _boxes_by_level(*both) == expected
    assert np.bincount(hole_level, minlength=255).tolist() == found.num_holes.tolist()
    expected = [[tuple(boxes[areas.argmax()].tolist())] if len(boxes) else []
                for boxes, areas in traced]  # fmt: skip
    assert _boxes_by_level(*level_sets.largest_boxes(image, found, ALL)) == expected


@given(IMAGES)
@settings(max_examples=150, deadline=None)
def test_boxes_are_those_of_the_traced_contours(image):
    _check(image)


@given(hnp.arrays(np.uint8, (6, 6)))
@settings(max_examples=30, deadline=None)
def test_boxes_are_those_of_the_traced_contours_in_smooth_maps(image):
    _check(_smooth(image, 40))


def test_areas_are_those_of_the_contours_of_components_without_holes():
    image = np.random.default_rng(0).integers(0, 256, (30, 30)).astype(np.uint8)
    found = level_sets.components(image, areas="contour")
    for level in np.flatnonzero(found.num_holes == 0):
        _, areas = level_sets.traced(image, level)
        assert sorted(found.areas[found.level == level] / 2) == sorted(areas)


def test_by_hand():
    image = np.uint8(
        [
            [9, 9, 9, 0, 0],
            [9, 2, 9, 0, 0],
            [9, 9, 9, 0, 0],
            [0, 0, 0, 4, 0],
        ]
    )
    found = level_sets.components(image, areas="contour")
    at = {level: found.boxes[found.level == level].tolist() for level in (0, 2, 3, 4, 8, 9)}
    # The corner pixel 4 touches the 9 above it and belongs to it up to level 3.
    assert at[0] == at[2] == at[3] == [[0, 0, 4, 4]]
    assert at[4] == at[8] == [[0, 0, 3, 3]]
    assert at[9] == []
    assert found.num_holes[[1, 2, 8, 9]].tolist() == [0, 1, 1, 0]
    level, boxes = level_sets.holes(image)
    assert sorted(level) == list(range(2, 9))
    # The contour of a hole runs through the pixels around it.
    assert boxes.tolist() == [[0, 0, 3, 3]] * 7


def test_hole_is_not_reached_over_a_diagonal():
    image = np.uint8([[9, 9, 9, 9], [9, 0, 9, 9], [9, 9, 0, 9], [9, 9, 9, 9]])
    level, boxes = level_sets.holes(image)
    assert sorted(map(tuple, boxes[level == 5].tolist())) == [(0, 0, 3, 3), (1, 1, 4, 4)]


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_constant_image(value):
    found = level_sets.components(np.full((3, 5), value, np.uint8), areas="contour")
    assert found.level.tolist() == list(range(value))
    assert (found.boxes == [0, 0, 5, 3]).all()
    assert (found.areas == 2 * 4 * 2).all()
    assert not found.num_holes.any()


def test_only_the_wanted_levels_are_answered():
    image = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    found = level_sets.components(image, areas="contour")
    for search in (level_sets.all_boxes, level_sets.largest_boxes):
        level, _ = search(image, found, [3, 100, 254])
        assert set(level.tolist()) <= {3, 100, 254}
