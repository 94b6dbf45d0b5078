import colorsys

import numpy as np
import pytest

from wsol_tf.data import pretraining, textures

DRAWERS = (pretraining.draw_bodies, pretraining.draw_swatch)


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


@pytest.mark.parametrize("draw", DRAWERS)
def test_a_picture_is_a_function_of_index_and_seed(draw):
    drawn = draw(3, seed=1)
    for one, same in zip(drawn, draw(3, seed=1), strict=True):
        np.testing.assert_array_equal(one, same)
    for other in (draw(4, seed=1), draw(3, seed=2)):
        assert not np.array_equal(other.image, drawn.image)
    assert drawn.image.shape == (pretraining.SIDE, pretraining.SIDE, 3)
    assert drawn.image.dtype == drawn.body.dtype == drawn.surfaces.dtype == np.uint8


def test_what_a_body_is_stands_where_it_is():
    plain = 0
    for index in range(30):
        drawn = pretraining.draw_bodies(index)
        seen = np.unique(drawn.body)
        assert seen[0] == 0 and 2 <= len(seen) <= 7
        assert drawn.surfaces[0] == pretraining.BACKGROUND
        bodies = drawn.surfaces[seen[1:]]
        assert (bodies >= pretraining.PLAIN).all() and (bodies < pretraining.NUM_SURFACES).all()
        assert not drawn.tints[drawn.surfaces == 0].any()
        plain += (bodies == pretraining.PLAIN).sum()
    assert plain > 10


def test_a_body_differs_from_what_is_around_it_along_its_edge():
    drawn = pretraining.draw_bodies(11)
    image = drawn.image.astype(int)
    across = np.abs(np.diff(image, axis=1)).sum(axis=2)
    edges = np.diff(drawn.body.astype(int), axis=1) != 0
    assert across[edges].mean() > 2 * across[~edges].mean()


def test_a_swatch_is_one_surface_all_over():
    surfaces = set()
    for index in range(40):
        drawn = pretraining.draw_swatch(index)
        assert (drawn.body == 1).all() and drawn.surfaces[2:].sum() == 0
        surfaces.add(int(drawn.surfaces[1]))
    assert pretraining.PLAIN in surfaces and len(surfaces) > 15


def test_hues_are_parts_of_the_colour_circle():
    tints = np.zeros((24, 3), np.uint8)
    for number in range(24):
        tints[number] = np.round(255 * np.array(colorsys.hsv_to_rgb((number + 0.5) / 24, 0.8, 0.9)))
    np.testing.assert_array_equal(pretraining.hues(tints), 1 + np.arange(24) // 3)
    grays = np.repeat(np.arange(0, 256, 51, dtype=np.uint8)[:, None], 3, axis=1)
    assert (pretraining.hues(grays) == 0).all()
