"""benchmarks/many_trainings.py itself, where JAX is there and TensorFlow is not: see BUILD.md."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

jax = pytest.importorskip("jax")
if importlib.util.find_spec("tensorflow"):
    pytest.skip("sets up Keras for JAX: needs an environment of its own", allow_module_level=True)

# ruff: noqa: E402
importlib.import_module("jax_trainings.backend")  # before Keras
import jax.numpy as jnp
import keras
from absl import flags
from absl.testing import flagsaver

import many_trainings
from jax_trainings import convolutions, network, plan, scoring, training
from jax_trainings.crops import random_crops
from wsol_tf.config import Config
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.shapes import write_voc
from wsol_tf.data.stream import TrainingStream
from wsol_tf.data.transforms import View, view_example
from wsol_tf.model.objective import Objective
from wsol_tf.model.schedule import Span

SMALL = {
    "width": 0.25, "input_size": 64, "head_width": 8, "extractor_weights": "none",
    "localizer": "agnostic", "batch_size": 4, "localization_start": 0.0, "erasing_start": 0.0,
    "pseudo_start": 0.0, "warmup": 0.0,
}  # fmt: skip
PLAIN = plan.settings_of([], plan.Row("", {}))[1]  # no experiment


def close(found, expected, tolerance=1e-4):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize(
    ("size", "strides", "padding", "dilation"),
    [(1, 1, "valid", 1), (1, 2, "same", 1), (3, 1, "same", 2), (3, 2, "same", 1),
     (3, 2, "valid", 1), ((3, 1), (1, 2), "same", 1)],
)  # fmt: skip
def test_convolutions_of_many_networks_are_keras_s(kind, size, strides, padding, dilation):
    rng = np.random.default_rng(0)
    size = (size, size) if isinstance(size, int) else size
    images = jnp.asarray(rng.normal(size=(2, 3, 11, 10, 5)), jnp.float32)
    last = (5, 7) if kind == "conv" else (5, 1)
    kernels = jnp.asarray(rng.normal(size=(2, *size, *last)), jnp.float32)
    ours, keras_s = convolutions.conv, convolutions.KERAS_CONV
    if kind == "depthwise":
        ours, keras_s = convolutions.depthwise_conv, convolutions.KERAS_DEPTHWISE

    def with_gradients(function):
        def loss(x, kernel):
            values = function(x, kernel, strides, padding, "channels_last", dilation)
            return jnp.sum(jnp.sin(values)), values

        of_one = jax.grad(loss, (0, 1), has_aux=True)
        gradients, values = jax.jit(jax.vmap(of_one))(images, kernels)
        return values, *gradients

    for found, expected in zip(with_gradients(ours), with_gradients(keras_s), strict=True):
        assert found.shape == expected.shape
        close(found, expected)


def test_grouped_convolutions_are_left_to_keras():
    x, kernel = jnp.ones((1, 4, 4, 6)), jnp.ones((3, 3, 3, 4))
    close(convolutions.conv(x, kernel), np.full((1, 2, 2, 4), 27.0))


@pytest.fixture
def quick(monkeypatch):
    """A network of a few layers: JAX takes long to compile a real one."""

    def build(*_, input_size, **__):
        picture = keras.Input((input_size, input_size, 3))
        x = keras.layers.Rescaling(1 / 127.5, offset=-1)(picture)
        x = keras.layers.Conv2D(6, 8, strides=8, use_bias=False)(x)
        x = keras.layers.BatchNormalization(synchronized=True)(x)
        x = keras.layers.ReLU()(x)
        features = keras.Input(x.shape[1:])
        y = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(features)
        y = keras.layers.BatchNormalization(synchronized=True)(y)
        return keras.Model(picture, x), keras.Model(features, y), "toy"

    monkeypatch.setattr(network.backbones, "build_extractor", build)


@pytest.mark.parametrize(
    ("target", "form", "balance"),
    [
        ("mask", "mean_of_relu", False),
        ("guided", "relu_of_mean", True),
        ("guided", "mean_of_relu", False),
    ],
)
def test_the_terms_are_those_of_the_objective(target, form, balance, quick):
    changed = {"pseudo_target": target, "pseudo_low": 0.2, "activation_form": form}
    changed["pseudo_balance"] = balance
    config = Config(**SMALL, **changed)
    parts = network.build_network(config, 3, 0)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(0, 255, (4, 64, 64, 3)), jnp.float32)
    labels = jnp.array([0, 2, 1, 2])
    allowed = jnp.asarray(rng.random((4, 3)) < 0.5) | jax.nn.one_hot(labels, 3, dtype=bool)
    settings = plan.numbers_of(config, PLAIN) | ({"guided": None} if target == "mask" else {})
    ones = dict.fromkeys(network.NAMES, 1.0)
    total, (_, means) = network.total_loss(
        parts, *parts.values(), (images, labels, allowed), settings, ones, 0
    )
    model = types.SimpleNamespace(
        feature_extractor=parts.feature_extractor, classifier=parts.classifier,
        localizer=parts.localizer, background_id=None,
    )  # fmt: skip
    objective = Objective(settings=changed)
    values, *_ = objective.terms(model, images, labels, allowed, training=True)
    for term in network.TERMS:
        close(means[term.name], np.mean(values[term.name]))
    assert float(means["pseudo"]) > 0
    assert float(means["bas"]) > 0
    close(total, sum(map(float, means.values())))


def test_a_training_without_guided_labels_is_the_same_beside_one_with_them(quick):
    config = Config(**SMALL)
    parts = network.build_network(config, 3, 0)
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)), jnp.float32)
    batch = images, jnp.array([0, 2, 1, 2]), jnp.ones((4, 3), bool)
    settings, ones = plan.numbers_of(config, PLAIN), dict.fromkeys(network.NAMES, 1.0)
    found = [
        network.total_loss(parts, *parts.values(), batch, settings | changed, ones, 0)[1][1]
        for changed in ({"guided": None}, {"guided": 0.0}, {"guided": 1.0})
    ]
    close(found[0]["pseudo"], found[1]["pseudo"], 1e-6)
    assert abs(float(found[0]["pseudo"]) - float(found[2]["pseudo"])) > 1e-3


def test_steps_are_those_of_group_sgd():
    """By their definition, PyTorch's, for GroupSGD itself needs TensorFlow; it is tested alike."""
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), (4,))]
    config = Config(learning_rate=0.1, lr_drops="0.5")
    rates, _ = training.schedule_of(config, PLAIN, 4)
    settings = {"momentum": 0.9, "l2": 0.01, "clip_norm": 2.0, "factors": [1.0, 3.0]}
    weights, momenta = map(jnp.asarray, start), [jnp.zeros_like(x) for x in start]
    weights, velocities = list(weights), [np.zeros_like(x) for x in start]
    for step, rate in enumerate((0.1, 0.1, 0.01, 0.01)):
        gradients = [rng.normal(size=x.shape).astype(np.float32) for x in start]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        for i, factor in enumerate(settings["factors"]):
            slope = gradients[i] * min(1, 2 / norm) + 0.01 * start[i]
            velocities[i] = 0.9 * velocities[i] + slope
            start[i] = start[i] - rate * factor * (slope + 0.9 * velocities[i])
        weights, momenta = training.stepped(weights, momenta, gradients, rates[step], settings)
        for found, expected in zip(weights, start, strict=True):
            close(found, expected, 1e-5)


