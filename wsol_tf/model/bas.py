"""From a checkpoint of BAS (arXiv 2112.00580) to a Localization with the same outputs."""

import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from wsol_tf import files, keras_settings
from wsol_tf.model import heads
from wsol_tf.model.bas_networks import NETWORKS, SIDE
from wsol_tf.model.localization import Localization
from wsol_tf.model.preprocessing import preprocessing

MOST_NAMED = 3  # tensors that an error names

# Our layers of the heads -> their tensors.
_HEADS = {
    "classifier_conv1": "classifier_cls.0",
    "classifier_conv2": "classifier_cls.2",
    "classifier_scores": "classifier_cls.4",
    "localizer_conv": "classifier_loc.0",
}
# What a checkpoint holds besides: copies that the erased branch of training uses, which are renewed
# from the network in each step, and PyTorch's count of batches.
_BESIDES = re.compile(
    r"(erase_branch|classifier_cls_copy|conv_copy_5_\d|layer4_copy|Mixed_7[abc]_copy)\."
    r"|.*\.num_batches_tracked$"
)


def build_from(
    tensors: Mapping[str, np.ndarray], classes: Sequence[str] | None = None
) -> Localization:
    """Makes a model that gives the outputs of one of BAS's networks.

    Args:
        tensors: name -> float array, as `torch_file.read_tensors` reads them from a checkpoint.
        classes: names of the classes, in the order of their ids; None: class_000, class_001 ...

    Returns:
        A Localization, not compiled. With the classes of CUB-200-2011 or ILSVRC it has the map and
        the threshold of BAS's own inference, else it has no threshold. `loaded_weights` says which
        network it is.

    Raises:
        ValueError: the tensors are not those of a network of BAS, or not as many classes.
    """
    keras_settings.check()
    tensors = _of_network(tensors)
    name = next((name for name, x in NETWORKS.items() if x.mark in tensors), None)
    sizes = [
        tensors[f"{_HEADS[layer]}.weight"].shape[:1]
        for layer in ("classifier_conv1", "localizer_conv")
        if f"{_HEADS[layer]}.weight" in tensors
    ]
    if name is None or len(sizes) < 2 or not all(sizes):
        raise ValueError(
            "These are not the weights of a network of BAS (MobileNetV1, VGG16, ResNet50 or "
            "InceptionV3 with classifier_cls and classifier_loc). They begin with: "
            f"{_named(list(tensors)) or 'nothing'}."
        )
    (head_width,), (num_classes,) = sizes
    if classes is None:
        classes = [f"class_{number:03}" for number in range(num_classes)]
    if len(classes) != num_classes:
        raise ValueError(
            f"The checkpoint has {num_classes} classes. Received {len(classes)} names: give one "
            "for each, in the order of the ids (in BAS, the sorted names of the folders)."
        )
    model = _untrained(NETWORKS[name], classes, head_width)
    loaded = _load((model.feature_extractor, model.classifier, model.localizer), tensors)
    model.loaded_weights = f"{name} of BAS, {files.counted(loaded, 'layer')}"
    return model


def _of_network(tensors):
    """The tensors of the network itself, by the same names in all of BAS's code."""
    found = {}
    for name, array in tensors.items():
        name = name.removeprefix("module.")  # of nn.DataParallel, on ILSVRC
        if not _BESIDES.match(name):
            found[re.sub(r"^classifier\.", "classifier_cls.", name)] = array  # InceptionV3, on CUB
    return found


def _untrained(network, classes, head_width):
    image = keras.Input((SIDE, SIDE, 3), name="image")
    features = network.features(preprocessing("torch")(image))
    given = keras.Input(features.shape[1:], name="features")
    rest = keras.Model(given, network.rest(given), name="rest")
    number = len(classes)
    kind, top_k, threshold = network.inference.get(number, ("mean", min(5, number), None))
    return Localization(
        keras.Model(image, features, name="feature_extractor"),
        heads.classifier(rest, number, head_width=head_width, final_relu=True),
        heads.localizer(features.shape[1:], number),
        classes,
        map=kind,
        top_k=top_k,
        # The class that is predicted is taken where the true one isn't known.
        thresholds={}
        if threshold is None
        else dict.fromkeys({kind, "true"} if kind == "predicted" else {kind}, threshold),
    )


def _load(parts, tensors):
    """Gives each layer its tensors; returns how many layers had some."""
    layers = [layer for part in parts for layer in part.layers if layer.weights]
    unused, missing, misshapen, broken = dict(tensors), [], [], []
    for layer in layers:
        source = _HEADS.get(layer.name, layer.name)
        arrays = []
        for part, variable in zip(_parts(layer), layer.weights, strict=True):
            name = f"{source}.{part}"
            array = unused.pop(name, None)
            if array is None:
                missing.append(name)
                continue
            arrays.append(_in_our_order(array, layer))
            if arrays[-1].shape != tuple(variable.shape) or array.dtype.kind != "f":
                misshapen.append(name)
            elif not np.isfinite(arrays[-1]).all():
                broken.append(name)
        if not (missing or misshapen or broken):
            layer.set_weights(arrays)
    for names, what in (
        (missing, "lacks {}"),
        (list(unused), "has {} that the network has not"),
        (misshapen, "has {} of another shape or type"),
        (broken, "has {} with numbers that are not finite"),
    ):
        if names:
            found = what.format(files.counted(len(names), "tensor"))
            raise ValueError(
                f"The checkpoint is not one of BAS's own code: it {found}: {_named(names)}."
            )
    return len(layers)


def _parts(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return "weight", "bias", "running_mean", "running_var"
    return ("weight", "bias")[: len(layer.weights)]


def _in_our_order(array, layer):
    """PyTorch's [out, in / groups, height, width] as Keras has it."""
    if array.ndim != 4:
        return array
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))


def _named(names):
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(files.printable(str(name)) for name in names[:MOST_NAMED]) + more
