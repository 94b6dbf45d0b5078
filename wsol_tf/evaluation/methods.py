"""What can be scored: a trained model's own maps, baselines, classifiers, stored maps."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from wsol_tf.data.transforms import View
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.stored_maps import StoredArrays
from wsol_tf.model.score_maps import PLAIN, WHOLE

if TYPE_CHECKING:
    import keras

    from wsol_tf.model.localization import Localization

BASELINES = ("grad_cam", "center")  # kinds of map that need no localizer


def method_of(
    model: Localization,
    *,
    kind: str | None = None,
    threshold: float | str = "stored",
    view: str = "crop",
    top_k: int | None = None,
    ten_crop: bool = False,
) -> Method:
    """Makes a Method of a trained model, with the mean map and CAM beside the map asked for.

    Args:
        model: a Localization.
        kind: the map that is scored, see `score_maps.map_of`; None: the model's own.
        threshold: a number in 0..1, "otsu", or "stored" for the one in the model.
        view: "crop" or "whole", see `transforms.View`.
        top_k: classes that the map "topk" averages over; None: as many as the model says.
        ten_crop: see `predict_pairs`.

    Raises:
        ValueError: the threshold is "stored" and the model has none for this map.
    """
    kind = kind or model.map
    beside = ["mean", "true", "cam"]
    if model.localizer.output.shape[-1] == 1:  # then all maps but CAM are the same one
        beside = ["cam"]
    if kind != "cam":
        beside[:0] = [WHOLE] * model.separate + [PLAIN] * (model.refine != "none")
    thresholds: dict[str, float | str] = dict(model.thresholds)
    if threshold != "stored":
        thresholds |= {kind: threshold, "predicted": threshold}  # see Method.own_threshold
    elif kind not in thresholds:
        raise ValueError(
            f"The model stores no threshold for map '{kind}' (it has: "
            f"{', '.join(thresholds) or 'none'}). Pass `threshold=otsu` or a number in 0..1."
        )
    thresholds[WHOLE] = thresholds[kind]
    return Method(
        predict=model.predict_on_batch,
        view=View(model.input_size, model.resize_size, view),
        kinds=tuple(dict.fromkeys([kind, *beside])),
        thresholds=thresholds,
        threshold_from="stored with the model" if threshold == "stored" else "given",
        offset=model.offset,
        refine=model.refine,
        separate=model.separate,
        top_k=top_k or model.top_k,
        ten_crop=ten_crop,
        background_id=model.background_id,
        presence=1.0 if model.presence_threshold is None else model.presence_threshold,
    )


def with_baseline(
    method: Method,
    kind: str,
    feature_extractor: keras.Model,
    classifier: keras.Model,
    *,
    threshold: float | str = "stored",
) -> Method:
    """Makes a Method that is scored by a baseline's map, with its other maps beside it.

    Args:
        method: the Method that the baseline is set in front of.
        kind: "grad_cam" or "center".
        feature_extractor: functional model image -> F_f; Grad-CAM is taken at F_f.
        classifier: functional model F_f -> score map, whose mean over the positions are the logits.
        threshold: a number in 0..1 or "otsu"; "stored" is "otsu" as well, as nothing is stored.

    Raises:
        ValueError: for another kind.
    """
    if kind not in BASELINES:
        raise ValueError(f"Unknown baseline '{kind}'. Legal: {', '.join(BASELINES)}.")
    from wsol_tf.evaluation import baselines  # with TensorFlow, which stored maps need not wait for

    grad_cam = baselines.grad_cam(feature_extractor, classifier)
    center = baselines.center_map()

    def own_maps(batch):
        if kind == "center":
            return {kind: [center] * len(batch)}
        rows = np.repeat(np.arange(len(batch)), [len(example.labels) for example in batch])
        labels = np.concatenate([example.labels for example in batch])
        images = np.stack([batch[row].image for row in rows])
        found = [{} for _ in batch]
        for row, label, score_map in zip(
            rows, labels, grad_cam(images, labels).numpy(), strict=True
        ):
            found[row][int(label)] = score_map
        return {kind: found}

    return dataclasses.replace(
        method,
        kinds=(kind, *(other for other in method.kinds if other not in (PLAIN, WHOLE))),
        thresholds={**method.thresholds, kind: _or_otsu(threshold)},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
        # Grad-CAM is computed for the classes in the picture alone.
        presence=None if kind == "grad_cam" else method.presence,
    )


def method_of_classifier(
    feature_extractor: keras.Model,
    classifier: keras.Model,
    *,
    view: View,
    kind: str | None = None,
    threshold: float | str = "stored",
    ten_crop: bool = False,
) -> Method:
    """Makes a Method of a classifier that was never trained to localize, by its CAM.

    Args:
        feature_extractor: functional model image -> F_f, see `baselines.imagenet_classifier`.
        classifier: functional model F_f -> score map `[batch, h, w, classes]`, whose mean over
            the positions are the logits.
        view: what of a picture the network sees.
        kind: "cam", "grad_cam" or "center"; None: "cam".
        threshold: a number in 0..1 or "otsu"; "stored" is "otsu" as well, as nothing is stored.
        ten_crop: whether the class comes from ten crops together.

    Raises:
        ValueError: for another kind of map.
    """
    kind = kind or "cam"
    if kind not in ("cam", *BASELINES):
        raise ValueError(
            f"An ImageNet classifier has no map '{kind}'. Legal: cam, {', '.join(BASELINES)}."
        )
    from wsol_tf.evaluation import baselines

    method = Method(
        predict=baselines.class_scores(feature_extractor, classifier),
        view=view,
        kinds=("cam",),
        thresholds={"cam": _or_otsu(threshold)},
        threshold_from=_threshold_from(threshold),
        ten_crop=ten_crop,
        presence=1.0,
    )
    if kind == "cam":
        return method
    return with_baseline(method, kind, feature_extractor, classifier, threshold=threshold)


def method_of_stored_maps(
    score_maps: StoredArrays,
    class_scores: StoredArrays | None = None,
    *,
    num_classes: int,
    view: View,
    threshold: float | str = "stored",
) -> Method:
    """Makes a Method of score maps, and perhaps class scores, that another program stored.

    Args:
        score_maps: the maps, see `stored_maps.open_maps`.
        class_scores: the class scores, see `stored_maps.open_scores`; None: only the maps are
            scored.
        num_classes: number of classes of the data set.
        view: what of a picture the maps cover.
        threshold: a number in 0..1 or "otsu"; "stored" is "otsu" as well, as none is stored.
    """

    def own_maps(batch):
        ids = [example.image_id for example in batch]
        found = {"stored": [score_maps.read_map(image_id) for image_id in ids]}
        if class_scores is not None:
            found["logits"] = [class_scores.read_scores(name, num_classes) for name in ids]
        return found

    return Method(
        predict=lambda images: {},
        view=view,
        kinds=("stored",),
        thresholds={"stored": _or_otsu(threshold)},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
        presence=None if class_scores is None else 1.0,
    )


def _or_otsu(threshold):
    return "otsu" if threshold == "stored" else threshold


def _threshold_from(threshold):
    return "each map's own (Otsu): nothing is stored" if threshold == "stored" else "given"
