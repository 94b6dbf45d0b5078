"""The lists of wsolevaluation: what they say is read as it stands, and scored to the last bit."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers import run
from wsol_tf import evaluate
from wsol_tf.data.example import IGNORE
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import StopAtBadImage
from wsol_tf.evaluation import wsolevaluation

# In the first, the second box ends at the picture's sides and beyond: x1 = 40 of 40 pixels.
BOXES = {
    "a/1.jpg": [(4, 3, 19, 20), (10, 10, 40, 30)],
    "a/2.jpg": [(0, 0, 0, 0)],
    "b, c/3.jpg": [(7, 5, 30, 17)],
}
LABELS = {"a/1.jpg": 0, "a/2.jpg": 0, "b, c/3.jpg": 2}


def write_lists(folder, split="test", *, boxes=BOXES, rows=None, pictures=True, **lists):
    """Writes a metadata folder, and the pictures, 40 x 30, that it names."""
    own = folder / "metadata" / split
    own.mkdir(parents=True)
    rows = rows or [",".join(map(str, (name, *box))) for name in boxes for box in boxes[name]]
    texts = {
        "image_ids": list(LABELS),
        "class_labels": [f"{name},{label}" for name, label in LABELS.items()],
        "image_sizes": [f"{name},40,30" for name in LABELS],
        "localization": rows,
    }
    for name, lines in (texts | lists).items():
        (own / f"{name}.txt").write_text("\n".join(lines))  # the published ones end without one
    rng = np.random.default_rng(0)
    for name in LABELS if pictures else ():
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)).save(path)
    return folder / "metadata"


def write_masks(folder):
    """Two instances, what is ignored, a picture whose mask is of another size, and one without."""
    for name in ("m0", "m1", "ignored", "big"):
        mask = np.zeros((60, 80) if name == "big" else (30, 40), np.uint8)
        rows, columns = {"m0": (5, 9), "m1": (8, 20), "ignored": (0, 12), "big": (40, 60)}[name]
        mask[rows : rows + 10, columns : columns + 15] = 1 if name == "m0" else 255
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / "images" / f"{name}.png")
    return ["a/1.jpg,m0.png,ignored.png", "a/1.jpg,m1.png,", "b, c/3.jpg,big.png,"]


def opened(folder, split="test", **options):
    options.setdefault("image_dir", folder / "images")
    return open_dataset("wsolevaluation", folder / "metadata", split, **options)


def test_boxes_labels_and_sizes_are_those_of_the_lists(tmp_path):
    write_lists(tmp_path)
    source = opened(tmp_path)
    assert source.image_ids == tuple(LABELS)
    assert source.classes == ("0", "1", "2")
    assert [labels.tolist() for labels in source.labels] == [[0], [0], [2]]
    assert source.has_boxes and not source.has_masks
    first, point, _ = source.read_examples()
    np.testing.assert_array_equal(first.standard.boxes, BOXES["a/1.jpg"])
    assert first.standard.size == (30, 40)
    # Here boxes are half-open, and end with the picture.
    np.testing.assert_array_equal(first.boxes, [[4, 3, 20, 21], [10, 10, 40, 30]])
    np.testing.assert_array_equal(point.boxes, [[0, 0, 1, 1]])
    assert source.report.noted == {
        "a/1.jpg box 2": "the box leaves the picture and was clipped",
    }


def test_masks_of_several_instances_and_what_is_ignored(tmp_path):
    write_lists(tmp_path, rows=write_masks(tmp_path), image_sizes=[])
    source = opened(tmp_path)
    assert source.has_masks and not source.has_boxes
    first, none, big = source.read_examples()
    expected = np.zeros((30, 40), np.uint8)
    expected[0:10, 12:27] = IGNORE
    expected[5:15, 9:24] = 1
    expected[8:18, 20:35] = 1
    np.testing.assert_array_equal(first.mask, expected)
    assert len(first.standard.masks) == 2 and first.standard.ignored.sum() == 150
    assert none.mask.size == 0 and not none.standard.masks
    assert big.standard.masks[0].shape == (60, 80) and big.mask.shape == (30, 40)
    np.testing.assert_array_equal(np.unique(big.mask), [0, 3])


def test_the_train_split_trains_on_pictures_and_labels_alone(tmp_path):
    write_lists(tmp_path, "train", localization=[], image_sizes=[])
    source = opened(tmp_path, "train")
    assert not source.has_boxes and not source.has_masks
    (batch,) = source.batches(3, input_size=16)
    images, labels = batch
    assert images.shape == (3, 16, 16, 3) and sorted(labels.numpy()) == [0, 0, 2]


def test_names_of_classes_stand_in_classes_txt(tmp_path):
    (write_lists(tmp_path) / "classes.txt").write_text("ant\nbee\ncat\n")
    assert opened(tmp_path).classes == ("ant", "bee", "cat")
    part = opened(tmp_path, classes=("cat",))
    assert part.image_ids == ("b, c/3.jpg",)
    assert part.report.skipped["a/1.jpg"] == "class 'ant' is not in the list"
    (tmp_path / "metadata" / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match="2 names, and class_labels.txt has class ids up to 2"):
        opened(tmp_path)


def test_bad_rows_are_named_by_file_and_line(tmp_path):
    write_lists(
        tmp_path,
        image_ids=[*LABELS, "a/2.jpg", "no class.jpg"],
        class_labels=["a/1.jpg,0", "a/2.jpg,x", "a/2.jpg,0", "a/1.jpg,1", "b, c/3.jpg,2", "d,1"],
        image_sizes=["a/1.jpg,40,30", "a/2.jpg,0,30", "b, c/3.jpg"],
        rows=["a/1.jpg,4,3,19,20", "a/1.jpg,5,5,4,9", "a/1.jpg,1,2,3,x", "a/2.jpg,1,1,2,2", "1,2"],
    )
    source = opened(tmp_path)
    assert source.image_ids == tuple(LABELS)
    skipped = source.report.skipped
    assert skipped["class_labels.txt line 2"].endswith("received 'x'")
    assert skipped["class_labels.txt line 4"] == "a/1.jpg has a class above, 0"
    assert skipped["image_sizes.txt line 2"] == "width and height must be whole numbers from 1"
    assert skipped["image_sizes.txt line 3"] == "an image id and 2 values are expected"
    for line in (2, 3):
        assert skipped[f"localization.txt line {line}"].startswith("a box must be whole numbers")
    assert skipped["localization.txt line 5"] == "an image id and 4 values are expected"
    assert skipped["a/2.jpg boxes"] == "no size in image_sizes.txt, so they are not used"
    assert skipped["no class.jpg"] == "no class in class_labels.txt"
    assert source.report.noted == {
        "image_ids.txt line 4": "a/2.jpg stands above too, used once",
        "class_labels.txt": "1 row of pictures that are not in image_ids.txt",
    }


def test_what_is_not_there_is_refused_with_what_to_do(tmp_path):
    metadata = write_lists(tmp_path)
    with pytest.raises(ValueError, match="Legal splits here: test"):
        opened(tmp_path, "train")
    with pytest.raises(ValueError, match="set `image_dir`"):
        opened(tmp_path, image_dir="")
    with pytest.raises(ValueError, match="`image_dir` is for 'wsolevaluation' alone"):
        open_dataset("csv", metadata, image_dir=tmp_path)
    with pytest.raises(ValueError, match="must be a metadata folder of wsolevaluation"):
        open_dataset("wsolevaluation", tmp_path / "images", "test", image_dir=tmp_path)
    (metadata / "test" / "image_ids.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"image_ids.txt names no picture"):
        opened(tmp_path)


def test_a_picture_that_is_not_there_is_skipped_or_ends_the_reading(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "images" / "a" / "2.jpg").unlink()
    source = opened(tmp_path)
    assert source.image_ids == ("a/1.jpg", "b, c/3.jpg")
    assert source.report.skipped == {"a/2.jpg": "there is no such file"}
    with pytest.raises(StopAtBadImage, match=r"2\.jpg"):
        opened(tmp_path, on_bad_image="fail")


def test_a_mask_that_cant_be_read_is_named_and_not_scored(tmp_path):
    write_lists(tmp_path, rows=write_masks(tmp_path))
    (tmp_path / "images" / "m1.png").write_bytes(b"no picture")
    source = opened(tmp_path)
    first, *_ = source.read_examples()
    assert first.mask.size == 0 and not first.standard.masks
    assert source.report.skipped["a/1.jpg masks"].startswith("not used (")


def stored_maps(folder):
    """Maps as wsolevaluation takes them: 224 x 224 in 0..1, one of which doesn't reach 0 and 1."""
    rng = np.random.default_rng(1)
    maps = {}
    for i, name in enumerate(LABELS):
        score_map = cv2.resize(rng.random((7, 7)), (224, 224), interpolation=cv2.INTER_CUBIC)
        score_map -= score_map.min()
        maps[name] = score_map / score_map.max() * (0.7 if i == 0 else 1) + 0.1 * (i == 0)
        path = folder / "maps" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, maps[name])
    return maps


