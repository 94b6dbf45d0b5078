"""Whole files or none."""

import json
import os

import numpy as np
import pytest

from helpers import arrays_in
from wsol_tf import files


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as unfinished:
        files.write(unfinished, "ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]
    files.write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"new": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_the_suffix_stays_for_those_who_write_by_it(tmp_path):
    path = tmp_path / "arrays.npz"
    with files.replacing(path) as unfinished:
        np.savez(unfinished, a=[1, 2])
    assert arrays_in(path)["a"].tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["arrays.npz"]


def test_a_failed_write_names_the_file_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    files.write(path, "before")
    with pytest.raises(TypeError):
        files.write(path, 3)
    with pytest.raises(OSError) as error, files.replacing(path):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(path) and error.value.errno == 28
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(OSError, match="missing"):
        files.write(tmp_path / "missing" / "file", "text")
