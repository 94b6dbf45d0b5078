"""The two heads on the shared features: classifier E_c and localizer E_l."""

import keras


def classifier(
    rest: keras.Model, num_classes: int, *, head_width: int = 1024, final_relu: bool = False
) -> keras.Model:
    """Builds E_c: the rest of the backbone, two 3x3 convolutions and a 1x1 convolution.

    Args:
        rest: the functional model behind the cut, from `backbones.build_extractor`.
        num_classes: number of classes.
        head_width: channels of the two 3x3 convolutions.
        final_relu: whether a ReLU ends the score map, as in BAS.

    Returns:
        A functional model F_f `[batch, s, s, channels]` -> score map F_c float32
        `[batch, s / 2, s / 2, num_classes]`.
    """
    x = rest.outputs[0]
    for i in (1, 2):
        x = _convolution(head_width, 3, name=f"classifier_conv{i}", activation="relu")(x)
    activation = "relu" if final_relu else None
    x = _convolution(
        num_classes, 1, name="classifier_scores", activation=activation, dtype="float32"
    )(x)
    return keras.Model(rest.input, x, name="classifier")


def localizer(feature_shape: tuple[int, int, int], num_channels: int) -> keras.Model:
    """Builds E_l: one 3x3 convolution and a sigmoid.

    Args:
        feature_shape: (s, s, channels) of F_f.
        num_channels: number of classes (the published form), or 1 for a class-agnostic mask.

    Returns:
        A functional model F_f -> localization map F_cam float32 `[batch, s, s, num_channels]`
        in 0..1.
    """
    features = keras.Input(feature_shape, name="features")
    x = _convolution(num_channels, 3, name="localizer_conv", activation="sigmoid", dtype="float32")(
        features
    )
    return keras.Model(features, x, name="localizer")


def _convolution(filters, size, **keywords):
    return keras.layers.Conv2D(
        filters, size, padding="same", kernel_initializer="glorot_uniform", **keywords
    )
