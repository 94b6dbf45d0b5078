"""Feature extractors: keras.applications networks, cut where the localizer reads them.

`build_extractor` gives two functional models: the feature extractor (image -> F_f) and the rest of
the backbone, which `heads.classifier` continues. A network of keras.applications is one row of
BACKBONES; where it is cut and how its resolution is kept follows from its `graph`. Strides
that are too coarse are taken out; with `dilation` the windows behind them are dilated, so that
every pretrained kernel still sees the distances it was trained on. BAS (arXiv 2112.00580) takes the
stride out and does not dilate.
"""

import dataclasses
import os
from collections.abc import Callable

import keras

from wsol_tf.config import choices, legal, register_choice
from wsol_tf.model import surgery
from wsol_tf.model.graph import cuts, graph_of
from wsol_tf.model.preprocessing import preprocessing
from wsol_tf.model.resolution import Resolution
from wsol_tf.model.weights_file import load_weights

Parts = tuple[keras.Model, keras.Model]  # feature extractor and rest


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A network of keras.applications.

    Attributes:
        application: its name there.
        scaling: kind of `preprocessing` that its ImageNet weights expect.
        widths: width multipliers with ImageNet weights; more than one: any in (0, 2] can be built.
        least: smallest side of a picture in pixels.
        top: layer that turns pooled features into class scores; empty: the network has more than
            one layer behind its pooling.
        trim: layers at its end that it has only without its top.
        dilate_pools: whether its pooling layers are dilated behind a removed stride.
    """

    application: str
    scaling: str = "tf"
    widths: tuple[float, ...] = (1.0,)
    least: int = 64
    top: str = "predictions"
    trim: int = 0
    dilate_pools: bool = True


BACKBONES = {
    "mobilenet_v1": Backbone("MobileNet", widths=(0.25, 0.5, 0.75, 1.0), top="conv_preds"),
    "mobilenet_v2": Backbone("MobileNetV2", widths=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "mobilenet_v3_large": Backbone("MobileNetV3Large", widths=(0.75, 1.0), top=""),
    "mobilenet_v3_small": Backbone("MobileNetV3Small", widths=(0.75, 1.0), top=""),
    "efficientnet_b0": Backbone("EfficientNetB0", "torch"),
    "efficientnet_v2_b0": Backbone("EfficientNetV2B0", "torch"),
    "resnet50": Backbone("ResNet50", "caffe"),
    "resnet101": Backbone("ResNet101", "caffe"),
    "resnet50_v2": Backbone("ResNet50V2"),
    "vgg16": Backbone("VGG16", "caffe", top=""),
    "vgg19": Backbone("VGG19", "caffe", top=""),
    "densenet121": Backbone("DenseNet121", "torch"),
    # Its pools are not dilated: that is how this project has trained it.
    "inception_v3": Backbone("InceptionV3", least=96, dilate_pools=False),
    "xception": Backbone("Xception", least=96),
    "nasnet_mobile": Backbone("NASNetMobile"),
    "convnext_tiny": Backbone("ConvNeXtTiny", "torch", top="", trim=1),
}
# Features of `wsol_tf.pretrain`, made of drawn pictures: they come with the package.
DRAWN_WEIGHTS = os.path.join(os.path.dirname(__file__), "drawn.weights.h5")
DRAWN_NETWORK = ("mobilenet_v1", 0.25)
_REGISTERED: dict[str, Callable[..., Parts]] = {}


def register_backbone(name: str, build: Callable[..., Parts]) -> None:
    """Makes a backbone of your own a legal `extractor`.

        def build(*, width, input_size, output_stride):
            net = my_network(input_size, width, weights="mine.weights.h5")
            features = net.get_layer("block4").output
            return keras.Model(net.input, features), keras.Model(features, net.output)

        register_backbone("mine", build)

    A functional model that shall be cut like those of this project needs no such function: give
    it to `wsol_tf.build(config, classes, backbone=model)`, or return `cut_model(model, ...)`.

    Args:
        name: what `Config(extractor=...)` calls it.
        build: function of `width`, `input_size` and `output_stride`, called by keyword with the
            values of the Config, that returns two functional models: feature extractor, raw RGB
            `[batch, input_size, input_size, 3]` in 0..255 to F_f `[batch, s, s, channels]` with
            s = input_size / output_stride; and rest, F_f to the features of the classifier
            `[batch, t, t, channels]`, where t divides s. Preprocessing and pretrained weights are
            its own affair: `extractor_weights`, `dilation` and `bn_momentum` are not used, and
            `levels` is refused.

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
    levels: str = "",
    weights: str = "imagenet",
    bn_momentum: float = 0.9,
) -> tuple[keras.Model, keras.Model, str]:
    """Builds a feature extractor and the rest of its backbone.

    Args:
        name: a row of BACKBONES, or one of `register_backbone`.
        width: width multiplier of a MobileNet; the others have 1.0 alone.
        input_size: side of the square input in pixels, a multiple of 32.
        output_stride: pixels of the input per position of F_f: 8 gives 28x28 from 224.
        dilation: whether the windows behind a removed stride are dilated.
        levels: strides of the features that are joined, such as "8,16", see `surgery.split`;
            empty: those of the cut alone, at the stride `output_stride`.
        weights: "imagenet" (downloaded by keras.applications), "drawn" (of drawn pictures, for
            MobileNetV1 of width 0.25 and the data set `shapes`), "none", or the path of a
            `.weights.h5` or `.h5` file of the same keras.applications model.
        bn_momentum: share of the old moving average that each training batch keeps.

    Returns:
        (feature_extractor, rest, loaded): feature_extractor maps raw RGB `[batch, input_size,
        input_size, 3]` in 0..255 to F_f `[batch, s, s, channels]`, s = input_size /
        output_stride; rest maps F_f to `[batch, t, t, channels]`, t = s / 2, and t = s with
        stride 32; loaded is a sentence that says which weights were loaded.

    Raises:
        ValueError: for an unknown name, a size or a width that the backbone can't have, or a
            weights file that does not fit; the last names the layers that differ.
    """
    if name in _REGISTERED:
        if levels:
            raise ValueError(
                f"`levels` is not for '{name}', whose own function cuts it: let it join features, "
                f"and leave `levels` out. Received: '{levels}'."
            )
        built = _REGISTERED[name](width=width, input_size=input_size, output_stride=output_stride)
        feature_extractor, rest = checked(*built, input_size, output_stride)
        return feature_extractor, rest, f"{name}: weights as its function built it"
    backbone = _check(name, width, input_size, output_stride)
    network = _application(name, width, input_size, weights)
    graph = graph_of(network, core=True, trim=backbone.trim)
    loaded = f"{name}: {_loaded(weights, _kept(network, backbone.trim))}"
    parts = _cut(
        graph, input_size, backbone.scaling, output_stride, dilation, levels, bn_momentum,
        backbone.dilate_pools,
    )  # fmt: skip
    return *parts, loaded


