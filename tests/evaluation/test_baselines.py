import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import run, tiny_model
from wsol_tf import evaluate
from wsol_tf.data import shapes
from wsol_tf.data.transforms import View
from wsol_tf.evaluation import baselines, methods
from wsol_tf.evaluation.iou import boxes_at
from wsol_tf.model import score_maps


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file of a whole MobileNetV1 of random weights."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(weights=None, alpha=0.25)
    path = tmp_path_factory.mktemp("weights") / "whole.weights.h5"
    model.save_weights(path)
    return model, str(path)


@pytest.fixture(scope="module")
def classifier(weights):
    return baselines.imagenet_classifier("mobilenet_v1", width=0.25, weights=weights[1])


def test_logits_are_those_of_keras_applications(weights, classifier, rng):
    feature_extractor, head, loaded = classifier
    images = rng.integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    outputs = baselines.class_scores(feature_extractor, head)(images)
    assert outputs["score_map"].shape == (2, 7, 7, 1000)
    expected = weights[0].predict_on_batch(keras.applications.mobilenet.preprocess_input(images))
    np.testing.assert_allclose(tf.nn.softmax(outputs["logits"]), expected, rtol=1e-4)
    assert "54 of 54 layers" in loaded and loaded.endswith("and the class scores")


def test_a_finer_map_has_the_same_top(weights):
    _, head, _ = baselines.imagenet_classifier(
        "mobilenet_v1", width=0.25, output_stride=8, weights=weights[1]
    )
    assert head.output.shape == (None, 14, 14, 1000)
    kernel = weights[0].get_layer("conv_preds").kernel
    np.testing.assert_array_equal(head.get_layer("classifier_scores").kernel, kernel)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (dict(weights="none"), "explains nothing"),
        (dict(weights="/no/such.weights.h5"), "is no file"),
        (dict(width=0.5), "do not fit"),
    ],
)
def test_weights_that_are_no_classifier_are_refused(arguments, sentence, weights):
    settings = {"width": 0.25, "weights": weights[1]} | arguments
    with pytest.raises(ValueError, match=sentence):
        baselines.imagenet_classifier("mobilenet_v1", **settings)


def test_weights_without_class_scores_are_refused(tmp_path):
    path = tmp_path / "notop.weights.h5"
    keras.applications.MobileNet(weights=None, alpha=0.25, include_top=False).save_weights(path)
    with pytest.raises(ValueError, match="do not give a whole mobilenet_v1"):
        baselines.imagenet_classifier("mobilenet_v1", width=0.25, weights=str(path))


def test_grad_cam_by_hand(rng):
    # A linear head: the gradient of the mean score by a feature is its weight / positions, so
    # Grad-CAM is the positive part of the weighted features.
    image = keras.Input((4, 4, 3))
    extractor = keras.Model(image, keras.layers.Rescaling(0.5)(image))
    features = keras.Input((4, 4, 3))
    dense = keras.layers.Conv2D(2, 1)
    head = keras.Model(features, dense(features))
    kernel = np.array([[1.0, -1.0], [-2.0, 0.5], [0.5, 3.0]], np.float32)
    dense.set_weights([kernel.reshape(1, 1, 3, 2), np.zeros(2)])
    images = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    labels = np.array([1, 0], np.int32)
    found = baselines.grad_cam(extractor, head)(images, labels)
    expected = np.maximum(np.einsum("bhwc,cb->bhw", images / 2, kernel[:, labels]) / 16, 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_center_map_gives_centred_boxes():
    resized = score_maps.resize(score_maps.normalize(baselines.center_map()), 100, 200)
    for x0, y0, x1, y1 in boxes_at(resized, [0.1, 0.4, 0.8]):
        assert x0 + x1 == pytest.approx(200, abs=1) and y0 + y1 == pytest.approx(100, abs=1)
        assert (x1 - x0) == pytest.approx(2 * (y1 - y0), abs=3)


@pytest.fixture
def voc(tmp_path):
    shapes.write_voc(str(tmp_path / "voc"), 4, size=80, seed=0, split="val")
    return tmp_path / "voc"


@pytest.mark.parametrize("kind", ["grad_cam", "center"])
def test_baseline_maps_stand_beside_a_trained_model(kind, voc, tmp_path, capsys):
    model = tiny_model(shapes.CLASSES)
    model.save(tmp_path / "model.keras")
    arguments = (
        f"--model={tmp_path / 'model.keras'}", "--dataset=voc_folder", f"--data_dir={voc}",
        f"--output_dir={tmp_path / 'out'}", f"--map={kind}",
    )  # fmt: skip
    assert run(evaluate, *arguments) == 0
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (figures["map"], figures["threshold"]) == (kind, "otsu")
    assert set(figures["other_maps"]) == {"mean", "true", "cam"}
    assert figures["other_maps"]["mean"]["threshold"] == 0.5
    if kind == "center":
        centred = figures["baselines"]["centered_box_oracle"]["gt_known_loc"]
        assert figures["gt_known_loc_oracle"] == pytest.approx(centred, abs=0.26)


def test_an_imagenet_classifier_is_scored_by_the_same_command(weights, voc, tmp_path, capsys):
    arguments = (
        f"--model={weights[1]}", "--width=0.25", "--dataset=voc_folder",
        f"--output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert run(evaluate, *arguments, f"--data_dir={voc}") == 1
    assert "tells 1000 classes apart and" in capsys.readouterr().err
    names = [*shapes.CLASSES, *(f"n{i:08d}" for i in range(1000 - len(shapes.CLASSES)))]
    (voc / "classes.txt").write_text("\n".join(names))
    assert run(evaluate, *arguments, f"--data_dir={voc}") == 0
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (figures["map"], figures["num_images"]) == ("cam", 4)
    assert run(evaluate, *arguments, f"--data_dir={voc}", "--map=mean") == 1
    assert "has no map 'mean'" in capsys.readouterr().err
    assert run(evaluate, *arguments, f"--data_dir={voc}", "--map=grad_cam") == 0


def test_baselines_and_maps_that_do_not_exist_are_refused(classifier):
    feature_extractor, scores, _ = classifier
    view = View(64, 73)
    with pytest.raises(ValueError, match="Unknown baseline 'cam'. Legal: grad_cam, center."):
        methods.with_baseline(None, "cam", feature_extractor, scores)
    with pytest.raises(ValueError, match="has no map 'mean'. Legal: cam, grad_cam, center."):
        methods.method_of_classifier(feature_extractor, scores, view=view, kind="mean")


def test_what_stores_no_threshold_is_cut_at_otsus(classifier):
    feature_extractor, scores, _ = classifier
    stored = methods.method_of_classifier(feature_extractor, scores, view=View(64, 73))
    assert (stored.kinds, stored.thresholds) == (("cam",), {"cam": "otsu"})
    assert "nothing is stored" in stored.threshold_from
    given = methods.with_baseline(stored, "center", feature_extractor, scores, threshold=0.3)
    assert (given.kinds, given.thresholds["center"]) == (("center", "cam"), 0.3)
    assert given.threshold_from == "given"
