"""What can be scored: trained models, ImageNet classifiers, and score maps made elsewhere."""

import dataclasses
import re

import numpy as np

from wsol_tf.data import transforms
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import baselines, stored_maps
from wsol_tf.evaluation.pairs import Method, method_of
from wsol_tf.model.build import load_model

BASELINES = ("grad_cam", "center")


def _model(values, threshold):
    """A trained model of ours: (Method, Source, no stored arrays)."""
    model = load_model(values.model)
    own = None if values.map in BASELINES else values.map
    stored = threshold if own == values.map else "stored"
    method = method_of(
        model,
        kind=own,
        threshold=stored,
        view=values.view or "crop",
        top_k=values.top_k,
        ten_crop=values.ten_crop,
    )
    source = open_scored(values, model.classes, model.resize_size)
    if own != values.map:
        method = _baseline(method, values.map, threshold, model.feature_extractor, model.classifier)
    return method, source, {}


def _classifier(values, threshold):
    """A classifier of keras.applications as it was trained on ImageNet."""
    source = open_scored(values, None, values.resize_size or round(values.input_size * 8 / 7))
    try:
        feature_extractor, classifier, loaded = baselines.imagenet_classifier(
            values.extractor,
            width=values.width,
            input_size=values.input_size,
            output_stride=values.output_stride,
            dilation=values.dilation,
            weights=values.model,
        )
    except ValueError as error:  # --model names the weights here
        sentence = re.sub("(--)?extractor_weights", "--model", str(error))
        raise ValueError(sentence) from error
    print(f"Classifier {loaded}.")
    scores = classifier.output.shape[-1]
    if len(source.classes) != scores:
        raise ValueError(
            f"The classifier tells {scores} classes and {source.name} has {len(source.classes)}. "
            "A classes.txt with all names in the order of the classifier's scores is needed: for "
            "ImageNet its 1000 wnids, sorted."
        )
    kind = values.map or "cam"
    if kind not in ("cam", *BASELINES):
        raise ValueError(
            f"An ImageNet classifier has no map '{kind}'. Legal: cam, grad_cam, center."
        )
    method = Method(
        predict=baselines.class_scores(feature_extractor, classifier),
        view=_view(values, "crop"),
        kinds=("cam",),
        thresholds={"cam": "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        ten_crop=values.ten_crop,
    )
    if kind != "cam":
        method = _baseline(method, kind, threshold, feature_extractor, classifier)
    return method, source, {}


def _stored(values, threshold):
    """Score maps that another program made."""
    if values.map:
        raise ValueError("--map picks a map of a model; stored score maps are scored as they are.")
    source = open_scored(values, None, values.resize_size or round(values.input_size * 8 / 7))
    count = len(source.classes)
    stored = {
        "score_maps": stored_maps.StoredArrays(
            values.score_maps, "score maps", lambda array: stored_maps.check_map(array, count)
        )
    }
    if values.class_scores:
        stored["class_scores"] = stored_maps.StoredArrays(
            values.class_scores,
            "class scores",
            lambda array: stored_maps.check_scores(array, count),
        )
    for arrays in stored.values():
        arrays.check_ids(source.image_ids)

    def own_maps(batch):
        ids = [example.image_id for example in batch]
        found = {"stored": [stored["score_maps"].read_map(image_id) for image_id in ids]}
        if values.class_scores:
            read = [stored["class_scores"].read(image_id) for image_id in ids]
            found["logits"] = [np.full(count, np.nan) if row is None else row for row in read]
        return found

    method = Method(
        predict=lambda images: {},
        view=_view(values, "whole"),
        kinds=("stored",),
        thresholds={"stored": "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
    )
    return method, source, stored


def _baseline(method, kind, threshold, feature_extractor, classifier):
    """The same method with Grad-CAM or the centre as the map that is scored."""
    gradients = baselines.grad_cam(feature_extractor, classifier)
    center = baselines.center_map()

    def own_maps(batch):
        if kind == "center":
            return {kind: [center] * len(batch)}
        rows = np.repeat(np.arange(len(batch)), [len(example.labels) for example in batch])
        labels = np.concatenate([example.labels for example in batch])
        images = np.stack([batch[row].image for row in rows])
        found = [{} for _ in batch]
        for row, label, drawn in zip(rows, labels, gradients(images, labels).numpy(), strict=True):
            found[row][int(label)] = drawn
        return {kind: found}

    return dataclasses.replace(
        method,
        kinds=(kind, *method.kinds),
        thresholds={**method.thresholds, kind: "otsu" if threshold == "stored" else threshold},
        threshold_from=_threshold_from(threshold),
        own_maps=own_maps,
    )


def open_scored(values, classes, image_size):
    """Opens the data set that the flags name."""
    return open_dataset(
        values.dataset,
        values.data_dir,
        values.split,
        classes=classes,
        seed=values.seed,
        image_size=image_size,
        num_examples=values.num_examples or None,
        download=values.download,
        single_class=values.single_class,
        on_bad_image=values.on_bad_image,
    )


def _view(values, default):
    resize_size = values.resize_size or round(values.input_size * 8 / 7)
    return transforms.View(values.input_size, resize_size, values.view or default)


def _threshold_from(threshold):
    return "each map's own (Otsu): nothing is stored" if threshold == "stored" else "given"
