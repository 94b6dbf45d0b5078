import os

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data.registry import open_dataset


def add(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 20, 3), 99, np.uint8)).save(path, "PNG")


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.png", "valid/b.png"),
        ("train/a.png", "valid/b.png", "test/c.png"),
        ("train/a.png", "test1/b.png"),
        ("Training/a.png", "Testing/b.png"),
        ("train_images/a.png", "test_images/b.png"),
        ("train/a.png",),
        ("train/a.png", "test/b.png", "extra/c.png"),
        ("images/a.png", "masks/a.png"),
        ("images/a.png",),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_parts_of_a_data_set_are_no_classes(tmp_path, names, split):
    add(tmp_path, *names)
    with pytest.raises(ValueError, match="no class folders: .*train/cat/001.jpg"):
        open_dataset("image_folder", tmp_path, split)


def test_a_class_may_be_called_like_a_split(tmp_path):
    add(tmp_path, "train/a.png", "bus/b.png", "car/c.png")
    assert open_dataset("image_folder", tmp_path).classes == ("bus", "car", "train")
    add(tmp_path / "other", "train/train/a.png", "train/test/b.png")
    assert open_dataset("image_folder", tmp_path / "other").classes == ("test", "train")


JUNK = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", "System Volume Information")


@pytest.mark.parametrize("place", [".", "train"])
def test_what_systems_keep_beside_classes_is_passed_over_and_named(tmp_path, place):
    add(tmp_path / place, "cat/a.png", "dog/b.png")
    for name in (*JUNK, ".ipynb_checkpoints", ".Trashes"):
        add(tmp_path / place, f"{name}/cat/._a.png", f"{name}/x.png")
    source = open_dataset("image_folder", tmp_path)
    assert source.classes == ("cat", "dog")
    assert sorted(source.report.skipped) == sorted(f"folder {name}" for name in JUNK)


def test_a_strange_folder_beside_classes_is_no_split(tmp_path):
    add(tmp_path, "cat/a.png", "dog/b.png", "backup/cat/a.png")
    source = open_dataset("image_folder", tmp_path)
    assert source.classes == ("cat", "dog")
    assert source.report.skipped == {"folder backup": "holds no picture"}
    add(tmp_path, "val/cat/a.png")
    with pytest.raises(ValueError, match="no split 'train'.*Legal.*val"):
        open_dataset("image_folder", tmp_path)


def test_links_to_class_folders_are_followed_and_others_named(tmp_path):
    add(tmp_path / "data", "cat/a.png", "dog/b.png")
    add(tmp_path / "elsewhere", "c.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "fox")
    os.symlink(tmp_path / "data", tmp_path / "data" / "loop")
    os.symlink(tmp_path / "data", tmp_path / "data" / "cat" / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "data" / "owl")
    source = open_dataset("image_folder", tmp_path / "data")
    assert source.image_ids == ("cat/a.png", "dog/b.png", "fox/c.png")
    assert source.report.skipped == {
        "folder loop": "a link to a folder that it lies in",
        "cat/loop": "a folder in a class folder",
        "owl": "a link to something that is not there",
    }


@pytest.mark.parametrize("name", ["valid", "validation", "dev"])
def test_val_is_found_under_its_other_names(tmp_path, name):
    add(tmp_path, "train/cat/a.png", "train/dog/b.png", f"{name}/cat/c.png", f"{name}/dog/d.png")
    source = open_dataset("image_folder", tmp_path, "val")
    assert source.image_ids == ("cat/c.png", "dog/d.png")
    assert source.report.noted == {"split val": f"there is none of this name, {name!r} is taken"}
    assert len(open_dataset("image_folder", tmp_path, "val[:50%]")) == 1
    add(tmp_path, "val/cat/e.png", "val/dog/f.png")
    assert open_dataset("image_folder", tmp_path, "val").image_ids == ("cat/e.png", "dog/f.png")
    with pytest.raises(ValueError, match="no split 'test'"):
        open_dataset("image_folder", tmp_path, "test")


def test_other_kinds_find_val_under_its_other_names_too(tmp_path):
    add(tmp_path, "a.png", "b.png")
    for name in ("train", "valid"):
        (tmp_path / f"{name}.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    assert len(open_dataset("csv", tmp_path, "val")) == 2
    (tmp_path / "valid.csv").unlink()
    with pytest.raises(ValueError, match="'val'"):
        open_dataset("csv", tmp_path, "val")


def test_names_of_any_bytes_and_lengths_are_read(tmp_path):
    add(tmp_path, "cat/a.png", f"cat/{'n' * 250}.png", "cat/new\nline.png")
    latin = os.path.join(os.fsencode(tmp_path), b"cat", b"caf\xe9.png")
    os.rename(tmp_path / "cat" / "a.png", latin)
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"\xe9l\xe8ve"))
    os.rename(latin, os.path.join(os.fsencode(tmp_path), b"\xe9l\xe8ve", b"caf\xe9.png"))
    source = open_dataset("image_folder", tmp_path)
    assert source.classes == ("cat", r"\xe9l\xe8ve")
    assert source.image_ids == (
        "cat/new\nline.png", f"cat/{'n' * 250}.png", r"\xe9l\xe8ve/caf\xe9.png",
    )  # fmt: skip
    assert len(list(source.read_examples())) == 3
    source.report.skip("x\x1b[31m\nred", "y")
    assert r"x\x1b[31m\nred" in source.report.summary()
