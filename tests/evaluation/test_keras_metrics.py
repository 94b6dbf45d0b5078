import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import add_map, tiny_model
from wsol_tf.data import transforms
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import keras_metrics
from wsol_tf.evaluation.keras_metrics import GTKnownLoc, Top1Loc
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.scores import accumulate

VIEW = 40


def toy_batch(count=12, seed=0):
    """Maps 8x8, one or two boxes (padded), labels and logits; some maps and logits are broken."""
    rng = np.random.default_rng(seed)
    maps = 0.5 * rng.random((count, 8, 8), np.float32)
    boxes = np.full((count, 2, 4), -1, np.float32)
    for i in range(count):
        x0, y0 = rng.integers(0, 4, 2)
        w, h = rng.integers(2, 5, 2)
        maps[i, y0 : y0 + h, x0 : x0 + w] += 1
        boxes[i, 0] = 5 * np.array([x0, y0, x0 + w, y0 + h])
    boxes[1, 1] = [0, 0, VIEW, VIEW]
    boxes[2] = -1  # nothing in view
    maps[3, 0, 0] = np.nan
    maps[4] = 0.5
    logits = rng.normal(size=(count, 3)).astype(np.float32)
    labels = logits.argmax(-1).astype(np.int32)
    labels[::3] = (labels[::3] + 1) % 3  # every third picture is put into the wrong class
    logits[5] = np.inf
    return maps, boxes, labels, logits


def figures_of(maps, boxes, labels, logits, threshold):
    scored = LocalizationMetrics([0.3, 0.5])
    for i, (score_map, box, label, row) in enumerate(zip(maps, boxes, labels, logits, strict=True)):
        add_map(scored, f"{i}", label, row, score_map, box[box[:, 2] > box[:, 0]], VIEW)
    return scored.result(threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, "otsu"])
def test_same_figures_as_localization_metrics(threshold):
    maps, boxes, labels, logits = toy_batch()
    expected = figures_of(maps, boxes, labels, logits, threshold)
    known, first = GTKnownLoc(threshold, VIEW), Top1Loc(threshold, (VIEW, VIEW))
    for part in (slice(0, 5), slice(5, 12)):  # the states add up over batches
        known.update_state(boxes[part], maps[part, ..., None])
        first.update_state(
            {"boxes": boxes[part], "label": labels[part]},
            {"map": maps[part], "logits": logits[part]},
        )
    name = "gt_known_loc_otsu" if threshold == "otsu" else "gt_known_loc"
    assert 0 < float(first.result()) < float(known.result()) < 1
    assert float(known.result()) == pytest.approx(expected[name])
    assert float(first.result()) == pytest.approx(expected["top1_loc"])
    known.reset_state()
    known.update_state(boxes[:1], maps[:1], sample_weight=[0.0])
    known.update_state(boxes[3:4], maps[3:4])
    assert float(known.result()) == 0


def test_a_hand_made_batch():
    maps = np.zeros((2, 4, 4), np.float32)
    maps[:, 1:3, 1:3] = 1
    boxes = np.float32([[[1, 1, 3, 3]], [[1, 1, 3, 3]]])
    boxes[1, 0, 2:] = 4  # IoU 4 / 9
    metric = GTKnownLoc(0.5, 4)
    metric.update_state(boxes, maps)
    assert float(metric.result()) == 0.5


def evaluate_mirrored(strategy):
    """`evaluate` of a model whose output is its input, the metric being part of `compile`."""
    maps, boxes, _, _ = toy_batch()
    with strategy.scope():
        inputs = keras.Input((8, 8))
        model = keras.Model(inputs, keras.layers.Identity()(inputs))
        model.compile(
            loss=lambda boxes, maps: keras.ops.zeros(keras.ops.shape(maps)[0]),
            metrics=[GTKnownLoc(0.5, VIEW)],
            jit_compile=False,
        )
    data = tf.data.Dataset.from_tensor_slices((maps, boxes)).batch(4)
    return [model.evaluate(data, verbose=0, return_dict=True)["gt_known_loc"] for _ in range(2)]


def test_evaluate_of_a_compiled_model():
    expected = figures_of(*toy_batch(), 0.5)["gt_known_loc"]
    found = evaluate_mirrored(tf.distribute.get_strategy())
    assert found == pytest.approx([expected, expected])


def test_two_replicas_count_as_one_device_does():
    """In a process of its own, for its two devices."""
    script = """
import dataclasses
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_keras_metrics
strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
)
assert strategy.num_replicas_in_sync == 2
print(json.dumps(test_keras_metrics.evaluate_mirrored(strategy)))
"""
    here = pathlib.Path(__file__)
    places = (here.parents[2], here.parents[1], here.parent)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = figures_of(*toy_batch(), 0.5)["gt_known_loc"]
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx([expected, expected])


@keras.saving.register_keras_serializable(package="test_keras_metrics")
def no_loss(boxes, maps):
    return keras.ops.zeros(keras.ops.shape(maps)[0])


