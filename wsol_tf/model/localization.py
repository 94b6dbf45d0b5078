"""The model: feature extractor, classifier and localizer trained together with seven losses."""

import copy
import math

import keras
import tensorflow as tf
from keras import ops

from wsol_tf.config import MAPS, Config
from wsol_tf.model import losses
from wsol_tf.model.objective import LOSS_SETTINGS, LOSS_WEIGHTS, SEEN
from wsol_tf.model.optimizer import group_sgd

TRACKED = ("loss", *losses.TERMS, "top1_cls")  # what `fit` shows


@keras.saving.register_keras_serializable(package="wsol_tf")
class Localization(keras.Model):
    """A model that learns where objects are from one label per picture (arXiv 2404.09475).

    Takes raw RGB pictures `[batch, height, width, 3]` in 0..255 (uint8 or float) and returns a
    dict: `logits` `[batch, classes]`; `score_map` F_c `[batch, h / 2, w / 2, classes]`;
    `localization_map` F_cam `[batch, h, w, channels]` in 0..1, channels = classes or 1;
    `foreground_mask` `[batch, h, w]` in 0..1, the map of kind `map`.

    Args:
        feature_extractor: functional model image -> F_f, preprocessing inside.
        classifier: functional model F_f -> F_c.
        localizer: functional model F_f -> F_cam.
        classes: names of the classes, in the order of their ids.
        map: which map `foreground_mask` is: "mean" over the channels, "predicted" class,
            "topk" (mean over the top_k classes). "true" and "cam" need a label: see
            `score_maps.map_of`; `foreground_mask` is then the predicted class's.
        top_k: classes that "topk" averages over.
        thresholds: kind of map -> score-map threshold chosen on training pictures.
        resize_size: side in pixels that pictures were resized to before the crop of training;
            None: 8/7 of the input's side.
    """

    VALUES = (*TRACKED, *(f"weighted_{name}" for name in losses.TERMS), *SEEN)

    def __init__(
        self,
        feature_extractor,
        classifier,
        localizer,
        classes,
        *,
        map="mean",
        top_k=5,
        thresholds=None,
        resize_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.feature_extractor = feature_extractor
        self.classifier = classifier
        self.localizer = localizer
        self.classes = _class_names(classes)
        if map not in MAPS:
            raise ValueError(f"Unknown map '{map}'. Legal: {', '.join(MAPS)}.")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1. Received: {top_k}.")
        if classifier.output.shape[-1] != len(self.classes):
            raise ValueError(
                f"The classifier has {classifier.output.shape[-1]} outputs, but "
                f"{len(self.classes)} class names were given."
            )
        self.map = map
        self.top_k = top_k
        self.thresholds = dict(thresholds or {})
        self.input_size = feature_extractor.input.shape[1]
        self.resize_size = resize_size or round(self.input_size * 8 / 7)
        self.total_steps = None
        self.trackers = [keras.metrics.Mean(name=name) for name in TRACKED]
        self.build((None, self.input_size, self.input_size, 3))

    def build(self, input_shape):
        """Does nothing: the parts are built."""

    def call(self, images, training=None):
        features = self.feature_extractor(images, training=training)
        score_map = self.classifier(features, training=training)
        localization_map = self.localizer(features, training=training)
        logits = ops.mean(score_map, axis=(1, 2))
        return {
            "logits": logits,
            "score_map": score_map,
            "localization_map": localization_map,
            "foreground_mask": self.foreground_mask(localization_map, logits),
        }

    def foreground_mask(self, localization_map, logits):
        """The class-free or predicted map `[batch, h, w]` that `map` and `top_k` ask for."""
        if localization_map.shape[-1] == 1:
            return localization_map[..., 0]
        if self.map == "mean":
            return ops.mean(localization_map, axis=-1)
        k = min(self.top_k, len(self.classes)) if self.map == "topk" else 1
        _, best = ops.top_k(logits, k)
        chosen = ops.take_along_axis(localization_map, best[:, None, None, :], axis=-1)
        return ops.mean(chosen, axis=-1)

    # Training

    def compile(self, optimizer=None, *, loss_weights=None, total_steps=None, **settings):
        """Configures training.

        Args:
            optimizer: a Keras optimizer; None takes `group_sgd()` for this model.
            loss_weights: term -> weight for some of the seven terms (losses.TERMS); the others
                keep LOSS_WEIGHTS.
            total_steps: steps of the whole training, of which the starts and the warm-up are
                shares; None: `fit` computes it.
            **settings: some of LOSS_SETTINGS; others go to `keras.Model.compile`
                (run_eagerly, jit_compile, steps_per_execution).

        Raises:
            ValueError: for an unknown term or setting, and for a value that Config refuses.
        """
        unknown = set(loss_weights or {}) - set(losses.TERMS)
        if unknown:
            raise ValueError(
                f"Unknown loss '{sorted(unknown)[0]}'. Legal: {', '.join(losses.TERMS)}."
            )
        legal = ("run_eagerly", "jit_compile", "steps_per_execution")
        keras_settings = {name: settings.pop(name) for name in legal if name in settings}
        unknown = set(settings) - set(LOSS_SETTINGS)
        if unknown:
            raise ValueError(
                f"Unknown setting '{sorted(unknown)[0]}'. "
                f"Legal: {', '.join((*LOSS_SETTINGS, *legal))}."
            )
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.loss_settings = {**LOSS_SETTINGS, **settings}
        flags = {f"{name}_weight": self.loss_weights[name] for name in losses.TERMS[1:]}
        Config(**flags, **self.loss_settings)  # refuses what can't work
        self.total_steps = total_steps
        self._keras_settings = keras_settings
        if optimizer is None:
            optimizer = group_sgd(self.localizer)
        super().compile(optimizer=optimizer, **keras_settings)

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "loss_weights": self.loss_weights,
            "total_steps": self.total_steps,
            **self.loss_settings,
            **self._keras_settings,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, **kwargs):
        """Trains as `keras.Model.fit` does; x yields (image, label) or (image, label, allowed).

        image: raw RGB in 0..255; label: int `[batch]`; allowed: optional bool `[batch, classes]`,
        False for other classes that are present in the picture.

        Raises:
            ValueError: for batches of another kind, and where the number of steps isn't known.
        """
        if self.compiled and self.total_steps is None:
            held = kwargs.get("validation_split") or 0.0
            steps = kwargs.get("steps_per_epoch") or _steps_of(x, batch_size, held)
            if steps is None:
                raise ValueError(
                    "The length of the data is unknown, but the losses set in at shares of the "
                    "whole training. Pass steps_per_epoch to fit, or total_steps to compile."
                )
            # The number is a constant of the traced step.
            self.total_steps = steps * epochs
            self.train_function = None
        if hasattr(x, "cardinality"):  # a tf.data set shuffles itself; Keras warns otherwise
            kwargs.setdefault("shuffle", False)
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, **kwargs)

    def train_step(self, data):
        return self._track(self.learn(data))

    def test_step(self, data):
        return self._track(self.measure(data))

    def measure(self, data):
        """VALUES of a batch as `gradients` returns them, all terms at their full weights."""
        return self._values(data, self.loss_weights, training=False)

    def learn(self, data):
        """Takes one step on this replica's part of a batch; returns VALUES, see `gradients`."""
        gradients, values = self.gradients(data)
        self.apply(gradients)
        return values

    def gradients(self, data, parts=1):
        """Gradients of this replica's part of a step, and what was seen on the way.

        Args:
            data: (image, label) or (image, label, allowed).
            parts: calls whose gradients are added up for one step.

        Returns:
            (gradients, values): one gradient for each trainable variable, of the global batch's
            mean when summed over replicas and parts (times the loss scale in float16); and a dict
            of VALUES, one number for each image or for all.
        """
        with tf.GradientTape() as tape:
            values = self._values(data, self.current_weights(), training=True)
            # The optimizer sums the gradients of the replicas.
            share = tf.distribute.get_strategy().num_replicas_in_sync * parts
            scaled = self.optimizer.scale_loss(values["loss"] / share)
        return tape.gradient(scaled, self.trainable_variables), values

    def apply(self, gradients):
        """Changes the weights by this replica's gradients, those of the others added to them."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1 and hasattr(self.optimizer, "inner_optimizer"):
            # Float16: Keras looks for overflow before it sums, each replica by itself.
            context = tf.distribute.get_replica_context()
            gradients = [g / replicas for g in context.all_reduce("SUM", gradients)]
        self.optimizer.apply(gradients, self.trainable_variables)

    def predict_step(self, data):
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self(images, training=False)

    def current_weights(self):
        """The weight of each term at this step: loss_weights times its ramp."""
        if not self.total_steps:
            raise ValueError(
                "The length of the training is unknown: pass total_steps to compile, or call fit."
            )
        progress = ops.cast(self.optimizer.iterations, "float32") / float(self.total_steps)
        settings = self.loss_settings

        def ramp(start, length):
            if length == 0:
                return ops.cast(progress >= start, "float32")
            return ops.clip((progress - start) / length, 0.0, 1.0)

        localization = ramp(settings["localization_start"], 0)
        erasing = ramp(settings["erasing_start"], settings["warmup"])
        ramps = {
            "cls": 1.0,
            "cls_fg": localization,
            "ae": erasing,
            "ae_fg": erasing,
            "pseudo": ramp(settings["pseudo_start"], settings["warmup"]),
            "bas": localization,
            "ac": localization,
        }
        return {name: self.loss_weights[name] * ramps[name] for name in losses.TERMS}

    def _values(self, data, weights, training):
        """VALUES of a batch: terms and top1_cls for each image, the others for all of them."""
        images, labels, allowed = keras.utils.unpack_x_y_sample_weight(data)
        _check_batch(labels, allowed)
        terms, logits, seen = self._terms(images, labels, allowed, training)
        weighted = {f"weighted_{name}": weights[name] * ops.mean(terms[name]) for name in terms}
        if allowed is not None:
            logits = ops.where(allowed, logits, -1e9)
        right = ops.equal(ops.argmax(logits, axis=-1), ops.cast(labels, "int32"))
        return {
            "loss": sum(weighted.values()) + sum(self.losses),
            **terms,
            "top1_cls": ops.cast(right, "float32"),
            **weighted,
            **seen,
        }

    def _track(self, values):
        """Adds values to the metrics of Keras; returns these."""
        for tracker in self.trackers:
            tracker.update_state(values[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    @property
    def metrics(self):
        return self.trackers

    def _terms(self, images, labels, allowed, training):
        """(terms, logits, seen): the seven losses and SEEN, one value per image each."""
        settings = self.loss_settings
        features = self.feature_extractor(images, training=training)
        score_map = self.classifier(features, training=training)
        localization_map = self.localizer(features, training=training)
        mask = losses.of_class(localization_map, labels)
        absolute = settings["absolute_thresholds"]
        terms = {
            "cls": losses.classification(score_map, labels, allowed),
            "cls_fg": losses.foreground_classification(score_map, mask, labels, allowed),
            "ae": losses.erasing_score_map(score_map, labels, settings["ae_threshold"], allowed),
            "ae_fg": losses.erasing_foreground_mask(
                score_map, mask, labels, settings["ae_fg_threshold"], absolute, allowed
            ),
            "pseudo": losses.pseudo_label(
                mask, settings["pseudo_high"], settings["pseudo_low"], absolute
            ),
            "ac": losses.area_constraint(mask),
        }
        if self.loss_weights["bas"]:
            erased = self._classify_erased(features, mask, training)
            terms["bas"] = losses.background_activation_suppression(
                losses.class_activation(score_map, labels),
                losses.class_activation(erased, labels),
            )
        else:  # the second pass through the classifier would be for nothing
            terms["bas"] = ops.zeros_like(terms["ac"])
        seen = {
            "ae_left": losses.left_by_erasing(
                losses.of_class(score_map, labels), settings["ae_threshold"]
            ),
            "ae_fg_left": losses.left_by_erasing(mask, settings["ae_fg_threshold"], absolute),
            "pseudo_coverage": losses.pseudo_coverage(
                mask, settings["pseudo_high"], settings["pseudo_low"], absolute
            ),
        }
        return terms, ops.mean(score_map, axis=(1, 2)), seen

    def _classify_erased(self, features, mask, training):
        """Score map of the features outside the mask; the classifier is a constant here.

        `stateless_call` on copies without gradient: no weight of the classifier is trained by
        it, and the moving averages keep what the ordinary pass put there.
        """
        keep = 1.0 - ops.cast(mask, features.dtype)[..., None]
        score_map, _ = self.classifier.stateless_call(
            [ops.stop_gradient(v.value) for v in self.classifier.trainable_variables],
            [ops.stop_gradient(v.value) for v in self.classifier.non_trainable_variables],
            ops.stop_gradient(features) * keep,
            training=training and self.loss_settings["erased_statistics"] == "batch",
        )
        return score_map

    # Saving

    def get_config(self):
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("feature_extractor", "classifier", "localizer")
        }
        return {
            **super().get_config(),
            **parts,
            "classes": self.classes,
            "map": self.map,
            "top_k": self.top_k,
            "thresholds": dict(self.thresholds),
            "resize_size": self.resize_size,
        }

    @classmethod
    def from_config(cls, config):
        config = copy.deepcopy(config)  # Keras empties what it reads
        parts = {
            name: keras.saving.deserialize_keras_object(config.pop(name))
            for name in ("feature_extractor", "classifier", "localizer")
        }
        return cls(**parts, **config)

    def export(self, filepath, *args, **kwargs):
        """Exports as every Keras model does, also one that was just built or loaded."""
        self(ops.zeros((1, self.input_size, self.input_size, 3)))  # Keras asks for a first call
        return super().export(filepath, *args, **kwargs)


def _class_names(classes):
    """The names of the classes as a tuple; refuses what can't be them."""
    if isinstance(classes, (str, int)) or len(set(classes)) < len(classes):
        raise ValueError(
            "classes are a list of names, each once, such as ['cat', 'dog']. "
            f"Received: {classes!r}."
        )
    if len(classes) < 2:
        raise ValueError(
            "Localization is learned by telling classes apart: give at least two (pictures of the "
            f"background can be the second). Received: {list(classes)}."
        )
    return tuple(classes)


def _check_batch(labels, allowed):
    """Refuses batches that would break off later without saying why."""
    if labels is None or len(labels.shape) != 1:
        received = "no label" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(
            "A batch is a tuple (image, label) with labels int [batch], neither one-hot nor in "
            f"a column. Received: {received}."
        )
    if allowed is not None and (allowed.dtype != "bool" or len(allowed.shape) != 2):
        raise ValueError(
            "The third part of a batch is `allowed`, bool [batch, classes]; sample weights "
            f"are not supported. Received: {allowed.dtype} {tuple(allowed.shape)}."
        )


def _steps_of(x, batch_size, held):
    """Batches of an epoch, without the share `held` of an array; None: not known."""
    if hasattr(x, "cardinality"):
        cardinality = int(x.cardinality())
        return cardinality if cardinality >= 0 else None
    if hasattr(x, "num_batches"):
        return x.num_batches
    if hasattr(x, "shape"):
        return math.ceil(math.floor(x.shape[0] * (1 - held)) / (batch_size or 32))
    return None
