import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsol_tf import config
from wsol_tf.data.annotation import file_source, make_annotation, mask_values, new_class_ids
from wsol_tf.data.registry import holdout, open_dataset, register_dataset
from wsol_tf.data.source import Report


def xml_object(name, box=None, difficult=0):
    bndbox = ""
    if box is not None:
        keys = ("xmin", "ymin", "xmax", "ymax")
        values = "".join(f"<{k}>{v}</{k}>" for k, v in zip(keys, box, strict=True))
        bndbox = f"<bndbox>{values}</bndbox>"
    return f"<object><name>{name}</name><difficult>{difficult}</difficult>{bndbox}</object>"


def add_picture(folder, image_id, objects, *, size=(40, 30), xml_size=True, image=None):
    """Adds a picture (width, height) with objects to a folder in VOC layout."""
    width, height = size
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.full((height, width, 3), 90, np.uint8)
    Image.fromarray(image).save(folder / "JPEGImages" / f"{image_id}.png")
    sizes = f"<size><width>{width}</width><height>{height}</height></size>" if xml_size else ""
    text = f"<annotation>{sizes}{''.join(objects)}</annotation>"
    (folder / "Annotations" / f"{image_id}.xml").write_text(text)
    with open(folder / "ImageSets" / "Main" / "train.txt", "a") as file:
        file.write(f"{image_id}\n")


def add_mask(folder, image_id, mask):
    (folder / "SegmentationClass").mkdir(exist_ok=True)
    picture = Image.fromarray(mask)
    if picture.mode == "L":
        picture.putpalette(list(range(256)) * 3)
    picture.save(folder / "SegmentationClass" / f"{image_id}.png")


@pytest.fixture
def voc(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nfox\n")
    add_picture(
        tmp_path, "one", [xml_object("dog", (1, 1, 40, 30)), xml_object("cat", (5, 6, 5, 6))]
    )
    add_picture(tmp_path, "two", [xml_object("fox", (11, 6, 30, 25))])
    return tmp_path


# --- voc_folder ----------------------------------------------------------------------------------


def test_voc_boxes_become_half_open_edges(voc):
    source = open_dataset("voc_folder", voc, "train")
    assert source.classes == ("cat", "dog", "fox")
    assert source.image_ids == ("one", "two")
    assert [labels.tolist() for labels in source.labels] == [[0, 1], [2]]
    assert (source.has_boxes, source.has_masks, len(source)) == (True, False, 2)
    example = source.read_example(0)
    # The whole picture, and the single pixel of column 5, row 6 counted from 1.
    assert example.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 5, 6]]
    assert example.box_labels.tolist() == [1, 0]
    assert example.size.tolist() == [30, 40]
    assert example.mask.shape == (0, 0)


def test_examples_are_in_the_asked_order_with_stated_types(voc):
    source = open_dataset("voc_folder", voc, "train")
    found = list(source.read_examples([1, 0, 1]))
    assert [example.image_id for example in found] == ["two", "one", "two"]
    first = found[0]
    assert first.standard is None  # only the lists of wsolevaluation have it
    arrays = first._replace(image_id=np.str_(first.image_id))[:-1]
    assert first._fields[-1] == "standard" and [t.dtype.name for t in arrays] == [
        "uint8", "int32", "float32", "int32", "uint8", "str96", "int32",
    ]  # fmt: skip
    np.testing.assert_array_equal(first.boxes, source.read_example(1).boxes)
    np.testing.assert_array_equal(first.image, source.read_image(1))


def test_classes_without_classes_txt_come_sorted_from_all_annotations(voc):
    (voc / "classes.txt").unlink()
    (voc / "Annotations" / "other.xml").write_text(f"<annotation>{xml_object('ant')}</annotation>")
    assert open_dataset("voc_folder", voc, "train").classes == ("ant", "cat", "dog", "fox")


