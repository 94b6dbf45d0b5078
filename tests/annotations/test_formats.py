"""Each format, read back: by our own readers, by others' where they are installed, by hand."""

import csv
import json
import os
import shutil
import urllib.parse
from xml.etree import ElementTree

import numpy as np
import pytest
from pycocotools.coco import COCO

from scenes import BOXES, CLASSES, GREEN, RED, SCENES, write
from wsol_tf.annotations.run import WRITERS
from wsol_tf.config import choices
from wsol_tf.data.registry import open_dataset

FLAT = {name: name.replace("/", "__").translate(str.maketrans('"<>', "___")) for name in SCENES}
NAMED = {flat: name for name, flat in FLAT.items()}
SHOWN = [name for name in SCENES if BOXES[name]]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Format and shape -> its folder; pictures are localized once for each shape."""
    root = tmp_path_factory.mktemp("annotated")
    folders = {}

    def folder(format, shape="polygon"):
        if (format, shape) not in folders:
            out = root / f"{format}_{shape}"
            folders[format, shape] = out, write(root / "pictures", out, format, shape=shape)
        return folders[format, shape]

    return folder


def found_by_reader(kind, out, **settings):
    """Name of a scene -> its boxes with classes, and its mask, as our reader has them."""
    source = open_dataset(kind, out, "train", classes=CLASSES[:2], **settings)
    examples = [source.read_example(i) for i in range(len(source))]
    found = {}
    for example in examples:
        name = os.path.basename(example.image_id)
        name = NAMED[name if name in NAMED else f"{name}.png"]
        np.testing.assert_array_equal(example.image, SCENES[name])
        boxes = zip(example.box_labels.tolist(), map(tuple, example.boxes.tolist()), strict=True)
        found[name] = sorted(boxes), example.mask
    return found, source.report


# --- our own readers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "kind"), [("coco", "coco"), ("voc", "voc_folder"), ("csv", "csv")]
)
def test_our_readers_find_equal_boxes(written, format, kind):
    assert kind in choices("dataset")
    out, _ = written(format)
    found, report = found_by_reader(kind, out)
    assert {name: boxes for name, (boxes, _) in found.items()} == {
        name: sorted(BOXES[name]) for name in SHOWN
    }
    assert set(report.noted) <= {"category none here"}  # no picture shows it


def test_our_reader_finds_equal_masks_in_coco(written):
    found, _ = found_by_reader("coco", written("coco")[0])
    for name, (_, mask) in found.items():
        label = BOXES[name][0][0]
        np.testing.assert_array_equal(mask == label + 1, SCENES[name][..., label] > 0)


# --- COCO ----------------------------------------------------------------------------------------


def test_pycocotools_reads_boxes_masks_and_scores(written, capsys):
    out, (pictures, _, _) = written("coco")
    coco = COCO(str(out / "annotations" / "instances_train.json"))
    assert [coco.cats[i]["name"] for i in sorted(coco.cats)] == list(CLASSES)
    assert len(coco.imgs) == len(SCENES) and len(pictures) == len(SCENES)
    uncertain = [image["uncertainty"] for image in coco.imgs.values()]
    assert uncertain == sorted(uncertain, reverse=True)
    for image in coco.imgs.values():
        name = NAMED[image["file_name"]]
        assert (image["height"], image["width"]) == SCENES[name].shape[:2]
        entries = coco.loadAnns(coco.getAnnIds([image["id"]]))
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in entries)]
        assert sorted(boxes) == sorted(box for _, box in BOXES[name])
        for entry, box in zip(entries, boxes, strict=True):
            label = entry["category_id"] - 1
            x0, y0, x1, y1 = box
            expected = np.zeros(SCENES[name].shape[:2], bool)
            expected[y0:y1, x0:x1] = SCENES[name][y0:y1, x0:x1, label] > 0
            np.testing.assert_array_equal(coco.annToMask(entry), expected)
            assert entry["area"] == expected.sum() and entry["iscrowd"] == 0
            assert entry["score"] == 1


# --- VOC, YOLO, CSV ------------------------------------------------------------------------------


def test_voc_counts_pixels_from_one_and_says_that_it_has_no_polygons(written):
    out, (_, _, log) = written("voc")
    (box,) = ElementTree.parse(out / "Annotations" / "a__same.xml").iter("bndbox")
    assert [(edge.tag, edge.text) for edge in box] == [
        ("xmin", "11"), ("ymin", "21"), ("xmax", "60"), ("ymax", "70"),
    ]  # fmt: skip
    assert "VOC's XML can't hold polygons" in log
    assert "can't hold polygons" not in written("voc", "box")[1][2]
    assert len((out / "ImageSets" / "Main" / "train.txt").read_text().splitlines()) == len(SCENES)


def yolo_lines(out, name):
    text = (out / "labels" / "train" / f"{FLAT[name][:-4]}.txt").read_text()
    return [
        (int(line.split()[0]), list(map(float, line.split()[1:]))) for line in text.splitlines()
    ]


def test_yolo_detect_has_centre_and_size(written):
    out, _ = written("yolo", "box")
    for name, expected in BOXES.items():
        height, width = SCENES[name].shape[:2]
        found = []
        for label, (x, y, w, h) in yolo_lines(out, name):
            edges = np.array([[x - w / 2, y - h / 2], [x + w / 2, y + h / 2]]) * [width, height]
            found.append((label, tuple(np.round(edges.ravel(), 5))))
        assert sorted(found) == sorted(expected)
        assert (out / "images" / "train" / FLAT[name]).exists()


def test_coco_that_a_person_corrected_is_not_replaced(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in", tmp_path / "out")  # its own is
    place = tmp_path / "out" / "annotations" / "instances_train.json"
    corrected = '{"info":{"description":"wsol_tf, corrected"},"categories":[]}'
    place.write_text(corrected)
    os.utime(place, (0, 0))  # of a page that an earlier run made
    with pytest.raises(ValueError, match=r"instances_train.json is corrected, .* `output_dir`"):
        write(tmp_path / "in", tmp_path / "out")
    assert place.read_text() == corrected


def test_yolo_segment_has_the_points_of_polygons(written):
    out, _ = written("yolo")
    ((label, values),) = yolo_lines(out, "a/same.png")
    points = np.reshape(values, (-1, 2)) * [120, 90]
    assert label == RED
    np.testing.assert_allclose(
        sorted(points.tolist()), [[10, 20], [10, 70], [60, 20], [60, 70]], atol=1e-5
    )
    yaml = (out / "data.yaml").read_text()
    assert yaml.startswith("train: images/train\nval: images/train\n")  # beside the file itself
    names = [json.loads(line.split(": ", 1)[1]) for line in yaml.split("names:\n")[1].splitlines()]
    assert tuple(names) == CLASSES


def test_csv_is_a_table_of_boxes(written):
    with open(written("csv")[0] / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, BOXES.values()))
    assert {row["label"] for row in rows} == set(CLASSES[:2])
    assert all(row["score"] == "1.0000" and row["width"] == "120" for row in rows)


# --- the tools of people -------------------------------------------------------------------------


def test_labelme_names_the_picture_from_where_the_json_lies(written):
    out, _ = written("labelme")
    assert len(list((out / "labelme").iterdir())) == len(SCENES)
    for name, expected in BOXES.items():
        file = out / "labelme" / f"{FLAT[name][:-4]}.json"
        content = json.loads(file.read_text())
        assert (
            (file.parent / content["imagePath"]).resolve().samefile(out.parent / "pictures" / name)
        )
        assert (content["imageHeight"], content["imageWidth"]) == SCENES[name].shape[:2]
        found = []
        for shape in content["shapes"]:
            points = np.array(shape["points"])
            assert shape["shape_type"] == "polygon" and len(points) >= 4
            found.append((CLASSES.index(shape["label"]), (*points.min(0), *points.max(0))))
        assert sorted(found) == sorted(expected)
    content = json.loads((written("labelme", "box")[0] / "labelme" / "a__same.json").read_text())
    assert content["shapes"][0]["shape_type"] == "rectangle"
    assert content["shapes"][0]["points"] == [[10, 20], [60, 70]]


@pytest.mark.parametrize("shape", ["polygon", "box"])
def test_label_studio_has_percentages_and_finds_the_pictures(written, shape):
    out, _ = written("labelstudio", shape)
    tasks = json.loads((out / "labelstudio.json").read_text())
    assert len(tasks) == len(SCENES)
    control = ElementTree.parse(out / "labelstudio.xml").getroot()[1]
    assert [label.get("value") for label in control] == list(CLASSES)
    for task in tasks:
        url = urllib.parse.urlsplit(task["data"]["image"])
        (name,) = urllib.parse.parse_qs(url.query)["d"]
        (prediction,) = task["predictions"]
        found = []
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"]) == (control.get("name"), "image")
            assert region["type"] == control.tag.lower()
            value = region["value"]
            if shape == "polygon":
                points = np.array(value["points"])
            else:
                x, y = value["x"], value["y"]
                points = np.array([[x, y], [x + value["width"], y + value["height"]]])
            points = points * [region["original_width"], region["original_height"]] / 100
            edges = tuple(np.round([*points.min(0), *points.max(0)], 6))
            found.append((CLASSES.index(*value[region["type"]]), edges))
        assert sorted(found) == sorted(BOXES[name])
        assert 0 <= prediction["score"] <= 1
    scores = [task["predictions"][0]["score"] for task in tasks]
    assert scores == sorted(scores)  # the doubtful first


@pytest.mark.parametrize("shape", ["polygon", "box"])
def test_cvat_has_names_labels_and_shapes(written, shape):
    out, _ = written("cvat", shape)
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [label.text for label in root.iter("name")] == list(CLASSES)
    assert {image.get("name") for image in root.iter("image")} == set(SCENES)
    for image in root.iter("image"):
        found = []
        for known in image:
            assert known.tag == shape and known.get("source") == "auto"
            if shape == "polygon":
                points = [tuple(map(float, x.split(","))) for x in known.get("points").split(";")]
                edges = (*np.min(points, 0), *np.max(points, 0))
            else:
                edges = tuple(float(known.get(edge)) for edge in ("xtl", "ytl", "xbr", "ybr"))
            found.append((CLASSES.index(known.get("label")), edges))
        assert sorted(found) == sorted(BOXES[image.get("name")])


def test_supervision_reads_them_too(tmp_path):
    supervision = pytest.importorskip("supervision", exc_type=ImportError)
    coco, voc, yolo = (tmp_path / format for format in ("coco", "voc", "yolo"))
    for out in (coco, voc, yolo):  # it refuses links that lead out of the folder
        write(tmp_path / "pictures", out, out.name, shape="box", images="copy")
    for dataset in (
        supervision.DetectionDataset.from_coco(
            str(coco / "images"), str(coco / "annotations" / "instances_train.json")
        ),
        supervision.DetectionDataset.from_pascal_voc(
            str(voc / "JPEGImages"), str(voc / "Annotations")
        ),
        supervision.DetectionDataset.from_yolo(
            str(yolo / "images" / "train"), str(yolo / "labels" / "train"), str(yolo / "data.yaml")
        ),
    ):
        found = {}
        for path, _, seen in dataset:
            labels = [CLASSES.index(dataset.classes[i]) for i in seen.class_id]
            boxes = [tuple(np.round(box, 4).tolist()) for box in seen.xyxy]
            found[NAMED[os.path.basename(path)]] = sorted(zip(labels, boxes, strict=True))
        expected = {name: sorted(BOXES[name]) for name in BOXES}
        assert {name: found.get(name, []) for name in BOXES} == expected


def test_datumaro_reads_them_too(tmp_path):
    datumaro = pytest.importorskip("datumaro", exc_type=ImportError)
    box_type, polygon_type = (datumaro.AnnotationType[kind] for kind in ("bbox", "polygon"))
    for format, shape in (
        ("coco", "polygon"), ("yolo", "box"), ("cvat", "box"), ("cvat", "polygon"),
    ):  # fmt: skip
        out = tmp_path / f"{format}_{shape}"
        # It looks for CVAT's pictures in a folder `images` beside the annotations.
        pictures = out / "images" if format == "cvat" else tmp_path / "pictures"
        target = tmp_path / "written" if format == "cvat" else out
        write(pictures, target, format, shape=shape, images="copy")
        if format == "cvat":
            (target / "annotations.xml").rename(out / "annotations.xml")
            shutil.rmtree(target)
        dataset = datumaro.Dataset.import_from(str(out), format)
        names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
        wanted = polygon_type if (format, shape) == ("cvat", "polygon") else box_type
        found = {}
        for item in dataset:  # its ids have no suffix
            name = f"{item.id}.png" if format == "cvat" else NAMED[f"{item.id}.png"]
            found[name] = sorted(
                (CLASSES.index(names[one.label]), corners_of(one.get_bbox()))
                for one in item.annotations
                if one.type == wanted
            )
        assert found == {name: sorted(BOXES[name]) for name in BOXES}, (format, shape)


def corners_of(box):
    """Corners of a box x, y, width, height, without the last digits of shares of a picture."""
    x, y, width, height = box
    return tuple(round(float(edge), 4) for edge in (x, y, x + width, y + height))


def test_label_studio_takes_the_interface_and_the_predictions(written):
    interface = pytest.importorskip("label_studio_sdk.label_interface", exc_type=ImportError)
    for shape in ("polygon", "box"):
        out, _ = written("labelstudio", shape)
        control = interface.LabelInterface((out / "labelstudio.xml").read_text())
        control.validate()
        tasks = json.loads((out / "labelstudio.json").read_text())
        assert len(tasks) == len(SCENES)
        for task in tasks:
            assert all(map(control.validate_prediction, task["predictions"]))
        broken = dict(tasks[0]["predictions"][0], result=[{"from_name": "other"}])
        assert not control.validate_prediction(broken)


def test_labelme_opens_its_files_with_their_pictures(written, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = pytest.importorskip("labelme._label_file", exc_type=ImportError)
    for shape, kind in (("polygon", "polygon"), ("box", "rectangle")):
        out, _ = written("labelme", shape)
        for name, expected in BOXES.items():
            read = labelme.read_label_file(str(out / "labelme" / f"{FLAT[name][:-4]}.json"))
            assert read.image_data == (out.parent / "pictures" / name).read_bytes()
            assert {one["shape_type"] for one in read.shapes} <= {kind}
            found = [
                (CLASSES.index(one["label"]),
                 (*np.min(one["points"], axis=0), *np.max(one["points"], axis=0)))
                for one in read.shapes
            ]  # fmt: skip
            assert sorted(found) == sorted(expected)


# --- what they share -----------------------------------------------------------------------------


def test_every_format_has_a_writer_and_each_notes_what_it_can_not_hold(written):
    assert set(WRITERS) == {"coco", "voc", "yolo", "labelme", "labelstudio", "cvat", "csv"}
    for format in ("voc", "csv"):
        assert "can't hold polygons: it has the boxes" in written(format)[1][2]
    for format in ("yolo", "cvat"):
        assert "no place for a score" in written(format)[1][2]
    assert GREEN != RED


def test_pictures_are_linked_or_copied(tmp_path):
    write(tmp_path / "pictures", tmp_path / "out", "csv")
    place = tmp_path / "out" / "images" / "a__same.png"
    assert place.is_symlink() and place.samefile(tmp_path / "pictures" / "a" / "same.png")
    write(tmp_path / "pictures", tmp_path / "out", "csv", images="copy")
    assert not place.is_symlink()
    assert place.read_bytes() == (tmp_path / "pictures" / "a" / "same.png").read_bytes()
    write(tmp_path / "pictures", tmp_path / "out", "csv")
    assert place.is_symlink()
