"""COCO files as users bring them: exports of other tools, joined files, values of other types."""

import json
import math
import os

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data.registry import holdout, open_dataset

BOX = [4, 2, 10, 6]  # x, y, width, height
EDGES = [[4, 2, 14, 8]]


def picture(number, name=None, **more):
    return {"id": number, "file_name": name or f"{number}.png", "width": 40, "height": 30, **more}


def annotation(number, image_id, category_id, **more):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": BOX, **more}


CATEGORIES = [{"id": 0, "name": "cat"}, {"id": 1, "name": "apple"}]


@pytest.fixture
def coco(tmp_path):
    """Writes a file of four pictures, two of each class, with changes; opens it."""
    for number in range(4):
        os.makedirs(tmp_path / "images", exist_ok=True)
        Image.new("RGB", (40, 30), (50 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")

    def open_with(**changes):
        data = {
            "images": [picture(number) for number in range(4)],
            "annotations": [annotation(number, number, number // 2) for number in range(4)],
            "categories": CATEGORIES,
            **changes,
        }
        (tmp_path / "train.json").write_text(json.dumps(data))
        return open_dataset("coco", tmp_path / "train.json", "train")

    return open_with


def check_all_four(source):
    assert source.classes == ("cat", "apple")
    assert [labels.tolist() for labels in source.labels] == [[0], [0], [1], [1]]
    for number in range(4):
        example = source.read_example(number)
        assert example.image[0, 0, 0] == 50 * number  # the right picture has the box
        assert example.boxes.tolist() == EDGES
    assert not source.report.skipped


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("{}.png", 0),
        ("images\\{}.png", 0),
        ("images/{}.PNG", 0),
        ("images/1/{}.png", 4),
        ("..\\..\\label-studio\\media\\upload\\4\\{}.png", 4),
        ("/data/local-files/?d=set/{}.png", 4),
        ("https://example.org/set/{}.png", 4),
        (" {}.png ", 0),
        ("images/%3{}.png", 0),
    ],
)
def test_names_of_other_machines(coco, name, noted):
    source = coco(images=[picture(number, name.format(number)) for number in range(4)])
    check_all_four(source)
    assert len(source.report.noted) == noted


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0.png", "\udcff.png", "..", "/", "images"])
def test_a_name_that_no_picture_has_is_skipped(coco, name):
    images = [picture(number) for number in range(3)] + [picture(3, name)]
    source = coco(images=images)
    assert source.image_ids == ("0.png", "1.png", "2.png")
    assert source.report.skipped == {name: "there is no such file"}


def test_two_names_that_may_mean_one_file_are_left_out(coco):
    images = [picture(0), picture(1, "a/1.png"), picture(2), picture(3, "b/1.png")]
    source = coco(images=images)
    assert source.image_ids == ("0.png", "2.png")
    assert "a/1.png, b/1.png" in source.report.summary()


# --- duplicates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [0, "0", 0.0])
def test_one_id_on_two_pictures_is_refused_with_both_names(coco, other):
    with pytest.raises(ValueError, match=r"train.json: one image id .*: 0 on 0\.png, 1\.png\."):
        coco(images=[picture(0), {**picture(1), "id": other}, picture(2), picture(3)])


def test_many_shared_ids_are_counted(coco):
    images = [picture(number, f"{name}{number}.png") for name in "ab" for number in range(9)]
    with pytest.raises(ValueError, match=r"0 on a0\.png, b0\.png; .* and 4 more ids"):
        coco(images=images)


def test_an_entry_that_comes_twice_is_one_picture(coco):
    source = coco(images=[picture(number) for number in (0, 1, 2, 3, 0, 2)])
    check_all_four(source)
    assert list(source.report.noted) == ["0.png", "2.png"]


@pytest.mark.parametrize("name", ["0.png", "./0.png", "images/0.png", "0.PNG"])
def test_a_picture_that_is_listed_twice_is_one_and_cannot_be_held_out_from_itself(coco, name):
    images = [picture(number) for number in range(4)] + [picture(100, name)]
    annotations = [annotation(number, number, number // 2) for number in range(4)]
    annotations += [
        annotation(100, 100, 0),  # the same box
        annotation(101, 100, 1, bbox=[0, 0, 5, 5]),
    ]
    source = coco(images=images, annotations=annotations)
    assert source.image_ids == ("0.png", "1.png", "2.png", "3.png")
    assert source.labels[0].tolist() == [0, 1]
    assert source.read_example(0).boxes.tolist() == [*EDGES, [0, 0, 5, 5]]
    assert source.report.noted["annotation 100"] == "another annotation says the same, used once"
    assert any("0.png" in entry for entry in source.report.noted)
    kept, held = holdout(source.labels, 0.5, seed=0)
    files = [int(source.read_image(i)[0, 0, 0]) for i in range(4)]
    assert not {files[i] for i in kept} & {files[i] for i in held}


def test_a_picture_that_is_listed_with_different_sizes_is_left_out(coco):
    images = [picture(number) for number in range(4)] + [picture(9, "0.png", width=80)]
    source = coco(images=images)
    assert source.image_ids == ("1.png", "2.png", "3.png")
    assert "different sizes" in source.report.skipped["0.png"]


def test_annotations_that_come_twice_count_once(coco):
    annotations = [annotation(number, number, number // 2) for number in (0, 1, 2, 3, 0)]
    source = coco(annotations=annotations)
    check_all_four(source)
    assert source.report.noted == {
        "annotation 0": "several annotations have this id",
        "annotation 0 (entry 5)": "another annotation says the same, used once",
    }


def test_different_annotations_of_one_id_are_all_used(coco):
    annotations = [annotation(0, number, number // 2) for number in range(4)]
    source = coco(annotations=annotations)
    check_all_four(source)
    assert source.report.noted == {"annotation 0": "several annotations have this id"}


def test_two_categories_of_one_name_are_one_class(coco):
    annotations = [annotation(number, number, (0, 7, 1, 1)[number]) for number in range(4)]
    source = coco(annotations=annotations, categories=[*CATEGORIES, {"id": 7, "name": "cat"}])
    check_all_four(source)
    assert source.report.noted == {"categories 0, 7": "both are called 'cat': one class"}


def test_two_categories_of_one_name_and_different_kinds_are_refused(coco):
    annotations = [annotation(number, number, (0, 7, 1, 1)[number]) for number in range(4)]
    with pytest.raises(ValueError, match="0 and 7 are both called 'cat'.*'' and 'lion'"):
        coco(
            annotations=annotations,
            categories=[*CATEGORIES, {"id": 7, "name": "cat", "supercategory": "lion"}],
        )


def test_two_categories_of_one_id(coco):
    check_all_four(coco(categories=[*CATEGORIES, {"id": 0, "name": "cat"}]))
    with pytest.raises(ValueError, match="categories 'cat' and 'dog' have one id, 0"):
        coco(categories=[*CATEGORIES, {"id": 0, "name": "dog"}])


def test_categories_that_differ_in_case_alone_are_noted(coco):
    annotations = [annotation(number, number, (0, 7, 1, 1)[number]) for number in range(4)]
    source = coco(annotations=annotations, categories=[*CATEGORIES, {"id": 7, "name": "Cat"}])
    assert source.classes == ("cat", "apple", "Cat")
    assert list(source.report.noted) == ["classes 'Cat', 'cat'"]


def test_a_category_that_is_no_text_can_be_printed(coco):
    source = coco(categories=[{"id": 0, "name": "cat\ud800"}, {"id": 1, "name": 7}])
    assert source.classes == ("cat\\ud800", "7")


# --- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "as_written", [str, float, lambda i: [i], lambda i: f"{i}.0", lambda i: f" {i}"]
)
@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_ids_of_annotations_in_other_types(coco, key, as_written):
    annotations = [annotation(number, number, number // 2) for number in range(4)]
    for entry in annotations:
        entry[key] = as_written(entry[key])
    check_all_four(coco(annotations=annotations))


def test_ids_that_are_text(coco):
    source = coco(
        images=[{**picture(number), "id": f"img{number}"} for number in range(4)],
        annotations=[annotation(i, f"img{i}", "ca"[i // 2]) for i in range(4)],
        categories=[{"id": "c", "name": "cat"}, {"id": "a", "name": "apple"}],
    )
    assert source.classes == ("apple", "cat")  # in the order of their ids
    assert [labels.tolist() for labels in source.labels] == [[1], [1], [0], [0]]


def test_numbers_as_numbers_and_as_text_are_in_the_order_of_numbers(coco):
    categories = [{"id": "10", "name": "apple"}, {"id": 9, "name": "cat"}]
    annotations = [annotation(number, number, (9, "10")[number // 2]) for number in range(4)]
    check_all_four(coco(categories=categories, annotations=annotations))


def test_ids_that_have_no_order_are_refused(coco):
    categories = [{"id": 0, "name": "cat"}, {"id": "a", "name": "apple"}]
    annotations = [annotation(number, number, (0, "a")[number // 2]) for number in range(4)]
    with pytest.raises(ValueError, match=r"some ids .* numbers \(0\), others text \('a'\)"):
        coco(categories=categories, annotations=annotations)


@pytest.mark.parametrize("crowd", [0, "0", False, "false", 0.0, None, "no"])
def test_iscrowd_that_says_no(coco, crowd):
    check_all_four(coco(annotations=[annotation(i, i, i // 2, iscrowd=crowd) for i in range(4)]))


@pytest.mark.parametrize("crowd", [1, "1", True, "true", 1.0])
def test_iscrowd_that_says_yes(coco, crowd):
    annotations = [annotation(i, i, i // 2) for i in range(4)]
    annotations[3]["iscrowd"] = crowd
    assert coco(annotations=annotations).image_ids == ("0.png", "1.png", "2.png")


def test_iscrowd_that_says_nothing_is_named(coco):
    annotations = [annotation(i, i, i // 2) for i in range(4)]
    annotations[3]["iscrowd"] = "maybe"
    assert coco(annotations=annotations).report.skipped["annotation 3"] == (
        "its iscrowd is neither 0 nor 1"
    )


@pytest.mark.parametrize(
    "box",
    [
        None, [], "4, 2, 10, 6", "4210", {"x": 4}, [4, 2, 10], [4, 2, 10, 6, 1], [4, 2, -10, 6],
        [4, 2, math.nan, 6], [4, 2, math.inf, 6], [1e308, 0, 1e308, 5], [4, 2, True, 6],
        [4, 2, None, 6], [[4], 2, 10, 6], [10**400, 2, 10, 6],
    ],
)  # fmt: skip
def test_a_box_that_cannot_be_read_leaves_the_label(coco, box):
    annotations = [annotation(i, i, i // 2) for i in range(4)]
    annotations[0]["bbox"] = box
    source = coco(annotations=annotations)
    assert source.report.skipped == {"annotation 0": "no readable box, only the label is used"}
    assert source.read_example(0).boxes.shape == (0, 4) and source.labels[0].tolist() == [0]


def test_numbers_of_boxes_and_sizes_as_text(coco):
    annotations = [annotation(i, i, i // 2, bbox=["4", "2.0", "1e1", 6]) for i in range(4)]
    images = [picture(number, width="40", height=30.0) for number in range(4)]
    check_all_four(coco(images=images, annotations=annotations))
    images[0]["width"] = "50"
    source = coco(images=images, annotations=annotations)
    assert source.read_example(0).boxes.shape == (0, 4)
    assert "they are for 50 x 30" in source.report.skipped["0.png boxes"]
    images[0]["width"] = "wide"
    source = coco(images=images, annotations=annotations)
    check_all_four(source)
    assert list(source.report.noted) == ["0.png size"]


@pytest.mark.parametrize("odd", [None, True, 1.5, "text", [], {}, [[1]], math.nan])
def test_entries_of_any_type_are_named(coco, odd):
    images = [picture(number) for number in range(4)]
    annotations = [annotation(i, i, i // 2) for i in range(4)]
    source = coco(images=[*images, odd], annotations=[*annotations, odd])
    assert source.image_ids == ("0.png", "1.png", "2.png", "3.png")
    assert source.report.skipped["images, entry 5"] == "it has no id or no file_name"
    if isinstance(odd, dict):
        assert source.report.skipped["annotation 4"] == "its picture is not in the file"
    else:
        assert "not an object" in source.report.skipped["annotations, entry 5"]
    with pytest.raises(ValueError, match="train.json.*each entry of categories needs id, name"):
        coco(categories=[*CATEGORIES, odd])
    with pytest.raises(ValueError, match="train.json"):
        coco(images=odd)


@pytest.mark.parametrize("odd", [None, True, 0.5, [1, 2], {}, math.nan, "unknown"])
@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_annotations_of_nothing_are_named(coco, key, odd):
    annotations = [annotation(i, i, i // 2) for i in range(5)]
    annotations[4] = {**annotation(4, 3, 1), key: odd}
    source = coco(annotations=annotations)
    assert list(source.report.skipped) == ["annotation 4"]


# --- masks ---------------------------------------------------------------------------------------


def test_outlines_that_are_odd_are_read_or_named(coco):
    outlines = [
        [10, 10, 20, 10, 20, 20],
        [[10, 10, 20, 10, 20]],
        {"size": [30, 40], "counts": [10**12]},
        [[]],
    ]
    annotations = [annotation(i, i, i // 2, segmentation=outlines[i]) for i in range(4)]
    source = coco(annotations=annotations)
    masks = [example.mask for example in source.read_examples()]
    assert [mask.shape for mask in masks] == [(30, 40), (0, 0), (0, 0), (0, 0)]
    assert masks[0][11, 19] == 1 and masks[0][19, 11] == 0
    assert source.report.noted == {
        "annotation 0 segmentation": "a flat list of numbers, taken for one polygon"
    }
    assert source.report.skipped == {
        "1.png mask": "mask not used (a polygon has an odd count of numbers)",
        "2.png mask": "mask not used (the runs are for 40 x 30 pixels and cover 1000000000000, the "
        "picture has 40 x 30)",
    }


def test_an_outline_among_others_is_named_with_its_annotation(coco):
    square = [[20, 10, 30, 10, 30, 20, 20, 20]]
    annotations = [
        annotation(0, 0, 0, segmentation=[[1, 1, 2, 2, 3]]),
        annotation(1, 0, 1, segmentation=square, bbox=[20, 10, 10, 10]),
        annotation(2, 1, 0),
    ]
    source = coco(annotations=annotations)
    mask = source.read_example(0).mask
    expected = np.zeros((30, 40), np.uint8)
    expected[2:8, 4:14] = 255
    expected[10:20, 20:30] = 2
    np.testing.assert_array_equal(mask, expected)
    assert "0.png mask of annotation 0" in source.report.skipped


# --- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"images": ' + "[" * 100_000, '{"images": [' + "1" * 5000 + "]}", "\xff", "null"],
)
def test_a_file_that_is_no_coco_is_named(tmp_path, text):
    (tmp_path / "train.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.json"):
        open_dataset("coco", tmp_path, "train")


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "train.json").mkdir()
    with pytest.raises(ValueError, match=r"train\.json: this is a folder"):
        open_dataset("coco", tmp_path, "train")
    (tmp_path / "val.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"val\.json: this is a device"):
        open_dataset("coco", tmp_path, "val")
    os.mkfifo(tmp_path / "test.json")
    with pytest.raises(ValueError, match=r"test\.json: this is a pipe"):
        open_dataset("coco", tmp_path, "test")


def test_deep_values_anywhere_are_harmless(coco):
    deep = json.loads("[" * 800 + "]" * 800)
    annotations = [annotation(i, i, i // 2) for i in range(4)]
    annotations[0]["segmentation"] = deep
    annotations[1]["bbox"] = deep
    annotations[2]["id"] = deep
    source = coco(annotations=annotations)
    assert len(list(source.read_examples())) == 4
