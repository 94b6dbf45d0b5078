import numpy as np
import pytest

from wsol_tf.report import pictures


def _image(height, width, value=90):
    return np.full((height, width, 3), value, np.uint8)


def _box_mask(height, width, x0, y0, x1, y1):
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((1, 1), (320, 320)),
        ((8, 8), (320, 320)),
        ((400, 300), (400, 300)),
        ((2000, 1000), (1280, 640)),
    ],
)
def test_overlay_keeps_text_legible_by_its_size(shape, expected):
    drawn = pictures.overlay(_image(*shape), np.zeros((4, 4)), np.zeros(shape, bool), None)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (*expected, 3)


def test_side_fixes_the_longer_side():
    drawn = pictures.overlay(_image(50, 100), None, None, None, side=400)
    assert drawn.shape == (200, 400, 3)


def test_nothing_to_draw_leaves_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    drawn = pictures.overlay(image, np.zeros((7, 7)), np.zeros((400, 500), bool), None)
    np.testing.assert_array_equal(drawn, image)


def test_the_input_is_never_drawn_on():
    image = _image(400, 400)
    mask = _box_mask(400, 400, 50, 50, 300, 300)
    box, true_boxes = [50, 50, 300, 300], [[9, 9, 99, 99]]
    pictures.overlay(image, None, mask, box, true_boxes=true_boxes)
    pictures.overlay(image, np.ones((4, 4)), mask, box, true_boxes=true_boxes)
    pictures.triptych(image, np.ones((4, 4)), mask, box, true_boxes=true_boxes)
    assert (image == 90).all()
    assert mask.sum() == 250 * 250


def test_heat_glows_where_the_score_is_high_and_nowhere_else():
    score_map = np.zeros((10, 10), np.float32)
    score_map[2:5, 2:5] = 1
    image = _image(400, 400)
    changed = (pictures.overlay(image, score_map, None, None) != image).any(-1)
    assert changed[100:180, 100:180].all()
    assert not changed[260:].any() and not changed[:, 260:].any()


def test_boxes_are_drawn_at_their_place_after_scaling():
    image = _image(100, 100, 0)
    drawn = pictures.overlay(image, None, None, [20, 30, 60, 80], side=400)
    predicted = np.argwhere((drawn == pictures.PREDICTED).all(-1))
    centre_line = 1.5  # half of a line's width in pixels
    np.testing.assert_allclose(predicted.min(0), [120, 80], atol=centre_line)
    np.testing.assert_allclose(predicted.max(0), [320, 240], atol=centre_line)
    assert (drawn[150:300, 110:220] == 0).all()


def test_true_boxes_are_dashed_and_predicted_ones_are_not():
    image = _image(400, 400, 0)
    true_boxes = [[40, 220, 360, 380]]
    drawn = pictures.overlay(image, None, None, [40, 40, 200, 200], true_boxes=true_boxes)
    predicted_side = (drawn[40, 60:180] == pictures.PREDICTED).all(-1)
    true_side = (drawn[220, 60:340] == pictures.TRUE).all(-1)
    assert predicted_side.all()
    assert 0.2 < true_side.mean() < 0.8


def test_boxes_on_the_rim_and_outside_stay_visible():
    drawn = pictures.overlay(_image(400, 400, 0), None, None, [-50, 0, 400, 900])
    predicted = (drawn == pictures.PREDICTED).all(-1)
    assert predicted[:, :4].any(1).all() and predicted[:, -4:].any(1).all()
    assert predicted[:4].any(0).all() and predicted[-4:].any(0).all()


