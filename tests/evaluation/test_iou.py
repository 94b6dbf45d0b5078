"""IoUs held against those of pycocotools, where it is installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_tf.evaluation.iou import box_area, box_iou, mask_iou, mask_ious_at

coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
EDGES = st.integers(0, 40)
BOXES = st.lists(
    st.tuples(EDGES, EDGES, EDGES, EDGES).map(
        lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1]
    ),
    min_size=1,
    max_size=6,
)


def corner_and_size(boxes):
    boxes = np.array(boxes, np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def encoded(mask):
    return coco.encode(np.asfortranarray(mask, np.uint8))


@given(BOXES, BOXES)
def test_box_ious_are_those_of_coco(boxes, others):
    expected = coco.iou(corner_and_size(boxes), corner_and_size(others), [0] * len(others))
    np.testing.assert_allclose(box_iou(boxes, others), expected, rtol=1e-12)
    sizes = corner_and_size(boxes)[:, 2:]
    np.testing.assert_array_equal(box_area(boxes), sizes.prod(1))


@given(st.integers(0, 999), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_mask_ious_are_those_of_coco(seed, threshold):
    rng = np.random.default_rng(seed)
    score_map, truth = rng.random((17, 23), np.float32), rng.random((17, 23)) > 0.6
    mask = score_map > np.float32(threshold)
    expected = coco.iou([encoded(mask)], [encoded(truth)], [0])[0, 0]
    assert mask_iou(mask, truth.astype(np.uint8)) == pytest.approx(expected, rel=1e-12)
    found = mask_ious_at(score_map, truth.astype(np.uint8), [threshold])
    assert found == pytest.approx(expected, rel=1e-12)