def score(folder, *arguments):
    assert run(
        evaluate, f"--score_maps={folder / 'maps'}", "--dataset=wsolevaluation",
        f"--data_dir={folder / 'metadata'}", "--split=test", f"--output_dir={folder / 'out'}",
        *arguments,
    ) == 0  # fmt: skip
    return json.loads((folder / "out" / "metrics.json").read_text())


def test_box_metrics_of_stored_maps_are_exact_and_need_no_picture(tmp_path):
    write_lists(tmp_path, pictures=False)
    expected = wsolevaluation.BoxAccuracy()
    for name, score_map in stored_maps(tmp_path).items():
        # As resize_bbox of wsolevaluation does it: 40 of 40 pixels is 224, behind the last one.
        boxes = [
            [int(x * 224 / side) for x, side in zip(box, (40, 30, 40, 30), strict=True)]
            for box in BOXES[name]
        ]
        expected.add(name, score_map, np.array(boxes))
    figures = score(tmp_path)
    for name in ("max_box_acc", "max_box_acc_v2"):
        assert figures[name] == expected.result()[name]
    assert figures["num_images"] == 3
    # Pictures that are there make no difference.
    write_lists(tmp_path / "with")
    (tmp_path / "with" / "maps").symlink_to(tmp_path / "maps")
    again = score(tmp_path / "with", f"--image_dir={tmp_path / 'with' / 'images'}")
    assert again["max_box_acc_v2"] == figures["max_box_acc_v2"]


