"""The seven losses of arXiv 2404.09475 and one of our own: pure functions, a value per image.

Shapes: logits `[batch, classes]`; score_map F_c `[batch, h, w, classes]`; foreground_mask F_fg
`[batch, height, width]` in 0..1, at a whole multiple of the score map's resolution (2 in the
paper); labels int `[batch]`. Everything is computed in float32. docs/method.md says which
part of each definition is published and which is this project's choice.
"""

from typing import Any

import keras
from keras import ops

from wsol_tf.config import Config

# The terms in the order in which they are shown: `cls`, and all that have a weight in Config.
TERMS = (
    "cls",
    *(x.removesuffix("_weight") for x in Config.__dataclass_fields__ if x.endswith("_weight")),
)
EPSILON = 1e-8

Tensor = Any  # of Keras's backend, or symbolic


def cross_entropy(logits: Tensor, labels: Tensor, allowed: Tensor | None = None) -> Tensor:
    """-log softmax(logits)[label] for each image.

    Args:
        logits: float `[batch, classes]`.
        labels: int `[batch]`.
        allowed: bool `[batch, classes]`; classes that are False take no part in the softmax
            (other classes that are present in a picture with several). None allows all.
    """
    logits = _competing(ops.cast(logits, "float32"), allowed)
    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def classification(score_map: Tensor, labels: Tensor, allowed: Tensor | None = None) -> Tensor:
    """`cls`: cross entropy of the globally averaged score map (equation 1 in docs/method.md)."""
    return cross_entropy(_average(score_map), labels, allowed)


