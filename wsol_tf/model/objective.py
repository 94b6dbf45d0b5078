"""What a model learns from: one table of loss terms, and which weighs what at which step."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from wsol_tf.config import Config, check
from wsol_tf.model import losses
from wsol_tf.model.refinement import refine_batch
from wsol_tf.model.schedule import Span


@dataclasses.dataclass(frozen=True)
class Term:
    """A value that each picture of a batch has: a loss, or what is only observed.

    Attributes:
        name: the loss has the weight `{name}_weight` among the settings (`cls`: 1).
        function: the one that computes it, from losses.py; float32 `[batch]`.
        arguments: names of its arguments in their order, separated by spaces: settings, and what
            `Objective.terms` offers.
        start: setting for the share of the training before which the loss is off; empty: none.
        ramp: setting for the share of the training over which it grows to its weight; empty: at
            once.
        pictures: "all"; "object", all but those of the background class; "background", those alone.
    """

    name: str
    function: Callable[..., Any]
    arguments: str
    start: str = ""
    ramp: str = ""
    pictures: str = "object"

    @property
    def needs_erased(self) -> bool:
        """Whether it needs the second pass of the classifier, on the erased features."""
        return "background_activation" in self.arguments.split()

    def of(self, offered: Mapping[str, Any]) -> Any:
        """Computes the value of each picture from what is offered by name."""
        return self.function(*(offered[name] for name in self.arguments.split()))


LOSS_TERMS = (
    Term("cls", losses.classification, "score_map labels allowed", pictures="all"),
    Term(
        "cls_fg",
        losses.foreground_classification,
        "score_map mask labels allowed",
        start="localization_start",
    ),
    Term(
        "ae",
        losses.erasing_score_map,
        "score_map labels ae_threshold allowed",
        start="erasing_start",
        ramp="warmup",
    ),
    Term(
        "ae_fg",
        losses.erasing_foreground_mask,
        "score_map mask labels ae_fg_threshold absolute_thresholds allowed",
        start="erasing_start",
        ramp="warmup",
    ),
    Term(
        "pseudo",
        losses.pseudo_label,
        "mask pseudo_high pseudo_low absolute_thresholds refined_mask pseudo_balance",
        start="pseudo_start",
        ramp="warmup",
    ),
    Term(
        "bas",
        losses.background_activation_suppression,
        "activation background_activation",
        start="localization_start",
    ),
    Term("ac", losses.area_constraint, "mask", start="localization_start"),
    Term(
        "background",
        losses.background,
        "localization_map",
        start="localization_start",
        ramp="warmup",
        pictures="background",
    ),
)
OBSERVATIONS = (
    Term("top1_cls_fg", losses.right_inside, "score_map shown labels allowed"),
    Term("ae_left", losses.left_by_erasing, "class_map ae_threshold"),
    Term("ae_fg_left", losses.left_by_erasing, "mask ae_fg_threshold absolute_thresholds"),
    Term(
        "pseudo_coverage",
        losses.pseudo_coverage,
        "mask pseudo_high pseudo_low absolute_thresholds refined_mask",
    ),
    Term(
        "pseudo_foreground",
        losses.pseudo_foreground,
        "mask pseudo_high pseudo_low absolute_thresholds refined_mask",
    ),
)
OBSERVED = tuple(term.name for term in OBSERVATIONS)

_DEFAULTS_OF_CONFIG = {name: field.default for name, field in Config.__dataclass_fields__.items()}
_SETTINGS_READ = {"erased_statistics", "erased_share", "activation_form", "pseudo_target"}.union(
    *({*term.arguments.split(), term.start, term.ramp} for term in LOSS_TERMS)
)
LOSS_SETTINGS = {
    name: default for name, default in _DEFAULTS_OF_CONFIG.items() if name in _SETTINGS_READ
}
LOSS_WEIGHTS = {
    term.name: _DEFAULTS_OF_CONFIG.get(f"{term.name}_weight", 1.0) for term in LOSS_TERMS
}


class Objective:
    """The weighted sum of losses that a Localization is trained on (docs/method.md, section 2).

    Args:
        weights: term -> weight, for some of the terms; the others keep LOSS_WEIGHTS.
        settings: thresholds, starts and ramps by name, some of LOSS_SETTINGS.
        span: the steps of which starts and ramps are shares.

    Attributes:
        weights, settings: all of them, by name.
        span: as given.

    Raises:
        ValueError: an unknown term or setting, or a value that Config refuses.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        span: Span | None = None,
    ):
        _refuse_unknown("loss", weights, LOSS_WEIGHTS)
        _refuse_unknown("setting", settings, LOSS_SETTINGS)
        self.weights = LOSS_WEIGHTS | dict(weights or {})
        self.settings = LOSS_SETTINGS | dict(settings or {})
        self.span = span or Span()
        weighted = {f"{name}_weight": value for name, value in self.weights.items()}
        check({k: v for k, v in weighted.items() if k in _DEFAULTS_OF_CONFIG} | self.settings)

    def terms(
        self,
        model: Any,
        images: Any,
        labels: Any,
        allowed: Any = None,
        *,
        training: bool,
        weights: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        """Passes a batch through a model, and computes its losses and what is observed besides.

        Args:
            model: a Localization, or anything with `feature_extractor`, `classifier`, `localizer`
                and `background_id`: the class of pictures without any object, or None.
            images: raw RGB in 0..255, `[batch, height, width, 3]`.
            labels: int `[batch]`.
            allowed: bool `[batch, classes]` or None, see `losses.cross_entropy`.
            training: whether this is a training step.
            weights: term -> its weight at this step, see `weights_at`; None: the full ones.

        Returns:
            (losses, logits, observations): name -> float32 `[batch]`, `[batch, classes]`, and name
            -> float32 `[batch]`. Losses that need the erased pass are 0 where they weigh nothing,
            or nothing yet, for that pass would be wasted. Where a loss applies to some pictures
            alone, its mean over the batch is that over these, see `losses.over`.
        """
        features = model.feature_extractor(images, training=training)
        score_map = model.classifier(features, training=training)
        localization_map = model.localizer(features, training=training)
        mask = losses.of_class(localization_map, labels)
        offered = self.settings | {
            "score_map": score_map,
            "localization_map": localization_map,
            "mask": mask,
            "labels": labels,
            "allowed": allowed,
            "refined_mask": None,
        }
        if self.settings["pseudo_target"] == "guided" and self.weights["pseudo"]:
            offered["refined_mask"] = refine_batch(ops.stop_gradient(mask), images)
        values = {term.name: term.of(offered) for term in LOSS_TERMS if not term.needs_erased}
        values |= self._erasing_terms(model, features, offered, weights, training=training)
        values = _of_their_pictures(values, labels, model.background_id)
        offered["class_map"] = losses.of_class(score_map, labels)
        offered["shown"] = mask
        if model.background_id is not None:  # where no object is, no mask could show it
            empty = _is_of(model.background_id, labels)[:, None, None]
            offered["shown"] = ops.where(empty, ops.ones_like(mask), mask)
        observed = {term.name: term.of(offered) for term in OBSERVATIONS}
        return values, ops.mean(score_map, axis=(1, 2)), observed

    def _erasing_terms(self, model, features, offered, weights, *, training):
        """Values of the terms that need the erased pass, which is left out where they are off."""
        erasing = [term for term in LOSS_TERMS if term.needs_erased]
        batch_statistics = training and self.settings["erased_statistics"] == "batch"
        labels, form = offered["labels"], self.settings["activation_form"]

        share = self.settings["erased_share"] if training else 1.0

        def pass_and_compute():
            some, fill = _first(share, labels)
            erased = _classify_erased(
                model.classifier, some(features), some(offered["mask"]), batch_statistics
            )

            def activation(score_map):
                return losses.class_activation(score_map, some(labels), form)

            activations = {
                "activation": activation(some(offered["score_map"])),
                "background_activation": activation(erased),
            }
            return [fill(term.of(offered | activations)) for term in erasing]

        def leave_out():
            return [ops.zeros(ops.shape(labels), "float32") for _ in erasing]

        at_all = [self.weights[term.name] for term in erasing]
        now = [(weights or self.weights)[term.name] for term in erasing]
        if not any(at_all):
            found = leave_out()
        elif all(isinstance(weight, int | float) for weight in now) or batch_statistics:
            # Replicas that share their batch statistics must not do so inside of a condition.
            found = pass_and_compute()
        else:
            found = ops.cond(ops.max(ops.stack(now)) > 0, pass_and_compute, leave_out)
        return dict(zip((term.name for term in erasing), found, strict=True))

    def weights_at(self, progress: Any) -> dict[str, Any]:
        """Computes the weight of each term at a point of the training.

        Args:
            progress: share of the steps that are done, a scalar, see `Span.progress`.

        Returns:
            term -> its weight times its ramp; for `cls` a number, for the others a tensor.
        """
        progress = ops.convert_to_tensor(progress, "float32")

        def ramp(term):
            if not term.start:
                return 1.0
            start, length = self.settings[term.start], self.settings.get(term.ramp, 0)
            if length == 0:
                return ops.cast(progress >= start, "float32")
            return ops.clip((progress - start) / length, 0.0, 1.0)

        return {term.name: self.weights[term.name] * ramp(term) for term in LOSS_TERMS}


def _of_their_pictures(values, labels, background_id):
    """The values of each term on the pictures that it applies to, in the order of the table."""
    if background_id is None:
        values = values | {"background": ops.zeros_like(values["cls"])}
    else:
        is_background = _is_of(background_id, labels)
        applies = {"object": ops.logical_not(is_background), "background": is_background}
        for term in LOSS_TERMS:
            if term.pictures != "all":
                values[term.name] = losses.over(applies[term.pictures], values[term.name])
    return {term.name: values[term.name] for term in LOSS_TERMS}


def _is_of(class_id, labels):
    return ops.equal(ops.cast(labels, "int32"), class_id)


def _first(share, labels):
    """Functions that take the first pictures of a batch, and fill their values up to all of it.

    The order of a training batch is drawn anew in each epoch, so that the mean of what is filled
    up, which is that of the pictures taken, has the expectation of the mean of all.
    """
    if share == 1:
        return (lambda values: values), (lambda values: values)
    batch = ops.shape(labels)[0]
    taken = ops.cast(ops.ceil(share * ops.cast(batch, "float32")), "int32")
    if isinstance(batch, int):  # XLA needs to know how many
        taken = math.ceil(share * batch)

    def fill(values):
        scale = ops.cast(batch, "float32") / ops.cast(taken, "float32")
        return ops.concatenate([values * scale, ops.zeros((batch - taken,), "float32")])

    return (lambda values: values[:taken]), fill


def _classify_erased(classifier, features, mask, batch_statistics):
    """Score map of the features outside the mask; the classifier is a constant here.

    `stateless_call` on copies without gradient: no weight of the classifier is trained by it, and
    the moving averages keep what the ordinary pass put there.
    """
    keep = 1.0 - ops.cast(mask, features.dtype)[..., None]
    score_map, _ = classifier.stateless_call(
        [ops.stop_gradient(v.value) for v in classifier.trainable_variables],
        [ops.stop_gradient(v.value) for v in classifier.non_trainable_variables],
        ops.stop_gradient(features) * keep,
        training=batch_statistics,
    )
    return score_map


def _refuse_unknown(what, given, legal):
    for name in given or {}:
        if name not in legal:
            raise ValueError(f"Unknown {what} '{name}'. Legal: {', '.join(legal)}.")
