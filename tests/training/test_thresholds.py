"""The threshold of a run, from maps and from boxes."""

import dataclasses

import numpy as np
import pytest

from helpers import tiny_model
from wsol_tf.data.images import BadImage
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import subset
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.scores import accumulate
from wsol_tf.training import thresholds
from wsol_tf.training.thresholds import choose_by_rule, choose_presence_threshold, spread


@pytest.fixture(scope="module")
def pictures():
    return open_dataset("shapes", "", "train", image_size=73, num_examples=12)


@pytest.fixture(scope="module")
def model(pictures):
    built = tiny_model(pictures.classes)
    built.compile(run_eagerly=True, total_steps=1)
    return built


def scored(model, source, positions):
    pairs = predict_pairs(model.predict_on_batch, source, positions, kinds=["mean"],
                          view=View(64, 73))  # fmt: skip
    return accumulate(pairs, ["mean"])["mean"]


def test_maps_of_all_pictures_and_boxes_of_held_out_ones_are_looked_at(model, pictures):
    chosen = choose_by_rule(model, pictures, [1, 5], "mean")
    everything, held = scored(model, pictures, range(12)), scored(model, pictures, [1, 5])
    assert chosen.by_rule["maps"]["mean"] == everything.choose_threshold_from_maps()
    assert chosen.by_rule["boxes"]["mean"] == held.choose_threshold_from_boxes()
    assert chosen.num_images == {"maps": 12, "boxes": 2}
    assert chosen.held.tolist() == [1, 5]
    low, median, high = chosen.quartiles
    suggested = [pair.suggested_threshold for pair in everything.pairs.values()]
    assert low <= median <= high and median == np.median(suggested)
    assert sum(value <= low for value in suggested) >= 3


def test_of_many_pictures_some_are_looked_at_held_out_ones_among_them(model, pictures, monkeypatch):
    monkeypatch.setattr(thresholds, "MAX_IMAGES", 4)
    (held,) = set(range(12)) - {*spread(pictures.labels, 4), *range(11)} or {11}
    chosen = choose_by_rule(model, pictures, [held], "mean")
    assert chosen.num_images["maps"] == len({*spread(pictures.labels, 4), held})
    assert chosen.held.tolist() == [held]


def test_where_no_held_out_picture_can_be_read_the_other_ones_serve(model, pictures):
    def read(position):
        if position == 3:
            raise BadImage("3", "broken")
        return pictures.read_example(position)

    source = dataclasses.replace(subset(pictures, range(12)), read_example=read)
    chosen = choose_by_rule(model, source, [3], "mean")
    assert chosen.num_images == {"maps": 11, "boxes": 11}
    assert chosen.held.tolist() == []
    assert choose_by_rule(model, pictures, [], "mean").num_images["boxes"] == 12


def test_without_boxes_only_the_maps_are_looked_at(model, pictures):
    def read(position):
        example = pictures.read_example(position)
        return example._replace(
            boxes=np.zeros((0, 4), np.float32), box_labels=np.zeros(0, np.int32)
        )

    blind = dataclasses.replace(pictures, read_example=read, has_boxes=False)
    chosen = choose_by_rule(model, blind, [1, 5], "mean")
    assert set(chosen.by_rule) == {"maps"}
    assert chosen.by_rule["maps"] == choose_by_rule(model, pictures, [1], "mean").by_rule["maps"]


def test_each_class_has_its_share_of_what_is_chosen():
    labels = [np.array([0])] * 60 + [np.array([1, 0])] * 30 + [np.array([2])] * 10
    chosen = spread(labels, 20)
    counts = np.bincount([labels[i][0] for i in chosen])
    assert counts.tolist() == [12, 6, 2]
    assert len(set(chosen.tolist())) == 20 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(spread(labels, 20), chosen)
    np.testing.assert_array_equal(spread(labels, 100), np.arange(100))
    # Not the first ones of each class: files lie in folders by the day they were taken.
    assert not set(chosen.tolist()) <= {*range(12), *range(60, 66), 90, 91}


# --- from which probability on a class counts as present -----------------------------------------


def test_presence_by_hand():
    probabilities = np.array([[0.5, 0.4, 0.1], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]], bool)
    # 0.4 and 0.3 are right, 0.2 and what is less are wrong: between 0.3 and 0.2 nothing is missed.
    assert choose_presence_threshold(np.log(probabilities), labels) == pytest.approx(0.25)
    # One of two at 0.3 and above is wrong: F1 is 8/9 with 0.4 alone, 8/10 with both.
    labels[2, 1] = False
    assert choose_presence_threshold(np.log(probabilities), labels) == pytest.approx(0.35)
    # A NaN plays no part, nor does how far logits are from 0.
    logits = np.concatenate([np.log(probabilities) + 1000, [[np.nan, 0, 0]]])
    labels = np.concatenate([labels, [[0, 1, 0]]]).astype(bool)
    assert choose_presence_threshold(logits, labels) == pytest.approx(0.35)
    assert choose_presence_threshold(logits[3:], labels[3:]) == 1.0


def test_pictures_of_one_class_have_no_second_one():
    probabilities = np.array([[0.8, 0.2], [0.45, 0.55], [0.9, 0.1]])
    chosen = choose_presence_threshold(np.log(probabilities), np.eye(2, dtype=bool)[[0, 1, 0]])
    assert chosen == pytest.approx((1 + 0.45) / 2)


def test_presence_is_chosen_on_held_out_pictures_alone(model, pictures):
    chosen = choose_by_rule(model, pictures, [1, 5], "mean")
    view = View(64, 73)
    pairs = {pair.position: pair for pair in predict_pairs(
        model.predict_on_batch, pictures, range(12), kinds=["mean"], view=view)}  # fmt: skip
    for positions, found in (
        ([1, 5], chosen),
        (range(12), choose_by_rule(model, pictures, [], "mean")),
    ):
        logits = np.stack([pairs[i].logits for i in positions])
        present = np.zeros(logits.shape, bool)
        present[np.arange(len(logits)), [pairs[i].label for i in positions]] = True
        assert found.presence == choose_presence_threshold(logits, present)


def test_pictures_without_any_object_say_nothing_of_a_threshold(model, pictures):
    empty = pictures.classes[0]
    (label,) = pictures.labels[0]
    assert label == 0
    with_empty = tiny_model(pictures.classes, background_class=empty)
    with_empty.compile(run_eagerly=True, total_steps=1)
    others = [i for i, own in enumerate(pictures.labels) if 0 not in own]
    chosen = choose_by_rule(with_empty, pictures, [0, others[0]], "mean")
    expected = choose_by_rule(model, subset(pictures, others), [0], "mean")
    assert chosen.by_rule == expected.by_rule and chosen.quartiles == expected.quartiles
    assert chosen.num_images == {"maps": len(others), "boxes": 1}
    assert chosen.held.tolist() == [0, others[0]]  # the first is scored all the same
