"""The table of terms: what derives from it, and what it refuses. Values are in test_losses.py."""

import dataclasses
import inspect

import numpy as np
import pytest
import tensorflow as tf

from helpers import AT_ONCE, toy
from wsol_tf import config
from wsol_tf.model import losses, objective
from wsol_tf.model.objective import LOSS_SETTINGS, LOSS_TERMS, LOSS_WEIGHTS, OBSERVED, Objective
from wsol_tf.model.refinement import refine_batch
from wsol_tf.model.schedule import RateDrops, Span


def test_the_table_has_every_term_that_has_a_weight():
    assert losses.TERMS == ("cls", "cls_fg", "ae", "ae_fg", "pseudo", "bas", "ac", "background")
    assert tuple(term.name for term in LOSS_TERMS) == losses.TERMS
    assert OBSERVED == (
        "top1_cls_fg", "ae_left", "ae_fg_left", "pseudo_coverage", "pseudo_foreground",
    )  # fmt: skip


def test_weights_and_settings_are_the_defaults_of_config():
    defaults = config.Config()
    assert {"cls": 1.0} | {
        name: getattr(defaults, f"{name}_weight") for name in losses.TERMS[1:]
    } == LOSS_WEIGHTS
    assert {name: getattr(defaults, name) for name in LOSS_SETTINGS} == LOSS_SETTINGS
    assert set(LOSS_SETTINGS) == {
        "ae_threshold", "ae_fg_threshold", "pseudo_high", "pseudo_low", "absolute_thresholds",
        "localization_start", "erasing_start", "pseudo_start", "warmup", "erased_statistics",
        "erased_share", "pseudo_target", "pseudo_balance", "activation_form",
    }  # fmt: skip


@pytest.mark.parametrize("term", [*LOSS_TERMS, *objective.OBSERVATIONS], ids=lambda x: x.name)
def test_arguments_are_given_in_the_order_of_the_function(term):
    """A row that swapped two arguments would compute another loss without an error."""
    taken = list(inspect.signature(term.function).parameters)
    for given, parameter in zip(term.arguments.split(), taken, strict=False):
        known = {
            "mask": ("foreground_mask", "maps"),
            "class_map": ("maps",),
            "shown": ("foreground_mask",),
            "absolute_thresholds": ("absolute",),
            "pseudo_high": ("high",),
            "pseudo_low": ("low",),
            "pseudo_balance": ("balance",),
            "ae_threshold": ("threshold",),
            "ae_fg_threshold": ("threshold",),
        }.get(given, (given,))
        assert parameter in known, f"{term.name}: {given} is given for {parameter}"


def test_a_new_loss_is_a_row_and_a_function(monkeypatch):
    def darkness(mask, low):
        return low + 0 * losses.area_constraint(mask)

    row = objective.Term("darkness", darkness, "mask pseudo_low", start="pseudo_start")
    monkeypatch.setattr(objective, "LOSS_TERMS", (*LOSS_TERMS, row))
    monkeypatch.setitem(LOSS_WEIGHTS, "darkness", 3.0)
    model = toy()
    own = Objective(settings={"pseudo_low": 0.25})
    images = np.zeros((2, 32, 32, 3), np.uint8)
    values, _, _ = own.terms(model, images, np.array([0, 1]), training=False)
    np.testing.assert_array_equal(values["darkness"], [0.25, 0.25])
    assert [float(own.weights_at(x)["darkness"]) for x in (0.49, 0.5)] == [0.0, 3.0]


@pytest.mark.parametrize(
    ("weights", "settings", "message"),
    [
        ({"erasing": 1}, {}, "Unknown loss 'erasing'. Legal: cls, cls_fg, ae, ae_fg, pseudo, bas"),
        ({}, {"warm_up": 1}, "Unknown setting 'warm_up'. Legal: ae_threshold, "),
        ({"ae": -1}, {}, "`ae_weight` must be at least 0. Received: -1."),
        ({}, {"warmup": 2}, r"`warmup` must lie in \[0, 1\]. Received: 2."),
        ({}, {"pseudo_low": 0.9}, "`pseudo_low` must be smaller than `pseudo_high`"),
        ({}, {"erased_statistics": "none"}, "Unknown `erased_statistics` 'none'. Legal: batch, mo"),
        ({}, {"activation_form": "sum"}, "Unknown `activation_form` 'sum'. Legal: mean_of_relu, r"),
    ],
)
def test_what_cant_work_is_refused(weights, settings, message):
    with pytest.raises(ValueError, match=message):
        Objective(weights, settings)


def test_a_compile_makes_no_config(monkeypatch):
    monkeypatch.setattr(config.Config, "__post_init__", lambda self: pytest.fail("a Config"))
    toy().compile(pseudo_high=0.7, loss_weights={"ac": 2.0})


