"""Several objects in a picture, from maps whose objects are known, through `score`."""

import dataclasses
import json

import numpy as np
import pytest

from helpers import add_picture, tiny_model, undefined_names
from wsol_tf.data import transforms
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import workers
from wsol_tf.evaluation.localized_map import own_kind
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.score import score
from wsol_tf.report import definitions, terminal

VIEW = transforms.View(32, 32, "whole")


def colours_are_maps(probabilities):
    """A predictor whose maps are the colours, and whose classes depend on the red of a corner."""

    def predict(images):
        maps = images.astype(np.float32) / 255
        logits = [np.log(probabilities[int(image[-1, -1, 0] > 127)]) for image in images]
        return {"logits": np.array(logits), "score_map": maps, "localization_map": maps}

    return predict


@pytest.fixture
def pictures(tmp_path):
    """A picture with two cats and a dog, and one with a fox and a red corner; masks for both."""
    mask = np.zeros((32, 32), np.uint8)
    mask[0:16, 0:8] = mask[20:30, 0:10] = 1
    mask[4:24, 16:30] = 2
    mask[31] = 255
    objects = [("cat", (0, 0, 8, 16)), ("cat", (0, 20, 10, 30)), ("dog", (16, 4, 30, 24))]
    add_picture(tmp_path, "three", objects, size=(32, 32), mask=mask)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 3
    add_picture(tmp_path, "one", [("fox", (8, 8, 24, 24)), ("cat", (28, 28, 32, 32))],
                size=(32, 32), mask=mask)  # fmt: skip
    annotation = tmp_path / "Annotations" / "one.xml"  # the cat is drawn, but not annotated
    text = annotation.read_text()
    annotation.write_text(text[: text.index("<object><name>cat")] + "</annotation>")
    return open_dataset("voc_folder", tmp_path, "val")


def method(presence, first=(0.6, 0.3, 0.1), second=(0.2, 0.1, 0.7), **options):
    predict = colours_are_maps([np.float64(first), np.float64(second)])
    return Method(predict, VIEW, ("true",), {"true": 0.5}, "given", presence=presence, **options)


def test_objects_of_given_and_of_found_classes(pictures):
    figures, lines, accumulators = score(method(0.25), pictures)
    assert len(lines) == 3 and len(accumulators["true"]) == 3  # pairs that are there
    given, found = figures["objects"], figures["detection"]
    assert (given["num_objects"], given["num_boxes"], given["recall"]) == (4, 4, 1.0)
    assert (given["ap"], given["ap50"], given["corloc"]) == pytest.approx((1, 1, 1))
    # In "one" the cat's probability is 0.2: it is not found; in "three" all are.
    assert (found["num_boxes"], found["recall"], found["ap"]) == (4, 1.0, pytest.approx(1))
    assert found["presence"] == 0.25
    assert given["recall_by_number"] == {
        "1": {"recall": 1.0, "num_objects": 1},
        "3": {"recall": 1.0, "num_objects": 3},
    }
    assert set(given["classes"]) == {"cat", "dog", "fox"}
    assert figures["segmentation"]["given"]["miou"] == figures["segmentation"]["found"]["miou"] == 1
    figures["definitions"] = definitions.definitions_of(figures)
    assert undefined_names(figures) == set()
    json.dumps(figures, allow_nan=False)
    text = terminal.figures_table(figures)
    assert "1.000  of 4 objects found (by number in the picture 1: 1.000, 3: 1.000)" in text
    assert "classes as pixels" in text


def test_a_class_that_is_only_found_has_false_boxes_and_pixels(pictures):
    figures, *_ = score(method(0.15), pictures)
    found, cat = figures["detection"], figures["detection"]["classes"]["cat"]
    assert (found["num_boxes"], found["recall"]) == (5, 1.0)
    # The true cats are surer (0.6) than the false one (0.2): nothing is lost.
    assert cat["ap"] == pytest.approx(1)
    figures, *_ = score(method(0.15, first=(0.19, 0.75, 0.06)), pictures)
    # Now the false one is surer: precision 2/3 at every recall.
    assert figures["detection"]["classes"]["cat"]["ap"] == pytest.approx(2 / 3)
    assert figures["objects"]["classes"]["cat"]["ap"] == pytest.approx(1)
    pixels = figures["segmentation"]
    assert pixels["found"]["iou"]["cat"] == pytest.approx(228 / (228 + 16))
    assert pixels["given"]["iou"]["cat"] == 1


def test_a_class_that_is_not_found_has_no_boxes(pictures):
    figures, *_ = score(method(0.5), pictures)
    found = figures["detection"]
    assert (found["classes"]["dog"]["ap"], found["classes"]["dog"]["recall"]) == (0, 0)
    assert found["recall"] == 3 / 4
    assert figures["segmentation"]["found"]["iou"]["dog"] == 0
    assert figures["objects"]["recall"] == 1