def test_pixel_metrics_of_stored_maps_are_exact_and_need_no_picture(tmp_path):
    write_lists(tmp_path, rows=write_masks(tmp_path), image_sizes=[], pictures=False)
    expected = wsolevaluation.PixelPrecision()
    instances = {"a/1.jpg": (["m0", "m1"], "ignored"), "b, c/3.jpg": (["big"], None)}
    maps = stored_maps(tmp_path)
    for name, (masks, ignored) in instances.items():

        def read(file):
            mask = cv2.imread(str(tmp_path / "images" / f"{file}.png"), cv2.IMREAD_GRAYSCALE)
            resized = cv2.resize(np.float32(mask), (224, 224), interpolation=cv2.INTER_NEAREST)
            return resized > 0.5  # as wsolevaluation reads them

        truth = np.any([read(mask) for mask in masks], 0).astype(np.uint8)
        if ignored:
            truth[read(ignored) & (truth == 0)] = 255
        expected.add(name, maps[name], truth)
    figures = score(tmp_path, f"--image_dir={tmp_path / 'images'}", "--metrics=pxap,piou")
    assert figures["pxap"] == expected.result()["pxap"]
    assert figures["piou"] == expected.result()["piou"]


def test_maps_of_another_size_are_made_as_wsolevaluation_makes_its_own(tmp_path):
    write_lists(tmp_path, pictures=False)
    expected = wsolevaluation.BoxAccuracy()
    maps = stored_maps(tmp_path)
    for name, score_map in maps.items():
        small = cv2.resize(score_map, (28, 28))
        np.save(tmp_path / "maps" / f"{name}.npy", small)
        boxes = wsolevaluation.resize_boxes(np.array(BOXES[name]), (40, 30))
        expected.add(name, wsolevaluation.standard_map(small), boxes)
    assert score(tmp_path)["max_box_acc_v2"] == expected.result()["max_box_acc_v2"]