def foreground_classification(
    score_map: Tensor, foreground_mask: Tensor, labels: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """`cls_fg`: cross entropy of the score map inside the mask; gradient into both (equation 2)."""
    mask = pool_to(foreground_mask, score_map)
    return cross_entropy(_average(_float(score_map) * mask[..., None]), labels, allowed)


def erasing_score_map(
    score_map: Tensor, labels: Tensor, threshold: float, allowed: Tensor | None = None
) -> Tensor:
    """`ae`: cross entropy of what is left when the class's strongest positions are erased.

    Equation 3.

    Args:
        score_map: F_c.
        labels: class ids.
        allowed: see `cross_entropy`.
        threshold: t1; positions at or above this share of the image's maximum are erased. Above
            1 nothing is erased and the value equals `classification`.
    """
    own = ops.relu(of_class(_float(score_map), labels))
    kept = ops.stop_gradient(_float(normalized(own) < threshold))
    return cross_entropy(_average(_float(score_map) * kept[..., None]), labels, allowed)


def erasing_foreground_mask(
    score_map: Tensor,
    foreground_mask: Tensor,
    labels: Tensor,
    threshold: float,
    absolute: bool = False,
    allowed: Tensor | None = None,
) -> Tensor:
    """`ae_fg`: `cls_fg` with the strongest positions of the foreground mask erased (equation 4).

    Args:
        score_map: F_c.
        foreground_mask: F_fg.
        labels: class ids.
        allowed: see `cross_entropy`.
        absolute: whether the threshold is a value of the mask.
        threshold: t2, relative to the image's maximum, or to 1 when `absolute`.
    """
    mask = _float(foreground_mask)
    kept = ops.stop_gradient(_float(reference(mask, absolute) < threshold))
    return foreground_classification(score_map, mask * kept, labels, allowed)


def pseudo_label(
    foreground_mask: Tensor,
    high: float,
    low: float,
    absolute: bool = False,
    refined_mask: Tensor | None = None,
    balance: Tensor | bool = False,
) -> Tensor:
    """`pseudo`: L1 distance to the mask's own confident positions, not those between (equation 5).

    Args:
        foreground_mask: F_fg.
        high: t3; above it the pseudo label is foreground.
        low: t4 < t3; below it the pseudo label is background.
        absolute: thresholds are values of the mask instead of shares of its maximum.
        refined_mask: F_fg refined by the picture, `[batch, height, width]` in 0..1; the pseudo
            label then comes from it instead, and the thresholds are its values (our choice).
        balance: whether the foreground positions of a picture weigh no more, all together, than
            its background positions, so that they push up no more than down (our choice).
    """
    mask = _float(foreground_mask)
    target, background = _labelled(mask, high, low, absolute, refined_mask)
    above, below = (ops.sum(x, axis=(1, 2), keepdims=True) for x in (target, background))
    share = ops.where(balance, ops.minimum(1.0, below / ops.maximum(above, 1.0)), 1.0)
    weight = share * target + background
    distance = ops.sum(weight * ops.abs(mask - target), axis=(1, 2))
    return distance / ops.maximum(above + below, 1.0)[:, 0, 0]


def class_activation(score_map: Tensor, labels: Tensor, form: str = "mean_of_relu") -> Tensor:
    """S of equation 6: how strongly the label's score map lights up, `[batch]`, at least 0.

    Args:
        score_map: F_c.
        labels: class ids.
        form: "mean_of_relu", the average of its positive part: what the picture shows elsewhere
            takes nothing away; or "relu_of_mean", the positive part of its average, which is the
            logit (BAS's extension). They are equal where no score is negative.
    """
    own = of_class(_float(score_map), labels)
    if form == "relu_of_mean":
        return ops.relu(ops.mean(own, axis=(1, 2)))
    return ops.mean(ops.relu(own), axis=(1, 2))


def background_activation_suppression(activation: Tensor, background_activation: Tensor) -> Tensor:
    """`bas`: S_bg / S where S_bg < S, else 0 (equation 6; of BAS, arXiv 2112.00580).

    Args:
        activation: S `[batch]`; no gradient flows into it.
        background_activation: S_bg `[batch]`, of the features with the foreground erased.
    """
    activation = ops.stop_gradient(_float(activation))
    background = _float(background_activation)
    ratio = background / (activation + EPSILON)
    return ops.where(background < activation, ratio, 0.0)


def area_constraint(foreground_mask: Tensor) -> Tensor:
    """`ac`: mean of the foreground mask over all positions (equation 7)."""
    return ops.mean(_float(foreground_mask), axis=(1, 2))


def background(localization_map: Tensor) -> Tensor:
    """`background`: -mean log(1 - F_cam), the cross entropy of all maps with an empty mask.

    For pictures that are known to show no object (our choice; no source). A value of 1 counts as
    1 - 1e-7, whose logarithm is finite.

    Args:
        localization_map: F_cam `[batch, h, w, channels]` in 0..1.
    """
    return ops.mean(-ops.log(ops.maximum(1.0 - _float(localization_map), 1e-7)), axis=(1, 2, 3))


def over(applies: Tensor, values: Tensor) -> Tensor:
    """Values whose mean over the batch is that over the images they apply to; 0 for the others.

    Args:
        applies: bool `[batch]`.
        values: float32 `[batch]`.

    Returns:
        float32 `[batch]`; all 0 where they apply to none.
    """
    # Chosen before anything is multiplied: 0 times an infinity would be no number.
    chosen = ops.where(applies, values, 0.0)
    applied = _float(applies)
    return chosen * (ops.sum(ops.ones_like(applied)) / ops.maximum(ops.sum(applied), 1.0))


def left_by_erasing(maps: Tensor, threshold: float, absolute: bool = False) -> Tensor:
    """Share of a map's positive part that erasing from `threshold` on leaves, `[batch]`; no loss.

    1 where there was nothing to erase.
    """
    maps = ops.relu(ops.stop_gradient(_float(maps)))
    kept = ops.sum(maps * _float(reference(maps, absolute) < threshold), axis=(1, 2))
    whole = ops.sum(maps, axis=(1, 2))
    return ops.where(whole > 0, kept / ops.maximum(whole, EPSILON), 1.0)


def right_inside(
    score_map: Tensor, foreground_mask: Tensor, labels: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """Whether the class has the highest score inside the mask: 1 or 0, `[batch]`; no loss.

    Unlike `foreground_classification`, it does not change with the height of the mask.
    """
    mask = pool_to(ops.stop_gradient(foreground_mask), score_map)
    return right(_average(ops.stop_gradient(_float(score_map)) * mask[..., None]), labels, allowed)


def right(logits: Tensor, labels: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Whether the label has the highest logit of those that are allowed: 1 or 0, `[batch]`."""
    best = ops.argmax(_competing(logits, allowed), axis=-1)
    return _float(ops.equal(best, ops.cast(labels, "int32")))


def pseudo_coverage(
    foreground_mask: Tensor,
    high: float,
    low: float,
    absolute: bool = False,
    refined_mask: Tensor | None = None,
) -> Tensor:
    """Share of the positions that have a pseudo label, `[batch]`; no loss."""
    labelled = sum(_labelled(_float(foreground_mask), high, low, absolute, refined_mask))
    return ops.mean(labelled, axis=(1, 2))


def pseudo_foreground(
    foreground_mask: Tensor,
    high: float,
    low: float,
    absolute: bool = False,
    refined_mask: Tensor | None = None,
) -> Tensor:
    """Share of the pseudo labels that say foreground, `[batch]`; 0 where there is none; no loss."""
    both = _labelled(_float(foreground_mask), high, low, absolute, refined_mask)
    above, below = (ops.mean(labels, axis=(1, 2)) for labels in both)
    return above / ops.maximum(above + below, EPSILON)


def of_class(maps: Tensor, labels: Tensor) -> Tensor:
    """Picks the label's channel: `[batch, h, w, classes]` -> `[batch, h, w]`.

    Maps with one channel are class-agnostic: every label gets that channel.
    """
    if maps.shape[-1] == 1:
        return maps[..., 0]
    index = ops.cast(labels, "int32")[:, None, None, None]
    return ops.take_along_axis(maps, index, axis=-1)[..., 0]


def normalized(maps: Tensor) -> Tensor:
    """A / (max over positions of A + 1e-8), per image; without gradient."""
    maps = ops.stop_gradient(maps)
    return maps / (ops.max(maps, axis=(1, 2), keepdims=True) + EPSILON)


def reference(maps: Tensor, absolute: bool) -> Tensor:
    """What thresholds are compared with: the map itself, or its share of the maximum."""
    return ops.stop_gradient(maps) if absolute else normalized(maps)


def confidence(mask: Tensor, absolute: bool, refined_mask: Tensor | None) -> Tensor:
    """What the thresholds of the pseudo label are compared with."""
    return reference(mask, absolute) if refined_mask is None else ops.stop_gradient(refined_mask)


def pool_to(mask: Tensor, score_map: Tensor) -> Tensor:
    """Averages a mask `[batch, height, width]` down to the score map's resolution."""
    factor = mask.shape[1] // score_map.shape[1]
    pooled = ops.average_pool(_float(mask)[..., None], factor, strides=factor, padding="valid")
    return pooled[..., 0]


def _labelled(mask, high, low, absolute, refined_mask):
    """Where the pseudo label is foreground, and where background: 1 or 0, without gradient."""
    relative = confidence(mask, absolute, refined_mask)
    return (ops.stop_gradient(_float(x)) for x in (relative > high, relative < low))


def _competing(logits, allowed):
    return logits if allowed is None else ops.where(allowed, logits, -1e9)


def _average(score_map):
    return ops.mean(_float(score_map), axis=(1, 2))


def _float(tensor):
    return ops.cast(tensor, "float32")