@pytest.mark.parametrize("threshold", [0.3, "otsu"])
def test_a_model_compiled_with_it_is_saved_and_loaded(threshold, tmp_path):
    maps, boxes, _, _ = toy_batch()
    inputs = keras.Input((8, 8))
    model = keras.Model(inputs, keras.layers.Activation("linear")(inputs))
    model.compile(loss=no_loss, metrics=[GTKnownLoc(threshold, (VIEW, VIEW))], jit_compile=False)
    expected = model.evaluate(maps, boxes, verbose=0, return_dict=True)["gt_known_loc"]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    found = again.evaluate(maps, boxes, verbose=0, return_dict=True)["gt_known_loc"]
    assert 0 < found == expected


def test_of_several_outputs_it_is_compiled_for_the_map():
    maps, boxes, labels, _ = toy_batch()
    image = keras.Input((8, 8))
    pooled = keras.layers.Dense(3)(keras.layers.Flatten()(image))
    outputs = {"map": keras.layers.Activation("linear")(image), "logits": pooled}
    model = keras.Model(image, outputs)
    model.compile(
        loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "map": None},
        metrics={"map": GTKnownLoc(0.5, VIEW)},
        jit_compile=False,
    )
    targets = {"map": boxes, "logits": labels}
    figures = model.evaluate(np.nan_to_num(maps), targets, verbose=0, return_dict=True)
    expected = figures_of(np.nan_to_num(maps), *toy_batch()[1:], 0.5)["gt_known_loc"]
    assert figures["map_gt_known_loc"] == pytest.approx(expected)


def test_both_are_metrics_of_a_models_own_compute_metrics():
    """Top1Loc sees the map and the logits at once there."""
    maps, boxes, labels, logits = toy_batch()

    class Scored(keras.Model):
        def __init__(self):
            super().__init__()
            self.top1 = Top1Loc(0.5, VIEW)

        def call(self, inputs):
            return inputs

        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            return keras.ops.zeros(())

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.top1.update_state(y, y_pred, sample_weight)
            return self.get_metrics_result()

    model = Scored()
    model.compile(jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(
        ({"map": maps, "logits": logits}, {"boxes": boxes, "label": labels})
    )
    figures = model.evaluate(data.batch(5), verbose=0, return_dict=True)
    expected = figures_of(maps, boxes, labels, logits, 0.5)["top1_loc"]
    assert figures["top1_loc"] == pytest.approx(expected) and expected > 0


@pytest.mark.parametrize("metric", [GTKnownLoc, Top1Loc])
def test_it_is_known_to_keras_by_name(metric):
    assert keras.saving.get_registered_object(f"wsol_tf>{metric.__name__}") is metric
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric(0.25, VIEW))
    )
    assert type(again) is metric and again.threshold == 0.25


def test_metric_is_rebuilt_from_its_config():
    metric = GTKnownLoc("otsu", (20, 30), name="mine")
    again = GTKnownLoc.from_config(json.loads(json.dumps(metric.get_config())))
    assert (again.threshold, tuple(again.view_size), again.name) == ("otsu", (20, 30), "mine")


def test_unknown_threshold_is_refused():
    with pytest.raises(ValueError, match="in 0..1 or 'otsu'. Received: 7"):
        GTKnownLoc(7, VIEW)
    with pytest.raises(ValueError, match="in 0..1 or 'otsu'. Received: 'otso'"):
        GTKnownLoc("otso", VIEW)


def test_scores_during_fit_are_those_of_the_evaluation():
    source = open_dataset("shapes", "", "val", num_examples=12)
    model = tiny_model(source.classes)
    model.compile(total_steps=2, run_eagerly=True)
    images = np.zeros((4, 64, 64, 3), np.uint8)
    scores = keras_metrics.LocalizationScores(source, threshold=0.5, batch_size=8)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(dict(logs)))
    history = model.fit(
        images, np.array([0, 1, 0, 1]), epochs=1, verbose=0, callbacks=[scores, watch]
    ).history
    pairs = predict_pairs(
        model.predict_on_batch,
        source,
        range(len(source)),
        kinds=[model.map],
        view=transforms.View(model.input_size, model.resize_size),
    )
    figures = accumulate(pairs, [model.map])[model.map].result(0.5)
    for name in ("gt_known_loc", "top1_loc", "miou_box"):
        assert history[f"val_{name}"][-1] == seen[-1][f"val_{name}"] == pytest.approx(figures[name])
    assert figures["miou_box"] > 0


def test_scores_need_boxes():
    source = open_dataset("shapes", "", "val", num_examples=4)
    with pytest.raises(ValueError, match="no boxes to score"):
        keras_metrics.LocalizationScores(dataclasses.replace(source, has_boxes=False))


def test_scores_of_pictures_without_any_object_are_no_numbers():
    source = open_dataset("shapes", "", "val", image_size=73, num_examples=4)
    model = tiny_model(source.classes, background_class=source.classes[0])
    model.compile(total_steps=1, run_eagerly=True)
    for positions in ([0], []):
        scores = keras_metrics.LocalizationScores(source, positions)
        scores.set_model(model)
        logs = {}
        scores.on_epoch_end(0, logs)
        assert set(logs) == {"val_gt_known_loc", "val_top1_loc", "val_miou_box"}
        assert np.isnan(list(logs.values())).all()
