"""Score maps that need no training of ours: an ImageNet classifier's CAM, Grad-CAM, the centre."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from wsol_tf.model import backbones


def imagenet_classifier(
    extractor: str,
    *,
    width: float = 1.0,
    input_size: int = 224,
    output_stride: int = 16,
    dilation: bool = True,
    weights: str = "imagenet",
) -> tuple[keras.Model, keras.Model, str]:
    """Builds a keras.applications classifier so that it gives its class activation map as well.

    Pooling and a linear layer commute, so that the layer, applied to each position, gives the map
    whose mean is the logit: CAM (Zhou et al., CVPR 2016, arXiv 1512.04150).

    Args:
        extractor: see `backbones.build_extractor`, as are width, input_size and dilation.
        width: width multiplier of a MobileNet.
        input_size: side of the pictures in pixels.
        output_stride: 16 leaves the network as it was trained (maps of 7x7 from 224); 8 and 4
            give finer maps.
        dilation: whether the convolutions behind a removed stride are dilated.
        weights: "imagenet" (downloaded) or the path of a weights file with the top.

    Returns:
        (feature_extractor, classifier, loaded): functional models raw RGB `[batch, input_size,
        input_size, 3]` -> F_f and F_f -> score map `[batch, s, s, 1000]`, whose mean over the
        positions are the logits; and a sentence that says which weights were loaded.

    Raises:
        ValueError: for weights without the top or that do not fit, and for a network whose class
            scores are no linear function of pooled features.
    """
    backbone = backbones.BACKBONES.get(extractor)
    if backbone is not None and not backbone.top:
        able = [name for name, row in backbones.BACKBONES.items() if row.top]
        raise ValueError(
            f"{extractor} has more than one layer behind its pooling, so it has no class "
            f"activation map. Networks that have: {', '.join(able)}."
        )
    if weights == "none":
        raise ValueError("A classifier without weights explains nothing. Name a file or imagenet.")
    feature_extractor, rest, loaded = backbones.build_extractor(
        extractor,
        width=width,
        input_size=input_size,
        output_stride=output_stride,
        dilation=dilation,
        weights=weights,
    )
    kernel, bias = _top(extractor, width, weights)
    scores = keras.layers.Conv2D(kernel.shape[-1], 1, name="classifier_scores")
    classifier = keras.Model(rest.input, scores(rest.output), name="classifier")
    scores.set_weights([kernel.reshape(1, 1, *kernel.shape[-2:]), bias])
    return feature_extractor, classifier, f"{loaded}, and the class scores"


def _top(extractor, width, weights):
    """Kernel and bias of the class scores, from the download or a file."""
    backbone = backbones.BACKBONES[extractor]
    keywords = {"alpha": width} if len(backbone.widths) > 1 else {}
    application = getattr(keras.applications, backbone.application)
    try:
        whole = application(weights="imagenet" if weights == "imagenet" else None, **keywords)
        if weights != "imagenet":
            whole.load_weights(weights)
    except Exception as error:  # Keras raises what HDF5 and a failed download give it
        raise ValueError(
            f"The weights '{weights}' do not give a whole {extractor} of width {width:g} with its "
            f"class scores ({str(error).splitlines()[0]}). Name a file with the top, or imagenet."
        ) from error
    return [np.asarray(weight) for weight in whole.get_layer(backbone.top).weights]


def class_scores(
    feature_extractor: keras.Model, classifier: keras.Model
) -> Callable[[np.ndarray], dict[str, tf.Tensor]]:
    """Makes the `predict` of a Method: uint8 batch -> dict of `logits` and `score_map`.

    Args:
        feature_extractor: functional model image -> F_f.
        classifier: functional model F_f -> score map `[batch, h, w, classes]`.
    """

    @tf.function
    def predict(images):
        score_map = classifier(feature_extractor(images, training=False), training=False)
        return {"logits": tf.reduce_mean(score_map, (1, 2)), "score_map": score_map}

    return predict


def grad_cam(
    feature_extractor: keras.Model, classifier: keras.Model
) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    """Makes a function (uint8 images, labels int32 `[batch]`) -> Grad-CAM float32 `[batch, h, w]`.

    The positive part of F_f, its channels weighted by their mean gradient of the label's logit
    (Selvaraju et al., ICCV 2017, arXiv 1610.02391). It is taken at the shared features F_f: at
    the last layer before the class scores it would be CAM's positive part again.

    Args:
        feature_extractor: functional model image -> F_f.
        classifier: functional model F_f -> score map, whose mean over the positions are the logits.
    """

    @tf.function
    def maps(images, labels):
        features = feature_extractor(images, training=False)
        with tf.GradientTape() as tape:
            tape.watch(features)
            logits = tf.reduce_mean(classifier(features, training=False), (1, 2))
            own = tf.reduce_sum(tf.gather(logits, labels, axis=1, batch_dims=1))
        weights = tf.reduce_mean(tape.gradient(own, features), (1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * features, -1))

    return maps


def center_map(side: int = 56) -> np.ndarray:
    """Returns the map that looks at no picture: a Gaussian at the centre, float32 [side, side].

    The centre baseline of Choe et al. (CVPR 2020, arXiv 2007.04178): every method must beat it.
    """
    positions = np.linspace(-1, 1, side, dtype=np.float32)
    line = np.exp(-(positions**2) / (2 * 0.5**2))
    return np.outer(line, line)
