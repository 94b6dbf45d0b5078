"""The model: feature extractor, classifier and localizer, trained together."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from wsol_tf.config import resize_side
from wsol_tf.model import fit_data, inputs, losses, score_maps

# Registers their layers: a saved model may hold some.
from wsol_tf.model import normalization as _normalization  # noqa: F401
from wsol_tf.model import pooling as _pooling  # noqa: F401
from wsol_tf.model.localizing import Localizing
from wsol_tf.model.objective import OBSERVED, Objective
from wsol_tf.model.optimizer import group_sgd
from wsol_tf.model.schedule import Span, share_span

TRACKED = ("loss", *losses.TERMS, "top1_cls")  # what `fit` shows


@keras.saving.register_keras_serializable(package="wsol_tf")
class Localization(Localizing, keras.Model):
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
        refine: "guided" refines the localizer's maps by the picture wherever they become a mask,
            see `refinement`; the outputs of the network itself are as they are.
        top_k: classes that "topk" averages over.
        thresholds: kind of map -> score-map threshold chosen on training pictures.
        presence_threshold: probability from which on a class counts as present, chosen on held-out
            pictures; None: `localize` must be given one to find objects of several classes.
        resize_size: side in pixels that pictures were resized to before the crop of training;
            None: 8/7 of the input's side.
        background_class: which of the classes is that of pictures without any object; None: none.
        offset: (down, right) by which F_cam lies beside the objects, in positions, see
            `alignment.measure`. Its maps are moved back by it wherever they become a mask; the
            outputs of the network itself are as they are.
        separate: cut objects that touch apart, see `separation`, wherever a mask becomes boxes.
        mirror: average the outputs of the picture and of its mirror image: twice the network's
            time. Training does not.

    Attributes:
        background_id: the id of `background_class`, or None.
        input_size: side of the network's input in pixels.
        objective: the Objective that it is trained on.
        loaded_weights: a sentence on the weights that `build_model` started from; else empty.
    """

    # What `learn` and `measure` return, by name.
    STEP_VALUES = (*TRACKED, *(f"weighted_{name}" for name in losses.TERMS), *OBSERVED)

    def __init__(
        self,
        feature_extractor: keras.Model,
        classifier: keras.Model,
        localizer: keras.Model,
        classes: Sequence[str],
        *,
        map: str = "mean",
        refine: str = "none",
        top_k: int = 5,
        thresholds: Mapping[str, float] | None = None,
        presence_threshold: float | None = None,
        resize_size: int | None = None,
        background_class: str | None = None,
        offset: Sequence[float] = (0.0, 0.0),
        separate: bool = False,
        mirror: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.feature_extractor = feature_extractor
        self.classifier = classifier
        self.localizer = localizer
        self.classes = inputs.class_names(classes)
        self.background_id = inputs.background_id(background_class, self.classes)
        self.background_class = background_class
        thresholds = {} if thresholds is None else thresholds
        inputs.check_parts(map, refine, top_k, thresholds, presence_threshold, resize_size)
        inputs.check_placement(offset, mirror, separate)
        if classifier.output.shape[-1] != len(self.classes):
            raise ValueError(
                f"The classifier has {classifier.output.shape[-1]} outputs, but "
                f"{len(self.classes)} class names were given."
            )
        self.map = map
        self.refine = refine
        self.top_k = top_k
        self.separate = separate
        self.mirror = mirror
        self.thresholds = dict(thresholds)
        self.offset = (float(offset[0]), float(offset[1]))
        self.presence_threshold = presence_threshold
        self.input_size = feature_extractor.input.shape[1]
        self.resize_size = resize_side(self.input_size, resize_size or 0)
        self.loaded_weights = ""
        self.objective = Objective()
        self.trackers = [keras.metrics.Mean(name=name) for name in TRACKED]
        self.build((None, self.input_size, self.input_size, 3))

    def build(self, input_shape: tuple) -> None:
        """Does nothing: the parts are built."""

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        """Computes the outputs of a batch, see the class; images: raw RGB in 0..255."""
        score_map, localization_map = self._maps(images, training)
        if self.mirror:
            mirrored = self._maps(ops.flip(images, axis=2), training)
            score_map, localization_map = (
                (straight + ops.flip(other, axis=2)) / 2
                for straight, other in zip((score_map, localization_map), mirrored, strict=True)
            )
        logits = ops.mean(score_map, axis=(1, 2))
        return {
            "logits": logits,
            "score_map": score_map,
            "localization_map": localization_map,
            "foreground_mask": self.foreground_mask(localization_map, logits),
        }

    def _maps(self, images, training):
        features = self.feature_extractor(images, training=training)
        score_map = self.classifier(features, training=training)
        return score_map, self.localizer(features, training=training)

    def foreground_mask(self, localization_map: Any, logits: Any) -> Any:
        """The map `[batch, h, w]` that `map` and `top_k` ask for, see `score_maps`."""
        channels = localization_map.shape[-1]
        best = score_maps.averaged_channels(self.map, channels, self.top_k)
        if best is None:
            return ops.mean(localization_map, axis=-1)
        _, chosen = ops.top_k(logits, best)
        chosen = ops.take_along_axis(localization_map, chosen[:, None, None, :], axis=-1)
        return ops.mean(chosen, axis=-1)

    # Training

    def compile(
        self,
        optimizer: Any = None,
        *,
        loss_weights: Mapping[str, float] | None = None,
        total_steps: int | None = None,
        run_eagerly: bool = False,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        **settings: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: a Keras optimizer; None takes `group_sgd()` for this model. A schedule of
                kind RateDrops follows the steps below.
            loss_weights: term -> weight for some of the terms (losses.TERMS); the others
                keep objective.LOSS_WEIGHTS.
            total_steps: steps of the whole training, of which the starts and the ramps are shares;
                None: those of each call of `fit`.
            run_eagerly: as for `keras.Model.compile`.
            jit_compile: as for `keras.Model.compile`.
            steps_per_execution: as for `keras.Model.compile`.
            **settings: some of objective.LOSS_SETTINGS.

        Raises:
            ValueError: for an unknown term or setting, and for a value that Config refuses.
        """
        self.thaw()
        span = Span(total_steps, fixed=total_steps is not None)
        self.objective = Objective(loss_weights, settings, span)
        self._keras_settings = {
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "steps_per_execution": steps_per_execution,
        }
        if optimizer is None:
            optimizer = group_sgd(self.localizer)
        share_span(optimizer, span)
        super().compile(optimizer=optimizer, **self._keras_settings)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Term -> weight, as compiled."""
        return self.objective.weights

    @property
    def total_steps(self) -> int | None:
        """Steps of the training that the starts and the ramps are shares of; None: unknown."""
        return self.objective.span.steps

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was given, and which steps the last `fit` took."""
        if not self.compiled:
            return None
        span = self.objective.span
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "loss_weights": self.objective.weights,
            "total_steps": span.steps,
            "first_step": None if span.fixed else span.first,
            **self.objective.settings,
            **self._keras_settings,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the model was that a file was written of."""
        config = keras.saving.deserialize_keras_object(config)
        first = config.pop("first_step", None)  # files of before the span was saved have none
        # What files of before there were these settings did.
        config = {"pseudo_target": "mask", "pseudo_balance": False} | config
        self.compile(**config)
        if first is not None:
            self.objective.span.first, self.objective.span.fixed = first, False
        self.optimizer.build(self.trainable_variables)

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1, **kwargs
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does; x yields (image, label) or (image, label, allowed).

        image: raw RGB in 0..255; label: int `[batch]`; allowed: optional bool `[batch, classes]`,
        False for other classes that are present in the picture.

        Each call is a training of its own: the starts and ramps of the losses, and the drops of
        RateDrops, are shares of its steps. With `initial_epoch` it continues one: the steps of the
        epochs before count as done. `compile(total_steps=...)` sets the steps for all calls.

        Raises:
            ValueError: for batches of another kind, for labels that are no ids of classes, and
                where the number of steps isn't known.
        """
        x = fit_data.checked(x, y, len(self.classes))
        if "validation_data" in kwargs:
            held_out = kwargs["validation_data"]
            kwargs["validation_data"] = fit_data.checked_validation(held_out, len(self.classes))
        if self.compiled and not self.objective.span.fixed:
            held = kwargs.get("validation_split") or 0.0
            steps = kwargs.get("steps_per_epoch") or fit_data.steps_of(x, batch_size, held)
            done = int(ops.convert_to_numpy(self.optimizer.iterations))
            self.objective.span.begin(done, steps, epochs, kwargs.get("initial_epoch", 0))
            self.train_function = None  # the span is a constant of the traced step
        if hasattr(x, "cardinality"):  # a tf.data set shuffles itself; Keras warns otherwise
            kwargs.setdefault("shuffle", False)
        with fit_data.plain_label_errors():
            return super().fit(x, y, batch_size=batch_size, epochs=epochs, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, **kwargs) -> Any:
        """Measures the losses as `keras.Model.evaluate` does; data as for `fit`.

        Raises:
            ValueError: as `fit`.
        """
        if not kwargs.get("_use_cached_eval_dataset"):  # from `fit`, which has checked it
            x = fit_data.checked(x, y, len(self.classes))
        with fit_data.plain_label_errors():
            return super().evaluate(x, y, **kwargs)

    def train_step(self, data: tuple) -> dict[str, Any]:
        """One step of `fit`: learns from a batch; returns the running means that are shown."""
        return self._track(self.learn(data))

    def test_step(self, data: tuple) -> dict[str, Any]:
        """One step of `evaluate`: measures a batch; returns the running means."""
        return self._track(self.measure(data))

    def measure(self, data: tuple) -> dict[str, Any]:
        """Computes STEP_VALUES of a batch, all terms at their full weights; see `gradients`."""
        return self._values(data, self.objective.weights, training=False)

    def learn(self, data: tuple) -> dict[str, Any]:
        """Takes one step on this replica's part of a batch; returns STEP_VALUES as `gradients`."""
        gradients, values = self.gradients(data)
        self.apply(gradients)
        return values

    def gradients(self, data: tuple, parts: int = 1) -> tuple[list[Any], dict[str, Any]]:
        """Computes the gradients of this replica's part of a step.

        Args:
            data: (image, label) or (image, label, allowed).
            parts: calls whose gradients are added up for one step.

        Returns:
            (gradients, values): one gradient for each trainable variable, of the global batch's
            mean when summed over replicas and parts (times the loss scale in float16); and a dict
            of STEP_VALUES, one number for each image or for all.
        """
        with tf.GradientTape() as tape:
            values = self._values(data, self.current_weights(), training=True)
            # The optimizer sums the gradients of the replicas.
            share = tf.distribute.get_strategy().num_replicas_in_sync * parts
            scaled = self.optimizer.scale_loss(values["loss"] / share)
        return tape.gradient(scaled, self.trainable_variables), values

    def apply(self, gradients: list[Any]) -> None:
        """Changes the weights by this replica's gradients plus those of the other replicas."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1 and hasattr(self.optimizer, "inner_optimizer"):
            # Float16: Keras looks for overflow before it sums, each replica by itself.
            context = tf.distribute.get_replica_context()
            gradients = [g / replicas for g in context.all_reduce("SUM", gradients)]
        self.optimizer.apply(gradients, self.trainable_variables)

    def predict_step(self, data: Any) -> dict[str, Any]:
        """One step of `predict`: the outputs of a batch, of whose parts labels are ignored."""
        return self(keras.utils.unpack_x_y_sample_weight(data)[0], training=False)

    def current_weights(self) -> dict[str, Any]:
        """The weight of each term at this step: its own times its ramp.

        Raises:
            ValueError: the length of the training is not known.
        """
        return self.objective.weights_at(self.objective.span.progress(self.optimizer.iterations))

    def _values(self, data, weights, training):
        """STEP_VALUES of a batch: terms and top1_cls for each image, the others for all of them."""
        images, labels, allowed = keras.utils.unpack_x_y_sample_weight(data)
        inputs.check_batch(labels, allowed)
        if hasattr(labels, "numpy"):  # not in a graph, where `fit` checks what goes in
            fit_data.check_labels(labels, len(self.classes))
        terms, logits, observed = self.objective.terms(
            self, images, labels, allowed, training=training, weights=weights
        )
        weighted = {f"weighted_{name}": weights[name] * ops.mean(terms[name]) for name in terms}
        return {
            "loss": sum(weighted.values()) + sum(self.losses),
            **terms,
            "top1_cls": losses.right(logits, labels, allowed),
            **weighted,
            **observed,
        }

    def _track(self, values):
        """Adds values to the metrics of Keras; returns these."""
        for tracker in self.trackers:
            tracker.update_state(values[tracker.name])
        return {tracker.name: tracker.result() for tracker in self.trackers}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The running means: total, terms and top1_cls."""
        return self.trackers

    # Saving

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same model of; weights are not in it."""
        parts = {
            name: keras.saving.serialize_keras_object(getattr(self, name))
            for name in ("feature_extractor", "classifier", "localizer")
        }
        return {
            **super().get_config(),
            **parts,
            "classes": self.classes,
            "map": self.map,
            "refine": self.refine,
            "top_k": self.top_k,
            "thresholds": dict(self.thresholds),
            "presence_threshold": self.presence_threshold,
            "resize_size": self.resize_size,
            "background_class": self.background_class,
            "offset": list(self.offset),
            "separate": self.separate,
            "mirror": self.mirror,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Localization":
        """Makes the model that `get_config` describes."""
        config = copy.deepcopy(config)  # Keras empties what it reads
        parts = {
            name: keras.saving.deserialize_keras_object(config.pop(name))
            for name in ("feature_extractor", "classifier", "localizer")
        }
        return cls(**parts, **config)

    def export(self, filepath: str, *args: Any, **kwargs: Any) -> None:
        """Exports as every Keras model does, even right after it was built or loaded."""
        self(ops.zeros((1, self.input_size, self.input_size, 3)))  # Keras asks for a first call
        return super().export(filepath, *args, **kwargs)
