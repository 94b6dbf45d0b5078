"""The project's network and loss terms as pure functions, for `jax.grad` and `jax.vmap`."""

import dataclasses

import jax
import jax.numpy as jnp
import keras

from jax_trainings import backend, convolutions
from wsol_tf.model import backbones, heads, losses
from wsol_tf.model.objective import LOSS_TERMS
from wsol_tf.model.optimizer import group_sgd
from wsol_tf.model.refinement import refine_batch

backend.prepare_keras()
convolutions.install()

AREA = 0.25  # what `batch_area` draws the mean area of a batch's masks towards
TERMS = tuple(term for term in LOSS_TERMS if term.name != "background")
NAMES = (*(term.name for term in TERMS), "batch_area", "binary")


@dataclasses.dataclass(frozen=True)
class Network:
    """The three parts of a Localization, and their variables in one order.

    Attributes:
        feature_extractor, classifier, localizer: Keras models.
        trainable, others: their variables.
        loaded: a sentence on the weights that the feature extractor starts from.
    """

    feature_extractor: keras.Model
    classifier: keras.Model
    localizer: keras.Model
    trainable: list
    others: list
    loaded: str

    def values(self):
        """The values of the variables: (those that are trained, the others), lists of arrays."""
        return tuple([jnp.array(v.value) for v in part] for part in (self.trainable, self.others))

    def factors(self, config):
        """What the learning rate of each variable is multiplied with, as `group_sgd` has it."""
        optimizer = group_sgd(
            self.localizer,
            localizer_multiplier=config.localizer_multiplier,
            head_multiplier=config.head_multiplier,
            bias_multiplier=config.bias_multiplier,
        )
        return [optimizer.multiplier(variable.path) for variable in self.trainable]

    def apply(self, weights, others, images, training):
        """Passes images through: (features, score map, localization map, new others)."""
        with self._scope(weights, others) as scope:
            features = self.feature_extractor(images, training=training)
            score_map = self.classifier(features, training=training)
            localization_map = self.localizer(features, training=training)
        new = [scope.get_current_value(variable) for variable in self.others]
        new = [old if value is None else value for value, old in zip(new, others, strict=True)]
        return features, score_map, localization_map, new

    def classify_erased(self, weights, others, features, mask):
        """Score map of the features outside the mask; the classifier is a constant here."""
        fixed = [[jax.lax.stop_gradient(x) for x in part] for part in (weights, others)]
        with self._scope(*fixed):
            kept = jax.lax.stop_gradient(features) * (1.0 - mask[..., None])
            return self.classifier(kept, training=False)

    def _scope(self, weights, others):
        mapping = zip([*self.trainable, *self.others], [*weights, *others], strict=True)
        return keras.StatelessScope(state_mapping=list(mapping))


def build_network(config, num_classes, seed):
    """Builds a network from the settings of a run, as `wsol_tf.model.build` does."""
    keras.utils.set_random_seed(seed)
    feature_extractor, rest, loaded = backbones.build_extractor(
        config.extractor,
        width=config.width,
        input_size=config.input_size,
        output_stride=config.output_stride,
        dilation=config.dilation,
        levels=config.levels,
        weights=config.extractor_weights,
        bn_momentum=config.bn_momentum,
    )
    classifier = heads.classifier(
        rest, num_classes, head_width=config.head_width, final_relu=config.final_relu
    )
    channels = 1 if config.localizer == "agnostic" else num_classes
    localizer = heads.localizer(feature_extractor.output.shape[1:], channels)
    parts = (feature_extractor, classifier, localizer)
    return Network(
        *parts,
        trainable=[v for part in parts for v in part.trainable_variables],
        others=[v for part in parts for v in part.non_trainable_variables],
        loaded=loaded,
    )


def total_loss(network, weights, others, batch, settings, of_terms, step):
    """Computes the loss of a batch.

    Args:
        network: the network.
        weights: values of its trainable variables.
        others: values of its other variables.
        batch: (images float32 `[batch, size, size, 3]`, labels int32 `[batch]`, allowed bool
            `[batch, classes]`).
        settings: name -> number, see `plan.numbers_of`; each may be traced.
        of_terms: name, one of NAMES -> weight at this step.
        step: number of the step.

    Returns:
        (loss, (new values of the other variables, name -> mean of the term)).
    """
    images, labels, allowed = batch
    features, score_map, localization_map, new = network.apply(weights, others, images, True)
    mask = losses.of_class(localization_map, labels)
    erased = network.classify_erased(weights, new, features, mask)
    offered = {
        **settings,
        "score_map": score_map,
        "mask": mask,
        "labels": labels,
        "allowed": allowed,
        "absolute_thresholds": False,
        "refined_mask": _what_pseudo_labels_come_from(mask, images, settings),
        "activation": _activation(score_map, labels, settings),
        "background_activation": _activation(erased, labels, settings),
    }
    values = {term.name: term.of(offered) for term in TERMS}
    values["bas"] = values["bas"] * _share_of_erased(labels.shape[0], step, settings)
    values["batch_area"] = jnp.abs(jnp.mean(mask) - AREA)
    smooth = _blurred(mask)
    values["binary"] = jnp.mean((1 - smooth) * smooth)
    means = {name: jnp.mean(values[name]) for name in NAMES}
    return sum(of_terms[name] * means[name] for name in NAMES), (new, means)


def _what_pseudo_labels_come_from(mask, images, settings):
    """The refined mask where `pseudo_target` is guided, else what the loss takes without one."""
    if settings["guided"] is None:  # no training of the study has it: spare the filter
        return None
    refined = refine_batch(jax.lax.stop_gradient(mask), images)
    return jnp.where(settings["guided"] > 0, refined, losses.normalized(mask))


def _activation(score_map, labels, settings):
    """S of `bas`, in the form that a training has."""
    forms = ("relu_of_mean", "mean_of_relu")
    chosen, other = (losses.class_activation(score_map, labels, form) for form in forms)
    return jnp.where(settings["relu_of_mean"] > 0, chosen, other)


def _share_of_erased(count, step, settings):
    """Factors `[count]` of `bas`: 1 or, an experiment, 2 for half of the pictures, 0 for others."""
    half = ((jnp.arange(count) + step) % 2 == 0) * 2.0
    alternate = jnp.full(count, (step % 2 == 0) * 2.0)
    choice = settings["erased_turns"]
    return jnp.where(choice == 1, half, jnp.where(choice == 2, alternate, 1.0))


def _blurred(mask):
    padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
