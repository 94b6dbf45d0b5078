import cv2
import hypothesis.extra.numpy as extra
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge import arrays
from present_classes import cases
from wsol_tf.data.images import read_image
from wsol_tf.data.transforms import resize_image
from wsol_tf.model import refinement, score_maps

# --- pictures to the network's size --------------------------------------------------------------


@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 100), st.integers(0, 2**32 - 1),
    st.booleans(),
)  # fmt: skip
@example(150, 20, 32, 0, False)  # Pillow takes the rows first
@example(1, 1, 64, 0, False)
@settings(deadline=None, max_examples=150)
def test_resizing_equals_pillow_within_a_grey_level(height, width, size, seed, extreme):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if extreme:
        image = np.where(image < 128, 0, 255).astype(np.uint8)
    resized = arrays.resize_image(image, size, size)
    assert resized.dtype == np.uint8 and resized.flags.c_contiguous
    expected = resize_image(image, size)
    # Equal to the byte with Pillow 13; others may take the sides in another order.
    assert np.abs(resized.astype(int) - expected).max() <= 1


def test_resizing_by_hand():
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = 0, 100, 200, 40
    # 4 -> 2: outputs at 1 and 3, triangles of half width 2; weights 1 3 3 1 and 1 3 3 (cut).
    left = (0 * 3 + 100 * 3 + 200) / 7
    right = (100 + 200 * 3 + 40 * 3) / 7
    np.testing.assert_array_equal(
        arrays.resize_image(image, 1, 2)[0, :, 0], [round(left), round(right)]
    )
    white = np.full((37, 91, 3), 255, np.uint8)
    assert (arrays.resize_image(white, 224, 224) == 255).all()
    same = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    np.testing.assert_array_equal(arrays.resize_image(same, 2, 5), same)


# --- which classes are present -------------------------------------------------------------------


def test_the_classes_that_are_present_are_those_of_the_model():
    lengths = set()
    for case in cases():
        probabilities = arrays.softmax(np.float32(case["logits"]))
        present = arrays.present_classes(probabilities, case["presence"], case["background"])
        assert present == case["present"], case
        np.testing.assert_allclose(probabilities[present], case["probabilities"], atol=1e-7)
        lengths.add(len(present))
    assert {0, 1, 2, 3} <= lengths


# --- refinement ----------------------------------------------------------------------------------


@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(4, 130), st.integers(4, 130),
    st.integers(0, 2**32 - 1), st.sampled_from(["noise", "flat", "blocks", "black and white"]),
)  # fmt: skip
@example(28, 28, 224, 224, 0, "blocks")
@example(7, 7, 224, 224, 0, "flat")
@example(1, 1, 4, 4, 0, "noise")
@settings(deadline=None, max_examples=150)
def test_refining_equals_the_models(height, width, image_height, image_width, seed, kind):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (image_height, image_width, 3), dtype=np.uint8)
    if kind == "flat":
        image[:] = image[0, 0]
    elif kind == "blocks":
        image = cv2.resize(image[:4, :4], (image_width, image_height), interpolation=0)
    elif kind == "black and white":
        image = np.where(image < 128, 0, 255).astype(np.uint8)
    score_map = rng.normal(size=(height, width)).astype(np.float32)
    refined = arrays.refine(score_map, image)
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined, refinement.refine(score_map, image), atol=1e-6)


