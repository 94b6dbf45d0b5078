import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from wsol_tf.annotations import polygons
from wsol_tf.data.coco_masks import fill_polygons
from wsol_tf.model.score_maps import components, largest_component


def by_coco(ring, shape):
    """The pixels of a ring, as COCO's own code draws it."""
    runs = coco.frPyObjects([ring.ravel().tolist()], *map(int, shape))
    return coco.decode(coco.merge(runs)).astype(bool)


def test_a_rectangle_has_its_four_corners():
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    ring = polygons.polygon(mask, 0)
    assert sorted(map(tuple, ring.tolist())) == [(2, 1), (2, 4), (7, 1), (7, 4)]
    assert polygons.area(ring) == 15


def test_one_pixel_is_a_square():
    ring = polygons.polygon(np.ones((1, 1), bool), 0)
    assert sorted(map(tuple, ring.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_hole_is_cut_in():
    mask = np.ones((5, 7), bool)
    mask[2, 3] = False
    outline, hole = polygons.rings(mask)
    assert polygons.area(outline) == 35 and polygons.area(hole) == 1
    ring = polygons.polygon(mask, 0)
    assert {tuple(point) for point in ring.tolist()} >= {(3, 2), (4, 2), (4, 3), (3, 3)}
    np.testing.assert_array_equal(by_coco(ring, mask.shape), mask)
    np.testing.assert_array_equal(fill_polygons([np.float32(ring)], mask.shape), mask)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_polygons_without_tolerance_are_the_mask_to_the_pixel(share, rng):
    for _ in range(40):
        mask = largest_component(rng.random(rng.integers(1, 25, 2)) < share)
        if mask.any():
            ring = polygons.polygon(mask, 0)
            np.testing.assert_array_equal(by_coco(ring, mask.shape), mask)
            assert (ring.min(0) >= 0).all() and (ring.max(0) <= mask.shape[::-1]).all()


def test_tolerance_leaves_few_points_and_stays_within_it():
    rows, columns = np.mgrid[:200, :300]
    apart = np.hypot(rows - 100, columns - 150)
    mask = (apart < 80) & (apart > 20)
    exact, loose = polygons.polygon(mask, 0), polygons.polygon(mask, 2)
    assert len(loose) < len(exact) / 5
    wrong = by_coco(loose, mask.shape) != mask
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    assert wrong.any() and (inside + outside)[wrong].max() <= 3  # 2 pixels, and half of one


def test_a_tolerance_larger_than_the_object_keeps_it():
    mask = np.zeros((5, 5), bool)
    mask[2, 1:4] = True
    assert polygons.area(polygons.polygon(mask, 50)) > 0


def test_holes_smaller_than_the_tolerance_are_filled():
    mask = np.ones((40, 40), bool)
    mask[20, 20] = False
    assert polygons.area(polygons.polygon(mask, 3)) == pytest.approx(1600, abs=1)
    assert len(polygons.polygon(mask, 3)) == 4


def test_the_component_of_a_box_is_found_among_others_within_it():
    mask = np.zeros((12, 12), bool)
    mask[0, :], mask[:, 0], mask[11, :], mask[:, 11] = (True,) * 4  # a frame
    mask[5:7, 4:8] = True
    found = components(mask, mask.astype(np.float32))
    assert found.boxes.tolist() == [[0, 0, 12, 12], [4, 5, 8, 7]]
    frame = polygons.component_in(mask, found.boxes[0], int(found.areas[0]))
    assert frame.sum() == 44 and not frame[5, 5]
    assert polygons.component_in(mask, found.boxes[1], 8).all()
    with pytest.raises(ValueError, match="no component with this box and 9 pixels"):
        polygons.component_in(mask, found.boxes[1], 9)
