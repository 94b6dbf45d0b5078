"""Semantic mIoU by hand, and against a count in another way."""

import numpy as np
import pytest

from wsol_tf.evaluation.segmentation import SegmentationMetrics, class_pixels


def test_the_highest_map_above_its_threshold_wins():
    maps = np.float32([[[0.9, 0.6, 0.2, 0.7]], [[0.5, 0.8, 0.3, 0.7]]])
    masks = maps > np.float32([0.5, 0.4]).reshape(2, 1, 1)
    found = class_pixels(maps, masks, [4, 1])
    assert found.tolist() == [[5, 2, 0, 5]]  # equal: the first


def test_iou_by_hand():
    metrics = SegmentationMetrics(3)
    metrics.add(np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, -1]]))
    metrics.add(np.array([[0, 0]]), np.array([[0, 1]]))
    figures = metrics.result(("cat", "dog", "hen"))
    assert figures["iou"] == {"background": 2 / 3, "cat": 1 / 3, "dog": 0.0, "hen": None}
    assert figures["miou"] == pytest.approx(1 / 3)
    assert figures["num_images"] == 2
    assert SegmentationMetrics(3).result(("cat", "dog", "hen")) is None


def test_iou_is_that_of_counting_masks_and_parts_add_up():
    rng = np.random.default_rng(0)
    pairs = [rng.integers(0, 22, (2, 9, 7)) for _ in range(5)]
    pairs = [(found, np.where(rng.random((9, 7)) < 0.1, -1, truth)) for found, truth in pairs]
    whole, parts = SegmentationMetrics(21), [SegmentationMetrics(21) for _ in range(2)]
    for i, (found, truth) in enumerate(pairs):
        whole.add(found, truth)
        parts[i % 2].add(found, truth)
    parts[1].merge(parts[0])
    names = tuple("abcdefghijklmnopqrstu")
    figures = whole.result(names)
    assert parts[1].result(names) == figures
    found, truth = (np.concatenate(part) for part in zip(*pairs, strict=True))
    for value, name in enumerate(("background", *names)):
        is_found, is_true = (found == value) & (truth >= 0), truth == value
        expected = (is_found & is_true).sum() / (is_found | is_true).sum()
        assert figures["iou"][name] == pytest.approx(expected)
