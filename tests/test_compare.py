"""The command that compares scorings of the same pictures."""

import json

import numpy as np
import pytest

from helpers import run
from wsol_tf import compare, evaluate
from wsol_tf.data import shapes
from wsol_tf.evaluation.outcomes import LINES
from wsol_tf.studies.record import read_record


def write_scoring(folder, ious, *, rank=0, view="crop", name="cat", first=0):
    """A folder as evaluate leaves it, of pictures "first", "first + 1", ..."""
    folder.mkdir(parents=True)
    lines = [
        {
            "image_id": str(first + i), "class": name, "class_rank": rank, "iou": {"mean": iou},
            "mask_iou": {"mean": None}, "centered_ious": None,
        }
        for i, iou in enumerate(ious)
    ]  # fmt: skip
    (folder / LINES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = {"map": "mean", "view": view, "scored_on": "val", "num_pairs": len(ious)}
    (folder / "metrics.json").write_text(json.dumps(figures))
    return folder


def test_two_scorings_are_compared_picture_by_picture(tmp_path, capsys):
    # Of ten pictures the second hits eight, of which the first hits two, and no other.
    first = write_scoring(tmp_path / "first", [0.75] * 2 + [0.25] * 8, rank=1)
    second = write_scoring(tmp_path / "second", [0.75] * 8 + [0.25] * 2)
    assert run(compare, f"A={first}", f"B={second}", f"--output_dir={tmp_path / 'out'}") == 0
    said = capsys.readouterr().out
    assert "B against A" in said and "GT-known Loc  better: +0.600" in said
    assert "6 pictures gained, 0 lost, p = 0.031" in said  # 2 / 2 ** 6
    assert "Top-1 Loc     better: +0.800" in said  # the first has no class right
    assert "box mIoU      better: +0.300" in said
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| against A | GT-known Loc" in table and "| B | +0.600 [" in table
    record = read_record(str(tmp_path / "out" / "comparison.json"))
    assert record.results[1].differences["gt_known_loc"].gained == 6
    assert str(tmp_path) not in record.command


def test_scorings_of_one_name_are_seeds(tmp_path, capsys):
    folders = [write_scoring(tmp_path / f"{i}", [0.9 * (i == 1), 0.9]) for i in range(2)]
    other = write_scoring(tmp_path / "other", [0.1, 0.1])
    seeds = [f"A={folder}" for folder in folders]
    assert run(compare, *seeds, str(other), f"--output_dir={tmp_path / 'out'}") == 0
    first, second = read_record(str(tmp_path / "out" / "comparison.json")).results
    assert first.seeds == (0, 1) and first.figures["gt_known_loc"].mean == 0.75
    assert second.row.label == str(other)
    assert "  0.750 ±0.354 " in capsys.readouterr().out


def test_scorings_without_a_picture_in_common_are_folds_of_a_seed(tmp_path, capsys):
    ious = {"0": [0.9, 0.9], "1": [0.9, 0.1], "2": [0.1, 0.1], "3": [0.9, 0.9]}
    firsts = {"0": 0, "1": 0, "2": 2, "3": 2}  # two folds, each of two seeds
    folders = [write_scoring(tmp_path / n, ious[n], first=firsts[n]) for n in ious]
    other = write_scoring(tmp_path / "other", [0.1] * 4)
    arguments = [f"A={folder}" for folder in folders]
    assert run(compare, *arguments, f"B={other}", f"--output_dir={tmp_path / 'out'}") == 0
    first, _ = read_record(str(tmp_path / "out" / "comparison.json")).results
    assert (first.seeds, first.num_images) == ((0, 1), 4)
    # Seed 0 hits two of four, seed 1 three.
    assert first.figures["gt_known_loc"].mean == 0.625
    assert first.figures["gt_known_loc"].spread == pytest.approx(0.125 * 2**0.5, abs=1e-5)


def test_a_folder_may_have_signs_in_its_name(tmp_path):
    """As the trials of a study do."""
    odd = write_scoring(tmp_path / "t3=0.9,seed=0", [0.9])
    assert compare.parse_entries([str(odd), f"B=C={odd}"]) == {
        str(odd): [str(odd)],
        "B": [f"C={odd}"],
    }


def test_what_is_not_alike_is_said(tmp_path, capsys):
    whole = write_scoring(tmp_path / "whole", [0.9] * 4, view="whole")
    part = write_scoring(tmp_path / "part", [0.9] * 4, first=1)
    assert run(compare, str(whole), str(part)) == 0
    said = capsys.readouterr().out
    assert f"'{whole}' has 4 pairs" in said and "the 3 that both have are compared" in said
    assert f"'{whole}' was scored with --view=whole, '{part}' with crop" in said


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (["{}/a"], "Name two or more folders"),
        (["A={}/a", "A={}/a"], "Name two or more folders"),
        (["{}/a", "={}/a"], "A name is followed by a folder"),
        (["{}/a", "B="], "A name is followed by a folder"),
        (["{}/a", "{}"], "has no outcomes.jsonl: name a folder"),
        (["{}/a", "{}/nowhere"], "has no outcomes.jsonl: name a folder"),
        (["{}/a", "{}/others"], "no picture in common with the same class, but 0 of class dog"),
        (["{}/a", "{}/damaged"], "these are no outcomes of evaluate or train"),
        (["{}/a", "{}/empty"], "no picture was scored"),
        (["{}/a", "{}/bare"], "metrics.json"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, entries, sentence, capsys):
    write_scoring(tmp_path / "a", [0.9])
    write_scoring(tmp_path / "others", [0.9], name="dog")
    (write_scoring(tmp_path / "damaged", [0.9]) / LINES).write_text('{"image_id": 3}\n')
    write_scoring(tmp_path / "empty", [])
    (write_scoring(tmp_path / "bare", [0.9]) / "metrics.json").unlink()
    assert run(compare, *(entry.format(tmp_path) for entry in entries)) == 1
    assert sentence in capsys.readouterr().err


def test_the_maps_of_two_programs_are_compared(tmp_path, capsys):
    """Stored score maps: the true masks, and their opposite."""
    shapes.write_voc(str(tmp_path / "voc"), 6, size=64, seed=0, split="val")
    source = evaluate.open_dataset("voc_folder", str(tmp_path / "voc"), "val")
    for name, sign in (("good", 1), ("bad", -1)):
        maps = {
            image_id: sign * (source.read_example(position).mask > 0).astype(np.float32)
            for position, image_id in enumerate(source.image_ids)
        }
        np.savez(tmp_path / f"{name}.npz", **maps)
        arguments = (f"--score_maps={tmp_path / name}.npz", "--dataset=voc_folder",
                     f"--data_dir={tmp_path / 'voc'}", "--metrics=none",
                     f"--output_dir={tmp_path / name}")  # fmt: skip
        assert run(evaluate, *arguments) == 0
    assert run(compare, str(tmp_path / "good"), str(tmp_path / "bad")) == 0
    said = capsys.readouterr().out
    assert "GT-known Loc  worse: −1.000" in said and "0 pictures gained, 6 lost" in said
