"""The part of a model that a map needs gives what the whole model gives."""

import cv2
import numpy as np
import pytest

from edge.export import convert, graphs
from edge.export.exported_map import ExportedMap
from edge.runners import tflite_runner
from helpers import tiny_model, varied
from wsol_tf.model import alignment
from wsol_tf.model.score_maps import map_of

CLASSES = ("ant", "bee", "cat", "dog", "elk")


@pytest.fixture(scope="module")
def model():
    return varied(tiny_model(CLASSES, top_k=3))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)


@pytest.mark.parametrize("map_", ["mean", "topk", "predicted", "class:cat", "all", "present"])
def test_a_map_is_the_whole_models(model, image, map_):
    whole = {name: np.asarray(v)[0] for name, v in model.predict_on_batch(image).items()}
    maps = whole["localization_map"]
    expected = {"class:cat": maps[..., 2], "all": maps, "present": maps}.get(map_)
    if expected is None:
        expected = map_of(map_, maps, whole["score_map"], whole["logits"], 0, top_k=3)
    outputs = graphs.export_graph(model, ExportedMap.parse(map_)).predict_on_batch(image)
    found = np.asarray(outputs["foreground_mask"])[0]
    assert found.shape == (8, 8, 5 if map_ in ("all", "present") else 1)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=2e-6)
    assert ("class_scores" in outputs) == (map_ in ("topk", "predicted", "present"))
    if "class_scores" in outputs:
        np.testing.assert_allclose(outputs["class_scores"][0], whole["logits"], atol=1e-5)


@pytest.mark.parametrize("map_", ["mean", "topk", "class:cat", "all"])
@pytest.mark.parametrize(
    ("offset", "mirror"),
    [((0.5, -0.25), False), ((-1.25, 3.0), True), ((9.0, -9.0), False), ((0.3, -0.45), False)],
)
def test_a_graph_moves_and_mirrors_as_python_does(image, map_, offset, mirror):
    model = varied(tiny_model(CLASSES, top_k=3, mirror=mirror))
    model.offset = offset
    whole = {name: np.asarray(v)[0] for name, v in model.predict_on_batch(image).items()}
    maps = whole["localization_map"]
    if map_ in ("mean", "topk"):
        maps = map_of(map_, maps, whole["score_map"], whole["logits"], 0, top_k=3)[..., None]
    elif map_ == "class:cat":
        maps = maps[..., 2:3]
    outputs = graphs.export_graph(model, ExportedMap.parse(map_)).predict_on_batch(image)
    found = np.asarray(outputs["foreground_mask"])[0]
    expected = [alignment.placed(maps[..., i], offset) for i in range(maps.shape[-1])]
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=3e-6)


def test_files_of_moved_and_mirrored_maps_have_builtin_operations_alone(image):
    model = varied(tiny_model(CLASSES, mirror=True))
    model.offset = (0.5, -0.45)  # by whole positions of the larger map, and between them
    graph = graphs.export_graph(model, ExportedMap.parse("mean"))
    expected = np.asarray(graph.predict_on_batch(image)["foreground_mask"])[0]
    pictures = np.random.default_rng(2).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    for format_, tolerance in (("float32", 1e-4), ("int8", 0.1)):
        run = tflite_runner(convert.convert(graph, format_, pictures))
        found = run(image[0].astype(np.uint8))["foreground_mask"]
        assert np.abs(found - expected).max() < tolerance
        assert found.shape == (32, 32, 1)


@pytest.mark.parametrize("localizer, map_", [("agnostic", "mean"), ("per_class", "predicted")])
def test_both_halves_of_a_mirroring_int8_file_are_as_bright(localizer, map_):
    """Half of a map that stays far below 1 would be read with another scale than the other."""
    model = varied(tiny_model(CLASSES, mirror=True, localizer=localizer))
    graph = graphs.export_graph(model, ExportedMap.parse(map_))
    pictures = np.random.default_rng(2).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    run = tflite_runner(convert.convert(graph, "int8", pictures))
    for picture in pictures:
        expected = graph.predict_on_batch(picture[None].astype(np.float32))["foreground_mask"]
        assert np.asarray(expected).max() < 0.8
        assert np.abs(run(picture)["foreground_mask"] - np.asarray(expected)[0]).max() < 0.02


