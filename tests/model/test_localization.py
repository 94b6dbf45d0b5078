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

import wsol_tf
from helpers import AT_ONCE, CLASSES, toy, toy_parts
from wsol_tf.model import losses
from wsol_tf.model.build import build_model, compile_model
from wsol_tf.model.localization import Localization
from wsol_tf.model.objective import LOSS_SETTINGS, LOSS_WEIGHTS

NOTHING = dict.fromkeys(losses.TERMS, 0.0)


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)
    return images, np.arange(size, dtype=np.int32) % 3


def small(side=64, **settings):
    """A real network, and the smallest."""
    config = wsol_tf.Config.recipe(
        **{"width": 0.25, "input_size": side, "head_width": 8, "extractor_weights": "none",
           "batch_size": 4, **settings}
    )  # fmt: skip
    keras.utils.set_random_seed(1)
    return wsol_tf.build(config, CLASSES), config


def values(variables):
    return [v.numpy().copy() for v in variables]


def changed(before, variables):
    """Names of the variables that are no longer what they were."""
    return [v.path for b, v in zip(before, variables, strict=True) if (b != v.numpy()).any()]


def assert_same(one, other, **tolerance):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def train_on(model, data, **compiled):
    """One eager step; returns its logs as floats."""
    model.compile(**{"run_eagerly": True, "total_steps": 10, **AT_ONCE, **compiled})
    return {k: float(v) for k, v in model.train_on_batch(*data, return_dict=True).items()}


# What a call gives


