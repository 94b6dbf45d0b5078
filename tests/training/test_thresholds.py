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
from wsol_tf.evaluation.score import accumulate
from wsol_tf.training import thresholds
from wsol_tf.training.thresholds import choose_by_rule, spread


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
