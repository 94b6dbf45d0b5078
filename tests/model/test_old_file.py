"""A file written before the modules moved still loads, predicts and trains on."""

import pathlib

import keras
import numpy as np
import pytest

from helpers import CLASSES, arrays_in
from wsol_tf.model.build import load_model
from wsol_tf.model.localization import Localization
from wsol_tf.model.optimizer import GroupSGD

FILES = pathlib.Path(__file__).parents[1] / "files"


@pytest.fixture
def stored():
    return arrays_in(FILES / "old_model.npz")


def test_an_old_file_gives_what_it_gave(stored):
    model = load_model(FILES / "old_model.keras")
    assert type(model) is Localization and model.classes == CLASSES
    assert (model.map, model.top_k, model.resize_size) == ("topk", 2, 40)
    assert model.thresholds == {"topk": 0.3, "cam": 0.4}
    outputs = model.predict_on_batch(stored["images"])
    assert {f"output_{name}" for name in outputs} == {x for x in stored if x.startswith("output")}
    for name, values in outputs.items():
        np.testing.assert_allclose(values, stored[f"output_{name}"], atol=1e-6, err_msg=name)


def test_an_old_file_trains_on_as_it_would_have(stored, tmp_path):
    model = load_model(FILES / "old_model.keras")
    assert isinstance(model.optimizer, GroupSGD) and model.optimizer.iterations == 4
    assert model.total_steps == 6 and model.loss_weights["ac"] == 2.0
    assert model.objective.settings["erased_statistics"] == "batch"
    assert float(model.optimizer.learning_rate) == pytest.approx(0.002)
    model.save(tmp_path / "again.keras")  # and survives being saved by the code of today
    for each in (model, keras.saving.load_model(tmp_path / "again.keras")):
        history = each.fit(
            stored["images"], stored["labels"], batch_size=4, epochs=3, initial_epoch=2,
            shuffle=False, verbose=0,
        ).history  # fmt: skip
        assert not any(history.pop("background"))  # a term of today, which weighs nothing here
        assert {f"history_{name}" for name in history} == {
            name for name in stored if name.startswith("history")
        }
        for name, values in history.items():
            expected = stored[f"history_{name}"]
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert each.optimizer.iterations == 6