def test_difficult_only_class_makes_no_label_and_no_box(voc):
    add_picture(
        voc,
        "hard",
        [
            xml_object("cat", (1, 1, 5, 5), difficult=1),
            xml_object("dog", (1, 1, 6, 6)),
            xml_object("dog", (2, 2, 9, 9), difficult=1),
        ],
    )
    add_picture(voc, "harder", [xml_object("cat", (1, 1, 5, 5), difficult=1)])
    source = open_dataset("voc_folder", voc, "train")
    assert source.image_ids == ("one", "two", "hard")
    assert source.labels[2].tolist() == [1]
    # All boxes of a class that is present count, difficult ones too.
    assert source.read_example(2).boxes.tolist() == [[0, 0, 6, 6], [1, 1, 9, 9]]
    assert "difficult" in source.report.skipped["harder"]


def test_xml_without_size_takes_the_pictures(voc):
    add_picture(voc, "plain", [xml_object("cat", (3, 4, 10, 99))], xml_size=False)
    example = open_dataset("voc_folder", voc, "train").read_example(2)
    assert example.boxes.tolist() == [[2, 3, 10, 30]]


def test_boxes_outside_are_clipped_or_dropped_and_reported(voc):
    add_picture(
        voc,
        "wild",
        [
            xml_object("cat", (-5, 10, 20, 99)),
            xml_object("cat", (41, 1, 60, 30)),
            xml_object("cat", (20, 1, 10, 30)),
            xml_object("cat", ("a", 1, 10, 30)),
            xml_object("cat"),
        ],
    )
    source = open_dataset("voc_folder", voc, "train")
    example = source.read_example(2)
    assert example.boxes.tolist() == [[0, 9, 20, 30]]
    assert example.labels.tolist() == [0]
    assert source.report.noted == {"wild box 1": "the box leaves the picture and was clipped"}
    assert {name: reason[:14] for name, reason in source.report.skipped.items()} == {
        "wild box 2": "the box is out",
        "wild box 3": "no readable bo",
        "wild box 4": "no readable bo",
        "wild box 5": "no readable bo",
    }


def test_boxes_of_another_picture_size_are_not_used(voc):
    add_picture(
        voc, "turned", [xml_object("cat", (1, 1, 40, 30))], image=np.zeros((40, 30, 3), "u1")
    )
    source = open_dataset("voc_folder", voc, "train")
    assert source.read_example(2).boxes.shape == (0, 4)
    assert "they are for 40 x 30" in source.report.skipped["turned boxes"]


def test_large_pictures_are_reduced_with_their_boxes_and_mask(voc):
    mask = np.zeros((30, 40), np.uint8)
    mask[5:25, 10:30] = 3
    add_mask(voc, "two", mask)
    example = open_dataset("voc_folder", voc, "train", image_size=15).read_example(1)
    assert example.image.shape == (15, 20, 3)
    assert example.boxes.tolist() == [[5, 2.5, 15, 12.5]]
    assert example.mask.shape == (15, 20)
    assert example.size.tolist() == [30, 40]


def test_masks_follow_the_classes_asked_for(voc):
    mask = np.zeros((30, 40), np.uint8)
    mask[0, :6] = 0, 1, 2, 3, 255, 77
    add_mask(voc, "one", mask)
    source = open_dataset("voc_folder", voc, "train")
    assert source.has_masks
    assert source.read_example(0).mask[0, :6].tolist() == [0, 1, 2, 3, 255, 255]
    assert source.read_example(1).mask.shape == (0, 0)
    turned = open_dataset("voc_folder", voc, "train", classes=["dog", "cat"])
    # The file's 1 is cat and 2 is dog by classes.txt; fox is not in the list.
    assert turned.read_example(0).mask[0, :6].tolist() == [0, 2, 1, 255, 255, 255]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((10, 10), np.uint8), "10 x 10 pixels, the picture 40 x 30"),
        (np.zeros((30, 40, 3), np.uint8), "palette or gray"),
    ],
)
def test_masks_that_do_not_fit_are_reported(voc, mask, reason):
    add_mask(voc, "one", mask)
    source = open_dataset("voc_folder", voc, "train")
    assert source.read_example(0).mask.shape == (0, 0)
    assert reason in source.report.skipped["one mask"]


def test_classes_asked_for_fix_the_ids(voc):
    source = open_dataset("voc_folder", voc, "train", classes=["owl", "dog", "cat"])
    assert source.classes == ("owl", "dog", "cat")
    assert [labels.tolist() for labels in source.labels] == [[1, 2]]
    assert "'fox' is not in the list" in source.report.skipped["two object 1"]
    assert "no object of a class in the list" in source.report.skipped["two"]


