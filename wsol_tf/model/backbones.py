"""Feature extractors: keras.applications backbones, cut where the localizer reads them.

`build_extractor` gives two functional models: the feature extractor (image -> F_f) and the rest of
the backbone, which `heads.classifier` continues. Resolution is kept at the cut by taking the stride
out of the last strided layers; with `dilation` the convolutions behind them are dilated, so that
every pretrained kernel still sees the distances it was trained on (as in atrous networks: Chen et
al., arXiv 1606.00915). BAS (arXiv 2112.00580) takes the stride out and does not dilate.
"""

import dataclasses
import json
import os
from collections.abc import Callable

import keras

from wsol_tf.config import choices, register_choice
from wsol_tf.model.weights_file import load_weights, own_names, weighted_layers


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What a keras.applications model needs to be cut: names of its layers, and its scaling."""

    application: str
    cut: str  # F_f is this layer's output
    end: str  # the last layer of the backbone
    strided: tuple[tuple[str, ...], ...]  # layers that halve the resolution, groups in order
    scale: float = 1 / 127.5  # raw 0..255 -> the scale of the ImageNet weights
    offset: float = -1.0


BACKBONES = {
    "mobilenet_v1": Backbone(
        application="MobileNet",
        cut="conv_pw_11_relu",
        end="conv_pw_13_relu",
        strided=(("conv1",), ("conv_dw_2",), ("conv_dw_4",), ("conv_dw_6",), ("conv_dw_12",)),
    ),
    "inception_v3": Backbone(
        application="InceptionV3",
        cut="mixed7",
        end="mixed10",
        strided=(
            ("conv2d",),
            ("max_pooling2d",),
            ("max_pooling2d_1",),
            ("conv2d_26", "conv2d_29", "max_pooling2d_2"),
            ("conv2d_71", "conv2d_75", "max_pooling2d_3"),
        ),
    ),
}
# Features of `wsol_tf.pretrain`, made of drawn pictures: they come with the package.
DRAWN_WEIGHTS = os.path.join(os.path.dirname(__file__), "drawn.weights.h5")
DRAWN_NETWORK = ("mobilenet_v1", 0.25)
_REGISTERED: dict[str, Callable[..., tuple[keras.Model, keras.Model]]] = {}


def register_backbone(name: str, build: Callable[..., tuple[keras.Model, keras.Model]]) -> None:
    """Makes a backbone of your own a legal `extractor`.

        def build(*, width, input_size, output_stride):
            net = my_network(input_size, width, weights="mine.weights.h5")
            features = net.get_layer("block4").output
            return keras.Model(net.input, features), keras.Model(features, net.output)

        register_backbone("mine", build)

    Args:
        name: what `Config(extractor=...)` calls it.
        build: function of `width`, `input_size` and `output_stride`, called by keyword with the
            values of the Config, that returns two functional models: feature extractor, raw RGB
            `[batch, input_size, input_size, 3]` in 0..255 to F_f `[batch, s, s, channels]` with
            s = input_size / output_stride; and rest, F_f to the features of the classifier
            `[batch, t, t, channels]`, where t divides s. Preprocessing and pretrained weights are
            its own affair: `extractor_weights`, `dilation` and `bn_momentum` are not used.

    Raises:
        ValueError: a backbone of this project has the name.
    """
    if name in BACKBONES:
        raise ValueError(f"There is a backbone '{name}' already. Choose another name.")
    _REGISTERED[name] = build
    register_choice("extractor", name)


def build_extractor(
    name: str,
    *,
    width: float = 1.0,
    input_size: int = 224,
    output_stride: int = 8,
    dilation: bool = True,
    weights: str = "imagenet",
    bn_momentum: float = 0.9,
) -> tuple[keras.Model, keras.Model, str]:
    """Builds a feature extractor and the rest of its backbone.

    Args:
        name: "mobilenet_v1", "inception_v3", or one of `register_backbone`.
        width: width multiplier of MobileNetV1 (0.25 to 1.0); InceptionV3 has 1.0 alone.
        input_size: side of the square input in pixels, a multiple of 32.
        output_stride: pixels of the input per position of F_f: 8 gives 28x28 from 224.
        dilation: whether the convolutions behind a removed stride are dilated.
        weights: "imagenet" (downloaded by keras.applications), "drawn" (pretrained on drawn
            pictures, for MobileNetV1 of width 0.25 and the data set `shapes`), "none", or the
            path of a `.weights.h5` or `.h5` file of the same keras.applications model.
        bn_momentum: share of the old moving average that each training batch keeps.

    Returns:
        (feature_extractor, rest, loaded): feature_extractor maps raw RGB `[batch, input_size,
        input_size, 3]` in 0..255 to F_f `[batch, s, s, channels]`, s = input_size /
        output_stride; rest maps F_f to `[batch, s / 2, s / 2, channels]`; loaded is a sentence
        that says which weights were loaded.

    Raises:
        ValueError: for an unknown name, a size or a width that the backbone can't have, or a
            weights file that does not fit; the last names the layers that differ.
    """
    if name in _REGISTERED:
        built = _REGISTERED[name](width=width, input_size=input_size, output_stride=output_stride)
        feature_extractor, rest = checked(*built, input_size, output_stride)
        return feature_extractor, rest, f"{name}: weights as its function built it"
    backbone = _check(name, width, input_size, output_stride)
    original = _application(name, width, input_size, weights)
    edits = _resolution_edits(original, own_names(original), backbone, output_stride, dilation)
    clone = _edited_clone(original, edits, bn_momentum)

    if weights == "imagenet":
        loaded = f"{name}: ImageNet weights of keras.applications, all layers"
    elif weights == "none":
        loaded = f"{name}: random weights"
    else:
        matched = load_weights(clone, DRAWN_WEIGHTS if weights == "drawn" else weights)
        loaded = f"{name}: {weights}, {matched} of {matched} layers matched"

    features = clone.get_layer(backbone.cut).output
    feature_extractor = keras.Model(clone.inputs[0], features, name="feature_extractor")
    rest = _with_input_name(
        keras.Model(features, clone.get_layer(backbone.end).output, name="rest"), "features"
    )
    return feature_extractor, rest, loaded


def _edited_clone(original, edits, bn_momentum):
    """The network with these changes of its layers, by name, and its weights."""
    names = own_names(original)

    def edited(layer):
        config = layer.get_config()
        config.update(edits.get(layer.name, {}), name=names[layer.name])
        if isinstance(layer, keras.layers.BatchNormalization):
            # Statistics of the global batch: replicas then train as one device does.
            config.update(momentum=bn_momentum, synchronized=True)
        return layer.__class__.from_config(config)

    clone = keras.models.clone_model(original, clone_function=edited)
    for source, target in zip(weighted_layers(original), weighted_layers(clone), strict=True):
        target.set_weights(source.get_weights())
    return clone


def checked(
    feature_extractor: keras.Model, rest: keras.Model, input_size: int, output_stride: int = 0
) -> tuple[keras.Model, keras.Model]:
    """Checks a backbone that a user built, and gives its two parts the names of ours.

    Args:
        feature_extractor: image -> F_f.
        rest: F_f -> features of the classifier.
        input_size: side of the image in pixels that is asked for.
        output_stride: pixels per position of F_f that are asked for; 0: any.

    Returns:
        (feature_extractor, rest), with the same layers.

    Raises:
        ValueError: shapes that don't fit each other, or not what was asked for.
    """
    image, features = feature_extractor.input.shape, feature_extractor.output.shape
    given, ended = rest.input.shape, rest.output.shape
    side = input_size // output_stride if output_stride else features[1]
    if (
        image[1:] != (input_size, input_size, 3)
        or features[1:3] != (side, side)
        or given[1:] != features[1:]
        or ended[1] != ended[2]
        or side % ended[1]
    ):
        raise ValueError(
            f"A backbone has a feature extractor [{input_size}, {input_size}, 3] -> [{side}, "
            f"{side}, channels] and a rest from there to [s, s, channels], where s divides {side}. "
            f"Received: {image[1:]} -> {features[1:]} and {given[1:]} -> {ended[1:]}."
        )
    return (
        keras.Model(feature_extractor.input, feature_extractor.output, name="feature_extractor"),
        keras.Model(rest.input, rest.output, name="rest"),
    )


def _with_input_name(model, name):
    """Rebuilds a functional model so that its one input has this name in every process."""
    config = json.dumps(model.get_config()).replace(f'"{model.layers[0].name}"', f'"{name}"')
    renamed = keras.Model.from_config(json.loads(config))
    renamed.set_weights(model.get_weights())
    return renamed


def _check(name, width, input_size, output_stride):
    if name not in BACKBONES:
        legal = ", ".join(choices("extractor"))
        raise ValueError(f"Unknown `extractor` '{name}'. Legal: {legal}.")
    if output_stride not in choices("output_stride"):
        raise ValueError(
            f"`output_stride` must be one of {choices('output_stride')} (56x56, 28x28 or "
            f"14x14 features from 224 pixels). Received: {output_stride}."
        )
    least = 96 if name == "inception_v3" else 64
    if input_size < least or input_size % 32:
        raise ValueError(
            f"`input_size` must be a multiple of 32 and at least {least} for {name}. "
            f"Received: {input_size}."
        )
    if not 0 < width <= 2 or (name == "inception_v3" and width != 1):
        raise ValueError(
            f"`width` must lie in (0, 2] for mobilenet_v1 and be 1.0 for inception_v3. "
            f"Received: width={width} with {name}."
        )
    return BACKBONES[name]


def _application(name, width, input_size, weights):
    keywords = {"alpha": width} if name == "mobilenet_v1" else {}
    if weights == "imagenet" and name == "mobilenet_v1" and width not in (0.25, 0.5, 0.75, 1.0):
        raise ValueError(
            "ImageNet weights exist for widths 0.25, 0.5, 0.75 and 1.0. "
            f"Received: width={width}; take one of these, or `extractor_weights=none`."
        )
    if weights == "drawn" and (name, width) != DRAWN_NETWORK:
        raise ValueError(
            "The weights 'drawn' are those of mobilenet_v1 with `width=0.25`. "
            f"Received: {name} with width={width}."
        )
    if weights not in ("imagenet", "drawn", "none") and not os.path.isfile(weights):
        raise ValueError(
            "`extractor_weights` must be 'imagenet', 'drawn', 'none' or the path of a weights "
            f"file. Received: '{weights}', which is no file."
        )
    backbone = BACKBONES[name]
    image = keras.Input((input_size, input_size, 3), name="image")
    scaled = keras.layers.Rescaling(
        backbone.scale, backbone.offset, dtype="float32", name="rescaling"
    )(image)
    application = getattr(keras.applications, backbone.application)
    if weights != "imagenet":
        return application(include_top=False, weights=None, input_tensor=scaled, **keywords)
    try:
        return application(include_top=False, weights="imagenet", input_tensor=scaled, **keywords)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ValueError(
            f"The ImageNet weights can't be downloaded: {error} Give a local file with "
            "`extractor_weights=PATH`, or none; BUILD.md says which file Keras looks for."
        ) from error


def _resolution_edits(model, names, backbone, output_stride, dilation):
    """Configurations to change, by layer name, so that F_f has the output stride."""
    group_of = {layer: i for i, group in enumerate(backbone.strided) for layer in group}
    kept = {4: 2, 8: 3, 16: 4}[output_stride]  # groups before the cut that keep their stride
    last = len(backbone.strided) - 1  # the group behind the cut always strides
    edits, removed = {}, set()
    for layer in model.layers:
        name = names[layer.name]
        group = group_of.get(name)
        config = layer.get_config()
        if group is not None and kept <= group < last:
            removed.add(group)
            edits[layer.name] = {"strides": 1}
            rate = 2 ** (len(removed) - 1)
        else:
            rate = 2 ** len(removed)
        if isinstance(layer, keras.layers.ZeroPadding2D):
            following = name.replace("conv_pad", "conv_dw")
            if kept <= group_of.get(following, last) < last:
                # A strided 'valid' convolution is padded at the far side only; without the
                # stride it needs the same at both sides, as much as its dilation reaches.
                reach = 2 ** len(removed) if dilation else 1
                edits[layer.name] = {"padding": reach}
            continue
        if "padding" in config and config["padding"] == "valid" and "conv_dw" not in name:
            edits.setdefault(layer.name, {})["padding"] = "same"
        kernel = config.get("kernel_size", (1, 1))
        if dilation and rate > 1 and max(kernel) > 1 and group != last:
            edits.setdefault(layer.name, {})["dilation_rate"] = rate
    return edits