def _loaded(weights, layers):
    """Loads a file of weights, if it is one, and says which the layers have."""
    if weights == "imagenet":
        return "ImageNet weights of keras.applications, all layers"
    if weights == "none":
        return "random weights"
    matched = load_weights(layers, DRAWN_WEIGHTS if weights == "drawn" else weights)
    return f"{weights}, {matched} of {matched} layers matched"


def cut_model(
    model: keras.Model,
    *,
    preprocessing: str = "none",
    input_size: int = 224,
    output_stride: int = 8,
    dilation: bool = True,
    levels: str = "",
    bn_momentum: float | None = None,
) -> Parts:
    """Cuts a functional model of your own as those of this project are cut.

    Args:
        model: one picture `[batch, side, side, 3]` -> features `[batch, h, w, channels]`, the top
            taken off; side may be any, or None. Nested models are flattened.
        preprocessing: kind of `preprocessing.preprocessing` to put before it; "none" where it
            takes raw RGB in 0..255.
        input_size: see `build_extractor`, as are output_stride, dilation and levels.
        output_stride: pixels of the input per position of F_f.
        dilation: whether the windows behind a removed stride are dilated.
        levels: strides of the features that are joined.
        bn_momentum: share of the old moving average that each training batch keeps; None: as the
            model has it.

    Returns:
        (feature extractor, rest), copies with the weights of the model.

    Raises:
        ValueError: the model isn't functional, has several inputs or outputs, no features at the
            stride, or a layer that can't be followed or saved; the message names it.
    """
    graph = graph_of(model, side=input_size)
    parts = _cut(
        graph, input_size, preprocessing, output_stride, dilation, levels, bn_momentum, True
    )
    return checked(*parts, input_size, output_stride)


