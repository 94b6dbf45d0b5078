"""The guided filter against its definition, window by window, and what it is for."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from wsol_tf.model import refinement, score_maps
from wsol_tf.model.refinement import guided_filter, refine, refine_batch, window_means


def test_windows_average_and_mirror_the_border():
    means = window_means(14)  # radius 2
    np.testing.assert_allclose(means.sum(1), 1)
    np.testing.assert_allclose(means[7], np.r_[np.zeros(5), np.full(5, 0.2), np.zeros(4)])
    np.testing.assert_allclose(means[0][:4], [0.4, 0.4, 0.2, 0])
    values = np.random.default_rng(0).random((14, 21))
    filtered = cv2.boxFilter(values, -1, (7, 5), borderType=cv2.BORDER_REFLECT)
    np.testing.assert_allclose(window_means(14) @ values @ window_means(21).T, filtered)


def by_definition(values, guide):
    """He et al.: the least squares of each window, then the mean of what all windows say."""
    height, width = values.shape
    down, across = (max(1, round(side / 7)) for side in (height, width))

    def windows(y, x, radius_y=down, radius_x=across):
        rows = [
            min(max(i, -1 - i), 2 * height - 1 - i) for i in range(y - radius_y, y + radius_y + 1)
        ]
        columns = [
            min(max(j, -1 - j), 2 * width - 1 - j) for j in range(x - radius_x, x + radius_x + 1)
        ]
        return np.ix_(rows, columns)

    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            inside = windows(y, x)
            colours = guide[:, inside[0], inside[1]].reshape(3, -1).T
            known = values[inside].ravel()
            centred = colours - colours.mean(0)
            matrix = centred.T @ centred / len(known) + refinement.EPSILON * np.eye(3)
            slopes[y, x] = np.linalg.solve(matrix, centred.T @ (known - known.mean()) / len(known))
            offsets[y, x] = known.mean() - slopes[y, x] @ colours.mean(0)
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            inside = windows(y, x)
            result[y, x] = slopes[inside].mean((0, 1)) @ guide[:, y, x] + offsets[inside].mean()
    return result


@pytest.mark.parametrize("size", [(14, 14), (9, 16)])
def test_the_filter_is_that_of_its_definition(size):
    rng = np.random.default_rng(1)
    values, guide = rng.random(size), rng.random((*size, 3))
    np.testing.assert_allclose(
        guided_filter(values, guide, window_means(size[0]), window_means(size[1]).T),
        by_definition(values, guide.transpose(2, 0, 1)),
        atol=1e-9,
    )


def disc(side, radius, x, y):
    rows, columns = np.mgrid[:side, :side] + 0.5
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def test_a_coarse_map_ends_where_the_object_does():
    inside = disc(224, 60, 120, 100)
    rng = np.random.default_rng(0)
    picture = np.where(inside[..., None], (200, 90, 40), (60, 120, 150)) + rng.integers(
        -9, 9, (224, 224, 3)
    )
    coarse = cv2.GaussianBlur(disc(28, 9, 15.5, 13).astype(np.float32), (0, 0), 1.5)

    def mask_iou(score_map):
        _, mask, _ = score_maps.localize(score_map, 224, 224, 0.5)
        return (mask & inside).sum() / (mask | inside).sum()

    assert mask_iou(coarse) < 0.75
    assert mask_iou(refine(coarse, picture.astype(np.uint8))) > 0.95


def test_a_flat_picture_leaves_a_smooth_map():
    picture = np.full((112, 112, 3), 128, np.uint8)
    ramp = np.linspace(0, 1, 14, dtype=np.float32) * np.ones((14, 1), np.float32)
    refined = refine(ramp, picture)
    assert refined.shape == (28, 28) and refined.dtype == np.float32
    assert (np.diff(refined, axis=1) >= -1e-6).all() and np.ptp(refined, axis=0).max() < 1e-6


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_what_has_no_shape_is_returned_as_it_is(value):
    score_map = np.full((7, 7), value, np.float32)
    picture = np.zeros((56, 56, 3), np.uint8)
    np.testing.assert_array_equal(refine(score_map, picture), score_map)


def test_a_black_picture_gives_finite_values():
    score_map = np.random.default_rng(0).random((7, 7))
    assert np.isfinite(refine(score_map, np.zeros((64, 64, 3), np.uint8))).all()


def test_in_a_training_step_it_is_the_same_and_averaged_down_again():
    rng = np.random.default_rng(2)
    maps = cv2.GaussianBlur(rng.random((28, 28, 2)), (0, 0), 2).transpose(2, 0, 1)
    images = rng.integers(0, 256, (2, 224, 224, 3), np.uint8)
    expected = np.stack([refine(m, i) for m, i in zip(maps, images, strict=True)])
    expected = expected.reshape(2, 28, 2, 28, 2).mean((2, 4))
    np.testing.assert_allclose(refine_batch(maps, images), expected, atol=1e-4)
    compiled = tf.function(refine_batch)(tf.constant(maps), tf.constant(images))
    np.testing.assert_allclose(compiled, expected, atol=1e-4)


def test_in_a_training_step_a_constant_map_gives_no_nan():
    refined = refine_batch(np.full((1, 7, 7), 0.5, np.float32), np.zeros((1, 56, 56, 3), np.uint8))
    assert np.isfinite(refined).all()
