import keras
import numpy as np
import pytest
import tensorflow as tf

from wsol_tf.model import heads
from wsol_tf.model.optimizer import GroupSGD, group_sgd

GROUPS = {
    r"(classifier|localizer)_": 10.0,
    r"localizer_": 0.5,
    r"(bias|beta)$": 2.0,
}
# Weight -> the product of the factors above.
FACTORS = {
    "conv1/kernel": 1.0,
    "conv1/bias": 2.0,
    "conv1_bn/gamma": 1.0,
    "conv1_bn/beta": 2.0,
    "classifier_scores/kernel": 10.0,
    "classifier_scores/bias": 20.0,
    "localizer_conv/kernel": 5.0,
    "localizer_conv/bias": 10.0,
}


def variables(rng):
    made = []
    for path in FACTORS:
        layer, name = path.split("/")
        with keras.name_scope(layer):
            made.append(keras.Variable(rng.normal(size=(3, 2)).astype("float32"), name=name))
    assert [v.path for v in made] == list(FACTORS)
    return made


def reference(weights, gradients, factors, rates, l2, momentum, nesterov):
    """Steps as torch.optim.SGD takes them.

    weights [n, ...]; gradients [steps, n, ...]; rates [steps].
    """
    weights = np.array(weights, np.float64)
    velocity = np.zeros_like(weights)
    factors = np.array(factors).reshape(-1, 1, 1)
    for gradient, rate in zip(gradients, rates, strict=True):
        gradient = gradient + l2 * weights
        velocity = momentum * velocity + gradient
        step = gradient + momentum * velocity if nesterov else velocity
        weights = weights - rate * factors * step
    return weights


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_steps_equal_numpy(rng, nesterov, momentum, l2):
    weights = variables(rng)
    start = [v.numpy() for v in weights]
    gradients = rng.normal(size=(4, len(weights), 3, 2)).astype("float32")
    optimizer = GroupSGD(0.01, multipliers=GROUPS, l2=l2, momentum=momentum, nesterov=nesterov)
    for gradient in gradients:
        optimizer.apply(list(gradient), weights)
    expected = reference(
        start, gradients, list(FACTORS.values()), [0.01] * 4, l2, momentum, nesterov and momentum
    )
    np.testing.assert_allclose([v.numpy() for v in weights], expected, rtol=1e-5, atol=1e-6)


def test_without_groups_it_is_sgd(rng):
    ours, theirs = variables(rng), variables(np.random.default_rng(0))
    for optimizer, weights in (
        (GroupSGD(0.1, momentum=0.9, nesterov=True), ours),
        (keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), theirs),
    ):
        for step in range(3):
            optimizer.apply([v * 0.1 + step for v in weights], weights)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_schedule_is_multiplied_too(rng):
    weights = variables(rng)
    start = [v.numpy() for v in weights]
    gradients = rng.normal(size=(4, len(weights), 3, 2)).astype("float32")
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01])
    optimizer = GroupSGD(schedule, multipliers=GROUPS, l2=0.01, momentum=0.9, nesterov=True)
    for gradient in gradients:
        optimizer.apply(list(gradient), weights)
    # The rate drops after the step with number 1 (steps count from 0).
    expected = reference(
        start, gradients, list(FACTORS.values()), [0.1, 0.1, 0.01, 0.01], 0.01, 0.9, True
    )
    np.testing.assert_allclose([v.numpy() for v in weights], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("resumed_at", [1, 2, 3])
def test_a_step_after_a_drop_is_the_same_where_training_was_resumed(rng, resumed_at):
    """The drop's own step, the one before and the one after: traced anew, as in a new process."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01])
    gradients = rng.normal(size=(4, len(FACTORS), 3, 2)).astype("float32")

    def fresh():
        made = variables(np.random.default_rng(0))
        optimizer = GroupSGD(schedule, multipliers=GROUPS, l2=0.01, momentum=0.9, nesterov=True)
        optimizer.build(made)
        return optimizer, made, tf.function(lambda *grads: optimizer.apply(grads, made))

    first, through, apply = fresh()
    second, resumed, apply_resumed = fresh()
    for i, gradient in enumerate(gradients):
        if i == resumed_at:
            for old, new in zip(
                [*first.variables, *through], [*second.variables, *resumed], strict=True
            ):
                new.assign(old)
        apply(*gradient)
        if i >= resumed_at:
            apply_resumed(*gradient)
    for a, b in zip(through, resumed, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_velocity_is_keras_own_as_in_files_of_before(rng):
    """It holds the rate: minus rate times gradient after a step, divided by 10 with the rate."""
    weight = keras.Variable(np.zeros(2, "float32"), name="bias")
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.05])
    optimizer = GroupSGD(schedule, multipliers={"bias": 2.0}, momentum=0.5)
    gradient = np.array([1.0, -2.0], "float32")
    expected = 0.0
    for rate, change in ((0.5, 1), (0.5, 1), (0.05, 0.1), (0.05, 1)):
        optimizer.apply([gradient], [weight])
        expected = 0.5 * change * expected - rate * 2 * gradient
        np.testing.assert_allclose(optimizer.momentums[0].numpy(), expected, rtol=1e-6)


def test_l2_pulls_every_weight_without_a_gradient(rng):
    weights = variables(rng)
    start = [v.numpy() for v in weights]
    GroupSGD(0.01, multipliers=GROUPS, l2=0.5).apply([v * 0.0 for v in weights], weights)
    for v, before, factor in zip(weights, start, FACTORS.values(), strict=True):
        np.testing.assert_allclose(v.numpy(), before * (1 - 0.01 * factor * 0.5), rtol=1e-6)


def test_survives_its_config(rng):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.01, 0.001])
    first = GroupSGD(schedule, multipliers=GROUPS, l2=0.01, momentum=0.9, nesterov=True)
    second = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(first))
    assert isinstance(second, GroupSGD)
    assert (second.multipliers, second.l2, second.momentum, second.nesterov) == (
        GROUPS, 0.01, 0.9, True,
    )  # fmt: skip
    ours, theirs = variables(rng), variables(np.random.default_rng(0))
    for optimizer, weights in ((first, ours), (second, theirs)):
        for _ in range(4):
            optimizer.apply([v * 0.3 for v in weights], weights)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_groups_of_the_published_recipe():
    """x1 and x2 for the backbone, x10 and x20 for both heads, with BAS's 200 classes."""
    optimizer = group_sgd(heads.localizer((4, 4, 512), 200))
    expected = {
        **FACTORS,
        "localizer_conv/kernel": 10.0,
        "localizer_conv/bias": 20.0,
        "conv_pw_13_bn/beta": 2.0,
        "conv_dw_12/kernel": 1.0,
    }
    assert {path: optimizer.multiplier(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("features", "channels", "share"),
    [(128, 1, 0.1), (512, 1, 0.025), (128, 10, 0.1), (512, 40, 0.2), (512, 200, 1), (8, 1, 1)],
)
def test_the_localizers_rate_fits_its_classes_and_features(features, channels, share):
    localizer = heads.localizer((4, 4, features), channels)
    optimizer = group_sgd(localizer)
    assert optimizer.multiplier("localizer_conv/kernel") == pytest.approx(10 * share)
    assert group_sgd(localizer, localizer_multiplier=0.3).multiplier(
        "localizer_conv/kernel"
    ) == pytest.approx(3)