def test_classes_that_share_nothing_are_refused_with_both_lists(voc):
    with pytest.raises(ValueError, match="owl, elk.*cat, dog, fox"):
        open_dataset("voc_folder", voc, "train", classes=["owl", "elk"])
    with pytest.raises(ValueError, match="unique.*cat"):
        open_dataset("voc_folder", voc, "train", classes=["cat", "cat"])


def test_missing_and_broken_parts_are_skipped_by_name(voc):
    for image_id in ("nofile", "noxml", "badxml"):
        add_picture(voc, image_id, [xml_object("cat", (1, 1, 9, 9))])
    (voc / "JPEGImages" / "nofile.png").unlink()
    (voc / "Annotations" / "noxml.xml").unlink()
    (voc / "Annotations" / "badxml.xml").write_text("<annotation><object>")
    source = open_dataset("voc_folder", voc, "train")
    assert source.image_ids == ("one", "two")
    reasons = source.report.skipped
    assert "no picture" in reasons["nofile"]
    assert "no XML" in reasons["noxml"]
    assert "broken" in reasons["badxml"]


def test_pictures_that_cannot_be_read_are_left_out_of_examples(voc):
    (voc / "JPEGImages" / "one.png").write_bytes(b"")
    source = open_dataset("voc_folder", voc, "train")
    found = [example.image_id for example in source.read_examples([0, 1])]
    assert found == ["two"]
    assert source.report.skipped == {"one": "the file is empty"}


