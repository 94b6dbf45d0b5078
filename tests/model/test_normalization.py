"""Batch normalization in one operation against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from wsol_tf.model.normalization import BatchNormalization

SHAPE = (4, 5, 3, 7)


def layer(kind, shape=SHAPE, **settings):
    """A layer whose weights and averages all differ from their initial values."""
    made = kind(momentum=0.8, epsilon=1e-3, name="norm", **settings)
    made.build(shape)
    rng = np.random.default_rng(5)
    made.set_weights([rng.uniform(0.5, 2, w.shape) for w in made.weights])
    return made


def inputs(shape=SHAPE, dtype="float32"):
    values = np.random.default_rng(3).normal(2.0, 3.0, shape)
    return tf.constant(values, dtype), tf.constant(np.cos(np.arange(values.size)).reshape(shape))


def step(norm, x, towards, run=lambda function: function):
    """Outputs of a training step, gradients of inputs and weights, and averages after it."""

    def passed(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True)
            value = tf.reduce_sum(tf.cast(y, "float32") * tf.cast(towards, "float32"))
        weights = [v.value for v in norm.trainable_variables]
        return y, *tape.gradient(value, [x, *weights])

    found = run(passed)(x)
    return [np.asarray(tf.cast(a, "float32")) for a in (*found, *norm.non_trainable_variables)]


def operations(norm, x, training=True):
    graph = tf.function(lambda x: norm(x, training=training)).get_concrete_function(x).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize(
    "run",
    [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)],
    ids=["eager", "graph", "XLA"],
)
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False, "axis": 3}], ids=str)
def test_a_training_step_equals_keras(run, settings):
    x, towards = inputs()
    ours = step(layer(BatchNormalization, **settings), x, towards, run)
    theirs = step(layer(keras.layers.BatchNormalization, **settings), x, towards)
    assert len(ours) == 6 - len(settings.keys() & {"scale", "center"})
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_averages_by_hand():
    """Without Bessel's correction: the variance of 1, 3 is 1, not 2."""
    norm = BatchNormalization(momentum=0.75)
    norm(tf.reshape([1.0, 3.0], (2, 1, 1, 1)), training=True)
    assert float(norm.moving_mean[0]) == pytest.approx(0.25 * 2)
    assert float(norm.moving_variance[0]) == pytest.approx(0.75 * 1 + 0.25 * 1)


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 2**-7), ("float16", 2**-10)])
def test_a_step_in_half_precision_equals_keras_to_its_rounding(dtype, bound):
    (x, towards), policy = inputs(dtype=dtype), f"mixed_{dtype}"
    ours = layer(BatchNormalization, dtype=policy)
    theirs = layer(keras.layers.BatchNormalization, dtype=policy)
    assert ours(x, training=True).dtype == dtype
    theirs(x, training=True)
    for one, other in zip(step(ours, x, towards), step(theirs, x, towards), strict=True):
        np.testing.assert_allclose(one, other, rtol=2 * bound, atol=2 * bound * abs(other).max())


def test_one_operation_does_it_in_training_alone():
    x, _ = inputs()
    norm = layer(BatchNormalization)
    assert "FusedBatchNormV3" in operations(norm, x)
    assert "FusedBatchNormV3" not in operations(norm, x, training=False)
    norm.trainable = False
    assert "FusedBatchNormV3" not in operations(norm, x)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((4, 7), {}),
        (SHAPE, {"axis": 1}),
        (SHAPE, {"renorm": True}),
        (SHAPE, {"dtype": "float64"}),
    ],
    ids=str,
)
def test_what_the_operation_cannot_do_is_left_to_keras(shape, settings):
    x, towards = inputs(shape, settings.get("dtype", "float32"))
    norm = layer(BatchNormalization, shape, **settings)
    assert "FusedBatchNormV3" not in operations(norm, x)
    theirs = layer(keras.layers.BatchNormalization, shape, **settings)
    for one, other in zip(step(norm, x, towards), step(theirs, x, towards), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_call_without_state_leaves_the_averages():
    x, _ = inputs()
    norm = layer(BatchNormalization)
    before = norm.get_weights()
    y, (mean, _) = norm.stateless_call(
        [v.value for v in norm.trainable_variables],
        [v.value for v in norm.non_trainable_variables],
        x,
        training=True,
    )
    np.testing.assert_array_equal(before, norm.get_weights())
    np.testing.assert_allclose(y, norm(x, training=True), rtol=1e-6)
    np.testing.assert_allclose(mean, norm.moving_mean, rtol=1e-6)


def test_a_model_with_it_loads_and_gives_the_same(tmp_path):
    image = keras.Input(SHAPE[1:])
    model = keras.Model(image, BatchNormalization(name="norm")(image))
    x, _ = inputs()
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("norm")) is BatchNormalization
    np.testing.assert_array_equal(loaded(x), model(x))
