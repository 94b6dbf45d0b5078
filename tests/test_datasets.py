"""python -m wsol_tf.datasets, and what every kind of data set must keep."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers import TINY, run
from wsol_tf import config, datasets, train
from wsol_tf.data import shapes
from wsol_tf.data.batches import training_batches
from wsol_tf.data.public_kinds import KINDS
from wsol_tf.data.registry import FILE_KINDS, PUBLIC, open_dataset
from wsol_tf.data.source import Source, StopAtBadImage
from wsol_tf.data.stream import TrainingStream
from wsol_tf.training.run import train as train_model

# --- data sets that hold the same drawn pictures -------------------------------------------------


# Layouts of the same pictures; wsolevaluation's lists have tests of their own.
LAYOUTS = [kind for kind in FILE_KINDS if kind != "wsolevaluation"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Kind -> data_dir: 24 drawn pictures to train on and 8 others, in every layout of files."""
    voc = tmp_path_factory.mktemp("drawn")
    for split, number in (("train", 24), ("val", 8)):
        shapes.write_voc(str(voc), number, size=48, seed=0, split=split)
    folders = {"voc_folder": voc, "image_folder": tmp_path_factory.mktemp("image_folder")}
    folders["csv"], folders["coco"] = voc, voc
    lines = ["path,label,xmin,ymin,xmax,ymax,split"]
    for split in ("train", "val"):
        source = open_dataset("voc_folder", voc, split)
        images, annotations = [], []
        for position, image_id in enumerate(source.image_ids):
            example = source.read_example(position)
            name = source.classes[example.labels[0]]
            file = f"{image_id}.jpg"
            target = folders["image_folder"] / split / name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(voc / "JPEGImages" / file, target)
            images.append({"id": position, "file_name": file, "height": 48, "width": 48})
            for x0, y0, x1, y1 in example.boxes.tolist():
                lines.append(f"JPEGImages/{file},{name},{x0},{y0},{x1},{y1},{split}")
                corners = [x0, y0, x1, y0, x1, y1, x0, y1]
                box = [x0, y0, x1 - x0, y1 - y0]
                annotations.append(
                    {"image_id": position, "category_id": int(example.labels[0]), "bbox": box,
                     "segmentation": [corners]}
                )  # fmt: skip
        categories = [{"id": i, "name": name} for i, name in enumerate(shapes.CLASSES)]
        (voc / f"{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    (voc / "all.csv").write_text("\n".join(lines) + "\n")
    (voc / "images").symlink_to(voc / "JPEGImages")
    return folders


def test_the_layouts_agree(kinds):
    opened = {kind: open_dataset(kind, folder, "train") for kind, folder in kinds.items()}
    reference = opened["voc_folder"]
    for kind, source in opened.items():
        assert len(source) == 24 and set(source.classes) == set(shapes.CLASSES)
        for position, image_id in enumerate(source.image_ids):
            stem = pathlib.Path(image_id).stem
            expected = reference.read_example(reference.image_ids.index(stem))
            example = source.read_example(position)
            np.testing.assert_array_equal(example.image, expected.image)
            assert source.classes[example.labels[0]] == reference.classes[expected.labels[0]]
            if kind != "image_folder":
                np.testing.assert_array_equal(example.boxes, expected.boxes)


@pytest.mark.parametrize("kind", ["shapes", *LAYOUTS])
def test_no_box_and_no_mask_reaches_training(kinds, kind):
    """Training works on a source that has none, and makes the same batches."""
    source = open_dataset(kind, kinds.get(kind, ""), "train", num_examples=24, image_size=48)

    def refuse(position):
        raise AssertionError("training asked for boxes and masks")

    blind = Source(
        **{**vars(source), "read_example": refuse, "has_boxes": False, "has_masks": False}
    )
    batches = [
        training_batches(
            TrainingStream(one, range(24), batch_size=8, input_size=32, resize_size=40)
        )
        for one in (source, blind)
    ]
    for dataset in batches:
        image, label = dataset.element_spec
        assert image.shape == (8, 32, 32, 3) and label.shape == (8,)
    for ours, theirs in zip(*batches, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_settings_and_data_sets_have_the_same_names():
    names = config.Config.__dataclass_fields__["dataset"].metadata["choices"]
    assert names == ("shapes", *FILE_KINDS, *KINDS)
    assert tuple(KINDS) == PUBLIC


# --- slices and single classes -------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYOUTS)
def test_slices_are_parts_of_one_random_order(kinds, kind):
    whole = set(open_dataset(kind, kinds[kind], "train").image_ids)
    parts = [open_dataset(kind, kinds[kind], f"train[{part}]") for part in (":75%", "75%:")]
    assert [len(part) for part in parts] == [18, 6]
    assert set(parts[0].image_ids) | set(parts[1].image_ids) == whole
    # Not the last class, though image folders are in the order of the classes.
    assert len({int(labels[0]) for labels in parts[1].labels}) > 1
    assert open_dataset(kind, kinds[kind], "train[75%:]").image_ids == parts[1].image_ids
    assert len(open_dataset(kind, kinds[kind], "train[-3:]")) == 3
    for position in range(len(parts[1])):
        assert parts[1].read_example(position).image.shape == (48, 48, 3)


@pytest.mark.parametrize("split", ["train[", "train[a:]", "train[:150%]"])
def test_slices_that_cannot_be_read_are_refused(kinds, split):
    with pytest.raises(ValueError, match="Legal are the name of a split and one slice"):
        open_dataset("voc_folder", kinds["voc_folder"], split)


def test_empty_slices_are_refused(kinds):
    with pytest.raises(ValueError, match="is empty: 'train' has 24 pictures"):
        open_dataset("voc_folder", kinds["voc_folder"], "train[:1%]")


def test_single_class_leaves_out_pictures_with_several(kinds, tmp_path):
    rows = "path,label\na.png,x\nb.png,x\nb.png,y\n"
    (tmp_path / "train.csv").write_text(rows)
    for name in "ab":
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    assert open_dataset("csv", tmp_path, "train", single_class=True).image_ids == ("a.png",)
    (tmp_path / "train.csv").write_text(rows.replace("a.png,x\n", ""))
    with pytest.raises(ValueError, match="no picture with a single class"):
        open_dataset("csv", tmp_path, "train", single_class=True)


# --- pictures that cannot be read ----------------------------------------------------------------

DAMAGE = {
    "truncated": ("cannot be decoded", lambda path: path.write_bytes(path.read_bytes()[:600])),
    "text": ("not a picture", lambda path: path.write_text("not a picture at all")),
    "empty": ("is empty", lambda path: path.write_bytes(b"")),
    "page": ("web page", lambda path: path.write_text("<!DOCTYPE html><html>404</html>")),
}


@pytest.fixture
def damaged(tmp_path):
    """200 pictures in class folders, 2 % of them broken, each in another way."""
    names = []
    for i in range(200):
        example = shapes.draw(i, size=40)
        path = tmp_path / "data" / shapes.CLASSES[example.labels[0]] / f"{i:03d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(example.image).save(path)
        names.append(path)
    broken = {}
    for (reason, damage), path in zip(DAMAGE.values(), names[10:200:50], strict=True):
        damage(path)
        broken[str(path.relative_to(tmp_path / "data"))] = reason
    # A PNG with the name of a JPEG is read all the same.
    Image.new("RGB", (40, 40)).save(names[0], "PNG")
    return tmp_path / "data", broken


def test_broken_pictures_are_all_named_and_training_goes_on(damaged):
    folder, broken = damaged
    source = open_dataset("image_folder", folder, "train")
    stream = TrainingStream(source, range(200), batch_size=20, input_size=32, resize_size=36)
    batches = training_batches(stream)
    for _ in range(2):
        assert [len(labels) for _, labels in batches] == [20] * 10
    assert source.report.skipped.keys() == broken.keys()
    for name, reason in broken.items():
        assert reason in source.report.skipped[name]
        assert name in source.report.summary()


def test_on_bad_image_fail_stops_at_the_first_with_its_path(damaged, tmp_path, capsys):
    folder, broken = damaged
    arguments = ["--dataset=image_folder", f"--data_dir={folder}", "--on_bad_image=fail",
                 "--val_split=", f"--output_dir={tmp_path / 'run'}"]  # fmt: skip
    assert run(train, *TINY, *arguments) == 1
    text = capsys.readouterr().err
    assert any(f"Error: {folder / name}: " in text for name in broken)
    assert "--on_bad_image=skip" in text and "Traceback" not in text


def test_missing_picture_of_the_split_to_score_stops_too(kinds, tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.png,x\n")
    (tmp_path / "val.csv").write_text("path,label\nb.png,x\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    settings = config.Config.recipe(
        dataset="csv", data_dir=str(tmp_path), on_bad_image="fail", output_dir=str(tmp_path / "run")
    )
    with pytest.raises(StopAtBadImage, match=f"{tmp_path / 'b.png'}: there is no such file"):
        train_model(settings, log=lambda line: None)


def test_on_bad_image_has_two_values(tmp_path):
    with pytest.raises(ValueError, match="Unknown on_bad_image 'stop'. Legal: skip, fail."):
        open_dataset("shapes", "", "train", on_bad_image="stop")


def test_unreadable_permissions_are_named(tmp_path, monkeypatch):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("path,label\na.png,x\n")
    (tmp_path / "a.png").chmod(0)
    if os.access(tmp_path / "a.png", os.R_OK):  # root may read everything
        monkeypatch.setattr(Image, "open", _denied)
    source = open_dataset("csv", tmp_path, "train")
    assert list(source.read_examples([0])) == []
    assert source.report.skipped == {"a.png": "the file may not be read (permission denied)"}


def _denied(*_, **__):
    raise PermissionError(13, "Permission denied")


# --- the program ---------------------------------------------------------------------------------


def describe(*arguments):
    return run(datasets, *arguments)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_describes_a_data_set(kinds, kind, tmp_path, capsys):
    assert (
        describe(f"--dataset={kind}", f"--data_dir={kinds[kind]}", f"--output_dir={tmp_path}") == 0
    )
    text = capsys.readouterr().out
    figures = json.loads((tmp_path / "dataset.json").read_text())
    assert list(figures) == ["train", "val"]
    assert figures["train"]["pictures"] == 24 and figures["val"]["pictures"] == 8
    assert sum(figures["train"]["classes"].values()) == 24
    assert figures["train"]["smallest"] == [48, 48] == figures["train"]["largest"]
    assert (figures["train"]["boxes"] >= 24) == (kind != "image_folder")
    assert (figures["train"]["masks"] == 24) == (kind in ("voc_folder", "coco"))
    assert "No split 'test'" in text and "stripe" in text
    assert "fewer than 10 pictures in train" in text
    assert ("localization cannot be scored" in text) == (kind == "image_folder")
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width > 500


def test_a_single_class_is_warned_of(tmp_path, capsys):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "data" / "cat" / "a.png")
    arguments = (f"--data_dir={tmp_path / 'data'}", f"--output_dir={tmp_path / 'out'}")
    assert describe("--dataset=image_folder", *arguments) == 0
    assert "There is only one class, cat" in capsys.readouterr().out


def test_description_names_what_is_broken(damaged, tmp_path, capsys):
    folder, broken = damaged
    arguments = ("--dataset=image_folder", f"--data_dir={folder}", f"--output_dir={tmp_path}/out")
    assert describe(*arguments) == 0
    text = capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert figures["train"]["skipped"].keys() == broken.keys()
    assert figures["train"]["pictures"] == 196
    assert all(name in text for name in broken)
    assert describe(*arguments, "--on_bad_image=fail") == 1
    assert str(folder) in capsys.readouterr().err
    # A split that is not there is no picture that cannot be read.
    for name in broken:
        (folder / name).unlink()
    assert describe(*arguments, "--on_bad_image=fail") == 0


def test_description_sees_pictures_of_two_splits(kinds, tmp_path, capsys):
    shutil.copytree(kinds["voc_folder"] / "ImageSets", tmp_path / "voc" / "ImageSets")
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "voc" / name).symlink_to(kinds["voc_folder"] / name)
    with open(tmp_path / "voc" / "ImageSets" / "Main" / "val.txt", "a") as file:
        file.write("train_00003\n")
    folder = f"--data_dir={tmp_path / 'voc'}"
    assert describe("--dataset=voc_folder", folder, f"--output_dir={tmp_path / 'out'}") == 0
    text = capsys.readouterr().out
    assert "1 picture is both in train and in val" in text and "too good: train_00003." in text


def test_nothing_to_describe_is_refused(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    folder = f"--data_dir={tmp_path / 'data'}"
    assert describe("--dataset=image_folder", folder, f"--output_dir={tmp_path / 'out'}") == 1
    assert "no class folders" in capsys.readouterr().err


def test_many_classes_are_cut_in_the_table():
    figures = {
        "pictures": 99, "classes": {f"c{i:03d}": i for i in range(100)}, "several_classes": 0,
        "boxes": 0, "most_boxes": 0, "without_box": 99, "median_box_area": None, "masks": 0,
        "smallest": [1, 2], "median": [3, 4], "largest": [5, 6], "skipped": {}, "repaired": {},
    }  # fmt: skip
    lines = datasets.statistics_table({"train": figures}).splitlines()
    assert any(line.split() == ["c019", "19"] for line in lines)
    assert not any(line.startswith("c020") for line in lines)
    assert any(line.split() == ["c099", "99"] for line in lines)
    assert "2 x 1" in "\n".join(lines)
