import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsol_tf.data.coco_masks import (
    CocoObject,
    decode_runs,
    draw_mask,
    fill_polygons,
    unpack_counts,
)
from wsol_tf.data.registry import open_dataset


def add_pictures(folder, *names, size=(40, 30)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(path)


# --- csv -----------------------------------------------------------------------------------------

TABLE = """path,label,xmin,ymin,xmax,ymax
a.png,dog,1,2,11,12
a.png,cat,20,5,40,30
sub/b.png,dog,,,,
a.png,dog,0,0,4,4
"""


@pytest.fixture
def table(tmp_path):
    add_pictures(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "train.csv").write_text(TABLE)
    return tmp_path


def test_csv_rows_of_a_path_make_one_picture(table):
    source = open_dataset("csv", table, "train")
    assert source.classes == ("cat", "dog")
    assert source.image_ids == ("a.png", "sub/b.png")
    assert [labels.tolist() for labels in source.labels] == [[0, 1], [1]]
    assert source.has_boxes and not source.has_masks
    example = source.read_example(0)
    # Half-open edges, as they stand.
    assert example.boxes.tolist() == [[1, 2, 11, 12], [20, 5, 40, 30], [0, 0, 4, 4]]
    assert example.box_labels.tolist() == [1, 0, 1]
    assert source.read_example(1).boxes.shape == (0, 4)
    assert source.report.summary() == "Nothing was skipped."


def test_csv_of_a_split_column(tmp_path):
    add_pictures(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "all.csv").write_text("path,label,split\na.png,x,train\nb.png,y,val\nc.png,x,val\n")
    assert open_dataset("csv", tmp_path, "train").classes == ("x", "y")
    assert open_dataset("csv", tmp_path, "val").image_ids == ("b.png", "c.png")
    assert open_dataset("csv", tmp_path / "all.csv", "val").image_ids == ("b.png", "c.png")
    with pytest.raises(ValueError, match="no row of split 'test'. Legal: train, val"):
        open_dataset("csv", tmp_path, "test")


def test_csv_without_splits_is_train_only(tmp_path):
    add_pictures(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,x\n")
    assert not open_dataset("csv", tmp_path, "train").has_boxes
    with pytest.raises(ValueError, match="only split 'train'.*val.csv"):
        open_dataset("csv", tmp_path, "val")


def test_csv_of_a_split_beside_another(table):
    (table / "val.csv").write_text("path,label\nsub/b.png,cat\n")
    assert open_dataset("csv", table, "val", classes=["cat", "dog"]).labels[0].tolist() == [0]
    with pytest.raises(ValueError, match="train.csv, val.csv"):
        open_dataset("csv", table, "test")


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,dog,1,2,11,12\n",
        "\ufeffLabel;Path;xmin;ymin;xmax;ymax\r\ndog;a.png;1;2;11;12\r\n",
        'ymax\txmax\tymin\txmin\tlabel\tpath\n12\t11\t2\t1\t dog \t"a.png"\n',
    ],
    ids=["object detection", "spreadsheet", "tabs"],
)
def test_csv_as_it_is_found(table, text):
    (table / "train.csv").write_text(text, encoding="utf-8")
    source = open_dataset("csv", table, "train")
    assert source.classes == ("dog",)
    assert source.read_example(0).boxes.tolist() == [[1, 2, 11, 12]]


def test_csv_says_what_it_leaves_out(table):
    with open(table / "train.csv", "a") as file:
        file.write("gone.png,dog,1,1,2,2\n,dog,,,,\na.png,,,,,\na.png,dog,9,1,3,2\n")
        file.write("sub\\b.png,emu,1,1,x,2\na.png,dog,30,20,99,25\n")
    source = open_dataset("csv", table, "train", classes=["dog", "cat"])
    assert source.image_ids == ("a.png", "sub/b.png")
    source.read_example(0)
    assert source.report.skipped == {
        "gone.png": "there is no such file",
        "line 7": "no path",
        "line 8": "no label",
        "a.png line 9": "no readable box, only the label is used",
        "sub\\b.png line 10": "class 'emu' is not in the list",
    }
    assert list(source.report.noted) == ["a.png box 4"]