@pytest.mark.parametrize(("channels", "kind"), [(3, "mean"), (3, "predicted"), (1, "mean")])
def test_predict_gives_a_dict_of_maps(channels, kind):
    got = toy(channels, map=kind).predict(batch(size=5)[0], batch_size=2, verbose=0)
    assert {name: array.shape for name, array in got.items()} == {
        "logits": (5, 3),
        "score_map": (5, 4, 4, 3),
        "localization_map": (5, 8, 8, channels),
        "foreground_mask": (5, 8, 8),
    }
    assert all(array.dtype == np.float32 for array in got.values())
    np.testing.assert_allclose(got["logits"], got["score_map"].mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert got["localization_map"].min() > 0 and got["localization_map"].max() < 1


@pytest.mark.parametrize(
    ("kind", "top_k", "count"),
    [("mean", 5, 3), ("predicted", 5, 1), ("topk", 2, 2), ("topk", 9, 3), ("true", 5, 1)],
)
def test_foreground_mask_is_the_map_asked_for(kind, top_k, count):
    got = toy(map=kind, top_k=top_k).predict(batch()[0], verbose=0)
    best = np.argsort(-got["logits"], axis=1)[:, :count]
    assert len(np.unique(best)) > 1 or count == 1
    expected = [m[..., b].mean(-1) for m, b in zip(got["localization_map"], best, strict=True)]
    np.testing.assert_allclose(got["foreground_mask"], expected, rtol=1e-5)


def test_agnostic_mask_is_the_only_channel():
    got = toy(1, map="predicted").predict(batch()[0], verbose=0)
    np.testing.assert_array_equal(got["foreground_mask"], got["localization_map"][..., 0])


def test_bytes_and_floats_give_the_same():
    model, images = toy(), batch()[0]
    bytes_, floats = (model.predict(x, verbose=0) for x in (images, images.astype("float32")))
    for name in bytes_:
        np.testing.assert_array_equal(bytes_[name], floats[name])


def test_summary_shows_three_named_parts():
    lines = []
    toy().summary(print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    for part in ("feature_extractor", "classifier", "localizer"):
        assert f"{part} (Functional)" in text


# A training step


@pytest.mark.parametrize(("weight", "passes"), [(1.0, 2), (0.0, 1)])
def test_a_step_passes_the_classifier_twice_and_no_more(monkeypatch, weight, passes):
    model, calls = toy(), []
    functional = type(model.classifier)
    original = functional.call

    def call(self, *arguments, **keywords):
        calls.append(self.name)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(functional, "call", call)
    train_on(model, batch(), loss_weights={"bas": weight})
    assert sorted(calls) == sorted(["feature_extractor", "localizer"] + ["classifier"] * passes)


def test_total_is_the_weighted_sum_of_the_terms():
    weights = dict(zip(losses.TERMS, (1.0, 0.5, 0.1, 0.2, 0.7, 3.0, 1.5, 2.0), strict=True))
    logs = train_on(toy(background_class="emu"), batch(), loss_weights=weights)
    assert logs["loss"] == pytest.approx(sum(weights[n] * logs[n] for n in losses.TERMS), rel=1e-5)
    assert all(logs[name] > 0 for name in losses.TERMS), "a term that is 0 proves nothing here"


def test_without_erasing_and_pseudo_labels_it_is_bas():
    """g2 = g3 = g4 = 0: total of BAS, and settings of the other terms move no weight."""
    one, other = toy(), toy()
    weights = {"ae": 0.0, "ae_fg": 0.0, "pseudo": 0.0}
    logs = train_on(one, batch(), loss_weights=weights)
    expected = logs["cls"] + 0.5 * logs["cls_fg"] + logs["bas"] + 1.5 * logs["ac"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-6)
    train_on(other, batch(), loss_weights=weights, ae_threshold=0.1, pseudo_high=0.9)
    assert_same(values(one.weights), values(other.weights))


def step_with_only(term, model, data, **compiled):
    """Trains one step on one term alone, without decay; returns the weights that moved."""
    before = values(model.trainable_variables)
    train_on(
        model,
        data,
        optimizer=keras.optimizers.SGD(1.0),
        loss_weights={**NOTHING, term: 1.0},
        **compiled,
    )
    return set(changed(before, model.trainable_variables))


def paths(part):
    return {v.path for v in part.trainable_variables}


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_bas_trains_the_localizer_and_features_but_not_the_classifier(statistics):
    model, _ = small()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    moved = step_with_only(
        "bas", model, (images, np.array([0, 1, 2, 0])), erased_statistics=statistics
    )
    assert not moved & paths(model.classifier)
    assert paths(model.localizer) <= moved
    assert "conv1/kernel" in moved


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_bas_reaches_the_features_through_the_localizer_alone(statistics):
    model = toy()
    kernel, bias = model.localizer.get_weights()
    model.localizer.set_weights([0 * kernel, bias])  # then nothing flows on
    moved = step_with_only("bas", model, batch(), erased_statistics=statistics)
    assert moved == paths(model.localizer)


@pytest.mark.parametrize("term", ["pseudo", "ac"])
def test_terms_of_the_mask_do_not_train_the_classifier(term):
    model = toy()
    moved = step_with_only(term, model, batch())
    assert moved == paths(model.localizer) | paths(model.feature_extractor)


@pytest.mark.parametrize("term", ["cls", "ae"])
def test_terms_of_the_score_map_do_not_train_the_localizer(term):
    model = toy()
    moved = step_with_only(term, model, batch())
    assert not moved & paths(model.localizer)
    assert "classifier_scores/kernel" in moved and "conv1/kernel" in moved


@pytest.mark.parametrize("statistics", ["batch", "moving"])
def test_the_erased_pass_leaves_the_moving_averages_alone(statistics):
    with_bas, without = toy(), toy()
    before = values(with_bas.non_trainable_variables)
    train_on(with_bas, batch(), erased_statistics=statistics)
    train_on(without, batch(), loss_weights={"bas": 0.0})
    moved = changed(before, with_bas.non_trainable_variables)
    assert {"conv_dw_2_bn/moving_mean", "conv1_bn/moving_variance"} <= set(moved)
    averages = [[v.numpy() for v in m.non_trainable_variables if "moving" in v.path]
                for m in (with_bas, without)]  # fmt: skip
    assert_same(*averages, rtol=0, atol=0)


def test_the_statistics_of_the_erased_pass_are_a_switch():
    got = {name: train_on(toy(), batch(), erased_statistics=name) for name in ("batch", "moving")}
    assert got["batch"]["bas"] != got["moving"]["bas"]
    assert got["batch"]["cls"] == got["moving"]["cls"]


def test_other_classes_in_the_picture_take_no_part():
    images, _ = batch()
    labels = np.zeros(8, np.int32)
    allowed = np.array([[True, False, True]] * 8)
    model = toy()
    model.compile(run_eagerly=True)
    logs = model.test_on_batch(images, labels, allowed, return_dict=True)
    logits = model.predict(images, verbose=0)["logits"].astype("float64")
    expected = np.log(np.exp(logits[:, [0, 2]]).sum(1)) - logits[:, 0]
    assert logs["cls"] == pytest.approx(expected.mean(), rel=1e-5)


def test_other_classes_in_the_picture_do_not_compete_for_top1():
    images, labels = batch(size=2)
    model = toy()
    scores = model.classifier.get_layer("classifier_scores")
    kernel, _ = scores.get_weights()
    scores.set_weights([0 * kernel, np.array([3.0, 2.0, 1.0])])  # class 0, then 1, then 2
    labels = np.array([1, 2])
    allowed = np.array([[False, True, True], [False, True, True]])  # 0 is in both pictures
    assert train_on(model, (images, labels))["top1_cls"] == 0.0
    assert train_on(model, (images, labels, allowed))["top1_cls"] == 0.5


def test_evaluation_weighs_all_terms_and_changes_nothing():
    model = toy()
    model.compile(run_eagerly=True, total_steps=100)
    before = values(model.weights)
    logs = model.evaluate(*batch(), batch_size=4, return_dict=True, verbose=0)
    expected = sum(LOSS_WEIGHTS[name] * logs[name] for name in losses.TERMS)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert_same(before, values(model.weights))


# Starts and warm-up


@pytest.mark.parametrize(
    ("step", "localization", "erasing", "pseudo"),
    [
        (0, 0, 0, 0),
        (19, 0, 0, 0),
        (20, 1, 0, 0),
        (25, 1, 0.5, 0),
        (30, 1, 1, 0),
        (50, 1, 1, 0),
        (55, 1, 1, 0.5),
        (60, 1, 1, 1),
        (100, 1, 1, 1),
        (300, 1, 1, 1),
    ],
)
def test_terms_set_in_at_their_shares_of_the_run(step, localization, erasing, pseudo):
    model = toy()
    model.compile(total_steps=100)
    model.optimizer.iterations.assign(step)
    got = {name: float(weight) for name, weight in model.current_weights().items()}
    background = erasing  # which starts as localization does, and grows as erasing does
    shares = {
        "cls": 1, "cls_fg": localization, "bas": localization, "ac": localization,
        "ae": erasing, "ae_fg": erasing, "pseudo": pseudo, "background": background,
    }  # fmt: skip
    expected = {name: LOSS_WEIGHTS[name] * share for name, share in shares.items()}
    assert got == pytest.approx(expected, abs=1e-6)


def test_without_warmup_terms_set_in_at_once():
    model = toy()
    model.compile(total_steps=10, **AT_ONCE)
    got = {name: float(weight) for name, weight in model.current_weights().items()}
    assert got == pytest.approx(LOSS_WEIGHTS)
    model.compile(total_steps=10, **{**AT_ONCE, "pseudo_start": 0.3})
    for step, expected in ((2, 0), (3, LOSS_WEIGHTS["pseudo"])):
        model.optimizer.iterations.assign(step)
        assert float(model.current_weights()["pseudo"]) == expected


def test_early_steps_train_on_classification_alone():
    model = toy()
    model.compile(run_eagerly=True, total_steps=100, optimizer=keras.optimizers.SGD(0.1))
    before = values(model.localizer.variables)
    logs = model.train_on_batch(*batch(), return_dict=True)
    assert logs["loss"] == logs["cls"] and logs["ac"] > 0
    assert_same(before, values(model.localizer.variables))


# fit


COLUMNS = {"loss", "top1_cls", *losses.TERMS}


def test_fit_as_user_code_calls_it():
    """(image, label) batches in a tf.data set; History has each term and the total."""
    images, labels = batch()
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    model = toy()
    model.compile()
    history = model.fit(data, epochs=3, validation_data=data, verbose=0).history
    assert set(history) == COLUMNS | {f"val_{name}" for name in COLUMNS}
    assert all(len(column) == 3 and np.isfinite(column).all() for column in history.values())
    assert model.total_steps == 6
    # The first epoch ends before localization starts; in the last all terms are in the total.
    assert history["loss"][0] < sum(LOSS_WEIGHTS[n] * history[n][0] for n in losses.TERMS)
    assert history["loss"][0] >= history["cls"][0] > 0


def test_fit_with_allowed_classes():
    images, labels = batch()
    allowed = np.eye(3, dtype=bool)[labels]  # no rival is left: nothing to learn for cls
    data = tf.data.Dataset.from_tensor_slices((images, labels, allowed)).batch(4)
    model = toy()
    model.compile(run_eagerly=True)
    history = model.fit(data, epochs=1, verbose=0).history
    assert history["cls"] == history["cls_fg"] == history["ae"] == [0.0]
    assert history["ac"][0] > 0


def test_fit_learns_what_is_to_be_seen():
    """Three colours: after a few steps the classes are told apart."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    labels = np.arange(12) % 3
    images = np.broadcast_to(colours[labels][:, None, None], (12, 32, 32, 3))
    model = toy()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), total_steps=1000)
    history = model.fit(np.array(images), labels, batch_size=12, epochs=25, verbose=0).history
    assert history["top1_cls"][-1] == 1.0
    assert history["cls"][-1] < 0.5 * history["cls"][0]


class Unknown:
    def __iter__(self):
        while True:
            yield batch(size=4)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return batch(seed=index, size=2)


@pytest.mark.parametrize(
    ("x", "keywords", "steps"),
    [
        (batch(), {"batch_size": 3}, 3),
        (batch(), {}, 1),
        (batch(), {"batch_size": 3, "validation_split": 0.3}, 2),
        ((Sequence(), None), {}, 3),
        ((tf.data.Dataset.from_tensors(batch()).repeat(5), None), {}, 5),
        ((iter(Unknown()), None), {"steps_per_epoch": 2}, 2),
    ],
)
def test_fit_counts_the_steps_of_the_run(x, keywords, steps):
    model = toy()
    model.compile(run_eagerly=True)
    model.fit(*x, epochs=2, verbose=0, **keywords)
    assert model.total_steps == 2 * steps
    assert model.optimizer.iterations == 2 * steps


@pytest.mark.parametrize(
    "x", [iter(Unknown()), tf.data.Dataset.from_tensors(batch()).repeat()], ids=type
)
def test_fit_without_a_known_length_is_refused(x):
    model = toy()
    model.compile()
    with pytest.raises(ValueError, match="Pass steps_per_epoch to fit, or total_steps to compile"):
        model.fit(x, verbose=0)
    model.compile(total_steps=4, run_eagerly=True)
    assert len(model.fit(x, steps_per_epoch=1, verbose=0).history["loss"]) == 1
    assert model.total_steps == 4


def test_eager_equals_graph():
    runs = []
    for eagerly in (True, False):
        model = toy()
        model.compile(run_eagerly=eagerly, **AT_ONCE)
        history = model.fit(*batch(), batch_size=4, epochs=2, shuffle=False, verbose=0).history
        runs.append((history, values(model.weights)))
    for name in COLUMNS:
        np.testing.assert_allclose(runs[0][0][name], runs[1][0][name], rtol=1e-5, err_msg=name)
    assert_same(runs[0][1], runs[1][1], rtol=1e-4, atol=1e-5)


def weights_now(model):
    return {name: float(weight) for name, weight in model.current_weights().items()}


class Schedule(keras.callbacks.Callback):
    """Notes the rate and the weight of two terms that each step is taken with."""

    def on_train_begin(self, logs=None):
        self.rates, self.ac, self.pseudo = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(round(float(self.model.optimizer.learning_rate), 6))
        weights = weights_now(self.model)
        self.ac.append(weights["ac"])
        self.pseudo.append(round(weights["pseudo"], 6))


def schedule_of(model, epochs, **keywords):
    """Fits 2 steps an epoch; returns what each step was taken with."""
    noted = Schedule()
    model.fit(
        *batch(), batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=[noted],
        **keywords,
    )  # fmt: skip
    return noted.rates, noted.ac, noted.pseudo


def with_drops(**settings):
    """A toy compiled by a Config that does not say how long the training is; it trains eagerly."""
    model = toy()
    config = wsol_tf.Config.recipe(
        **{"learning_rate": 0.01, "lr_drops": "0.5,0.9", "localization_start": 0.2,
           "pseudo_start": 0.5, "warmup": 0.5, **settings}
    )  # fmt: skip
    compile_model(model, config)
    model.run_eagerly = True
    return model


# What 8 steps in 4 epochs are taken with; drops are with step round(share * steps) and after it.
EIGHT_STEPS = (
    [0.01] * 4 + [0.001] * 3 + [0.0001],
    [0.0, 0.0] + [1.5] * 6,
    [0.0] * 5 + [0.75, 1.5, 2.25],
)


@pytest.mark.parametrize("eager", [True, False])
def test_each_fit_has_ramps_and_rates_of_its_own(eager):
    model = with_drops()
    model.run_eagerly = eager
    assert model.total_steps is None
    assert schedule_of(model, 1) == ([0.01, 0.001], [0.0, 1.5], [0.0, 0.0])
    assert model.total_steps == 2
    assert schedule_of(model, 4) == EIGHT_STEPS
    assert model.optimizer.iterations == 10 and model.total_steps == 8


def test_a_second_fit_trains_as_its_schedule_says():
    """Not only what is asked for: a step before the start leaves the localizer as it is."""
    model = toy()
    model.compile(keras.optimizers.SGD(0.1), localization_start=0.5, erasing_start=0.5)
    kinds = []
    for epochs in (1, 2):
        before = values(model.localizer.variables)
        model.fit(*batch(), batch_size=4, epochs=epochs, verbose=0)
        moved = changed(before, model.localizer.variables)
        history = model.history.history
        kinds.append((bool(moved), history["loss"][0] == history["cls"][0]))
    # One epoch: its second step has all terms. Two: the first epoch has cls alone.
    assert kinds == [(True, False), (True, True)]


def test_a_fit_with_an_initial_epoch_continues_the_training():
    whole, parts = with_drops(), with_drops()
    assert schedule_of(whole, 4) == EIGHT_STEPS
    first = schedule_of(parts, 4, initial_epoch=0, steps_per_epoch=None)
    assert first == EIGHT_STEPS
    again = with_drops()
    # Stopped after two of four epochs and continued, in this process or from a file.
    noted = [schedule_of(again, 2), schedule_of(again, 4, initial_epoch=2)]
    assert noted[1] == tuple(column[4:] for column in EIGHT_STEPS)


def test_a_saved_span_goes_on_where_it_was(tmp_path):
    model = with_drops()
    schedule_of(model, 1)
    schedule_of(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    assert vars(loaded.objective.span) == {"steps": 4, "first": 2, "fixed": False}
    assert weights_now(loaded) == weights_now(model)
    assert float(loaded.optimizer.learning_rate) == float(model.optimizer.learning_rate)
    assert schedule_of(loaded, 4, initial_epoch=2) == tuple(x[4:] for x in EIGHT_STEPS)
    assert schedule_of(loaded, 4) == EIGHT_STEPS


def test_total_steps_hold_for_every_fit():
    model = toy()
    config = wsol_tf.Config.recipe(learning_rate=0.01, lr_drops="0.5", epochs=4)
    compile_model(model, config, steps_per_epoch=2)
    model.run_eagerly = True
    assert model.total_steps == 8
    rates = [schedule_of(model, 2)[0], schedule_of(model, 2)[0]]
    assert rates == [[0.01] * 4, [0.001] * 4]


def test_float16_has_the_same_schedule():
    model, _ = small(mixed_precision="mixed_float16", learning_rate=0.01, lr_drops="0.5")
    model.run_eagerly = True
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(8.0)  # no overflow: such a step would not count
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    rates = []
    for _ in range(2):
        noted = Schedule()
        labels = np.array([0, 1, 2, 0])
        model.fit(images, labels, batch_size=2, callbacks=[noted], verbose=0)
        rates.append(noted.rates)
    assert rates == [[0.01, 0.001]] * 2


# Refusals


def test_unknown_names_are_refused():
    model = toy()
    with pytest.raises(ValueError, match="Unknown loss 'erasing'. Legal: cls, cls_fg, ae, ae_fg"):
        model.compile(loss_weights={"erasing": 1.0})
    with pytest.raises(ValueError, match="Unknown setting 'pseudo_higher'. Legal: ae_threshold"):
        model.compile(pseudo_higher=0.7)
    with pytest.raises(ValueError, match="Unknown map 'best'. Legal: true, predicted, mean"):
        toy(map="best")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pseudo_high": 0.05}, "`pseudo_low` must be smaller than `pseudo_high`"),
        (
            {"erased_statistics": "bacth"},
            "Unknown `erased_statistics` 'bacth'. Legal: batch, moving",
        ),
        ({"localization_start": 3}, "`localization_start` must lie in \\[0, 1\\]"),
        ({"loss_weights": {"ac": float("nan")}}, "`ac_weight` must be at least 0. Received: nan"),
    ],
)
def test_values_that_a_run_refuses_are_refused_in_code(settings, message):
    with pytest.raises(ValueError, match=message):
        toy().compile(**settings)


def test_class_names_must_fit_the_classifier():
    model = toy()
    with pytest.raises(ValueError, match="classifier has 3 outputs, but 2 class names were given"):
        Localization(model.feature_extractor, model.classifier, model.localizer, ("a", "b"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat", "a list of names, each once, such as .*Received: 'cat'"),
        (3, "a list of names, each once, .*Received: 3"),
        (["cat", "cat"], "each once, .*Received: .'cat', 'cat'"),
        (["cat"], "give at least two"),
    ],
)
def test_classes_that_are_no_names_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        wsol_tf.build(wsol_tf.Config(extractor_weights="none"), classes)


def test_a_topk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`top_k` must be at least 1. Received: 0"):
        toy(map="topk", top_k=0)


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.eye(3)[[0, 1]], r"\(2, 3\)"),
        (np.array([[0], [1]]), r"\(2, 1\)"),
        (None, "no label"),
    ],
)
def test_labels_of_another_form_are_refused(labels, received):
    model = toy()
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=rf"\(image, label\) with labels int .*{received}"):
        model.fit(batch(size=2)[0], labels, verbose=0)


# Saving


def test_saved_and_loaded_it_trains_on_as_before(tmp_path):
    model = toy(map="topk", top_k=2, thresholds={"mean": 0.25, "cam": 0.4}, resize_size=40)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.01, 0.001])
    settings = {"pseudo_high": 0.6, "erased_statistics": "batch", "localization_start": 0.25}
    model.compile(
        wsol_tf.group_sgd(model.localizer, schedule),
        loss_weights={"ac": 2.5},
        total_steps=8,
        run_eagerly=True,
        **settings,
    )
    model.fit(*batch(), batch_size=4, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert isinstance(loaded, Localization)
    assert loaded.classes == CLASSES
    assert (loaded.map, loaded.top_k, loaded.resize_size, loaded.input_size) == ("topk", 2, 40, 32)
    assert loaded.thresholds == {"mean": 0.25, "cam": 0.4}
    assert loaded.loss_weights == {**LOSS_WEIGHTS, "ac": 2.5}
    assert loaded.objective.settings == {**LOSS_SETTINGS, **settings}
    assert loaded.total_steps == 8 and loaded.optimizer.iterations == 2
    for one, other in (
        (model.weights, loaded.weights),
        (model.optimizer.variables, loaded.optimizer.variables),
    ):
        assert_same(values(one), values(other), rtol=0, atol=0)
    ours, theirs = (m.predict(batch()[0], verbose=0) for m in (model, loaded))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)

    histories = [m.fit(*batch(1), batch_size=4, epochs=3, shuffle=False, verbose=0).history
                 for m in (model, loaded)]  # fmt: skip
    assert histories[0] == histories[1]
    assert_same(values(model.weights), values(loaded.weights), rtol=0, atol=0)


def test_a_config_makes_as_many_models_as_asked_for():
    config = toy().get_config()
    before = json.dumps(config, sort_keys=True)
    models = [Localization.from_config(config) for _ in range(2)]
    assert json.dumps(config, sort_keys=True) == before
    assert [model.classes for model in models] == [CLASSES, CLASSES]


def test_a_model_that_was_never_compiled_is_saved_too(tmp_path):
    model = toy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(values(model.weights), values(loaded.weights), rtol=0, atol=0)


def test_a_loaded_model_is_exported_as_it_is(tmp_path):
    model = toy()
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras").export(tmp_path / "saved", verbose=False)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    expected = model.predict_on_batch(images)
    exported = tf.saved_model.load(tmp_path / "saved")
    found = exported.serve(images)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def run_python(script, *arguments):
    """Runs a script in a process of its own and returns what it prints as JSON."""
    here = pathlib.Path(__file__)
    places = (here.parents[2], here.parents[1], here.parent)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_another_process_loads_a_real_model(tmp_path):
    model, config = small()
    compile_model(model, config, steps_per_epoch=2)
    model.thresholds = {"mean": 0.3}
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    got = run_python(
        """
import sys, json, keras, numpy as np
import wsol_tf
keras.Sequential([keras.layers.Conv2D(1, 3), keras.layers.Rescaling(2.0)])
model = keras.models.load_model(sys.argv[1])
outputs = model.predict_on_batch(np.load(sys.argv[2]))
print(json.dumps([model.classes, model.thresholds, model.loss_weights,
                  outputs["logits"].tolist(), outputs["foreground_mask"].tolist()]))
""",
        tmp_path / "model.keras",
        tmp_path / "image.npy",
    )
    assert got[:3] == [list(CLASSES), {"mean": 0.3}, model.loss_weights]
    expected = model.predict_on_batch(image)
    np.testing.assert_allclose(got[3], expected["logits"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[4], expected["foreground_mask"], rtol=1e-5)


# Precision and devices


def test_mixed_bfloat16_trains_with_losses_in_float32():
    policy = keras.config.dtype_policy()
    model, _ = small(mixed_precision="mixed_bfloat16")
    assert keras.config.dtype_policy() == policy
    assert model.classifier.get_layer("classifier_conv1").compute_dtype == "bfloat16"
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 0])
    before = values(model.trainable_variables)
    logs = train_on(model, (images, labels))
    assert all(np.isfinite(value) for value in logs.values())
    after = values(model.trainable_variables)
    assert all(np.isfinite(array).all() for array in after)
    assert changed(before, model.trainable_variables)
    terms, _, _ = model.objective.terms(
        model, tf.constant(images), tf.constant(labels), training=True
    )
    assert {name: term.dtype for name, term in terms.items()} == dict.fromkeys(terms, tf.float32)
    # Close to what full precision gives, but for bas: it jumps from 1 to 0 where S_bg passes S.
    full, _ = small()
    full.set_weights(model.get_weights())
    full.compile(run_eagerly=True)
    expected = full.test_on_batch(images, labels, return_dict=True)
    got = model.test_on_batch(images, labels, return_dict=True)
    for name in COLUMNS - {"bas", "loss"}:
        assert float(got[name]) == pytest.approx(float(expected[name]), rel=0.05, abs=0.02), name


def train_mirrored(strategy):
    """Trains a toy on 3 batches of 8, twice; returns its history and weights."""
    with strategy.scope():
        model = toy()
        model.compile(
            wsol_tf.group_sgd(model.localizer, 0.01, localizer_multiplier=0.1),
            erased_statistics="batch",
            total_steps=6,
            **AT_ONCE,
        )
    images, labels = batch(size=24)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    history = model.fit(data, epochs=2, verbose=0).history
    return history, [v.numpy().tolist() for v in model.weights]


def test_two_replicas_train_as_one_device_does():
    """Losses and weights after 6 steps, to 1e-5; in its own process, for its two devices."""
    single, mirrored = run_python(
        """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_localization
strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
)
assert strategy.num_replicas_in_sync == 2
strategies = tf.distribute.get_strategy(), strategy
print(json.dumps([test_localization.train_mirrored(each) for each in strategies]))
"""
    )
    for name in COLUMNS:
        np.testing.assert_allclose(mirrored[0][name], single[0][name], rtol=1e-5, err_msg=name)
    for a, b in zip(single[1], mirrored[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# From a Config


def test_compile_model_carries_the_settings_over():
    config = wsol_tf.Config.recipe(
        "bas", epochs=4, lr_drops="0.5,0.75", learning_rate=0.1, ac_weight=2.5, momentum=0.8,
        l2=0.01, bias_multiplier=3.0, head_multiplier=7.0,
    )  # fmt: skip
    model = toy()
    compile_model(model, config, steps_per_epoch=10)
    assert model.total_steps == 40
    published = {name: getattr(config, f"{name}_weight") for name in losses.TERMS[1:]}
    assert model.loss_weights == {"cls": 1.0, **published, "background": 0.0}  # no such class
    assert (published["ac"], published["pseudo"]) == (2.5, 1.0)
    assert model.objective.settings == {name: getattr(config, name) for name in LOSS_SETTINGS}
    optimizer = model.optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.l2) == (0.8, True, 0.01)
    assert optimizer.multiplier("localizer_conv/bias") == 21.0  # x1 in this recipe
    rates = {}
    for step in (0, 19, 20, 29, 30, 39):
        optimizer.iterations.assign(step)
        rates[step] = float(optimizer.learning_rate)
    # An epoch has 10 steps; the drops come with the first step of the third and of the fourth.
    assert rates == pytest.approx({0: 0.1, 19: 0.1, 20: 0.01, 29: 0.01, 30: 0.001, 39: 0.001})


OLD_RATES = (  # what the schedule was before: drops with the step round(share * steps)
    (30, "0.667,0.933", 7), (100, "0.8", 187.5), (3, "0.01,0.5,0.99", 1), (9, "0.333,0.667", 10.4)
)  # fmt: skip


@pytest.mark.parametrize(("epochs", "drops", "steps_per_epoch"), OLD_RATES)
def test_rates_are_those_of_keras_with_the_boundaries_of_the_run(epochs, drops, steps_per_epoch):
    config = wsol_tf.Config.recipe(epochs=epochs, lr_drops=drops, learning_rate=0.003)
    model = toy()
    compile_model(model, config, steps_per_epoch)
    steps = int(np.ceil(epochs * steps_per_epoch))
    assert model.total_steps == steps
    boundaries = [round(share * steps) - 1 for share in config.lr_drop_shares]
    rates = [0.003 * 0.1**i for i in range(len(boundaries) + 1)]
    expected = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    for step in {0, steps - 1, *(b + d for b in boundaries for d in (-1, 0, 1, 2))} - {-1, -2}:
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == float(expected(step)), step


def test_without_drops_the_rate_is_a_number():
    model = toy()
    compile_model(model, wsol_tf.Config.recipe(lr_drops="", learning_rate=0.02))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


def test_a_built_model_is_compiled_and_says_what_was_loaded(caplog):
    config = wsol_tf.Config.recipe(
        width=0.25, input_size=64, head_width=8, extractor_weights="none", ac_weight=2.0
    )
    with caplog.at_level("INFO", "wsol_tf"):
        model = build_model(config, CLASSES)
    assert model.compiled and model.loss_weights["ac"] == 2.0
    assert model.total_steps is None
    assert model.loaded_weights == "mobilenet_v1: random weights"
    assert "Feature extractor mobilenet_v1: random weights." in caplog.text
    assert build_model(config, CLASSES, steps_per_epoch=3).total_steps == 90
    given = build_model(dataclasses.replace(config, input_size=32), CLASSES, backbone=toy_parts())
    assert given.feature_extractor.output.shape == (None, 8, 8, 8)
    assert given.predict(batch(size=2)[0], verbose=0)["logits"].shape == (2, 3)


def test_build_follows_the_config():
    model, config = small(output_stride=16, localizer="agnostic", map="topk", top_k=2)
    outputs = model.predict_on_batch(np.zeros((1, 64, 64, 3), np.uint8))
    assert outputs["localization_map"].shape == (1, 4, 4, 1)
    assert (model.map, model.top_k, model.resize_size) == ("topk", 2, config.crop_from)
    assert model.classes == CLASSES