@pytest.mark.parametrize("value", [0.3, np.nan, np.inf])
def test_a_map_without_a_stretch_is_not_refined(value):
    score_map = np.full((3, 5), 0.3, np.float32)
    score_map[1, 1] = value
    image = np.zeros((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(arrays.refine(score_map, image), score_map)


# --- from a map to mask and box ------------------------------------------------------------------


def maps(max_side=12):
    shapes = extra.array_shapes(min_dims=2, max_dims=2, max_side=max_side)
    values = st.floats(-2, 3, width=32)
    return extra.arrays(np.float32, shapes, elements=values)


@given(maps(), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1) | st.just("otsu"))
@settings(deadline=None, max_examples=300)
def test_localizing_equals_score_maps(score_map, height, width, threshold):
    resized, mask, boxes, scores, areas, box = arrays.localize(score_map, height, width, threshold)
    assert areas.sum() == mask.sum() and len(scores) == len(boxes)
    assert (resized.dtype, mask.dtype, box.dtype) == (np.float32, bool, np.float32)
    np.testing.assert_array_equal(boxes, reference_boxes(mask))
    if threshold == "otsu":  # of one map: a value in the last place can be in another bin
        threshold = score_maps.otsu(resized)
    expected, expected_mask, expected_box = score_maps.localize(score_map, height, width, threshold)
    np.testing.assert_allclose(resized, expected, atol=3e-6)
    differ = mask != expected_mask
    assert (np.abs(expected[differ] - np.float32(threshold)) < 3e-6).all()
    if not differ.any():
        np.testing.assert_array_equal(box, expected_box)


def reference_boxes(mask):
    """Boxes of the components by OpenCV, which numbers them in an order of its own."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    numbers, first = np.unique(labels, return_index=True)
    order = sorted(
        (-stats[n, cv2.CC_STAT_AREA], i, n) for n, i in zip(numbers, first, strict=True) if n
    )
    x, y, width, height = stats[[n for *_, n in order], :4].T.reshape(4, -1)
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)


def check_boxes(mask):
    """The boxes of a mask equal OpenCV's, and the first is that of the largest component."""
    values = np.random.default_rng(0).random(mask.shape, np.float32)
    boxes, *_ = arrays.components(mask, values)
    assert boxes.dtype == np.float32 and boxes.shape == (len(boxes), 4)
    np.testing.assert_array_equal(boxes, reference_boxes(np.ascontiguousarray(mask)))
    limits = {"min_area": 0.3, "max_objects": 4}
    for keywords in ({}, limits, {"min_picture_area": 0.05}):
        got = arrays.components(mask, values, **keywords)
        expected = score_maps.components(mask, values, **keywords)
        np.testing.assert_array_equal(got[0], expected.boxes)
        np.testing.assert_allclose(got[1], expected.scores, rtol=1e-6)
        np.testing.assert_array_equal(got[2], expected.areas)
        assert [part.dtype for part in got] == [part.dtype for part in expected]
    if mask.any():
        expected = score_maps.box_of(score_maps.largest_component(mask))
        np.testing.assert_array_equal(boxes[0], expected)
    return boxes


@given(extra.arrays(bool, extra.array_shapes(min_dims=2, max_dims=2, max_side=25)))
@settings(deadline=None, max_examples=300)
def test_boxes_of_components_equal_opencvs(mask):
    assert len(check_boxes(mask)) or not mask.any()


def spiral(side):
    mask = np.zeros((side, side), bool)
    first, last = 0, side - 1
    while first < last:
        mask[first, max(first - 1, 0) : last + 1] = True
        mask[first : last + 1, last] = True
        mask[last, first : last + 1] = True
        mask[first + 2 : last + 1, first] = True
        first, last = first + 2, last - 2
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        spiral(61),
        np.indices((40, 41)).sum(0) % 2 == 0,
        (np.indices((30, 31))[1] % 2 == 0) | (np.indices((30, 31))[0] == 29),
        np.random.default_rng(0).random((90, 70)) < 0.4,
        np.ones((5, 7), bool),
    ],
    ids=("spiral", "checkerboard", "comb", "noise", "full"),
)
def test_winding_components_equal_opencvs(mask):
    for turned in (mask, mask[::-1], mask[:, ::-1], mask.T):
        assert len(check_boxes(turned))


@pytest.mark.parametrize(
    ("rows", "boxes"),
    [
        (("110000", "110010"), [(0, 0, 2, 2), (4, 1, 5, 2)]),
        (("010000", "000111"), [(3, 1, 6, 2), (1, 0, 2, 1)]),  # the largest first
        (("1000", "0100", "0010"), [(0, 0, 3, 3)]),  # corners touch
        (("1001", "1001"), [(0, 0, 1, 2), (3, 0, 4, 2)]),  # equal ones row by row
        (("0001", "1001", "1000"), [(3, 0, 4, 2), (0, 1, 1, 3)]),
        (("001", "100"), [(2, 0, 3, 1), (0, 1, 1, 2)]),  # rows do not go on in the next one
        (("10101", "00000", "11011"), [(0, 2, 2, 3), (3, 2, 5, 3), (0, 0, 1, 1), (2, 0, 3, 1),
                                       (4, 0, 5, 1)]),
    ],
)  # fmt: skip
def test_boxes_by_hand(rows, boxes):
    mask = np.array([[cell == "1" for cell in row] for row in rows])
    np.testing.assert_array_equal(check_boxes(mask), boxes)
    found = arrays.localize(mask.astype(np.float32), *mask.shape, 0.5)
    np.testing.assert_array_equal(found[2], boxes)
    np.testing.assert_array_equal(found[5], boxes[0])


def test_an_empty_mask_has_no_boxes_and_the_whole_picture_as_box():
    boxes, *others = arrays.components(np.zeros((2, 3), bool), np.zeros((2, 3), np.float32))
    assert boxes.shape == (0, 4) and boxes.dtype == np.float32
    assert [part.shape for part in others] == [(0,), (0,)]
    np.testing.assert_array_equal(arrays.localize(np.zeros((2, 3)), 2, 3, 0.5)[5], [0, 0, 3, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.3])
def test_a_map_without_a_stretch_gives_an_empty_mask(value):
    score_map = np.full((3, 3), 0.3, np.float32)
    score_map[1, 1] = value
    resized, mask, boxes, _, _, box = arrays.localize(score_map, 6, 9, 0.5)
    assert not resized.any() and not mask.any() and boxes.shape == (0, 4)
    np.testing.assert_array_equal(box, [0, 0, 9, 6])


# --- real pictures -------------------------------------------------------------------------------


@pytest.mark.realdata
def test_photographs_are_resized_to_the_byte(shared_dir):
    photos = sorted(
        p for p in (shared_dir / "demo_photos").iterdir() if p.suffix in (".jpg", ".png")
    )
    assert photos
    for photo in photos[:6]:
        image = read_image(photo)
        difference = np.abs(
            arrays.resize_image(image, 224, 224).astype(int) - resize_image(image, 224)
        )
        assert difference.max() <= 1, photo