def test_progress_is_the_share_of_the_spans_steps():
    span = Span(steps=8, first=4)
    assert [float(span.progress(np.int64(step))) for step in (4, 6, 12, 14)] == [0, 0.25, 1, 1.25]
    span = Span()
    with pytest.raises(ValueError, match="pass total_steps to compile, or call fit"):
        span.progress(np.int64(0))
    span.begin(iterations=7, steps_per_epoch=3, epochs=5, initial_epoch=2)
    assert dataclasses.asdict(span) == {"steps": 15, "first": 1, "fixed": False}


def test_drops_follow_the_span_and_survive_their_config():
    rates = RateDrops(0.1, (0.5, 0.75), Span(steps=4, first=10))
    again = RateDrops.from_config(rates.get_config())
    for schedule in (rates, again):
        got = [float(schedule(np.int64(step))) for step in (0, 10, 11, 12, 13, 14)]
        assert got == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.001, 0.001])
    assert float(RateDrops(0.1, (0.5,))(np.int64(99))) == pytest.approx(0.1)


@pytest.mark.parametrize(("share", "taken"), [(0.5, 2), (0.3, 2), (0.25, 1)])
@pytest.mark.parametrize("run", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_a_share_of_the_batch_in_the_erased_pass_counts_for_all_of_it(run, share, taken):
    model = toy()
    model.trainable = False  # each picture by itself: no statistics of the batch
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 0])

    def bas(training, **settings):
        own = Objective(settings=settings)
        function = lambda *data: own.terms(model, *data, training=training)[0]["bas"]  # noqa: E731
        return np.asarray(run(function)(tf.constant(images), tf.constant(labels)))

    expected = bas(True)
    assert (expected > 0).all()
    found = bas(True, erased_share=share)
    np.testing.assert_allclose(found[:taken], expected[:taken] * 4 / taken, rtol=1e-5)
    assert not found[taken:].any()
    np.testing.assert_array_equal(bas(False, erased_share=share), bas(False))


def test_pseudo_labels_come_from_the_mask_or_from_what_the_picture_makes_of_it():
    model = toy()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2])
    thresholds = {"pseudo_high": 0.5, "pseudo_low": 0.3}
    plain = {"pseudo_balance": False, **thresholds}
    features = model.feature_extractor(images, training=False)
    mask = losses.of_class(model.localizer(features), labels)
    refined = np.asarray(refine_batch(mask, images))
    own = Objective(settings={"pseudo_target": "guided", **plain})
    values, _, observed = own.terms(model, images, labels, training=False)
    target, weight = refined > 0.5, (refined > 0.5) | (refined < 0.3)
    expected = (weight * np.abs(mask - target)).sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(values["pseudo"], expected, rtol=1e-5)
    foreground, background = target.sum((1, 2)), (refined < 0.3).sum((1, 2))
    share = np.minimum(1, background / foreground)[:, None, None]
    assert (share < 1).any()
    own = Objective(settings={"pseudo_target": "guided", **thresholds})
    balanced, _, _ = own.terms(model, images, labels, training=False)
    expected = (np.where(target, share, weight) * np.abs(mask - target)).sum((1, 2))
    expected /= weight.sum((1, 2))
    np.testing.assert_allclose(balanced["pseudo"], expected, rtol=1e-5)
    np.testing.assert_allclose(observed["pseudo_coverage"], weight.mean((1, 2)), rtol=1e-6)
    own = Objective(settings={"pseudo_target": "mask", **plain})
    plain, _, _ = own.terms(model, images, labels, training=False)
    foreground = target.sum((1, 2)) / weight.sum((1, 2))
    np.testing.assert_allclose(observed["pseudo_foreground"], foreground, rtol=1e-6)
    expected = losses.pseudo_label(mask, 0.5, 0.3)
    np.testing.assert_allclose(plain["pseudo"], expected, rtol=1e-5)
    assert np.abs(np.subtract(plain["pseudo"], values["pseudo"])).max() > 1e-3