def test_weights_of_the_terms_set_in_where_the_objective_says():
    config = Config(ae_weight=0.4, ac_weight=0.0, warmup=0.3)
    _, found = training.schedule_of(config, PLAIN | {"batch_area": 2.0, "binary": 3.0}, 10)
    weights = {name: getattr(config, f"{name}_weight") for name in ("ae", "ac", "pseudo", "bas")}
    objective = Objective(weights, {"warmup": 0.3}, Span(10))
    for step in range(10):
        expected = objective.weights_at(step / 10)
        for term in network.TERMS:
            close(found[term.name][step], expected[term.name], 1e-6)
    close(found["batch_area"], [0, 0, *[2] * 8], 1e-6)
    close(found["binary"][:6], [0, 0, 0, 1, 2, 3], 1e-5)


def test_the_order_is_the_stream_s():
    source = open_dataset("shapes", num_examples=10, image_size=32)
    stream = TrainingStream(source, range(10), batch_size=4, input_size=28, resize_size=32, seed=3)
    samples = np.array([(i, own[0]) for i, own in enumerate(source.labels)])
    order = training.order_of(samples, 6, 4, 3)
    for step in range(6):
        np.testing.assert_array_equal(order[step, :, 1], stream[step][1])


def test_plain_crops_are_parts_of_the_picture_and_others_lie_in_between():
    rng = np.random.default_rng(0)
    pictures = jnp.asarray(rng.integers(0, 256, (6, 10, 10, 3)), jnp.uint8)
    found = np.asarray(random_crops(jax.random.PRNGKey(0), pictures, 8, 1.0, 0.0))
    mirrored = 0
    for crop, picture in zip(found, np.asarray(pictures, np.float32), strict=True):
        parts = [picture[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        straight = any(np.allclose(crop, part, atol=1e-3) for part in parts)
        turned = any(np.allclose(crop[:, ::-1], part, atol=1e-3) for part in parts)
        assert straight != turned
        mirrored += turned
    assert 0 < mirrored < 6
    # A picture whose columns are their numbers shows the side that was cut.
    columns = jnp.arange(100, dtype=jnp.uint8)[:, None]
    ramp = jnp.broadcast_to(columns, (64, 100, 100, 3))
    crops = np.asarray(random_crops(jax.random.PRNGKey(1), ramp, 80, 0.5, 0.0))
    sides = np.abs(crops[:, 0, -1, 0] - crops[:, 0, 0, 0]) * 80 / 79
    assert 39 < sides.min() < 50
    assert 85 < sides.max() < 101


def test_color_jitter_changes_colours_alone_and_0_changes_nothing():
    pictures = jnp.full((8, 10, 10, 3), 100, jnp.uint8)
    key = jax.random.PRNGKey(0)
    close(random_crops(key, pictures, 8, 1.0, 0.0), np.full((8, 8, 8, 3), 100.0))
    found = np.asarray(random_crops(key, pictures, 8, 1.0, 0.3))
    assert np.ptp(found, axis=(1, 2)).max() < 1e-3
    assert 5 < np.std(found[:, 0, 0].mean(-1)) < 30
    assert np.ptp(found[:, 0, 0], axis=-1).max() > 2


def test_networks_that_are_trained_together_are_those_trained_alone(quick):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 73, 73, 3), np.uint8)
    present = np.eye(2, dtype=bool)[np.arange(8) % 2]
    samples = np.array([(i, i % 2) for i in range(8)])
    known = np.arange(8)

    def one(**settings):
        config = Config(**SMALL, **settings)
        return plan.Training(0, 0, 0, config, PLAIN, samples, known, known)

    both = [one(), one(seed=1, learning_rate=1e-2, ae_weight=2.0, ema=0.5, min_crop=0.6)]

    trainer = training.Trainer(Config(**SMALL), pictures, present, guided=False)

    def trained(trainings):
        kept, last = trainer.train(trainings, 3)
        return trainer.predict(kept, [known] * len(trainings)), last

    together, last = trained(both)
    for i, each in enumerate(both):
        (alone,), of_one = trained([each])
        for name, value in alone.items():
            close(together[i][name], value, 1e-3)
        close(last["cls"][i], of_one["cls"][0], 1e-3)
    assert np.abs(together[0]["logits"] - together[1]["logits"]).max() > 0.01


