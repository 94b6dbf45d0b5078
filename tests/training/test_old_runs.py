"""Folders of runs that earlier versions wrote; tests/files/README.md says how."""

import shutil

import numpy as np
import pytest

from helpers import ROOT, history_of, metrics_of, run
from wsol_tf import train
from wsol_tf.model.build import load_model

OLD = ROOT / "tests" / "files" / "old_run"


@pytest.fixture(params=["interrupted", "finished"])
def old(request, tmp_path):
    shutil.copytree(OLD / request.param, tmp_path / request.param)
    return tmp_path / request.param


def start_again(folder):
    # Determinism would hold for all tests that this process runs from here on.
    settings = (f"--flagfile={folder / 'run.flags'}", "--deterministic=false")
    return run(train, *settings, f"--output_dir={folder}")


@pytest.mark.parametrize("old", ["interrupted"], indirect=True)
def test_an_interrupted_run_is_resumed_and_ends_as_it_would_have_then(old, quick, capsys):
    begun = history_of(old)
    assert start_again(old) == 0
    assert "Resumed at step 5." in capsys.readouterr().out
    rows, expected = history_of(old), history_of(OLD / "finished")
    for row in rows:  # a term of today, which weighs nothing here, and observations
        assert {row.pop(name) for name in ("background", "weighted_background")} <= {"", "0.0"}
        del row["pseudo_foreground"], row["top1_cls_fg"]
    assert rows[: len(begun)] == begun and len(rows) == len(expected) == 4
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), name
    ours, theirs = (load_model(str(path / "model.keras")) for path in (old, OLD / "finished"))
    for weight, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4)
    figures, others = metrics_of(old), metrics_of(OLD / "finished")
    assert not figures["interrupted"] and figures["epochs"] == 4
    new = {"max_box_acc_v2", "threshold_quartiles", "num_held_out_images", "map_offset",
           "objects", "detection", "segmentation", "presence_threshold", "warnings", "intervals",
           "above_baselines"}  # fmt: skip
    assert set(figures) == set(others) | new


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_a_finished_run_says_so_and_is_kept(old, capsys):
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    assert start_again(old) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()} == before
