import keras
import numpy as np
import pytest

from wsol_tf.model.pooling import DilatedPooling


def column(values):
    return np.array(values, "float32").reshape(1, -1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "before", "expected"),
    [
        # Position i of seven reads i - 2, i and i + 2, as far as they exist.
        ("max", [2, 0], [4, 7, 4, 7, 4, 7, 3]),
        ("average", [2, 0], [2.5, 4.5, 8 / 3, 5, 8 / 3, 6.5, 2]),
        # It reads i, i + 2 and i + 4.
        ("max", [0, 0], [4, 7, 4, 7, 3, 6, 1]),
        ("average", [0, 0], [8 / 3, 5, 8 / 3, 6.5, 2, 6, 1]),
        ("max", None, [4, 7, 4]),
        ("average", None, [8 / 3, 5, 8 / 3]),
    ],
)
def test_positions_two_apart_by_hand(kind, before, expected):
    layer = DilatedPooling(kind, (3, 1), 2, before)
    got = layer(column([1, 2, 4, 7, 3, 6, 1]))
    np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-6)
    assert layer.compute_output_shape((1, 7, 1, 1)) == tuple(got.shape)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_with_rate_1_it_is_keras_own(kind, rng):
    x = rng.normal(size=(2, 6, 5, 3)).astype("float32")
    own = {"max": keras.layers.MaxPooling2D, "average": keras.layers.AveragePooling2D}[kind]
    np.testing.assert_allclose(
        DilatedPooling(kind, (3, 3), 1, (1, 1))(x), own(3, 1, padding="same")(x), rtol=1e-5
    )
    np.testing.assert_allclose(
        DilatedPooling(kind, (2, 3), 1, None)(x), own((2, 3), 1, padding="valid")(x), rtol=1e-5
    )


def test_what_is_outside_never_counts():
    x = np.full((1, 4, 4, 1), -5.0, "float32")
    for kind in ("max", "average"):
        np.testing.assert_allclose(DilatedPooling(kind, (3, 3), 2, (2, 2))(x), x)
        np.testing.assert_allclose(DilatedPooling(kind, (3, 3), 8, (8, 8))(x), x)