def test_no_gradient_flows_through_a_refined_target():
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    mask = tf.Variable(np.random.default_rng(2).random((2, 8, 8)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        refined = refine_batch(mask, images)
        value = losses.pseudo_label(mask, 0.5, 0.3, False, refined)
    target, weight = refined > 0.5, (refined > 0.5) | (refined < 0.3)
    count = np.asarray(weight).sum((1, 2), keepdims=True)
    expected = np.where(weight, np.sign(mask - np.asarray(target, np.float32)), 0) / count
    np.testing.assert_allclose(tape.gradient(value, mask), expected, rtol=1e-5)


def test_the_erased_pass_is_left_out_until_its_term_sets_in():
    """The gradients are those of a pass whose weight is 0, and of a full one afterwards."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    labels = np.array([0, 1])
    own = Objective(span=Span(steps=10, fixed=True))

    def step_of(model, leave_out):
        @tf.function
        def step(progress):
            weights = own.weights_at(progress)
            with tf.GradientTape() as tape:
                values, _, _ = own.terms(
                    model, images, labels, training=True, weights=weights if leave_out else None
                )
                loss = sum(weights[name] * tf.reduce_mean(value) for name, value in values.items())
            return values["bas"], tape.gradient(loss, model.trainable_variables)

        return step

    # Each pass moves the averages that the erased pass uses, so there are two equal models.
    sparing, whole = step_of(toy(), True), step_of(toy(), False)
    for progress, sees_it in ((0.1, False), (0.3, True)):
        bas, gradients = sparing(tf.constant(progress))
        expected_bas, expected = whole(tf.constant(progress))
        assert np.any(expected_bas) and np.any(bas) == sees_it
        np.testing.assert_allclose(bas, expected_bas if sees_it else np.zeros(2), rtol=1e-5)
        for gradient, other in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(gradient, other, rtol=1e-5, atol=1e-7)


def test_pictures_without_any_object_learn_their_class_and_an_empty_mask_alone():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    labels = np.array([0, 2, 1, 2])
    plain, _, _ = Objective().terms(toy(), images, labels, training=False)
    own, _, _ = Objective().terms(toy(background_class="emu"), images, labels, training=False)
    assert list(plain) == list(own) == list(losses.TERMS)
    np.testing.assert_array_equal(plain["background"], np.zeros(4))
    np.testing.assert_array_equal(own["cls"], plain["cls"])
    for name in ("cls_fg", "ae", "ae_fg", "pseudo", "bas", "ac"):
        # The mean over the batch is that over the two pictures with an object.
        np.testing.assert_allclose(own[name], plain[name] * np.array([2.0, 0, 2, 0]), rtol=1e-6)
        assert np.asarray(plain[name]).all(), name
    maps = toy()(images)["localization_map"]
    np.testing.assert_allclose(
        own["background"], losses.background(maps) * np.array([0.0, 2, 0, 2]), rtol=1e-6
    )


def test_where_no_object_is_the_mask_need_not_show_one():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    seen = np.unique(np.argmax(toy(1)(images)["logits"], axis=1))
    assert seen in (1, 2)  # one class in all of them, and not the first
    labels = np.repeat([*seen, *(3 - seen)], 2)
    for background, expected in ((None, np.zeros(4)), (toy().classes[seen[0]], labels == seen)):
        model = toy(1, background_class=background)
        kernel, bias = model.localizer.get_weights()
        model.localizer.set_weights([0 * kernel, bias - 200])  # an empty mask: all scores are 0
        _, _, observed = Objective().terms(model, images, labels, training=False)
        np.testing.assert_array_equal(observed["top1_cls_fg"], expected)


@pytest.mark.parametrize("label", [0, 2])
def test_a_batch_of_one_kind_has_zeros_and_no_nan_in_the_terms_of_the_other(label):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    model = toy(background_class="emu")
    values, _, _ = Objective().terms(model, images, np.full(2, label), training=True)
    silent = ("background",) if label == 0 else ("cls_fg", "ae", "ae_fg", "pseudo", "bas", "ac")
    for name in losses.TERMS:
        assert np.isfinite(values[name]).all()
        assert (name in silent) == (not np.asarray(values[name]).any()), name


@pytest.mark.parametrize("channels", [1, 3])
def test_steps_on_pictures_without_any_object_empty_every_map(channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    model = toy(channels, background_class="emu")
    before = model.localizer(model.feature_extractor(images)).numpy().mean((0, 1, 2))
    model.compile(total_steps=10, **AT_ONCE, run_eagerly=True)
    for _ in range(5):
        model.train_on_batch(images, np.full(8, 2))
    after = model.localizer(model.feature_extractor(images)).numpy().mean((0, 1, 2))
    assert (after < before).all()


def test_the_form_of_the_activation_is_a_switch_for_both_passes():
    model = toy()
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(16) % 3
    features = model.feature_extractor(images, training=False)
    mask = losses.of_class(model.localizer(features), labels)
    passes = [features, features * (1 - mask[..., None])]
    own = [np.asarray(losses.of_class(model.classifier(x), labels)) for x in passes]
    expected = {
        "mean_of_relu": [np.maximum(scores, 0).mean((1, 2)) for scores in own],
        "relu_of_mean": [np.maximum(scores.mean((1, 2)), 0) for scores in own],
    }
    got = {}
    for form, (activation, background) in expected.items():
        values, _, _ = Objective(settings={"activation_form": form}).terms(
            model, images, labels, training=False
        )
        got[form] = np.asarray(values["bas"])
        ratio = background / (activation + 1e-8)
        expected_bas = np.where(background < activation, ratio, 0)
        np.testing.assert_allclose(got[form], expected_bas, rtol=1e-4, atol=1e-6)
        assert (got[form] > 0).any()
    assert np.abs(got["mean_of_relu"] - got["relu_of_mean"]).max() > 0.01