def test_nothing_is_found_where_the_background_class_is_first(pictures):
    background = pictures.classes.index("fox")
    # "three" is taken for a picture without any object, though cats would be probable enough.
    figures, *_ = score(method(0.25, first=(0.3, 0.1, 0.6), background_id=background), pictures)
    found = figures["detection"]
    assert (found["num_objects"], found["num_boxes"], found["recall"]) == (3, 0, 0)
    assert figures["segmentation"]["found"]["iou"]["cat"] == 0
    assert figures["objects"]["recall"] == 1
    figures, *_ = score(method(0.25, first=(0.6, 0.1, 0.3), background_id=background), pictures)
    assert figures["detection"]["num_boxes"] == 2


def test_a_picture_without_any_object_has_false_boxes_alone(pictures):
    background = pictures.classes.index("fox")
    # A cat is seen in "one", where there is nothing, and is surer than those of "three".
    sure = method(0.15, second=(0.7, 0.1, 0.2), background_id=background)
    figures, *_ = score(sure, pictures)
    found = figures["detection"]
    assert (found["num_objects"], found["num_boxes"], found["recall"]) == (3, 4, 1)
    assert found["classes"]["cat"]["ap"] == pytest.approx(2 / 3)
    assert found["classes"]["dog"]["ap"] == pytest.approx(1) and "fox" not in found["classes"]
    assert (figures["objects"]["num_objects"], figures["objects"]["num_boxes"]) == (3, 3)
    assert figures["segmentation"]["found"]["num_images"] == 1
    blind = dataclasses.replace(pictures, has_boxes=False)
    assert score(sure, blind)[0]["detection"] is None


def test_limits_count_and_the_rest_of_the_figures_stay(pictures):
    plain, *_ = score(method(0.25), pictures)
    figures, *_ = score(method(0.25, max_objects=1), pictures)
    assert (figures["objects"]["num_boxes"], figures["objects"]["recall"]) == (3, 3 / 4)
    figures, *_ = score(method(0.25, min_area=0.9), pictures)
    # The cats have 128 and 100 pixels.
    assert figures["objects"]["classes"]["cat"]["recall"] == 0.5
    several = ("objects", "detection", "segmentation")
    for name in plain.keys() - set(several):
        assert plain[name] == figures[name]
    with pytest.raises(ValueError, match="`min_area` must be a share in 0..1. Received: 2."):
        score(method(0.25, min_area=2), pictures)


def test_nothing_is_said_of_what_is_not_known(pictures):
    figures, *_ = score(method(None), pictures)
    assert figures["detection"] is None and figures["segmentation"]["found"] is None
    assert figures["objects"]["recall"] == 1
    silent = dataclasses.replace(
        method(0.25), predict=lambda images: {"localization_map": images / np.float32(255)}
    )
    figures, *_ = score(silent, pictures)
    assert figures["objects"]["recall"] == 1
    blind = dataclasses.replace(pictures, has_boxes=False)
    figures, *_ = score(method(0.25), blind)
    assert figures["objects"] is None and figures["detection"] is None
    assert figures["segmentation"]["given"]["miou"] == 1


def test_broken_maps_find_nothing(pictures):
    predict = method(0.25).predict

    def broken(images):
        outputs = predict(images)
        outputs["localization_map"] = np.where(images[..., :1] < 300, np.nan, 0) * images
        return outputs

    figures, *_ = score(dataclasses.replace(method(0.25), predict=broken), pictures)
    for key in ("objects", "detection"):
        assert (figures[key]["num_boxes"], figures[key]["ap"]) == (0, 0)
    assert figures["segmentation"]["given"]["iou"]["fox"] == 0


def test_the_map_of_a_class_is_its_own_where_there_is_one():
    assert own_kind(("mean", "true", "cam")) == "true"
    assert own_kind(("predicted", "mean", "true", "cam")) == "true"
    assert own_kind(("mean", "cam")) == "mean"  # a localizer of all classes together
    assert own_kind(("cam", "mean", "true")) == "cam"
    assert own_kind(("center", "mean", "true")) == "center"


def test_what_is_found_is_what_localize_finds(pictures):
    model = tiny_model(pictures.classes)
    model.thresholds = {"mean": 0.6, "true": 0.95, "predicted": 0.6, "cam": 0.6}
    model.presence_threshold = 0.3

    def localized(**settings):
        count = 0
        for position in range(2):
            image = transforms.resize_image(pictures.read_example(position).image, model.input_size)
            found = model.localize(image, classes="present", map="predicted", **settings)
            count += sum(len(part.boxes) for part in (found, *found.others))
        return count

    figures, *_ = score(method_of(model, view="whole"), pictures)
    assert figures["detection"]["num_boxes"] == localized()
    assert (figures["objects"]["map"], figures["detection"]["map"]) == ("mean", "true")
    assert (figures["objects"]["threshold"], figures["detection"]["threshold"]) == (0.6, 0.6)
    for threshold in (0.3, "otsu"):  # a given one is everybody's
        figures, *_ = score(method_of(model, view="whole", threshold=threshold), pictures)
        assert figures["detection"]["num_boxes"] == localized(threshold=threshold)
        for block in ("objects", "detection", "segmentation"):
            assert figures[block]["threshold"] == threshold


def test_processes_score_the_same(pictures):
    figures, *_ = score(method(0.15), pictures)
    with workers.mapper(1) as map_chunks:
        shared, *_ = score(method(0.15), pictures, map_chunks=map_chunks)
    assert shared == figures
