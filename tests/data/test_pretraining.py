import colorsys

import cv2
import numpy as np
import pytest

from wsol_tf.data import pretraining, textures

SWATCHES = [pretraining.draw_swatch(index) for index in range(40)]


def collage(index, seed=0):
    return pretraining.make_collage(pretraining.by_kind(SWATCHES), index, seed)


def test_every_family_of_textures_has_its_own_tiles_of_mean_0_and_variance_1():
    assert len(textures.FAMILIES) == 48
    tiles = [textures.tile(family, 0) for family in range(len(textures.FAMILIES))]
    for family, tile in enumerate(tiles):
        assert tile.shape == (textures.SIDE, textures.SIDE) and tile.dtype == np.float32
        assert np.abs(tile).max() <= textures.MOST
        # Clipping moves both a little where a texture is mostly background.
        assert abs(tile.mean()) < 0.12 and 0.7 < tile.std() < 1.05, family
    likeness = np.abs(np.corrcoef([tile.ravel() for tile in tiles]) - np.eye(len(tiles)))
    assert likeness.max() < 0.6  # none is another one's copy or negative


def test_a_tile_is_a_function_of_its_numbers():
    first = textures.tile(43, 1)
    textures.tile.cache_clear()
    np.testing.assert_array_equal(textures.tile(43, 1), first)
    assert not np.array_equal(textures.tile(43, 2), first)


@pytest.mark.parametrize("draw", [pretraining.draw_swatch, collage])
def test_a_picture_is_a_function_of_index_and_seed(draw):
    drawn = draw(3, seed=1)
    for one, same in zip(drawn, draw(3, seed=1), strict=True):
        np.testing.assert_array_equal(one, same)
    for other in (draw(4, seed=1), draw(3, seed=2)):
        assert not np.array_equal(other.image, drawn.image)
    assert drawn.image.shape == (pretraining.SIDE, pretraining.SIDE, 3)
    assert drawn.image.dtype == drawn.body.dtype == drawn.surfaces.dtype == np.uint8


def test_a_swatch_is_one_surface_all_over_with_one_label():
    surfaces = set()
    for drawn in SWATCHES:
        assert not drawn.body.any() and not drawn.surfaces[1:].any()
        assert not drawn.tints[1:].any() and drawn.surfaces[0] < pretraining.NUM_SURFACES
        surfaces.add(int(drawn.surfaces[0]))
    assert {pretraining.BACKGROUND, pretraining.PLAIN} < surfaces and len(surfaces) > 15


def test_a_collage_has_the_labels_of_its_swatches_where_they_are():
    labels = {(int(s.surfaces[0]), *s.tints[0]) for s in SWATCHES}
    plain = 0
    for index in range(30):
        drawn = collage(index)
        seen = np.unique(drawn.body)
        assert seen[0] == 0 and 2 <= len(seen) <= 7
        assert drawn.surfaces[0] == pretraining.BACKGROUND
        cuttings = drawn.surfaces[seen[1:]]
        assert (cuttings >= pretraining.PLAIN).all()
        assert {(int(drawn.surfaces[i]), *drawn.tints[i]) for i in seen} <= labels
        assert not drawn.tints[drawn.surfaces == 0].any()
        plain += (cuttings == pretraining.PLAIN).sum()
    assert plain > 10


def test_a_collage_shows_its_background_where_nothing_was_pasted():
    # Apart from shadows, which only darken, within 6 pixels and 3 more of an outline.
    near = cv2.dilate((collage(11).body > 0).astype(np.uint8), np.ones((19, 19), np.uint8)) > 0
    shown = collage(11).image[~near]
    turns = [
        np.rot90(s.image, k)[:, ::step][~near]
        for s in SWATCHES
        if s.surfaces[0] == pretraining.BACKGROUND
        for k in range(4)
        for step in (1, -1)
    ]
    assert len(shown) > 1000 and sum(np.array_equal(shown, turned) for turned in turns) == 1


def test_swatches_that_lack_a_kind_are_refused():
    with pytest.raises(ValueError, match="No swatch is one of the backgrounds"):
        pretraining.by_kind(s for s in SWATCHES if s.surfaces[0] != pretraining.BACKGROUND)


def test_a_cutting_differs_from_what_is_around_it_along_its_edge():
    drawn = collage(11)
    image = drawn.image.astype(int)
    across = np.abs(np.diff(image, axis=1)).sum(axis=2)
    edges = np.diff(drawn.body.astype(int), axis=1) != 0
    assert across[edges].mean() > 2 * across[~edges].mean()


def test_hues_are_parts_of_the_colour_circle():
    tints = np.zeros((24, 3), np.uint8)
    for number in range(24):
        tints[number] = np.round(255 * np.array(colorsys.hsv_to_rgb((number + 0.5) / 24, 0.8, 0.9)))
    np.testing.assert_array_equal(pretraining.hues(tints), 1 + np.arange(24) // 3)
    grays = np.repeat(np.arange(0, 256, 51, dtype=np.uint8)[:, None], 3, axis=1)
    assert (pretraining.hues(grays) == 0).all()