def test_csv_paths_that_are_written_differently_make_one_picture(table):
    (table / "train.csv").write_text("path,label\na.png,dog\n./a.png,cat\nsub/../a.png,dog\n")
    source = open_dataset("csv", table, "train")
    assert source.image_ids == ("a.png",)
    assert source.labels[0].tolist() == [0, 1]


def test_csv_paths_of_windows(table):
    (table / "train.csv").write_text("path,label\nsub\\b.png,dog\n")
    assert open_dataset("csv", table, "train").read_image(0).shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must start with a line that names the columns"),
        ("a.png,dog\n", "must start with.*Received: 'a.png,dog'"),
        ("path,label\n", "no row below"),
        ("path,label,xmin\na.png,dog,1\n", "not all four"),
        ("path,label\na.png,\n", "no label in any row"),
        ("path,label\nno.png,dog\n", "no usable picture"),
        ("path,label,xmin,ymin,xmax,ymax\na.png,dog,0.1,0.1,0.9,1\n", "within 0..1.*pixels"),
        (b"path,label\n\xff\xfe,dog\n", "not text in UTF-8"),
    ],
)
def test_csv_that_cannot_be_used_is_refused(table, text, message):
    (table / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        open_dataset("csv", table, "train")


def test_csv_folder_without_tables(tmp_path):
    with pytest.raises(ValueError, match="no .csv file"):
        open_dataset("csv", tmp_path, "train")


# --- coco ----------------------------------------------------------------------------------------


def coco_json(**changes):
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    data = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 30, "width": 40},
            {"id": 9, "file_name": "b.png", "height": 30, "width": 40},
        ],
        "categories": [
            {"id": 3, "name": "dog"},
            {"id": 1, "name": "person"},
            {"id": 2, "name": "unused"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [5, 5, 10, 10], "iscrowd": 0,
             "segmentation": square},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [20.5, 0, 19.5, 30], "iscrowd": 0,
             "segmentation": [[20.5, 0, 40, 0, 40, 30, 20.5, 30]]},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 40, 30]},
            {"id": 4, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": [0, 60, 30 * 40 - 60]}},
        ],
    }  # fmt: skip
    return {**data, **changes}


def write_coco(
    folder, place="annotations/instances_train2017.json", pictures="train2017", **changes
):
    add_pictures(folder, f"{pictures}/a.png", f"{pictures}/b.png")
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco_json(**changes)))
    return folder


def test_coco_boxes_masks_and_crowds_by_hand(tmp_path):
    source = open_dataset("coco", write_coco(tmp_path), "train")
    assert source.classes == ("person", "dog")  # in the order of their ids; 'unused' is not learned
    assert source.image_ids == ("a.png", "b.png")
    # The crowd of persons in b.png makes no label.
    assert [labels.tolist() for labels in source.labels] == [[0, 1], [1]]
    assert source.has_boxes and source.has_masks
    example = source.read_example(0)
    assert example.boxes.tolist() == [[5, 5, 15, 15], [20.5, 0, 40, 30]]
    assert example.box_labels.tolist() == [1, 0]
    expected = np.zeros((30, 40), np.uint8)
    expected[5:15, 5:15] = 2
    expected[:, 20:] = 1  # half of column 20 is covered
    np.testing.assert_array_equal(example.mask, expected)
    crowd = source.read_example(1)
    assert crowd.boxes.tolist() == [[0, 0, 40, 30]]
    # Runs go down the columns: 60 pixels are the first two.
    assert (crowd.mask[:, :2] == 255).all() and (crowd.mask[:, 2:] == 0).all()
    assert list(source.report.noted) == ["category unused"]