@pytest.fixture
def folder(tmp_path):
    """Drawn pictures in VOC layout."""
    path = tmp_path / "drawn"
    for split in ("train", "val"):
        write_voc(str(path), 8, size=80, split=split)
    return path


@pytest.fixture
def program(folder, tmp_path):
    """Runs the program on a study; returns its status, or the sentence that it ends with."""
    if "together" not in flags.FLAGS:
        many_trainings.define_flags()
    settings = SMALL | {"localizer": "per_class", "epochs": 1, "min_steps": 3, "refine": "guided"}
    given = [f"--{name}={value}" for name, value in settings.items()]
    given += ["--together=5", "--processes=0"]

    def run(study, *arguments):
        path = tmp_path / "one.study"
        path.write_text(study, encoding="utf-8")
        own = (f"--study={path}", f"--data_dir={folder}", f"--output_dir={tmp_path / 'out'}")
        with flagsaver.flagsaver():
            flags.FLAGS(
                ["many_trainings", *own, *given, "--together=5", "--processes=0", *arguments]
            )
            try:
                many_trainings.run(flags.FLAGS)
            except ValueError as error:
                return str(error)

    return run


STUDY = """title=Tiny
question=Does it run?
folds=2
grid=seed=0,1
row=a:
row=the same:
row=other: pseudo_target=mask; pseudo_low=0.1; activation_form=relu_of_mean
"""


