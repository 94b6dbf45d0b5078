"""From a folder of pictures to annotations: what is written, resumed, refused and left out."""

import csv
import dataclasses
import json
import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from scenes import BOXES, CLASSES, SCENES, draw_scenes, localize, write
from wsol_tf.annotations.journal import JOURNAL
from wsol_tf.annotations.run import WAITING
from wsol_tf.data.registry import open_dataset


def names_in(out):
    coco = json.loads((out / "annotations" / "instances_train.json").read_text())
    return {image["file_name"] for image in coco["images"]}


def test_a_run_that_was_stopped_goes_on_and_nothing_is_localized_twice(tmp_path):
    seen = []

    def until_the_third(image):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(image)
        return localize(image)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "in", tmp_path / "out", localize=until_the_third)
    assert not (tmp_path / "out" / "annotations").exists()
    again = []
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    _, _, log = write(
        tmp_path / "in", tmp_path / "out", paths=paths,
        localize=lambda image: again.append(image) or localize(image),
    )  # fmt: skip
    assert (len(seen), len(again)) == (2, 3)
    assert "2 pictures had been localized before." in log and "3 localized now, 0 skipped." in log
    assert len(names_in(tmp_path / "out")) == 5
    whole = tmp_path / "whole"
    write(tmp_path / "in", whole, paths=paths)
    for name in (JOURNAL, "annotations/instances_train.json", "doubtful.csv"):
        assert (tmp_path / "out" / name).read_text() == (whole / name).read_text(), name


