"""Pairs of a picture and a class in it, with the score maps of the method that is scored."""

import dataclasses
from collections.abc import Callable

import numpy as np

from wsol_tf.data import transforms
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.example import competing_classes
from wsol_tf.data.transforms import View
from wsol_tf.model.score_maps import map_of


@dataclasses.dataclass(frozen=True)
class Pair:
    """One (picture, class present) as it is scored; arrays are in pixels of the view."""

    position: int
    image: np.ndarray
    image_id: str
    size: tuple[int, int]
    label: int
    boxes: np.ndarray | None
    mask: np.ndarray | None
    allowed: np.ndarray
    logits: np.ndarray | None
    maps: dict[str, np.ndarray]
    activation: np.ndarray | None  # positive part of the class's score map F_c

    @property
    def probabilities(self):
        """Softmax of the logits over the allowed classes, `[classes]`; None without logits."""
        if self.logits is None:
            return None
        logits = np.where(self.allowed, self.logits, -np.inf)
        with np.errstate(invalid="ignore"):  # NaN logits give NaN, and are reported as such
            exponents = np.exp(logits - logits.max())
            return exponents / exponents.sum()


@dataclasses.dataclass(frozen=True)
class Method:
    """What is scored: anything that gives score maps, and how they are read.

    Attributes:
        predict, view, top_k, own_maps, ten_crop: see `pairs`.
        kinds: kinds of map: the one that is scored, then those that stand beside it.
        thresholds: dict kind -> score-map threshold, a number or "otsu"; needs the first kind.
        threshold_from: where that threshold comes from, for the report.
    """

    predict: Callable
    view: View
    kinds: tuple[str, ...]
    thresholds: dict
    threshold_from: str
    top_k: int = 5
    own_maps: Callable | None = None
    ten_crop: bool = False

    def pairs(self, source, positions, *, kinds=None, **keywords):
        """Yields a Pair for each (picture, class present) at these positions."""
        return predict_pairs(
            self.predict,
            source,
            positions,
            kinds=kinds or self.kinds,
            view=self.view,
            top_k=self.top_k,
            own_maps=self.own_maps,
            ten_crop=self.ten_crop,
            **keywords,
        )


def method_of(
    model, *, kind=None, threshold="stored", view="crop", top_k=None, ten_crop=False
) -> Method:
    """Makes a Method of a trained model, with the mean map and CAM beside the map asked for.

    Args:
        model: a Localization.
        kind: the map that is scored, see `score_maps.map_of`; None takes the model's.
        threshold: a number, "otsu", or "stored" for the one in the model.
        view: "crop" or "whole", see `View`.
        top_k: classes of the map "topk"; None takes the model's.
        ten_crop: see `pairs`.

    Raises:
        ValueError: when the threshold is "stored" and the model has none for this map.
    """
    kind = kind or model.map
    beside = ["mean", "true", "cam"]
    if model.localizer.output.shape[-1] == 1:  # then all maps but CAM are the same one
        beside = ["cam"]
    thresholds = dict(model.thresholds)
    if threshold != "stored":
        thresholds[kind] = threshold
    elif kind not in thresholds:
        raise ValueError(
            f"The model stores no threshold for map '{kind}' (it has: "
            f"{', '.join(thresholds) or 'none'}). Pass --threshold=otsu or a number in 0..1."
        )
    return Method(
        predict=model.predict_on_batch,
        view=View(model.input_size, model.resize_size, view),
        kinds=tuple(dict.fromkeys([kind, *beside])),
        thresholds=thresholds,
        threshold_from="stored with the model" if threshold == "stored" else "given",
        top_k=top_k or model.top_k,
        ten_crop=ten_crop,
    )


def predict_pairs(
    predict,
    source,
    positions,
    *,
    kinds,
    view,
    batch_size=32,
    top_k=5,
    own_maps=None,
    ten_crop=False,
    progress=None,
):
    """Yields a Pair for each (picture, class present), in order.

    Args:
        predict: function of a uint8 batch `[batch, input_size, input_size, 3]` that returns a
            dict of arrays `logits`, `score_map` and `localization_map`, as `Localization` does.
            What it leaves out is missing: no `logits` means no Top-1.
        source: a `sources.Source`.
        positions: positions in the source.
        kinds: kinds of map to pick, see `score_maps.map_of`.
        view: a View.
        top_k: classes that the map "topk" averages over.
        own_maps: optional function of a batch (list of Examples) that returns a dict kind -> one
            map per picture: `[h, w]`, `[h, w, classes]`, or a dict label -> `[h, w]`. These kinds
            come from it, and `logits` as well if it names them.
        ten_crop: whether a Pair's logits are those of ten crops together, as BAS classifies, see
            `pipeline.ten_crop_probabilities`; maps are of the view all the same.
        progress: optional function of the number of pictures done.
    """
    position_of = {source.image_ids[position]: int(position) for position in positions}
    done = 0
    for batch in evaluation_batches(source, positions, view, batch_size):
        images = np.stack([example.image for example in batch])
        outputs = {name: np.asarray(value) for name, value in predict(images).items()}
        outputs |= own_maps(batch) if own_maps else {}
        logits = outputs.get("logits")
        if ten_crop:
            read = (source.read_image(position_of[example.image_id]) for example in batch)
            resized = np.stack([transforms.resize_image(image, view.resize_size) for image in read])
            logits = np.log(
                transforms.ten_crop_probabilities(
                    lambda crops: predict(crops)["logits"], resized, view.input_size
                )
            )
        for i, example in enumerate(batch):
            given = {name: value[i] for name, value in outputs.items()}
            for label in example.labels.tolist():
                allowed = competing_classes(example.labels, label, len(source.classes))
                own = example.box_labels == label
                yield Pair(
                    position=position_of[example.image_id],
                    image=example.image,
                    image_id=example.image_id,
                    size=tuple(example.size.tolist()),
                    label=label,
                    boxes=example.boxes[own] if source.has_boxes else None,
                    mask=_of_class(example.mask, label) if example.mask.size else None,
                    allowed=allowed,
                    logits=None if logits is None else logits[i],
                    maps={kind: _map(given, kind, label, top_k, allowed) for kind in kinds},
                    activation=_activation(given, label),
                )
        done += len(batch)
        if progress:
            progress(done)


def _of_class(mask, label):
    """A mask of class ids + 1 -> 1 where this class is, 255 where ignored, else 0."""
    return np.where(mask == 255, 255, mask == label + 1).astype(np.uint8)


def _activation(given, label):
    """Where the classifier sees the class, `[h, w]`, 0 or more; None without a classifier."""
    score_map = given.get("score_map")
    return None if score_map is None else np.maximum(score_map[..., label], 0)


def _map(given, kind, label, top_k, allowed):
    """The map of one kind: given as such (for all classes, per class or by label), or picked."""
    value = given.get(kind)
    if isinstance(value, dict):
        return value[label]
    if value is not None:
        return value if value.ndim == 2 else value[..., label]
    names = ("localization_map", "score_map", "logits")
    return map_of(kind, *map(given.get, names), label, top_k=top_k, allowed=allowed)