def test_a_study_from_pictures_to_arrays(quick, program, folder, tmp_path, capsys):
    assert program(STUDY) is None
    said = capsys.readouterr().out
    assert "12 trainings of 4 steps" in said  # two passes over 7 pictures
    assert "trainings 11 to 12 of 12 took" in said
    facts = json.loads((tmp_path / "out" / "drawn.json").read_text())
    assert facts["title"] == "Tiny"
    assert facts["folds"] == 2
    assert facts["settings"][0] == {}
    assert facts["settings"][2]["activation_form"] == "relu_of_mean"
    assert facts["command"].startswith("python benchmarks/many_trainings.py \\\n    --")
    with np.load(tmp_path / "out" / "drawn.npz") as file:
        arrays = dict(file)
    assert arrays["rows"].tolist() == ["a", "the same", "other"]
    assert arrays["seeds"].tolist() == [0, 1]
    assert arrays["images"].tolist() == list(range(16))
    assert arrays["centered_ious"].shape == (16, 20)
    assert (arrays["minutes"] > 0).all()
    for of in ("iou", "plain_iou", "cam_iou", "mask_iou", "plain_mask_iou", "top1_cls"):
        assert arrays[of].shape == (3, 2, 16)
        assert ((arrays[of] >= 0) & (arrays[of] <= 1)).all(), of  # and no NaN
        close(arrays[of][0], arrays[of][1], 1e-5)  # trained side by side, and in another group
    assert (arrays["iou"][0] != arrays["iou"][2]).any()
    assert (arrays["iou"][0, 0] != arrays["iou"][0, 1]).any()


@pytest.mark.parametrize("is_finite", [True, False])
def test_a_training_that_diverged_is_a_miss_and_no_end(is_finite, tmp_path):
    source = open_dataset("shapes", num_examples=8, image_size=73)
    scoring.store_pictures(str(tmp_path), source, list(source.read_examples()))
    rng = np.random.default_rng(0)
    outputs = {
        "score_map": rng.normal(size=(8, 4, 4, 4)).astype(np.float32),
        "localization_map": rng.random((8, 8, 8, 1), np.float32),
        "logits": rng.normal(size=(8, 4)).astype(np.float32),
    }
    # The maps of the pictures that are scored are their boxes, which any threshold finds.
    view = View(64, 73)
    for i in range(4, 8):
        example = view_example(source.read_example(i), view)
        x0, y0, x1, y1 = (example.boxes[0] / 8).round().astype(int)
        outputs["localization_map"][i] = 0
        outputs["localization_map"][i, y0:y1, x0:x1] = 1
    if not is_finite:
        outputs["localization_map"][:] = np.nan
    maps = scoring.Maps(
        7, np.arange(4), np.arange(4, 8), outputs, (0.0, 0.0), ("mean", "cam"), 5, "none", view
    )
    number, lines, thresholds = scoring.score(maps, folder=str(tmp_path))
    assert number == 7
    assert [line["image_id"] for line in lines] == sorted(source.image_ids[4:])
    assert thresholds["cam"] is not None
    assert (thresholds["mean"] is not None) == is_finite
    hits = [line["iou"]["mean"] >= 0.5 for line in lines]
    assert hits == [is_finite] * 4


def test_a_process_that_scores_can_import_what_it_needs():
    """As one does that is started: with the environment, and without Keras and JAX."""
    code = (
        "import runpy, sys; runpy.run_path('benchmarks/many_trainings.py', run_name='__mp_main__');"
        "assert not {'jax', 'keras', 'tensorflow.python'} & set(sys.modules)"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": "benchmarks"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_study_ends_in_time_with_what_it_has(quick, program, tmp_path, capsys):
    assert program(STUDY, "--minutes=1e-9") is None
    assert "No time for the last 12 trainings." in capsys.readouterr().out
    assert not list((tmp_path / "out").iterdir())


def test_what_can_t_be_trained_is_refused_before_anything_is(program, tmp_path):
    assert "Unknown setting 'hue'" in program(STUDY + "row=bad: hue=1\n")
    assert "`folds` must be at least 2" in program(STUDY.replace("folds=2", ""))
    assert not (tmp_path / "out").exists()