def freeze(parts: Parts, share: float) -> int:
    """Makes the first layers of a backbone keep their weights in training.

    Normalization layers among them use their moving averages, which stay as they are too.

    Args:
        parts: feature extractor and rest.
        share: of the backbone's layers with weights, counted from the picture, 0 to 1. Layers that
            belong to the last of them (its normalization) are frozen with it.

    Returns:
        The number of layers that are frozen.
    """
    layers = [layer for part in parts for layer in part.layers if layer.weights]
    number = round(share * len(layers))
    if number:
        while number < len(layers) and not _has_kernel(layers[number]):
            number += 1
    for layer in layers[:number]:
        layer.trainable = False
    return number


def _has_kernel(layer):
    return any("kernel" in weight.name for weight in layer.weights)


def checked(
    feature_extractor: keras.Model, rest: keras.Model, input_size: int, output_stride: int = 0
) -> Parts:
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


def _cut(graph, side, scaling, output_stride, dilation, levels, bn_momentum, dilate_pools):
    """The two parts of a graph for one setting of the resolution."""
    places = cuts(graph)
    strides = [stride for stride in places if stride > 1]
    received = f"It has them at strides {', '.join(map(str, strides)) or 'none'}."
    if levels:
        chosen = _parsed_levels(levels, output_stride)
        if not set(chosen) <= set(strides):
            raise ValueError(
                f"The backbone has no features at each of `levels` {levels}. {received}"
            )
        coarsest = chosen[-1]
        resolution = Resolution(coarsest, coarsest)
    else:
        chosen = (
            [strides[-1] if output_stride == strides[-1] else strides[-2]] if strides[1:] else []
        )
        if not chosen or output_stride not in strides:
            raise ValueError(
                f"The backbone has no features at `output_stride` {output_stride}, or none behind "
                f"them. {received}"
            )
        resolution = Resolution(output_stride, chosen[0], dilation, dilate_pools)
    taken = {step.name for step in graph.steps}
    scaled = preprocessing(scaling, "preprocessing" if "rescaling" in taken else "rescaling")
    return surgery.split(
        graph, side, scaled, resolution, [places[stride] for stride in chosen], bn_momentum
    )


def _parsed_levels(levels, output_stride):
    try:
        chosen = sorted({int(text) for text in levels.split(",")})
    except ValueError:
        chosen = []
    if not chosen or chosen[0] != output_stride:
        raise ValueError(
            "`levels` must be strides of features, separated by commas, of which the smallest is "
            f"`output_stride`, as 8,16. Received: '{levels}' with output_stride {output_stride}."
        )
    return chosen


def _check(name, width, input_size, output_stride):
    if name not in BACKBONES:
        raise ValueError(f"Unknown `extractor` '{name}'. Legal: {legal('extractor')}.")
    backbone = BACKBONES[name]
    if output_stride not in choices("output_stride"):
        raise ValueError(
            f"`output_stride` must be one of {choices('output_stride')} (56x56, 28x28, 14x14 or "
            f"7x7 features from 224 pixels). Received: {output_stride}."
        )
    if input_size < backbone.least or input_size % 32:
        raise ValueError(
            f"`input_size` must be a multiple of 32 and at least {backbone.least} for {name}. "
            f"Received: {input_size}."
        )
    any_width = len(backbone.widths) > 1
    if (any_width and not 0 < width <= 2) or (not any_width and width != 1):
        legal_widths = "lie in (0, 2]" if any_width else "be 1.0"
        raise ValueError(
            f"`width` must {legal_widths} for {name}. Received: width={width} with {name}."
        )
    return backbone


def _application(name, width, input_size, weights):
    backbone = BACKBONES[name]
    if weights == "imagenet" and width not in backbone.widths:
        *most, last = map(str, backbone.widths)
        raise ValueError(
            f"ImageNet weights exist for widths {', '.join(most)} and {last}. "
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
    keywords = {"alpha": width} if len(backbone.widths) > 1 else {}
    keywords["input_tensor"] = keras.Input((input_size, input_size, 3), name="image")
    application = getattr(keras.applications, backbone.application)
    if weights != "imagenet":
        return application(include_top=False, weights=None, **keywords)
    try:
        return application(include_top=False, weights="imagenet", **keywords)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ValueError(
            f"The ImageNet weights can't be downloaded: {error} Give a local file with "
            "`extractor_weights=PATH`, or none; BUILD.md says which file Keras looks for."
        ) from error


def _kept(network, trim):
    """The layers of an application that are copied: not its scaling, nor what is trimmed."""
    kept = network.layers[: len(network.layers) - trim]
    return [layer for layer in kept if not isinstance(layer, keras.layers.Normalization)]
