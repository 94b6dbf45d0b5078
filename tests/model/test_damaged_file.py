"""A .keras file that is damaged or odd: one sentence that names it, and never another model."""

import json
import os
import zipfile

import numpy as np
import pytest

from helpers import toy
from wsol_tf.model.build import load_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = toy(thresholds={"mean": 0.25})
    model.save(path)
    return path


def with_config(saved, path, change):
    """Writes the file again with a changed description of the model."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("thresholds", {"mean": 7.0}, "threshold of map 'mean' must be .* Received: 7.0"),
        ("thresholds", {"mean": None}, "Received: None"),
        ("thresholds", {"mean": "high"}, "Received: 'high'"),
        ("thresholds", {"mean": float("nan")}, "Received: nan"),
        ("thresholds", 0.5, "thresholds are a dict"),
        ("map", "mien", "Unknown map 'mien'"),
        ("top_k", -1, "`top_k` must be at least 1"),
        ("resize_size", "many", "`resize_size` must be at least 1"),
        ("classes", ["cat", "dog"], "The classifier has 3 outputs, but 2 class names were given"),
        ("classes", ["cat", "dog", None], "classes are a list of names"),
        ("classes", "cat", "classes are a list of names"),
    ],
)
def test_odd_values_are_refused_naming_the_file(name, value, words, saved, tmp_path):
    path = with_config(saved, tmp_path / "odd.keras", lambda config: config.update({name: value}))
    with pytest.raises(ValueError, match=words) as refused:
        load_model(path)
    assert str(refused.value).startswith(f"Model '{path}' can't be loaded (")
    assert "\n" not in str(refused.value)


def test_a_description_that_is_nested_too_deeply_is_a_sentence(saved, tmp_path):
    path = tmp_path / "deep.keras"
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w") as copy:
        copy.writestr("metadata.json", archive.read("metadata.json"))
        copy.writestr("config.json", "[" * 100_000 + "]" * 100_000)
        copy.writestr("model.weights.h5", archive.read("model.weights.h5"))
    with pytest.raises(ValueError, match=f"Model '{path}' can't be loaded"):
        load_model(path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 2**24)
    with pytest.raises(ValueError, match=r"bomb.keras' can't be loaded \(it would expand to"):
        load_model(path)


def test_no_damage_is_silent_or_a_traceback(saved, tmp_path):
    """150 changed bits all over the file, most of them where names and sizes of members are."""
    rng = np.random.default_rng(0)
    whole = saved.read_bytes()
    expected = load_model(saved)
    weights, config = expected.get_weights(), expected.get_config()
    directory = whole.index(b"PK\x01\x02")
    places = [*rng.integers(0, len(whole), 75), *rng.integers(directory, len(whole), 75)]
    path = tmp_path / "damaged.keras"
    refused = 0
    for place in map(int, places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            model = load_model(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
            continue
        assert model.get_config() == config, f"byte {place}"
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert refused > 75
    assert os.path.getsize(saved) == len(whole)
