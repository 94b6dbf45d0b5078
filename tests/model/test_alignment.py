"""Where the positions of a map are: measured by mirrored pictures, and moved back."""

import cv2
import keras
import numpy as np
import pytest

from helpers import tiny_model, varied
from wsol_tf.config import choices
from wsol_tf.model import alignment, score_maps

STRAIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)  # rows 0..3, 4..7, 8..11


def test_a_placed_map_is_four_times_as_large_and_moved():
    larger = score_maps.resize(STRAIGHT, 12, 16)
    placed = alignment.placed(STRAIGHT, (0.5, -0.25))
    assert placed.dtype == np.float32
    np.testing.assert_array_equal(placed[:10, 1:], larger[2:, :-1])
    np.testing.assert_array_equal(placed[10:, 1:], larger[[-1, -1], :-1])  # the border is repeated
    np.testing.assert_array_equal(placed[:, 0], placed[:, 1])


def test_between_the_positions_of_the_larger_map_values_are_interpolated():
    larger = score_maps.resize(STRAIGHT, 12, 16)
    placed = alignment.placed(STRAIGHT, (0.0, 0.375))  # one and a half of the larger map's
    assert placed.dtype == np.float32
    np.testing.assert_allclose(placed[:, :-2], (larger[:, 1:-1] + larger[:, 2:]) / 2, atol=1e-6)
    np.testing.assert_array_equal(placed[:, -2:], larger[:, [-1, -1]])
    # Back, to the left: a tenth of a position is 0.4 of the larger map's.
    placed = alignment.placed(STRAIGHT, (0.0, -0.1))
    np.testing.assert_allclose(placed[:, 5], 0.6 * larger[:, 5] + 0.4 * larger[:, 4], atol=1e-6)


def test_a_map_without_an_offset_stays_as_it_is():
    assert alignment.placed(STRAIGHT, (0.0, 0.0)) is STRAIGHT


def test_an_offset_beyond_the_map_leaves_its_border():
    assert (alignment.placed(STRAIGHT, (9, 9)) == 11).all()
    assert (alignment.placed(STRAIGHT, (-9, -9)) == 0).all()