def test_repeated_ids_count_once(voc):
    with open(voc / "ImageSets" / "Main" / "train.txt", "a") as file:
        file.write("one\n\n")
    source = open_dataset("voc_folder", voc, "train")
    assert source.image_ids == ("one", "two")
    assert list(source.report.noted) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("one -1\ntwo 1\n", "columns"),
        ("one\ntwo 1\n", "several columns .'two 1'"),
        ("gone", "no usable"),
        ("gone.png", "no picture in JPEGImages: gone.png"),
    ],
)
def test_split_files_without_use_are_refused(voc, content, message):
    (voc / "ImageSets" / "Main" / "val.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_dataset("voc_folder", voc, "val")


def test_unknown_split_names_the_legal_ones(voc):
    with pytest.raises(ValueError, match="Legal splits here: train"):
        open_dataset("voc_folder", voc, "test")


def test_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    with pytest.raises(ValueError, match="VOC layout"):
        open_dataset("voc_folder", tmp_path, "train")


# --- load ----------------------------------------------------------------------------------------


def test_bad_arguments_say_what_is_legal(tmp_path):
    with pytest.raises(ValueError, match="Unknown dataset 'vocc'. Legal: shapes, image_folder"):
        open_dataset("vocc", tmp_path, "train")
    with pytest.raises(ValueError, match="set `data_dir` to it"):
        open_dataset("voc_folder", "", "train")
    with pytest.raises(ValueError, match="not a folder"):
        open_dataset("image_folder", tmp_path / "none", "train")
    with pytest.raises(ValueError, match="at least 1"):
        open_dataset("shapes", "", "train", num_examples=0)


def test_a_kind_of_your_own_is_registered_in_five_lines(tmp_path):
    add_files(tmp_path, *(f"train/{name}.jpg" for name in ("dog1", "cat1", "dog2", "cat2")))

    def open_split(data_dir, split, *, classes, image_size, report):
        paths = sorted(pathlib.Path(data_dir, split).glob("*.jpg"))
        items = [(p.name, p, make_annotation([int(p.name[0] == "d")])) for p in paths]
        return file_source("pets", classes or ("cat", "dog"), image_size, report, items)

    with pytest.raises(ValueError, match="Unknown dataset 'own_pets'"):
        open_dataset("own_pets", tmp_path)
    register_dataset("own_pets", open_split)
    source = open_dataset("own_pets", tmp_path)
    assert [labels.tolist() for labels in source.labels] == [[0], [0], [1], [1]]
    assert source.read_example(3).image.shape == (10, 20, 3)
    assert len(open_dataset("own_pets", tmp_path, "train[:50%]")) == 2
    assert len(open_dataset("own_pets", tmp_path, num_examples=3)) == 3
    assert config.Config(dataset="own_pets").dataset == "own_pets"
    register_dataset("own_pets", lambda *_, **__: source)  # again: the new one counts
    assert open_dataset("own_pets") is source
    with pytest.raises(ValueError, match="a data set 'csv' already"):
        register_dataset("csv", open_split)


def test_num_examples_chooses_by_seed(tmp_path):
    for i in range(20):
        add_picture(tmp_path, f"p{i:02d}", [xml_object("cat", (1, 1, 9, 9))])
    ids = [
        open_dataset("voc_folder", tmp_path, "train", num_examples=5, seed=s).image_ids
        for s in (0, 0, 1)
    ]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 5
    assert list(ids[0]) == sorted(ids[0])


# --- image_folder --------------------------------------------------------------------------------


def add_files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.new("RGB", (20, 10), "red").save(path)
        else:
            path.write_text("text")


def test_image_folder_with_splits(tmp_path):
    add_files(tmp_path, "train/cat/a.jpg", "train/dog/b.png", "train/dog/c.png", "val/dog/d.png")
    source = open_dataset("image_folder", tmp_path, "train")
    assert source.classes == ("cat", "dog")
    assert source.image_ids == ("cat/a.jpg", "dog/b.png", "dog/c.png")
    assert [labels.tolist() for labels in source.labels] == [[0], [1], [1]]
    assert not source.has_boxes and not source.has_masks
    example = source.read_example(2)
    assert example.image.shape == (10, 20, 3)
    assert example.boxes.shape == (0, 4)
    val = open_dataset("image_folder", tmp_path, "val", classes=source.classes)
    assert [labels.tolist() for labels in val.labels] == [[1]]
    with pytest.raises(ValueError, match="no split 'test'.*Legal.*: train, val"):
        open_dataset("image_folder", tmp_path, "test")


def test_image_folder_without_splits_is_train_only(tmp_path):
    # A class may well be called "train".
    add_files(tmp_path, "train/a.jpg", "bus/b.png")
    assert open_dataset("image_folder", tmp_path, "train").classes == ("bus", "train")
    with pytest.raises(ValueError, match="split 'train'.*Ask for 'train', or move pictures to"):
        open_dataset("image_folder", tmp_path, "val")


def test_folders_in_a_class_folder_make_no_splits(tmp_path):
    add_files(tmp_path, "cat/a.jpg", "cat/thumbs/a.jpg", "dog/b.jpg")
    source = open_dataset("image_folder", tmp_path, "train")
    assert source.image_ids == ("cat/a.jpg", "dog/b.jpg")
    assert source.report.skipped == {"cat/thumbs": "a folder in a class folder"}


def test_voc_layout_is_no_image_folder(voc):
    with pytest.raises(ValueError, match="`dataset=voc_folder`"):
        open_dataset("image_folder", voc, "train")


def test_image_folder_reports_what_it_leaves_out(tmp_path):
    add_files(tmp_path, "cat/a.jpg", "cat/notes.txt", "cat/.hidden", "loose.png", "emu/b.jpg")
    (tmp_path / "void").mkdir()
    source = open_dataset("image_folder", tmp_path, "train", classes=["cat", "void"])
    assert source.image_ids == ("cat/a.jpg",)
    assert sorted(source.report.skipped) == [
        "cat/notes.txt", "folder emu", "folder void", "loose.png",
    ]  # fmt: skip


def test_empty_image_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no class folders"):
        open_dataset("image_folder", tmp_path, "train")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="no usable picture"):
        open_dataset("image_folder", tmp_path, "train")


# --- shapes --------------------------------------------------------------------------------------


def test_shapes_source_follows_the_classes_asked_for():
    source = open_dataset(
        "shapes", "", "val", image_size=48, num_examples=6, classes=["ring", "dot"]
    )
    assert source.image_ids == ("val_00002", "val_00003")
    assert [labels.tolist() for labels in source.labels] == [[1], [0]]
    example = source.read_example(0)
    assert example.labels.tolist() == [1]
    assert set(example.box_labels.tolist()) == {1}
    assert set(np.unique(example.mask)) == {0, 2}
    assert len(source.report.skipped) == 4