@pytest.mark.parametrize(
    ("place", "pictures"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train.json", "images/train"),
        ("annotations/train.json", "images"),
        ("train.json", "."),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_coco_where_it_is_found(tmp_path, place, pictures):
    source = open_dataset("coco", write_coco(tmp_path, place, pictures), "train")
    assert source.read_image(1).shape == (30, 40, 3)
    assert open_dataset("coco", tmp_path / place, "train").read_image(1).shape == (30, 40, 3)
    with pytest.raises(ValueError, match="split 'val'.*instances_val"):
        open_dataset("coco", tmp_path, "val")


def test_coco_with_classes_of_a_model(tmp_path):
    source = open_dataset("coco", write_coco(tmp_path), "train", classes=["dog", "owl"])
    assert [labels.tolist() for labels in source.labels] == [[0], [0]]
    assert set(np.unique(source.read_example(0).mask)) == {0, 1}
    assert source.report.skipped["annotation 2"] == "class 'person' is not in the list"


def test_coco_says_what_it_leaves_out(tmp_path):
    images = [
        *coco_json()["images"],
        {"id": 1, "file_name": "gone.png"},
        {"id": 2, "file_name": "empty.png"},
    ]
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 0, 5]},
        {"id": 2, "image_id": 1, "category_id": 3},
        {"id": 3, "image_id": 55, "category_id": 3},
        {"id": 4, "image_id": 7, "category_id": 44},
        {"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 1, 5, 5],
         "segmentation": {"size": [30, 40], "counts": [3, 4]}},
    ]  # fmt: skip
    source = open_dataset(
        "coco", write_coco(tmp_path, images=images, annotations=annotations), "train"
    )
    assert source.read_example(1).mask.shape == (0, 0)
    reasons = {name: reason[:28] for name, reason in source.report.skipped.items()}
    assert reasons == {
        "annotation 1": "no readable box, only the la",
        "annotation 2": "no readable box, only the la",
        "annotation 3": "its picture is not in the fi",
        "annotation 4": "class 44 is not in the list",
        "gone.png": "there is no such file",
        "empty.png": "no object of a class in the ",
        "b.png mask": "mask not used (the runs are ",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "train.json: this is not JSON"),
        ("[]", "images, annotations, categories are missing"),
        ('{"images": [], "categories": [], "annotations": []}', "nothing to learn"),
        ('{"images": [{}], "categories": [], "annotations": []}', "images needs id, file_name"),
    ],
)
def test_coco_that_cannot_be_used_is_refused(tmp_path, text, message):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_dataset("coco", tmp_path, "train")


def test_run_lengths_as_pycocotools_writes_them():
    # pycocotools 2.0.11: mask.encode of the identity of 5, and of a block with one row cut out.
    eye = {"size": [5, 5], "counts": "0150000000"}
    np.testing.assert_array_equal(decode_runs(eye, (5, 5)), np.eye(5, dtype=bool))
    block = np.zeros((40, 60), bool)
    block[5:35, 10:50] = True
    block[20] = False
    packed = {"size": [40, 60], "counts": "e<?1O91GO" + "91GO" * 38 + "d<"}
    np.testing.assert_array_equal(decode_runs(packed, (40, 60)), block)


def pack(counts):
    """COCO's compression, written from its description: the reverse of what is tested."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr(48 + (bits | 0x20 if more else bits))
            if not more:
                break
    return text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_packed_run_lengths_are_unpacked(counts):
    assert unpack_counts(pack(counts)) == counts


def test_overlapping_objects_show_the_smaller_one():
    big = [np.float32([[0, 0], [20, 0], [20, 20], [0, 20]])]
    small = [np.float32([[5, 5], [10, 5], [10, 10], [5, 10]])]
    one, other = CocoObject(0, None, False, big), CocoObject(1, None, False, small)
    for objects in ([one, other], [other, one]):
        mask = draw_mask(objects, (20, 20), unusable=pytest.fail)
        assert (mask[5:10, 5:10] == 2).all() and (mask == 1).sum() == 375


@settings(max_examples=60, deadline=None)
@given(*[st.floats(-20, 60, width=32)] * 4)
def test_rectangles_cover_their_pixels(x0, y0, x1, y1):
    """Against the exact cover of each pixel; within the eighth that is drawn."""
    x0, x1, y0, y1 = *sorted((x0, x1)), *sorted((y0, y1))
    polygon = np.float32([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    drawn = fill_polygons([polygon], (30, 40))
    columns = np.clip(np.minimum(np.arange(40) + 1, x1) - np.maximum(np.arange(40), x0), 0, 1)
    rows = np.clip(np.minimum(np.arange(30) + 1, y1) - np.maximum(np.arange(30), y0), 0, 1)
    cover = rows[:, None] * columns
    assert drawn[cover > 0.75].all()
    assert not drawn[cover < 0.25].any()
