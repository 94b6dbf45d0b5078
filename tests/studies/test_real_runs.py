"""A study of real runs, with a small network: what `train` leaves is what a study reads."""

import json

import numpy as np
import pytest

from helpers import ROOT, metrics_of, run
from wsol_tf import study
from wsol_tf.data.registry import open_dataset
from wsol_tf.studies import trials


@pytest.mark.slow
def test_a_study_of_real_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "PROGRAM", (str(ROOT / "tests" / "studies" / "toy_train.py"),))
    pictures = ("--num_examples=14", "--input_size=64", "--holdout=0.2")
    network = ("--extractor_weights=none", "--head_width=8", "--epochs=1", "--batch_size=4")
    given = (*pictures, *network, "--folds=2", "--parallel=2", f"--output_dir={tmp_path}")
    assert run(study, *given) == 0
    folders = [tmp_path / "trials" / f"as_it_is,seed=0,fold={k}of2" for k in (1, 2)]
    lines = [
        [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    scored = [[line["image_id"] for line in own] for own in lines]
    everything = open_dataset("shapes", "", "train+val", num_examples=14, image_size=73)
    assert sorted(scored[0] + scored[1]) == sorted(everything.image_ids)
    for folder, own in zip(folders, lines, strict=True):
        figures = metrics_of(folder)
        hits = np.mean([line["iou"]["mean"] >= 0.5 for line in own])
        assert figures["gt_known_loc"] == hits == figures["gt_known_loc_by_maps"]
        assert figures["max_box_acc_v2"]["value"] >= 0
        assert figures["num_training_images"] + figures["num_held_out_images"] + len(own) == 14
    pooled = np.mean([line["iou"]["mean"] for line in lines[0] + lines[1]])
    assert f"{pooled:.3f}" in (tmp_path / "table.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figure>") == len(list((tmp_path / "pictures").iterdir())) == 6
