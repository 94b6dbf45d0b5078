"""What lies in the output folder: which files are replaced, removed, refused, and by whom."""

import os
import subprocess
import sys
import time

import pytest

from helpers import ROOT
from scenes import SCENES, draw_scenes, write
from wsol_tf.annotations.own import LAYOUTS, RECORD
from wsol_tf.annotations.run import LOCK, WRITERS


def never(image):
    raise AssertionError


def files_in(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("format", WRITERS)
def test_the_layout_names_every_file_of_a_format(format, tmp_path):
    pictures, _, _ = write(tmp_path / "in", tmp_path / "out", format)
    expected = {
        kind.format(name=picture.name, stem=picture.stem)
        for kind in LAYOUTS[format]
        for picture in pictures
    }
    shared = {"found.jsonl", "doubtful.csv", "review.html", RECORD, LOCK}
    assert files_in(tmp_path / "out") == expected | shared


@pytest.mark.parametrize("format", ["yolo", "voc", "labelme"])
def test_files_of_pictures_that_are_no_longer_named_go(format, tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "in", out, format)
    mine = out / LAYOUTS[format][-1].format(name="mine.png", stem="mine")
    mine.write_text("mine")
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    gone = paths.pop(1)
    os.remove(gone)
    write(tmp_path / "in", out, format, paths=paths, localize=never)
    assert not [file for file in files_in(out) if "b__same" in file]
    whole = tmp_path / "whole"
    write(tmp_path / "in", whole, format, paths=paths)
    assert files_in(out) - {str(mine.relative_to(out))} == files_in(whole)
    assert mine.read_text() == "mine"


def test_a_removed_pictures_file_that_a_person_changed_stays_and_is_named(tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "in", out, "yolo")
    label = out / "labels" / "train" / "b__same.txt"
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    os.utime(label, (time.time() + 9,) * 2)
    paths = [str(tmp_path / "in" / name) for name in SCENES if name != "b/same.png"]
    _, _, log = write(tmp_path / "in", out, "yolo", paths=paths)
    assert f"{label}: it was changed by hand and stays" in log
    assert label.read_text() == "0 0.5 0.5 0.1 0.1\n"
    assert not (out / "images" / "train" / "b__same.png").is_symlink()


def test_what_coco_lists_is_not_removed_for_csv(tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "in", out, "coco")
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    write(tmp_path / "in", out, "csv", paths=paths[:2], localize=never)
    assert len(list((out / "images").iterdir())) == len(SCENES)


@pytest.mark.parametrize("format", WRITERS)
def test_files_of_another_data_set_are_refused_before_a_picture_is_localized(format, tmp_path):
    for number, kind in enumerate((*LAYOUTS[format], "doubtful.csv")):
        out = tmp_path / str(number)
        place = out / kind.format(name="b__two.png", stem="b__two")
        place.parent.mkdir(parents=True)
        place.write_text("of another data set")
        with pytest.raises(ValueError, match="was not written by `annotate`, and is not") as error:
            write(tmp_path / "in", out, format, localize=never)
        assert str(place) in str(error.value)
        assert place.read_text() == "of another data set"
        place.unlink()
        pictures, _, _ = write(tmp_path / "in", out, format)
        assert len(pictures) == len(SCENES)


def test_a_file_in_the_place_of_a_new_picture_is_refused(tmp_path):
    out, paths = tmp_path / "out", draw_scenes(tmp_path / "in")
    write(tmp_path / "in", out, "yolo", paths=paths[1:])
    mine = out / "images" / "train" / "a__same.png"
    mine.write_text("mine")
    os.utime(mine, (0, 0))
    with pytest.raises(ValueError, match=r"a__same.png was not written by `annotate`"):
        write(tmp_path / "in", out, "yolo", paths=paths)
    assert mine.read_text() == "mine"


def test_what_a_person_corrected_in_its_place_is_refused(tmp_path):
    out = tmp_path / "out"
    write(tmp_path / "in", out, "labelme")
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    write(tmp_path / "in", out, "csv", paths=paths, localize=never)
    corrected = out / "labelme" / "b__two.json"
    corrected.write_text("{}")
    os.utime(corrected, (time.time() + 9,) * 2)
    with pytest.raises(ValueError, match=r"b__two.json was changed since `annotate` wrote it"):
        write(tmp_path / "in", out, "labelme", paths=paths, localize=never)
    assert corrected.read_text() == "{}"
    write(tmp_path / "in", out, "csv", paths=paths, localize=never)


def test_a_run_that_ended_while_it_wrote_is_repeated(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(tmp_path / "in", out, "yolo")

    def killed(*_):
        (out / "data.yaml").write_text("tra")
        raise KeyboardInterrupt

    monkeypatch.setitem(WRITERS, "yolo", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "in", out, "yolo")
    monkeypatch.undo()
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    write(tmp_path / "in", out, "yolo", paths=paths, localize=never)
    assert (out / "data.yaml").read_text().startswith("train: images/train\n")


def test_crops_of_another_data_set_are_refused(tmp_path):
    crop = tmp_path / "out" / "crops" / "cat" / "a__same_1.jpg"
    crop.parent.mkdir(parents=True)
    crop.write_text("mine")
    with pytest.raises(ValueError, match="crops was not written by `annotate`"):
        write(tmp_path / "in", tmp_path / "out", crops=True, localize=never)
    assert crop.read_text() == "mine"


def test_two_processes_do_not_annotate_in_one_folder(tmp_path):
    script = (
        "import sys, time\nfrom wsol_tf import files\nheld = files.take_lock(sys.argv[1])\n"
        "print('held', flush=True)\ntime.sleep(600)"
    )
    out = tmp_path / "out"
    out.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", script, out / LOCK], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"Another process .*\(process {other.pid} on .*"):
            write(tmp_path / "in", out, localize=never)
        assert files_in(out) == {LOCK}
    finally:
        other.kill()
        other.communicate()
    write(tmp_path / "in", out)
