"""What a run warns of. The figures are those of docs/studies/failure_signatures.md, rounded."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from helpers import AT_ONCE, toy
from wsol_tf.config import Config
from wsol_tf.model import losses
from wsol_tf.model.optimizer import group_sgd
from wsol_tf.training import loop
from wsol_tf.training.watch import Watch, advice

# The last epoch of a training that went well: 0.916 GT-known Loc.
GOOD = {
    "loss": 1.0, "cls": 0.09, "cls_fg": 0.15, "ae": 0.16, "ae_fg": 0.4, "pseudo": 0.08,
    "bas": 0.2, "ac": 0.32, "background": 0.0, "weighted_cls": 0.09, "weighted_cls_fg": 0.08,
    "weighted_ae": 0.016, "weighted_ae_fg": 0.04, "weighted_pseudo": 0.08, "weighted_bas": 0.2,
    "weighted_ac": 0.48, "weighted_background": 0.0, "top1_cls": 0.97, "ae_left": 0.61,
    "top1_cls_fg": 0.97, "ae_fg_left": 0.55, "pseudo_coverage": 0.74, "pseudo_foreground": 0.39,
}  # fmt: skip
EMPTY = {"ac": 0.0036, "weighted_ac": 0.054, "pseudo_foreground": 0.03}
FULL = {"ac": 0.95, "weighted_ac": 1.42, "pseudo_foreground": 1.0}
UNKNOWING = {"cls": 1.53, "top1_cls": 0.23}


def watching(settings=None, weights=None):
    """A Watch of a run with four classes, and what it says."""
    said: list[str] = []
    config = Config.recipe(**{"epochs": 8} | (settings or {}))
    callback = Watch(loop.State(), said.append, config=config, steps=3, chance=0.25)
    weights = dict.fromkeys(losses.TERMS, 0.25) | (weights or {})
    callback.set_model(SimpleNamespace(current_weights=lambda: weights, classes=("a",) * 4))
    return callback, said


def after_steps(figures, settings=None, steps=6, history=(), **options):
    """What is said after so many steps of the same figures."""
    callback, said = watching(settings, **options)
    callback.state.history.extend(history)
    for step in range(1, steps + 1):
        callback.state.step = step
        callback.on_train_batch_end(step, GOOD | figures)
    return said


def after_epochs(rows, settings=None):
    """What is said after epochs with these figures."""
    callback, said = watching(settings)
    for epoch, row in enumerate(rows):
        callback.state.history.append(GOOD | row)
        callback.on_epoch_end(epoch)
    return said


@pytest.mark.parametrize(
    "figures, settings, what, change",
    [
        (EMPTY, {"ac_weight": 15.0}, "less than 2 % of the picture (0.36%)",
         "Lower `ac_weight` (here 15, by default 1.5); otherwise raise `localization_start`"),
        (EMPTY, {"localization_start": 0.0, "localizer_multiplier": 1.0}, "collapsing to nothing",
         "Raise `localization_start` (here 0, by default 0.2) or lower `localizer_multiplier` "
         "(here 1, by default 0: automatic); otherwise lower `ac_weight` or raise `bas_weight`."),
        ({"ac": 0.0, "weighted_ac": 0.0}, {}, "less than 2 %", "Lower `ac_weight`, raise"),
        (FULL, {"ac_weight": 0.15}, "more than 90 % of the picture (95.00%)",
         "Raise `ac_weight` (here 0.15, by default 1.5); otherwise lower `cls_fg_weight`"),
        (FULL | {"weighted_pseudo": 2.4}, {"pseudo_weight": 30.0, "pseudo_balance": False},
         "pseudo weighs more than ac, and 100% of its labels say foreground: it spreads the mask",
         "Set `pseudo_balance=true`. Lower `pseudo_weight` (here 30, by default 3); otherwise"),
        (FULL | {"weighted_pseudo": 2.4}, {"pseudo_weight": 30.0},
         "more than 90 % of the picture (95.00%)", "Raise `ac_weight`"),
        (FULL | {"ac": 0.68, "weighted_ac": 0.1}, {"ac_weight": 0.15, "pseudo_balance": False},
         "(68% of the picture)", "true`. Raise `ac_weight` (here 0.15, by default 1.5); otherwise"),
        ({"ae_left": 0.006}, {"ae_threshold": 0.05}, "ae erases all of the score map",
         "Raise `ae_threshold` (here 0.05, by default 0.4)."),
        ({"ae_fg_left": 0.001}, {}, "ae_fg erases all of the mask", "Raise `ae_fg_threshold`."),
        ({"pseudo_coverage": 0.005, "pseudo_foreground": 0.0, "pseudo": 0.0, "weighted_pseudo": 0},
         {"pseudo_high": 1.0, "pseudo_low": 0.0}, "cover less than 1 % of the positions (0.50%)",
         "Lower `pseudo_high` (here 1, by default 0.5) or raise `pseudo_low` (here 0, by"),
    ],
)  # fmt: skip
def test_a_known_failure_is_said_once_with_the_setting(figures, settings, what, change):
    said = after_steps(figures, settings)
    assert len(said) == 1 and said[0].startswith("Warning, step 4: for 3 steps ")
    assert what in said[0] and change in said[0]
    assert after_steps(figures, settings, steps=3) == []  # not long enough


@pytest.mark.parametrize(
    "figures",
    [
        {},
        # Other runs whose masks were good: ac_weight 5, and a mask that is still broad when pseudo
        # begins; and one of the default weights whose pseudo labels were foreground alone.
        {"ac": 0.15, "weighted_ac": 0.75, "pseudo_foreground": 0.17},
        {"ac": 0.55, "weighted_ac": 0.82, "pseudo_foreground": 1.0, "weighted_pseudo": 0.0},
        {"ac": 0.65, "weighted_ac": 0.97, "pseudo_foreground": 1.0},
        # Terms that are off.
        {f"weighted_{name}": 0.0 for name in losses.TERMS}
        | {"ac": 0.0, "ae_left": 0.0, "ae_fg_left": 0.0},
    ],
)
def test_a_good_run_and_terms_that_are_off_give_no_warning(figures):
    assert after_steps(figures) == []


@pytest.mark.parametrize("collapsed", [EMPTY, FULL])
def test_of_a_collapsed_mask_erasing_is_not_blamed(collapsed):
    (said,) = after_steps(collapsed | {"ae_fg_left": 0.0})
    assert "collapsing" in said and "ae_fg_threshold" not in said


def test_labels_that_are_missing_are_no_failure_of_a_term_that_is_off():
    figures = {"pseudo_coverage": 0.0, "pseudo": 0.0, "weighted_pseudo": 0.0}
    assert after_steps(figures, weights={"pseudo": 0.0}) == []
    assert len(after_steps(figures, weights={"pseudo": 0.1})) == 1


def test_a_mask_that_collapses_behind_a_lost_classifier_is_the_classifiers_fault():
    (said,) = after_steps(EMPTY, {"learning_rate": 0.1}, history=[UNKNOWING])
    assert "It is learned from a classifier at chance. cls is 1.53, worse than that of no" in said
    assert "Lower `learning_rate` (here 0.1, by default 0.001)" in said


def test_a_failure_that_comes_and_goes_is_none():
    callback, said = watching()
    for step in range(20):
        callback.state.step = step
        callback.on_train_batch_end(step, GOOD | (EMPTY if step % 3 else {}))
    assert said == []


@pytest.mark.parametrize(
    "row, settings, epochs, change",
    [
        ({"cls": 1.38, "top1_cls": 0.26}, {"learning_rate": 1e-5}, 3,
         "Raise `learning_rate` (here 1e-05, by default 0.001) or raise `epochs`"),
        (UNKNOWING, {"learning_rate": 0.1}, 3, "no knowledge (1.39). Lower `learning_rate` (here"),
        ({"cls": 1.386, "top1_cls": 0.25}, {"final_relu": True}, 3, "set `final_relu=false`."),
        ({"cls": 1.4, "top1_cls": 0.22}, {"extractor_weights": "none"}, 3,
         "Pretrained `extractor_weights` help most. Raise `epochs`"),
        (UNKNOWING, {}, 2, ""),
        ({"cls": 1.0, "top1_cls": 0.3}, {}, 7, ""),
        ({"cls": 0.84, "top1_cls": 0.48}, {"head_width": 1}, 8,
         "a poor classifier. Raise `epochs` (here 8, by default 30) or raise `head_width` (here 1"),
        ({"cls": 0.8, "top1_cls": 0.63}, {}, 8, ""),
    ],
)  # fmt: skip
def test_a_classifier_that_learns_nothing_or_little_is_said(row, settings, epochs, change):
    said = after_epochs([row] * epochs, settings)
    assert len(said) == bool(change) and change in "".join(said)
    assert not said or "the most frequent class is in 25.0%" in said[0]


def test_a_classifier_at_chance_is_not_called_poor_as_well():
    assert len(after_epochs([UNKNOWING] * 7 + [{"top1_cls": 0.4}])) == 1


@pytest.mark.parametrize(
    "row, settings, said",
    [
        # BAS with its own settings, docs/studies/bas.md.
        ({"top1_cls": 0.96, "top1_cls_fg": 0.51}, {"localization_start": 0.0},
         "right in 96.0% of the training pictures, and in 51.0% by what the mask shows it: it "
         "hides the objects. Raise `localization_start` (here 0, by default 0.2); otherwise lower "
         "`ac_weight`"),
        ({"top1_cls": 0.99, "top1_cls_fg": 0.89}, {"localization_start": 0.0}, ""),
        # 0.25 is chance: of 0.45 above it, 0.33 are left, and 0.34
        ({"top1_cls": 0.7, "top1_cls_fg": 0.58}, {"ac_weight": 5.0}, "Lower `ac_weight` (here 5"),
        ({"top1_cls": 0.7, "top1_cls_fg": 0.59}, {"ac_weight": 5.0}, ""),
        ({"top1_cls_fg": 0.3, "weighted_cls_fg": 0.0}, {}, ""),  # it was not to show anything
    ],
)  # fmt: skip
def test_a_mask_that_hides_what_the_classifier_knows_is_said_in_the_end(row, settings, said):
    assert after_epochs([row] * 7, settings) == []
    heard = after_epochs([row] * 8, settings)
    assert len(heard) == bool(said) and said in "".join(heard)


def test_a_mask_that_collapsed_is_not_said_to_hide_as_well():
    callback, said = watching()
    for callback.state.step in range(1, 9):
        callback.on_train_batch_end(0, GOOD | EMPTY)
    callback.state.history.append(GOOD | EMPTY | {"top1_cls_fg": 0.25})
    callback.on_epoch_end(7)
    assert len(said) == 1 and "collapsing" in said[0]


def test_advice_names_first_what_is_far_from_its_default_on_that_side():
    changes = ("-ac_weight", "+bas_weight", "-ae_weight")
    assert (
        advice(Config(), *changes) == "Lower `ac_weight`, raise `bas_weight` or lower `ae_weight`."
    )
    config = Config(ac_weight=2.9, bas_weight=0.5, ae_weight=0.0)
    assert advice(config, *changes) == (
        "Raise `bas_weight` (here 0.5, by default 1); otherwise lower `ac_weight`."
    )
    assert advice(Config(ac_weight=3.0), "-ac_weight") == (
        "Lower `ac_weight` (here 3, by default 1.5)."
    )


def test_a_real_training_whose_area_weighs_too_much_is_told_so(rng):
    images = tf.constant(rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8))
    model = toy(channels=1)
    model.compile(
        group_sgd(model.localizer, 0.01),
        total_steps=30,
        run_eagerly=True,
        loss_weights={"ac": 50.0},
        **AT_ONCE,
    )
    state, said = loop.State(), []
    config = Config(ac_weight=50.0, epochs=99)
    loop.run(
        model,
        iter(tf.data.Dataset.from_tensors((images, tf.constant([0, 1, 2, 0]))).repeat()),
        tf.distribute.get_strategy(),
        state=state,
        epochs=1,
        steps_per_epoch=30,
        callbacks=[Watch(state, said.append, config=config, steps=10, chance=0.3)],
    )
    assert state.history[0]["ac"] < 0.2
    assert "less than 2 %" in said[0] and "Lower `ac_weight` (here 50, by default 1.5)" in said[0]
    assert state.warnings == [said[0].removeprefix("Warning, ")]
