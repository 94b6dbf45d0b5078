"""Many trainings at once: `jax.vmap` over the trainings, `jax.lax.scan` over their steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jax_trainings.crops import random_crops
from jax_trainings.network import NAMES, build_network, total_loss
from jax_trainings.plan import numbers_of
from wsol_tf.config import Config
from wsol_tf.model import alignment
from wsol_tf.model.objective import LOSS_WEIGHTS, Objective
from wsol_tf.model.schedule import Span

SETTINGS_OF_RAMPS = ("localization_start", "erasing_start", "pseudo_start", "warmup")


def schedule_of(config, own, steps):
    """Computes the learning rate and the weight of each term at every step.

    Args:
        config: settings of a training.
        own: its experimental settings, name -> number.
        steps: how many steps there are.

    Returns:
        (rates float32 `[steps]`, dict name -> weights float32 `[steps]`).
    """
    step = np.arange(steps)
    drops = sum(step >= round(share * steps) for share in config.lr_drop_shares)
    rates = config.learning_rate * 0.1 ** np.broadcast_to(drops, steps)
    settings = {name: getattr(config, name) for name in SETTINGS_OF_RAMPS}
    objective = Objective(dict.fromkeys(LOSS_WEIGHTS, 1.0), settings, Span(steps))
    ramps = objective.weights_at(step.astype(np.float32) / steps)
    ramps |= {"batch_area": ramps["ac"], "binary": ramps["ae"]}
    full = {"cls": 1.0, "batch_area": own["batch_area"], "binary": own["binary"]}
    full |= {name: getattr(config, f"{name}_weight") for name in NAMES if name not in full}
    weights = {name: full[name] * np.broadcast_to(ramps[name], steps) for name in NAMES}
    as_float = functools.partial(np.asarray, dtype=np.float32)
    return as_float(rates), {name: as_float(value) for name, value in weights.items()}


def order_of(samples, steps, batch_size, seed):
    """The samples of each step, in the order of `wsol_tf.data.stream.TrainingStream`.

    Args:
        samples: int `[num_samples, 2]`, (position, label).
        steps: how many steps.
        batch_size: samples of a step.
        seed: that of the training.

    Returns:
        int32 `[steps, batch_size, 2]`.
    """
    count = steps * batch_size
    epochs = range(-(-count // len(samples)))
    order = [np.random.default_rng([seed, epoch]).permutation(len(samples)) for epoch in epochs]
    return samples[np.concatenate(order)[:count]].reshape(steps, batch_size, 2).astype(np.int32)


def stepped(weights, momenta, gradients, rate, settings):
    """One step of `wsol_tf.model.optimizer.GroupSGD`, written out: Nesterov momentum, L2, clipping.

    Args:
        weights, momenta, gradients: lists of arrays.
        rate: learning rate at this step.
        settings: `momentum`, `l2`, `clip_norm` (0: none), and `factors` of the rate, `[weights]`.

    Returns:
        (weights, momenta).
    """
    norm = jnp.sqrt(sum(jnp.sum(gradient**2) for gradient in gradients))
    most, kept = settings["clip_norm"], settings["momentum"]
    clip = jnp.where(most > 0, jnp.minimum(1.0, most / jnp.maximum(norm, 1e-12)), 1.0)
    pulls = [clip * g + settings["l2"] * w for g, w in zip(gradients, weights, strict=True)]
    momenta = [kept * m + g for m, g in zip(momenta, pulls, strict=True)]
    rates = [rate * settings["factors"][i] for i in range(len(weights))]
    ahead = [g + kept * m for g, m in zip(pulls, momenta, strict=True)]
    return [w - r * g for w, r, g in zip(weights, rates, ahead, strict=True)], momenta


class Trainer:
    """Trains several networks together on the pictures of one data set.

    Args:
        config: the settings that all trainings share.
        pictures: uint8 `[pictures, side, side, 3]`.
        present: bool `[pictures, classes]`.
        guided: whether the pseudo labels of any training come from the refined mask.
    """

    def __init__(self, config: Config, pictures, present, guided):
        self.config, self.guided = config, guided
        # Arguments of what is compiled: as constants they would be part of the program.
        self.data = {"pictures": jnp.asarray(pictures), "present": jnp.asarray(present)}
        self.num_classes = present.shape[1]
        self.networks: dict = {}  # by seed: the weights that trainings start from
        self.network = self._start_of(config.seed)
        # Steps come before trainings in what a scan reads and returns.
        run = jax.vmap(self._run_one, in_axes=(0, 1, 0, None), out_axes=(0, 1))
        self._run = jax.jit(run, donate_argnums=0)
        self._predict = jax.jit(jax.vmap(self._predict_one, in_axes=(0, 0, 0, None)))
        self._map_of_one = jax.jit(self._map_of)

    @property
    def loaded(self):
        """A sentence on the weights that the feature extractor starts from."""
        return self.network.loaded

    def _start_of(self, seed):
        if seed not in self.networks:
            self.networks[seed] = build_network(self.config, self.num_classes, seed)
        return self.networks[seed]

    def train(self, trainings, steps):
        """Trains from the beginning to the end.

        Args:
            trainings: `plan.Training`s.
            steps: steps of each.

        Returns:
            (state of the networks for `predict` and `offset`, dict term -> its mean over the last
            tenth of the steps, float32 `[trainings]`).
        """
        weights, others = self._stacked(self._start_of(t.config.seed).values() for t in trainings)
        state = {
            "weights": weights,
            "others": others,
            "momenta": [jnp.zeros_like(x) for x in weights],
            "averages": [jnp.array(x) for x in weights],
        }
        size = self.config.batch_size
        orders = [order_of(t.samples, steps, size, t.config.seed) for t in trainings]
        schedules = [schedule_of(t.config, t.own, steps) for t in trainings]
        inputs = {
            "step": jnp.broadcast_to(jnp.arange(steps)[:, None], (steps, len(trainings))),
            "samples": jnp.stack(orders, 1),
            "rate": jnp.stack([rates for rates, _ in schedules], 1),
            "weights": {n: jnp.stack([s[1][n] for s in schedules], 1) for n in NAMES},
        }
        state, means = self._run(state, inputs, self._settings(trainings), self.data)
        tail = max(1, steps // 10)
        last = {name: np.asarray(value)[-tail:].mean(0) for name, value in means.items()}
        uses = jnp.array([t.config.ema > 0 for t in trainings])
        return self._kept(state, uses), last

    def _settings(self, trainings):
        """What differs between the trainings, as arrays `[trainings]`."""
        numbers = [numbers_of(t.config, t.own) for t in trainings]
        settings = {name: jnp.array([each[name] for each in numbers]) for name in numbers[0]}
        settings["factors"] = jnp.array([self.network.factors(t.config) for t in trainings])
        settings["key"] = jnp.stack([jax.random.PRNGKey(t.config.seed) for t in trainings])
        return settings

    @staticmethod
    def _stacked(values):
        return jax.tree.map(lambda *each: jnp.stack(each), *values)

    @staticmethod
    @jax.jit
    def _kept(state, uses_average):
        """The weights that are scored: those of the last step, or their moving average."""

        def choose(last, average):
            shape = (-1,) + (1,) * (last.ndim - 1)
            return jnp.where(uses_average.reshape(shape), average, last)

        return jax.tree.map(choose, state["weights"], state["averages"]), state["others"]

    def _run_one(self, state, inputs, settings, data):
        step = functools.partial(self._step, settings=settings, data=data)
        return jax.lax.scan(step, state, inputs)

    def _step(self, state, inputs, settings, data):
        """One step of one training."""
        step, samples = inputs["step"], inputs["samples"]
        positions, labels = samples[:, 0], samples[:, 1]
        key = jax.random.fold_in(settings["key"], step)
        images = random_crops(
            key,
            data["pictures"][positions],
            self.config.input_size,
            settings["min_crop"],
            settings["color_jitter"],
        )
        present = data["present"][positions]
        allowed = ~present | jax.nn.one_hot(labels, present.shape[1], dtype=bool)
        if not self.guided:
            settings = settings | {"guided": None}

        def loss(weights):
            batch = (images, labels, allowed)
            return total_loss(
                self.network, weights, state["others"], batch, settings, inputs["weights"], step
            )

        (_, (others, means)), gradients = jax.value_and_grad(loss, has_aux=True)(state["weights"])
        weights, momenta = stepped(
            state["weights"], state["momenta"], gradients, inputs["rate"], settings
        )
        # Keras's average begins with the weights after the first step, too.
        ema = jnp.where(step == 0, 0.0, settings["ema"])
        averages = jax.tree.map(lambda a, x: ema * a + (1 - ema) * x, state["averages"], weights)
        new = {"weights": weights, "others": others, "momenta": momenta, "averages": averages}
        return new, means

    def _outputs(self, weights, others, images):
        _, score_map, localization_map, _ = self.network.apply(weights, others, images, False)
        return score_map, localization_map

    def _map_of(self, kept, number, images):
        one = jax.tree.map(lambda x: x[number], kept)
        return jnp.mean(self._outputs(*one, images)[1], -1)

    def _predict_one(self, weights, others, positions, data):
        return self._outputs(weights, others, self._views(data, positions).astype(jnp.float32))

    def _views(self, data, positions):
        """The centres of pictures, as they are scored."""
        size = self.config.input_size
        first = (data["pictures"].shape[1] - size) // 2
        return data["pictures"][positions, first : first + size, first : first + size]

    def predict(self, kept, positions):
        """Predicts pictures with each network.

        Args:
            kept: what `train` returns.
            positions: for each network int `[pictures]`, perhaps of different lengths.

        Returns:
            For each network a dict of `score_map`, `localization_map` and `logits`, float32
            `[pictures, ...]`.
        """
        batch = self.config.batch_size
        most = -(-max(map(len, positions)) // batch) * batch
        padded = jnp.stack([np.resize(own, most) for own in positions])
        parts = [
            jax.tree.map(np.asarray, self._predict(*kept, padded[:, i : i + batch], self.data))
            for i in range(0, most, batch)
        ]
        score_maps, maps = (np.concatenate(part, 1) for part in zip(*parts, strict=True))
        found = []
        for i, own in enumerate(positions):
            scores = score_maps[i, : len(own)]
            outputs = {"score_map": scores, "localization_map": maps[i, : len(own)]}
            found.append(outputs | {"logits": scores.mean((1, 2))})
        return found

    def offset(self, kept, number, positions):
        """Measures by how much the maps of one network lie beside the objects, see `alignment`.

        Args:
            kept: what `train` returns.
            number: which network.
            positions: training pictures.
        """

        def predict(images):
            return np.asarray(self._map_of_one(kept, number, jnp.asarray(images, jnp.float32)))

        return alignment.measure(predict, list(np.asarray(self._views(self.data, positions))))
