"""A model that is loaded starts from no weights of its own, and nothing else is changed by that."""

import threading

import keras
import numpy as np
import pytest

from helpers import tiny_model
from wsol_tf.model import build


def kernel():
    layer = keras.layers.Dense(3, kernel_initializer="he_normal")
    layer.build((None, 4))
    return np.asarray(layer.kernel)


@pytest.mark.parametrize("to_train", [True, False])
def test_a_loaded_model_has_the_weights_and_the_description_of_the_file(tmp_path, to_train):
    first = tiny_model(("cat", "dog"))
    first.save(tmp_path / "first.keras")
    loaded = build.load_model(tmp_path / "first.keras", to_train=to_train)
    for ours, theirs in zip(loaded.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plainly = keras.saving.load_model(tmp_path / "first.keras")
    assert loaded.get_config() == plainly.get_config()
    assert np.any(kernel())


def test_only_the_thread_that_loads_draws_nothing():
    drawn = []
    with build._not_drawing():
        thread = threading.Thread(target=lambda: drawn.append(kernel()))
        thread.start()
        thread.join()
        assert not np.any(kernel())
    assert np.any(drawn[0])
    with pytest.raises(RuntimeError, match="damaged"), build._not_drawing():
        raise RuntimeError("damaged")
    assert np.any(kernel())