def test_another_format_needs_no_model(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    paths = [str(tmp_path / "in" / name) for name in SCENES]

    def never(image):
        raise AssertionError

    write(tmp_path / "in", tmp_path / "out", "voc", paths=paths, localize=never)
    assert (tmp_path / "out" / "Annotations" / "b__two.xml").exists()


def test_a_picture_that_changed_is_localized_again_under_its_name(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    path = tmp_path / "in" / "a" / "same.png"
    path.write_bytes((tmp_path / "in" / "b" / "two.png").read_bytes())
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    pictures, _, log = write(tmp_path / "in", tmp_path / "out", paths=paths)
    assert "1 localized now" in log
    (changed,) = [one for one in pictures if one.name == "a__same.png"]
    assert len(changed.objects) == 2


def test_a_journal_with_a_damaged_line_in_its_middle_is_refused_and_kept(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    journal = tmp_path / "out" / JOURNAL
    damaged = journal.read_bytes().replace(b'\n{"path"', b'\n["path"', 1)
    journal.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"found.jsonl is damaged at byte \d+, with pictures"):
        write(tmp_path / "in", tmp_path / "out")
    assert journal.read_bytes() == damaged


def test_other_settings_are_refused(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match=r"other settings: tolerance 2.0, now 0.5. Name another"):
        write(tmp_path / "in", tmp_path / "out", tolerance=0.5)


@pytest.mark.parametrize("has_journal", [True, False])
def test_what_workers_left_goes_with_the_journal(tmp_path, has_journal):
    """They found it with the settings of the journal: without that, nobody knows with which."""
    out, was_there = tmp_path / "out", []
    write(tmp_path / "in", out)
    left = out / WAITING / "0123abcd"
    left.parent.mkdir()
    left.write_text("")
    if not has_journal:
        (out / JOURNAL).unlink()
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    write(
        tmp_path / "in", out, "yolo", paths=paths,
        elsewhere=lambda wanted: was_there.append(left.exists()) or (),
    )  # fmt: skip
    assert was_there == [has_journal]


def test_bad_pictures_are_named_and_counted(tmp_path):
    paths = draw_scenes(tmp_path / "in")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    paths += [str(tmp_path / "in" / "bad.jpg"), str(tmp_path / "in" / "gone.jpg")]
    pictures, skipped, log = write(tmp_path / "in", tmp_path / "out", paths=paths)
    assert len(pictures) == len(SCENES)
    assert [pathlib.Path(path).name for path in skipped] == ["bad.jpg", "gone.jpg"]
    assert "Skipped: " in log and "bad.jpg" in log and "there is no such file" in log
    assert "5 localized now, 2 skipped." in log
    with pytest.raises(ValueError, match=r"bad.jpg: .*`on_bad_image=skip`"):
        write(tmp_path / "in", tmp_path / "out2", paths=paths, on_bad_image="fail")


def test_a_picture_without_finite_output_is_skipped(tmp_path):
    def broken(image):
        raise FloatingPointError("the model's output is no finite number.")

    pictures, skipped, _ = write(tmp_path / "in", tmp_path / "out", localize=broken)
    assert len(pictures) == 0 and len(skipped) == len(SCENES)
    assert names_in(tmp_path / "out") == set()
    write(tmp_path / "in", tmp_path / "out", "labelstudio", localize=broken)
    assert json.loads((tmp_path / "out" / "labelstudio.json").read_text()) == []
    write(tmp_path / "in", tmp_path / "out", "cvat", localize=broken)
    assert not list(ElementTree.parse(tmp_path / "out" / "annotations.xml").iter("image"))


def test_results_in_the_folder_of_pictures_are_no_pictures(tmp_path):
    paths = draw_scenes(tmp_path / "in")
    out = tmp_path / "in" / "out"
    write(tmp_path / "in", out, paths=[*paths, paths[0]])
    inside = [str(path) for path in out.rglob("*.png")]
    assert len(inside) == len(SCENES)
    pictures, _, log = write(tmp_path / "in", out, paths=[*paths, *inside])
    assert len(pictures) == len(SCENES) and "5 pictures in `output_dir` left out" in log


def test_doubtful_pictures_come_first_and_a_budget_names_them(tmp_path):
    def doubtful(image):
        found, mask = localize(image)
        agrees = len(found.boxes) != 2  # of the picture with two objects, the CAM sees nothing
        return found, mask if agrees else np.zeros_like(mask)

    pictures, _, _ = write(tmp_path / "in", tmp_path / "out", localize=doubtful, budget=2)
    with open(tmp_path / "out" / "doubtful.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["picture"] == "b/two.png" and len(rows) == len(SCENES)
    assert (rows[0]["disagreement_doubt"], rows[0]["class_doubt"]) == ("1.0000", "0.2500")
    assert rows[0]["objects"] == "2" and rows[0]["classes"] == CLASSES[0]
    named = (tmp_path / "out" / "to_correct.txt").read_text().splitlines()
    assert named == pictures.paths[:2] and named[0].endswith("b/two.png")


def test_crops_are_an_image_folder(tmp_path):
    write(tmp_path / "in", tmp_path / "out", crops=True)
    source = open_dataset("image_folder", tmp_path / "out" / "crops", "train", image_size=8)
    assert len(source.classes) == 2
    assert len(source) + len(source.report.skipped) == sum(map(len, BOXES.values()))


def test_crops_of_a_picture_that_changed_are_those_of_what_it_shows_now(tmp_path):
    write(tmp_path / "in", tmp_path / "out", crops=True)
    path = tmp_path / "in" / "b" / "two.png"
    path.write_bytes((tmp_path / "in" / "b" / "same.png").read_bytes())
    paths = [str(tmp_path / "in" / name) for name in SCENES]
    write(tmp_path / "in", tmp_path / "out", paths=paths, crops=True)
    (crop,) = (tmp_path / "out" / "crops").rglob("b__two_*.jpg")
    assert crop.parent.name != CLASSES[0]


# --- the page ------------------------------------------------------------------------------------


def pictures_of(page):
    found = re.findall(r'<script type="application/json" class="one">(.*?)</script>', page, re.S)
    return [json.loads(text) for text in found]


def test_the_page_has_the_pictures_in_the_order_of_coco_and_asks_for_nothing(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    page = (tmp_path / "out" / "review.html").read_text()
    pictures = pictures_of(page)
    coco = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [one["name"] for one in pictures] == [one["file_name"] for one in coco["images"]]
    for picture in pictures:
        assert picture["thumbnail"].startswith("data:image/webp;base64,")
        boxes = sorted(tuple(known["box"]) for known in picture["objects"])
        assert boxes == sorted(box for _, box in BOXES[picture["path"]])
        assert not re.match(r"\w+:|//", picture["file"])  # an address of its own machine
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page)
    assert "default-src 'none'" in page


def test_no_name_becomes_markup(tmp_path):
    classes = ("</script><script>alert(1)</script>", *CLASSES[1:])
    path = tmp_path / "in" / "<img src=x onerror=alert(2)>.png"
    path.parent.mkdir()
    Image.fromarray(SCENES["a/same.png"]).save(path)

    def evil(image):
        found, mask = localize(image)
        return dataclasses.replace(found, class_name=classes[0]), mask

    write(tmp_path / "in", tmp_path / "out", paths=[str(path)], localize=evil, classes=classes)
    page = (tmp_path / "out" / "review.html").read_text()
    assert "alert(1)" in page and "<script>alert" not in page and "<img src=x" not in page
    (picture,) = pictures_of(page)
    assert picture["objects"][0]["label"] == classes[0]
