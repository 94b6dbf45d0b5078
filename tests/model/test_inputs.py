"""What people hand to a Localization by mistake: illegal labels, scaled pictures, odd parts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import CLASSES, toy
from wsol_tf.model import fit_data, inputs

IMAGES = np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)
RANGE = r"Labels must lie in 0\.\.2, the ids of the 3 classes\. Received: {} to {}\."


class Batches(keras.utils.PyDataset):
    """Two batches of three."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels, self.ends = images, labels, 0

    def __getitem__(self, index):
        part = slice(3 * index, 3 * index + 3)
        return self.images[part], self.labels[part]

    @property
    def num_batches(self):
        return 2

    def on_epoch_end(self):
        self.ends += 1


def generator(images, labels):
    for start in (0, 3):
        yield images[start : start + 3], labels[start : start + 3]


KINDS = {
    "arrays": lambda images, labels: {"x": images, "y": labels, "batch_size": 3},
    "a tf.data set": lambda images, labels: {
        "x": tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
    },
    "a PyDataset": lambda images, labels: {"x": Batches(images, labels)},
    "a generator": lambda images, labels: {"x": generator(images, labels), "steps_per_epoch": 2},
}


@pytest.fixture(scope="module")
def model():
    built = toy()
    built.compile()
    return built


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels, low, high", [([0, 1, 2, 0, 1, 3], 0, 3), ([0, 1, -1] * 2, -1, 1)])
def test_labels_that_are_no_classes_are_refused_with_the_range(kind, labels, low, high, model):
    with pytest.raises(ValueError) as refused:
        model.fit(**KINDS[kind](IMAGES, np.array(labels)), verbose=0)
    part = labels[3:] if kind != "arrays" and 3 in labels else labels
    assert str(refused.value) == (
        f"Labels must lie in 0..2, the ids of the 3 classes. Received: {min(part)} to {max(part)}."
    )
    assert (min(labels), max(labels)) == (low, high)


@pytest.mark.parametrize("kind", ["arrays", "a tf.data set"])
def test_labels_of_validation_and_evaluation_are_looked_at_too(kind, model):
    wrong = KINDS[kind](IMAGES, np.array([0, 1, 2, 0, 1, 7], np.uint8))
    right = KINDS[kind](IMAGES, np.array([0, 1, 2, 0, 1, 2], np.uint8))
    with pytest.raises(ValueError, match=RANGE.format(0, 7)):
        model.evaluate(**wrong, verbose=0)
    given = wrong["x"] if "y" not in wrong else (wrong["x"], wrong["y"])
    with pytest.raises(ValueError, match=RANGE.format(0, 7)):
        model.fit(**right, validation_data=given, verbose=0)
    model.evaluate(**right, verbose=0)


def test_a_step_by_itself_looks_at_its_labels(model):
    with pytest.raises(ValueError, match=RANGE.format(1, 3)):
        model.train_step((tf.constant(IMAGES[:2]), tf.constant([1, 3])))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_are_divided_by_255_are_warned_of_once(kind, model):
    labels = np.array([0, 1, 2] * 2)
    model.run_eagerly = True  # pictures are looked at before any step; four graphs take longer
    with pytest.warns(UserWarning, match=r"lie in 0\.\d+\.\.1\..* raw, in 0..255") as warned:
        model.fit(**KINDS[kind](np.clip(IMAGES / 255, 0.01, 1), labels), verbose=0)
    assert len([each for each in warned if "0..255" in str(each.message)]) == 1
    model.fit(**KINDS[kind](IMAGES, labels), verbose=0)  # warnings are errors here
    model.fit(**KINDS[kind](np.zeros_like(IMAGES), labels), verbose=0)
    model.fit(**KINDS[kind]((IMAGES > 128).astype(np.uint8), labels), verbose=0)


def test_what_is_checked_is_what_was_given():
    labels = np.array([0, 1, 2] * 2)
    allowed = np.ones((6, 3), bool)
    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, labels, allowed)).batch(4)
    checked = fit_data.checked(dataset, None, 3)
    assert checked.element_spec == dataset.element_spec
    assert checked.cardinality() == dataset.cardinality() == 2
    for ours, theirs in zip(checked, dataset, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(part, other)
    batches = Batches(IMAGES, labels)
    wrapped = fit_data.checked(batches, None, 3)
    wrapped.on_epoch_end()
    assert batches.ends == 1 and wrapped.num_batches == 2
    np.testing.assert_array_equal(wrapped[1][0], IMAGES[3:])
    only_images = tf.data.Dataset.from_tensor_slices(IMAGES)
    assert fit_data.checked(only_images, None, 3) is only_images


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"thresholds": {"mean": 1.5}}, "threshold of map 'mean' must be .*Received: 1.5"),
        ({"thresholds": {"mean": -0.1}}, "Received: -0.1"),
        ({"thresholds": {"mean": float("nan")}}, "Received: nan"),
        ({"thresholds": {"mean": None}}, "Received: None"),
        ({"thresholds": {"mean": "0.3"}}, "Received: '0.3'"),
        ({"thresholds": {"mean": True}}, "Received: True"),
        ({"thresholds": {"meen": 0.3}}, "Unknown map 'meen'"),
        ({"thresholds": [0.3]}, "thresholds are a dict"),
        ({"map": "meen"}, "Unknown map 'meen'"),
        ({"map": None}, "Unknown map 'None'"),
        ({"top_k": 0}, "`top_k` must be at least 1. Received: 0."),
        ({"top_k": 2.5}, "`top_k` must be at least 1. Received: 2.5."),
        ({"top_k": "5"}, "Received: '5'"),
        ({"top_k": None}, "Received: None"),
        ({"resize_size": -3}, "`resize_size` must be at least 1. Received: -3"),
        ({"resize_size": "256"}, "Received: '256'"),
    ],
)
def test_parts_that_a_model_cant_work_with_are_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        toy(**parts)


def test_parts_that_fit_are_taken():
    built = toy(thresholds={"mean": np.float32(0.5), "cam": "otsu", "true": 0, "topk": 1})
    assert built.thresholds == {"mean": 0.5, "cam": "otsu", "true": 0, "topk": 1}
    assert built.classes == CLASSES


@pytest.mark.parametrize("classes", ["cat", None, 3, ["cat", None], ["cat", 3], {"cat": 0}])
def test_classes_are_a_list_of_names(classes):
    with pytest.raises(ValueError, match="classes are a list of names, each once"):
        inputs.class_names(classes)