def test_contour_follows_the_mask():
    drawn = pictures.overlay(
        _image(400, 400, 0), None, _box_mask(400, 400, 100, 150, 300, 250), None
    )
    contour = np.argwhere((drawn == pictures.CONTOUR).all(-1))
    np.testing.assert_allclose(contour.min(0), [150, 100], atol=2)
    np.testing.assert_allclose(contour.max(0), [249, 299], atol=2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_draw_no_heat(value):
    image = _image(400, 400)
    score_map = np.full((7, 7), value, np.float32)
    np.testing.assert_array_equal(pictures.overlay(image, score_map, None, None), image)


@pytest.mark.parametrize("shape", [(8, 8), (900, 20), (20, 900), (400, 400)])
def test_caption_is_added_below_and_fits(shape):
    plain = pictures.overlay(_image(*shape), None, None, None)
    caption = "tabby cat 0.93, a long name that has to be wrapped somewhere"
    drawn = pictures.overlay(_image(*shape), None, None, None, caption=caption)
    strip = drawn[plain.shape[0] :]
    assert len(strip) > 14
    assert drawn.shape[1] >= 160
    ink = (strip > 200).all(-1)
    assert ink.any()
    # Nothing is cut off: no letter touches the strip's sides.
    assert not ink[:, 0].any() and not ink[:, -1].any()
    assert not ink[0].any() and not ink[-1].any()


def test_a_word_wider_than_the_picture_is_broken():
    drawn = pictures.overlay(_image(320, 160), None, None, None, caption="x" * 100)
    ink = (drawn[320:] > 200).all(-1)
    assert ink.any() and not ink[:, -1].any()


def test_caption_text_shows():
    one = pictures.overlay(_image(320, 320), None, None, None, caption="Größe 1")
    two = pictures.overlay(_image(320, 320), None, None, None, caption="Größe 2")
    assert one.shape == two.shape and (one != two).any()


def test_triptych_shows_the_picture_its_map_and_the_cut():
    image = np.random.default_rng(1).integers(60, 256, (320, 320, 3), np.uint8)
    mask = _box_mask(320, 320, 100, 100, 200, 200)
    drawn = pictures.triptych(image, np.zeros((7, 7)), mask, None)
    gap = (drawn.shape[1] - 3 * 320) // 2
    assert drawn.shape == (320, 960 + 2 * gap, 3) and gap > 0
    np.testing.assert_array_equal(drawn[:, :320], image)
    heat, cut = drawn[:, 320 + gap : 640 + gap], drawn[:, -320:]
    assert (heat == heat[0, 0]).all() and heat[0, 0].max() < 10  # zeros are the darkest colour
    np.testing.assert_array_equal(cut[110:190, 110:190], image[110:190, 110:190])
    assert cut[:80].mean() < 0.6 * image[:80].mean()


def test_triptych_map_is_brightest_where_the_score_is():
    score_map = np.zeros((8, 8), np.float32)
    score_map[1, 6] = 1
    drawn = pictures.triptych(_image(320, 320), score_map, None, None)
    gap = (drawn.shape[1] - 960) // 2
    heat = drawn[:, 320 + gap : 640 + gap].astype(int).sum(-1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row // 40, column // 40) == (1, 6)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match="must be uint8"):
        pictures.overlay(image, None, None, None)


def test_contact_sheet_shows_every_tile_once_and_unscaled():
    rng = np.random.default_rng(2)
    shapes = [(100, 120), (80, 120), (120, 60), (100, 100), (90, 90)]
    tiles = [rng.integers(0, 100, (*shape, 3), np.uint8) for shape in shapes]
    sheet = pictures.contact_sheet(
        {"best": tiles[:3], "median": [], "worst": tiles[3:]}, title="A title", columns=2
    )
    dark = (sheet < 100).all(-1)
    found = 0
    for tile in tiles:
        height, width = tile.shape[:2]
        for row, column in np.argwhere((sheet == tile[0, 0]).all(-1) & dark):
            if np.array_equal(sheet[row : row + height, column : column + width], tile):
                found += 1
    assert found == len(tiles)


def test_contact_sheet_without_heading_and_title_is_only_tiles():
    tile = _image(100, 100, 0)
    bare = pictures.contact_sheet({"": [tile]})
    with_heading = pictures.contact_sheet({"best": [tile]})
    assert len(with_heading) > len(bare)
    assert (bare == 0).all(-1).sum() == 100 * 100
    assert bare.shape[1] < 2 * 100  # not five columns wide for one tile


@pytest.mark.parametrize("sections", [{}, {"best": []}])
def test_contact_sheet_needs_a_tile(sections):
    with pytest.raises(ValueError, match="at least one tile"):
        pictures.contact_sheet(sections)