def test_shapes_defaults_and_split():
    assert len(open_dataset("shapes", "", "train")) == 1000
    assert len(open_dataset("shapes", "", "val")) == 200
    with pytest.raises(ValueError, match="Legal: train, val, test"):
        open_dataset("shapes", "", "dev")


# --- holdout -------------------------------------------------------------------------------------


def test_holdout_takes_every_class_in_its_share():
    labels = [np.array([0])] * 40 + [np.array([1, 2])] * 20
    kept, held = holdout(labels, 0.25, seed=3)
    assert len(held) == 15
    assert (held < 40).sum() == 10
    assert sorted([*kept, *held]) == list(range(60))


def test_holdout_depends_on_the_seed_only():
    labels = [np.array([i % 3]) for i in range(60)]
    held = [holdout(labels, 0.2, seed)[1].tolist() for seed in (1, 1, 2)]
    assert held[0] == held[1] != held[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 0.95), st.integers(0, 99))
def test_holdout_is_a_partition_that_keeps_each_class(first, fraction, seed):
    labels = [np.array([label], np.int32) for label in first]
    kept, held = holdout(labels, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(first)))
    assert len(held) <= round(fraction * len(first))
    assert {first[i] for i in kept} == set(first)


def test_holdout_refuses_everything():
    with pytest.raises(ValueError, match="Received: 1"):
        holdout([np.array([0])], 1, 0)


# --- Report --------------------------------------------------------------------------------------


def test_report_counts_by_reason_and_names_ten():
    report = Report()
    assert report.summary() == "Nothing was skipped."
    for i in range(12):
        report.skip(f"p{i:02d}", "the file is empty")
    report.skip("p00", "another reason comes too late")
    report.note("q", "clipped")
    assert report.summary() == (
        "Skipped: 12\n  12 x the file is empty: "
        + ", ".join(f"p{i:02d}" for i in range(10))
        + " and 2 more\nRepaired: 1\n  1 x clipped: q"
    )


# --- real pictures -------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "split", "pictures"), [("cub10", "val", 109), ("small6", "val", 173)]
)
def test_real_folders_are_read_without_a_loss(shared_dir, name, split, pictures):
    source = open_dataset("voc_folder", shared_dir / "data" / name, split)
    assert len(source) == pictures
    for example in source.read_examples(range(pictures)):
        height, width = example.image.shape[:2]
        boxes = example.boxes
        assert len(boxes) and (boxes >= 0).all() and (boxes <= [width, height] * 2).all()
    assert not source.report.skipped


@pytest.mark.realdata
def test_real_multi_label_folder(shared_dir):
    source = open_dataset("voc_folder", shared_dir / "data" / "voc2007", "train")
    assert len(source) == 1260
    assert sum(len(labels) > 1 for labels in source.labels) > 300


@pytest.mark.realdata
def test_real_empty_split_is_refused(shared_dir):
    with pytest.raises(ValueError, match="is empty"):
        open_dataset("voc_folder", shared_dir / "data" / "ilsvrc_val1300", "train")


def test_mask_values_follow_the_list_of_classes():
    ids = new_class_ids(("ant", "bee", "cat"), ("cat", "ant"))
    assert ids.tolist() == [1, -1, 0] and ids.dtype == np.int32
    values = mask_values(ids)
    assert values.dtype == np.uint8
    assert values[[0, 1, 2, 3, 4, 255]].tolist() == [0, 2, 255, 1, 255, 255]
    # A byte has room for 254 classes.
    many = mask_values(np.arange(300))
    assert many[[1, 254, 255]].tolist() == [1, 254, 255]
    assert mask_values([300, 254, 253]).tolist()[:4] == [0, 255, 255, 254]


def test_the_home_folder_is_found_from_code_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / name / "1.png")
    source = open_dataset("image_folder", "~/pictures")
    assert source.image_ids == ("cat/1.png", "dog/1.png")
    assert len(source.read_example(0).image) == 20
