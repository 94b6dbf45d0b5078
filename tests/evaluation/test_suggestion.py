"""The threshold that a map suggests without boxes, by activation and colours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsol_tf.evaluation.suggestion import colours_of, explained, suggested_threshold
from wsol_tf.model import score_maps

GRAY = np.full((20, 20, 3), 100, np.uint8)


def nested(*sizes_and_values, side=20):
    """A map of squares around the middle, the largest first."""
    score_map = np.zeros((side, side), np.float32)
    for size, value in sizes_and_values:
        low = (side - size) // 2
        score_map[low : low + size, low : low + size] = value
    return score_map


MAP = nested((14, 0.3), (8, 0.6), (4, 1))  # masks of sides 14, 8 and 4


def test_explained_by_hand():
    # Levels 0, 1, 2, 3 with evidence 0, 0, 1, 1: the masks {1, 2, 3}, {2, 3} and {3}. Covariances
    # 1/8, 1/4, 1/8; variance of the evidence 1/4, of the masks 3/16, 1/4, 3/16.
    share, rises = explained(np.array([0, 1, 2, 3]), np.array([[0.0], [0], [1], [1]]))
    np.testing.assert_allclose(share[:3], [1 / 3, 1, 1 / 3])
    np.testing.assert_allclose(rises[:3, 0], [1 / 8, 1 / 4, 1 / 8])
    assert not share[3:].any()  # empty masks


@given(
    hnp.arrays(np.int64, 30, elements=st.integers(0, 255)),
    hnp.arrays(np.float64, (30, 3), elements=st.integers(0, 9)),
)
@settings(max_examples=50, deadline=None)
def test_explained_is_the_share_of_a_least_squares_fit(levels, evidence):
    share, _ = explained(levels, evidence)
    columns = np.column_stack([np.ones(30), evidence])
    for level in (1, 100, 200):
        mask = (levels >= level).astype(float)
        if not 0 < mask.mean() < 1:
            assert share[level - 1] == 0
            continue
        fit = columns @ np.linalg.lstsq(columns, mask, rcond=1e-9)[0]
        assert share[level - 1] == pytest.approx(1 - (mask - fit).var() / mask.var(), abs=1e-6)


@pytest.mark.parametrize(("size", "low", "high"), [(14, 0, 0.3), (8, 0.3, 0.6), (4, 0.6, 1)])
def test_the_mask_that_activation_and_colours_agree_on_is_taken(size, low, high):
    seen = nested((size, 1.0)) > 0
    image = np.where(seen[..., None], [200, 30, 30], [20, 90, 20]).astype(np.uint8)
    assert low < suggested_threshold(MAP, seen.astype(np.float32), image) < high
    assert low < suggested_threshold(MAP, seen.astype(np.float32), GRAY) < high


def test_where_activation_is_blurred_colours_decide():
    image = np.where(nested((8, 1.0))[..., None] > 0, [200, 30, 30], [20, 90, 20]).astype(np.uint8)
    distance = np.abs(np.arange(20) - 9.5)
    blurred = np.exp(-((distance[:, None] ** 2 + distance**2) / 200)).astype(np.float32)
    assert 0 < suggested_threshold(MAP, blurred, None) < 0.3  # by itself: too much
    assert 0.3 < suggested_threshold(MAP, blurred, image) < 0.6


def test_less_activation_inside_is_no_evidence():
    outside = (nested((8, 1.0)) == 0).astype(np.float32)
    assert suggested_threshold(MAP, outside, GRAY) == 0.5  # no cut is better than another


@pytest.mark.parametrize("activation", [None, np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_without_activation_it_is_the_least_cross_entropy(activation):
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    found = suggested_threshold(MAP, activation, image)
    assert found == score_maps.min_cross_entropy(MAP)


def test_the_size_of_the_view_changes_little():
    image = np.where(nested((8, 1.0))[..., None] > 0, [200, 30, 30], [20, 90, 20])
    image = image.astype(np.uint8)
    seen = nested((8, 1.0))
    large = [np.kron(array, np.ones((16, 16))).astype(np.float32) for array in (MAP, seen)]
    found = suggested_threshold(*large, colours_of(image.repeat(16, 0).repeat(16, 1)))
    assert 0.3 < found < 0.6
