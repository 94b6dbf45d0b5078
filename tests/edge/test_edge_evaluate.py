import json

import numpy as np
import pytest

from edge import evaluate
from edge.runtime import LocalizerRuntime
from edge_files import SIDE, brightness
from helpers import VOC_CLASSES, add_picture, run
from wsol_tf.data.images import read_image
from wsol_tf.evaluation.iou import box_iou
from wsol_tf.model.refinement import refine
from wsol_tf.model.score_maps import localize


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    made = {name: brightness(folder / f"{name[:5]}.tflite", map_=name, labels=list(VOC_CLASSES))
            for name in ("mean", "predicted", "all", "class:dog", "present")}  # fmt: skip
    made["refined"] = brightness(
        folder / "refined.tflite", labels=list(VOC_CLASSES), refine="guided", threshold=0.3
    )
    return made


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Pictures whose objects have the colour of their class."""
    folder = tmp_path_factory.mktemp("data") / "voc"
    add_picture(folder, "a", [("cat", (0, 0, 16, 16))], size=(SIDE, SIDE))
    add_picture(folder, "b", [("dog", (8, 8, 32, 32))], size=(SIDE, SIDE))
    add_picture(folder, "c", [("dog", (0, 16, 8, 32)), ("fox", (16, 0, 32, 20))], size=(SIDE, SIDE))
    return folder


@pytest.fixture
def score(files, voc, tmp_path):
    """Function that scores a file, whole pictures; returns (status, figures, lines)."""

    def do(name, *arguments):
        out = tmp_path / "out"
        status = run(
            evaluate, f"--model={files[name]}", "--dataset=voc_folder", f"--data_dir={voc}",
            f"--output_dir={out}", "--view=whole", *arguments,
        )  # fmt: skip
        if status:
            return status, None, None
        lines = (out / "predictions.jsonl").read_text().splitlines()
        return 0, json.loads((out / "metrics.json").read_text()), [json.loads(x) for x in lines]

    return do


def test_a_file_of_all_maps_is_scored_by_the_map_of_the_true_class(score):
    status, figures, lines = score("all")
    assert status == 0
    # Each class's colour is its map, so every box is found: within a position of the map, 4 pixels.
    assert (figures["gt_known_loc"], figures["num_pairs"], figures["map"]) == (1, 4, "true")
    assert (figures["top1_cls"], figures["top1_loc"]) == (None, None)
    assert set(figures["other_maps"]) == {"mean"}
    assert {(line["image_id"], line["label"], line["class"]) for line in lines} == {
        ("a", "cat", None), ("b", "dog", None), ("c", "dog", None), ("c", "fox", None)
    }  # fmt: skip


def test_figures_are_those_of_the_runtimes_own_maps(score, files, voc):
    _, figures, lines = score("mean")
    localizer = LocalizerRuntime(files["mean"])
    ious = []
    for line in lines:
        image = read_image(voc / "JPEGImages" / f"{line['image_id']}.png")
        small = localizer.run(image)["foreground_mask"][..., 0]
        box = localize(small, SIDE, SIDE, 0.5)[2]
        np.testing.assert_array_equal(line["box"], box)
        ious.append(box_iou(box[None], line["true_boxes"]).max())
    assert figures["miou_box"] == pytest.approx(np.mean(ious))
    assert (figures["threshold"], figures["threshold_from"]) == (0.5, "stored in the file")


def test_a_file_that_is_refined_is_scored_refined(score, files, voc):
    _, _, lines = score("refined")
    localizer = LocalizerRuntime(files["refined"])
    for line in lines:
        image = read_image(voc / "JPEGImages" / f"{line['image_id']}.png")
        small = localizer.run(image)["foreground_mask"][..., 0]
        box = localize(refine(small, image), SIDE, SIDE, 0.3)[2]
        np.testing.assert_array_equal(line["box"], box)
        np.testing.assert_array_equal(line["box"], localizer.localize(image).box)


def test_class_scores_are_scored_where_there_are_any(score):
    _, figures, lines = score("predicted", "--threshold=0.25")
    # The logits are mean colours: right for a and b, and for c once its other class is left out.
    assert figures["top1_cls"] == 1 and figures["map"] == "predicted"
    assert (figures["threshold"], figures["threshold_from"]) == (0.25, "given")
    assert [line["class"] for line in lines] == [line["label"] for line in lines]


def test_the_classes_that_are_present_are_scored_as_the_runtime_finds_them(score, files, voc):
    _, figures, _ = score("present")
    localizer = LocalizerRuntime(files["present"])
    found = [localizer.localize(read_image(voc / "JPEGImages" / f"{x}.png")) for x in "abc"]
    boxes = [box for one in found for part in (one, *one.others) for box in part.boxes]
    detection = figures["detection"]
    # The dog of c is an eighth of it, the fox nearly a third: its probability is below 0.2.
    assert len(boxes) == 3
    assert (detection["num_boxes"], detection["recall"]) == (len(boxes), 0.75)
    assert (detection["presence"], detection["threshold"], detection["map"]) == (0.2, 0.5, "true")
    assert score("all")[1]["detection"] is None


def test_a_file_of_one_class_is_scored_on_pictures_of_it(score, voc, files, tmp_path, capsys):
    _, figures, lines = score("class:dog")
    assert [(line["image_id"], line["label"]) for line in lines] == [("b", "dog"), ("c", "dog")]
    assert (figures["num_pairs"], figures["num_images"]) == (2, 2)
    add_picture(tmp_path / "cats", "a", [("cat", (0, 0, 16, 16))])
    status, _, _ = score("class:dog", f"--data_dir={tmp_path / 'cats'}")
    assert status == 1 and "has no picture of 'dog'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model={tmp}/gone.tflite"], "can't be read: No such file"),
        (["--threshold=7"], "Received: '7'"),
        (["--data_dir={tmp}/gone"], "gone"),
    ],
)
def test_what_cannot_work_is_refused(score, arguments, sentence, tmp_path, capsys):
    status, _, _ = score("mean", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert status == 1
    assert sentence in capsys.readouterr().err
