import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsol_tf.data import parts, shapes
from wsol_tf.data.images import BadImage
from wsol_tf.data.parts import Fold, fold_numbers, parse_split
from wsol_tf.data.registry import open_dataset


@pytest.mark.parametrize(
    "split, whole, fold",
    [
        ("train", "train", None),
        ("train[:90%]", "train[:90%]", None),
        ("train+val[fold=2/5]", "train+val", Fold(2, 5, True)),
        ("train[:50%][fold!=1/2]", "train[:50%]", Fold(1, 2, False)),
        ("train [fold = 3/3]", "train", Fold(3, 3, True)),
    ],
)
def test_splits_are_taken_apart(split, whole, fold):
    assert parse_split(split) == (whole, fold)


@pytest.mark.parametrize("split", ["a[fold=0/5]", "a[fold=6/5]", "a[fold=1/1]", "a[fold=1/0]",
                                   "a[fold2/5]", "a[fold=2/5]+b", "a[fold=-1/5]"])  # fmt: skip
def test_folds_that_cannot_be_are_refused(split):
    with pytest.raises(ValueError, match=r"cannot be read"):
        parse_split(split)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(2, 7))
def test_folds_are_a_partition_that_is_even_in_all_and_in_each_class(first, folds):
    labels = [np.array([label]) for label in first]
    if len(labels) < folds:
        with pytest.raises(ValueError, match=f"{len(labels)} pictures can't be cut into {folds}"):
            fold_numbers(labels, folds)
        return
    numbers = fold_numbers(labels, folds)
    assert set(numbers.tolist()) == set(range(folds))
    for members in [numbers, *(numbers[np.equal(first, label)] for label in set(first))]:
        counts = np.bincount(members, minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(numbers, fold_numbers(labels, folds))


def test_folds_are_no_slices_of_the_order_of_files():
    numbers = fold_numbers([np.array([0])] * 40, 2)
    assert 0 < numbers[:20].sum() < 20


def test_each_picture_is_scored_once_and_never_trained_on_in_its_fold():
    scored = []
    everything = set(open_dataset("shapes", "", "train+val", num_examples=23).image_ids)
    assert len(everything) == 23 and any(name.startswith("val") for name in everything)
    for k in range(1, 5):
        inside, outside = (
            open_dataset("shapes", "", f"train+val[fold{sign}{k}/4]", num_examples=23)
            for sign in ("=", "!=")
        )
        assert inside.classes == outside.classes == shapes.CLASSES
        assert set(inside.image_ids) | set(outside.image_ids) == everything
        assert not set(inside.image_ids) & set(outside.image_ids)
        assert inside.name == f"shapes train+val[fold={k}/4]"
        scored += inside.image_ids
    assert sorted(scored) == sorted(everything)


def test_more_folds_than_pictures_are_refused():
    with pytest.raises(ValueError, match=r"shapes train: 3 pictures can't be cut into 5 folds"):
        open_dataset("shapes", "", "train[fold=1/5]", num_examples=3)


def add(folder, name, level, size=(9, 8)):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size[::-1], 3), level, np.uint8)).save(folder / name)


def test_pictures_with_the_same_id_in_two_splits_get_the_split_in_front(tmp_path):
    for split, level in (("train", 10), ("val", 200)):
        for label in ("cat", "dog"):
            add(tmp_path / split / label, "1.png", level)
            add(tmp_path / split / label, f"{split}.png", level)
    source = open_dataset("image_folder", tmp_path, "train+val")
    assert len(set(source.image_ids)) == len(source) == 8
    assert all(name.startswith(("train/", "val/")) for name in source.image_ids)
    for position, name in enumerate(source.image_ids):
        level = 10 if name.startswith("train/") else 200
        assert source.read_image(position).max() == level
        example = source.read_example(position)
        assert (example.image_id, example.image.max()) == (name, level)
        assert example.labels.tolist() == source.labels[position].tolist()
        assert source.classes[example.labels[0]] in name


def test_the_same_picture_in_two_splits_is_used_once_and_named(tmp_path):
    for label in ("cat", "dog"):
        add(tmp_path / "train" / label, "same.png", 10)
        add(tmp_path / "val" / label, "same.png", 10)
        add(tmp_path / "val" / label, "other.png", 30)
    source = open_dataset("image_folder", tmp_path, "train+val")
    assert len(source) == 4
    assert not any(name.startswith(("train/", "val/")) for name in source.image_ids)
    reason = "in split 'train' and in 'val', used once"
    assert list(source.report.noted.values()) == [reason] * 2


def test_overlapping_slices_share_no_picture_once_they_are_put_together(tmp_path):
    for i in range(10):
        add(tmp_path / "train" / "cat", f"{i}.png", 20 * i)
        add(tmp_path / "train" / "dog", f"{i}.png", 20 * i + 5)
    source = open_dataset("image_folder", tmp_path, "train[:60%]+train[40%:]")
    assert len(set(source.image_ids)) == len(source) == 20


def test_a_picture_and_an_unreadable_one_of_its_name_stay_two():
    first = dataclasses.replace(open_dataset("shapes", num_examples=2), image_ids=("a", "b"))

    def fail(position):
        raise BadImage("a", "broken")

    second = dataclasses.replace(first, read_image=fail)
    assert parts.unite([first, second], ["x", "y"]).image_ids == ("x/a", "x/b", "y/a", "y/b")


def test_a_class_of_the_first_split_keeps_its_id_in_the_second(tmp_path):
    for split, labels in (("train", ("ant", "cat", "dog")), ("val", ("cat", "dog"))):
        for label in labels:
            add(tmp_path / split / label, f"{split}_{label}.png", 50)
    source = open_dataset("image_folder", tmp_path, "train+val")
    assert source.classes == ("ant", "cat", "dog")
    found = {
        n: source.classes[lab[0]] for n, lab in zip(source.image_ids, source.labels, strict=True)
    }
    assert all(label in name for name, label in found.items())