def blobs(count=24, side=64):
    """Pictures with one bright rectangle each, away from the border."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((count, side, side, 3), np.uint8)
    for picture in pictures:
        top, left = rng.integers(12, 24, 2)
        height, width = rng.integers(12, 28, 2)
        picture[top : top + height, left : left + width] = 200
    return pictures


def network(kernel):
    """Averages 4 x 4 pixels, and convolves with a 3 x 3 kernel."""

    def predict(images):
        means = images.mean(-1).reshape(len(images), 16, 4, 16, 4).mean((2, 4))
        # OpenCV's filter is a correlation, as a convolution of Keras is.
        return np.stack([cv2.filter2D(mean, -1, np.array(kernel, float)) for mean in means])

    return predict


# A kernel that reads the position above gives a map that lies one position too far down.
@pytest.mark.parametrize(
    ("kernel", "offset"),
    [
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], (0, 0)),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], (1, 0)),
        ([[0, 0, 0], [0, 0, 1], [0, 0, 0]], (0, -1)),
        ([[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]], (0.5, 0.5)),
    ],
)
def test_mirrored_pictures_tell_the_offset(kernel, offset):
    found = alignment.measure(network(kernel), list(blobs()))
    assert found == pytest.approx(offset, abs=0.06)


def test_placing_leaves_no_offset():
    predict = network([[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]])
    offset = alignment.measure(predict, list(blobs()))

    def back(images):
        return np.stack([alignment.placed(one, offset) for one in predict(images)])

    assert alignment.measure(back, list(blobs())) == pytest.approx((0, 0), abs=0.25)  # of 1/4


SIDE = 128  # of the pictures below


def drawn_objects(seed):
    """(16 pictures with a bright rectangle each, the centre (row, column) of each)."""
    rng = np.random.default_rng(seed)
    pictures, centres = np.zeros((16, SIDE, SIDE, 3), np.uint8), []
    for picture in pictures:
        sides = rng.integers(SIDE // 4, SIDE // 2, 2)
        top, left = rng.integers(SIDE // 8, SIDE * 7 // 8 - sides + 1)
        picture[top : top + sides[0], left : left + sides[1]] = 200
        centres.append((top + sides[0] / 2, left + sides[1] / 2))
    return pictures, np.array(centres)


def displaced_network(stride, down, right):
    """Shows what lies so many pixels above and left of each position of `stride` pixels."""
    moves = np.float32([[1, 0, right], [0, 1, down]])

    def predict(images):
        moved = [
            cv2.warpAffine(one[..., 0].astype(np.float32), moves, (SIDE, SIDE)) for one in images
        ]
        cells = SIDE // stride
        return np.stack(moved).reshape(-1, cells, stride, cells, stride).mean((2, 4))

    return predict


@pytest.mark.parametrize("stride", choices("output_stride"))
@pytest.mark.parametrize("pixels", [(4.2, 3.3), (6.6, -4.6), (-1.3, 0.7), (0.3, -0.2)])
def test_masks_lie_within_a_pixel_of_their_objects(stride, pixels):
    predict = displaced_network(stride, *pixels)
    offset = alignment.measure(predict, list(drawn_objects(0)[0]))
    np.testing.assert_allclose(np.multiply(offset, stride), pixels, atol=1)
    pictures, centres = drawn_objects(1)
    beside = []
    for score_map, centre in zip(predict(pictures), centres, strict=True):
        shown = score_maps.localize(alignment.placed(score_map, offset), SIDE, SIDE, 0.5)
        beside.append(np.argwhere(shown[1]).mean(0) + 0.5 - centre)
    assert np.abs(np.mean(beside, axis=0)).max() < 1


def test_nearer_than_half_a_pixel_a_map_stays_where_it_is():
    pictures = list(drawn_objects(0)[0])
    assert alignment.measure(displaced_network(8, 0.3, -0.3), pictures) == (0, 0)
    down, right = alignment.measure(displaced_network(8, 0.8, 0), pictures)
    assert down * 8 == pytest.approx(0.8, abs=0.2)
    assert right * 8 == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(("down", "is_moved"), [(14, True), (18, False)])
def test_what_no_stride_can_explain_is_no_offset(down, is_moved):
    pictures = list(drawn_objects(0)[0])
    found = alignment.measure(displaced_network(8, down, 2), pictures)
    assert any(found) is is_moved
    if is_moved:
        np.testing.assert_allclose(np.multiply(found, 8), (down, 2), atol=1)


def test_a_map_that_is_bright_below_whatever_it_sees_is_not_moved():
    always = np.repeat(np.arange(16)[:, None] >= 12, 16, axis=1).astype(np.float32)
    found = alignment.measure(lambda images: np.stack([always] * len(images)), list(blobs()))
    assert found == (0, 0)


def test_what_can_not_be_measured_is_no_offset():
    predict = network([[0, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert alignment.measure(predict, list(blobs(7))) == (0, 0)  # too few
    assert alignment.measure(predict, list(np.zeros((16, 64, 64, 3), np.uint8))) == (0, 0)


def test_pictures_that_do_not_agree_give_no_offset():
    # Of +-2 positions the quartiles are 4 apart: with 16 the median is known to 0.46 of a position.
    assert alignment._offset(np.tile([-4.0, 4.0], 8)) == 0
    assert alignment._offset(np.array([1.0] * 15 + [np.nan])) == 0.5


@pytest.fixture
def model():
    return varied(tiny_model(("ant", "bee", "cat")))


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)


def test_an_offset_moves_what_is_found_and_no_output(model, pictures):
    outputs = model.predict_on_batch(pictures)
    model.offset = (0.5, -1.0)
    for name, value in model.predict_on_batch(pictures).items():
        np.testing.assert_array_equal(value, outputs[name])
    placed = alignment.placed(outputs["localization_map"][0].mean(-1), (0.5, -1.0))
    expected = score_maps.localize(placed, 64, 64, 0.5)
    found = model.localize(pictures[0], threshold=0.5)
    np.testing.assert_allclose(found.score_map, expected[0], atol=1e-6)
    np.testing.assert_array_equal(found.box, expected[2])


def test_mirroring_makes_the_outputs_those_of_the_mirror_image(pictures):
    model = varied(tiny_model(("ant", "bee", "cat")))
    model.mirror = True
    straight = model.predict_on_batch(pictures)
    mirrored = model.predict_on_batch(pictures[:, :, ::-1])
    for name in ("score_map", "localization_map", "foreground_mask"):
        np.testing.assert_allclose(straight[name], mirrored[name][:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(straight["logits"], mirrored["logits"], atol=1e-5)
    assert np.ptp(straight["foreground_mask"]) > 0.01


def test_a_saved_model_keeps_both(model, pictures, tmp_path):
    model.offset, model.mirror = (0.25, -0.5), True
    model.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    assert loaded.offset == (0.25, -0.5)
    assert loaded.mirror is True
    for name, value in model.predict_on_batch(pictures).items():
        np.testing.assert_allclose(loaded.predict_on_batch(pictures)[name], value, atol=1e-6)


@pytest.mark.parametrize("offset", [None, 3, (1,), (0, float("nan")), ("a", 0)])
def test_no_other_offset_is_taken(model, offset):
    with pytest.raises(ValueError, match="two finite numbers"):
        type(model).from_config(model.get_config() | {"offset": offset})