@pytest.mark.parametrize("map_", ["mean", "class:cat", "all"])
def test_a_model_with_a_background_class_says_the_class_with_every_map(model, image, map_):
    own = varied(tiny_model(CLASSES, top_k=3, background_class="bee"))
    outputs = graphs.export_graph(own, ExportedMap.parse(map_)).predict_on_batch(image)
    plain = graphs.export_graph(model, ExportedMap.parse(map_)).predict_on_batch(image)
    np.testing.assert_array_equal(outputs["foreground_mask"], plain["foreground_mask"])
    expected = model.predict_on_batch(image)["logits"]
    np.testing.assert_allclose(outputs["class_scores"], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_of_mixed_precision_is_exported_in_float32(image, policy):
    trained = varied(tiny_model(("float16", "bee"), mixed_precision=policy))
    copy = graphs.in_float32(trained)
    assert copy.classes == trained.classes and copy.thresholds == trained.thresholds
    graph = graphs.export_graph(copy, ExportedMap.parse("mean"))
    assert "DEQUANTIZE" not in convert.operations(convert.convert(graph, "float32"))
    found = np.asarray(graph.predict_on_batch(image)["foreground_mask"])[0, ..., 0]
    rounded = np.asarray(trained.predict_on_batch(image)["localization_map"])[0].mean(-1)
    np.testing.assert_allclose(found, rounded, atol=0.03)
    np.testing.assert_array_equal(copy.get_weights()[0], trained.get_weights()[0])


def test_a_model_in_float32_stays_as_it_is(model):
    assert graphs.in_float32(model) is model


def test_the_chosen_class_follows_the_picture(model):
    """Pictures of other predicted classes give the maps of those, not always the same one."""
    graph = graphs.export_graph(model, ExportedMap.parse("predicted"))
    scores = model.classifier.get_layer("classifier_scores")
    kernel, bias = scores.get_weights()
    image = np.full((1, 64, 64, 3), 90, np.float32)
    maps = np.asarray(model.predict_on_batch(image)["localization_map"])[0]
    try:
        for label in range(len(CLASSES)):
            scores.set_weights([kernel, bias + 50 * np.eye(len(CLASSES))[label]])
            found = np.asarray(graph.predict_on_batch(image)["foreground_mask"])[0, ..., 0]
            np.testing.assert_allclose(found, maps[..., label], atol=2e-6)
    finally:
        scores.set_weights([kernel, bias])


def test_a_larger_output_is_the_small_map_upsampled_as_opencv_does(model, image):
    small = np.asarray(
        graphs.export_graph(model, ExportedMap.parse("mean")).predict_on_batch(image)[
            "foreground_mask"
        ]
    )
    large = graphs.export_graph(model, ExportedMap.parse("mean"), output_size=32).predict_on_batch(
        image
    )["foreground_mask"]
    expected = cv2.resize(small[0, ..., 0], (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(np.asarray(large)[0, ..., 0], expected, atol=1e-6)


def test_cost_follows_what_is_asked(model):
    """Only maps of predicted classes carry the classifier, and none of them all maps."""
    operations = {
        map_: convert.operations(
            convert.convert(graphs.export_graph(model, ExportedMap.parse(map_)), "float32")
        )
        for map_ in ("mean", "class:cat", "predicted")
    }
    extractor = sum(type(layer).__name__ == "Conv2D" for layer in model.feature_extractor.layers)
    classifier = sum(type(layer).__name__ == "Conv2D" for layer in model.classifier.layers)
    assert operations["mean"]["CONV_2D"] == operations["class:cat"]["CONV_2D"] == extractor + 1
    # The localizer's convolution gives way to a product and a constant convolution.
    assert operations["predicted"]["CONV_2D"] == extractor + classifier + 1
    assert operations["predicted"]["GATHER"] == 2


def test_what_the_model_has_no_map_for_is_refused(model):
    for text in ("means", "class:fox", "class:", "class", ""):
        with pytest.raises(ValueError, match="Legal|no class"):
            ExportedMap.parse(text).check(model.classes, 5)
    ExportedMap("mean").check(model.classes, 1)
    for text in ("predicted", "topk", "all", "class:cat"):
        ExportedMap.parse(text).check(model.classes, 5)
        with pytest.raises(ValueError, match="one channel"):
            ExportedMap.parse(text).check(model.classes, 1)
    with pytest.raises(ValueError, match="stores no presence threshold"):
        ExportedMap.parse("present").check(model.classes, 5)
    ExportedMap.parse("present").check(model.classes, 5, 0.2)
    with pytest.raises(ValueError, match="at least the map's own side, 8"):
        graphs.export_graph(model, ExportedMap.parse("mean"), output_size=7)


def test_a_map_is_parsed_once_and_says_what_it_needs():
    said = {}
    for text in ("mean", "topk", "predicted", "class:cat", "all", "present"):
        map_ = ExportedMap.parse(text)
        said[text] = (str(map_), map_.stored_kind, map_.has_classifier, map_.label(CLASSES))
    assert said == {
        "mean": ("mean", "mean", False, None),
        "topk": ("topk", "topk", True, None),
        "predicted": ("predicted", "predicted", True, None),
        "class:cat": ("class:cat", "true", False, 2),
        "all": ("all", "true", False, None),
        "present": ("present", "predicted", True, None),
    }
    assert ExportedMap.parse("class:a:b") == ExportedMap("class", "a:b")
    assert [range(5)[ExportedMap.parse(t).channels(CLASSES)] for t in ("class:dog", "all")] == [
        range(3, 4), range(5),
    ]  # fmt: skip
