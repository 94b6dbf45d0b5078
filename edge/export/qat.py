"""Quantization-aware training, pruning and clustering: further training that needs no labels.

The only module that imports tensorflow_model_optimization, and only inside functions: the import
turns `tf.keras` into Keras 2. It takes one flat Keras 2 model, so the localizer is rebuilt layer by
layer as such a twin, with the weights copied over. The twin is trained to give the float model's
own mask (distillation), and its weights go back into a copy of the Keras 3 model, which is
converted as any other: with a scale for each channel and with corrected biases.
"""

import contextlib
import os

import keras
import numpy as np
import tensorflow as tf

from edge.export.graphs import kernel_of

BATCH_SIZE = 8
# Of Adam. Rounding is a small change, which a larger rate does more harm than it repairs.
LEARNING_RATES = {"qat": 1e-5, "pruned": 1e-4, "clustered": 1e-4}
# Settings that a layer of Keras 3 shares with its counterpart in Keras 2.
_SHARED = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "dilation_rate", "use_bias"),
    "BatchNormalization": ("epsilon", "center", "scale"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Activation": ("activation",),
    "ZeroPadding2D": ("padding",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "Concatenate": (),
}


@contextlib.contextmanager
def _optimization():
    """Yields (tf_keras, tfmot) and puts back the variable that the import sets."""
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ImportError as error:
        raise ValueError(
            f"Quantization-aware training needs two more packages ({error}): "
            "pip install 'wsol_tf[qat]'."
        ) from error
    try:
        yield tf_keras, tfmot
    finally:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before


def check(map_):
    """Refuses what is known before any work not to be trained further.

    Raises:
        ValueError: a map that needs the classifier; or a package is missing.
    """
    if map_ in ("topk", "predicted"):
        raise ValueError(
            f"int8_qat, int8_pruned and int8_clustered are for the maps mean, class:NAME and all; "
            f"'{map_}' needs the classifier as well. Take --formats=int8."
        )
    with _optimization():
        pass


def train(model, map_, run, pictures, kind="qat", *, steps, sparsity=0.5, clusters=32, seed=0):
    """Returns a copy of a model whose kernels were trained further for a small or int8 file.

    Args:
        model: a Localization; it stays as it is.
        map_: "mean", "class:NAME" or "all".
        run: function of uint8 `[1, H, W, 3]` -> dict with `foreground_mask`: the float model, its
            map of the network's own size.
        pictures: uint8 `[n, H, W, 3]`, no labels.
        kind: "qat": kernels and activations are rounded as int8 does while training; "pruned":
            a share of each kernel becomes 0; "clustered": each kernel keeps few distinct values.
        steps: batches of BATCH_SIZE pictures.
        sparsity: share of zeros of kind "pruned".
        clusters: distinct values of kind "clustered".
        seed: of the order of the pictures.

    Raises:
        ValueError: see `check` and `twin`.
    """
    check(map_)
    targets = masks(run, pictures)
    with _optimization() as (tf_keras, tfmot):
        student = twin(model, map_, tf_keras)
        callbacks, strip = [], lambda trained: trained
        if kind == "qat":
            student = quantized(student, pictures[:16], tf_keras, tfmot)
        elif kind == "pruned":
            pruning = tfmot.sparsity.keras
            schedule = pruning.PolynomialDecay(
                0.0, sparsity, 0, max(steps * 2 // 3, 1), frequency=max(steps // 30, 1)
            )
            student = _wrapped(
                student,
                tf_keras,
                lambda layer: pruning.prune_low_magnitude(layer, pruning_schedule=schedule),
            )
            callbacks, strip = [pruning.UpdatePruningStep()], pruning.strip_pruning
        else:
            clustering = tfmot.clustering.keras
            student = _wrapped(
                student,
                tf_keras,
                lambda layer: clustering.cluster_weights(
                    layer,
                    number_of_clusters=clusters,
                    cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
                ),
            )
            strip = clustering.strip_clustering
        distill(
            student, targets, pictures, steps=steps, learning_rate=LEARNING_RATES[kind],
            seed=seed, tf_keras=tf_keras, callbacks=callbacks,
        )  # fmt: skip
        return with_weights(model, map_, weights_of(strip(student)))


def _wrapped(student, tf_keras, wrap):
    """Wraps the convolutions that are trained; depthwise kernels are small and stay as they are."""

    def of_layer(layer):
        is_convolution = type(layer).__name__ == "Conv2D" and layer.trainable
        return wrap(layer) if is_convolution else layer

    return tf_keras.models.clone_model(student, clone_function=of_layer)


def weights_of(student):
    """Arrays of a twin by the names of layer and weight, such as "conv1/kernel"."""
    weights = {}
    for layer in student.layers:
        for weight in layer.weights:
            kind = weight.name.rpartition("/")[2].removesuffix(":0")
            weights[f"{layer.name.removeprefix('quant_')}/{kind}"] = weight.numpy()
    return weights


def with_weights(model, map_, weights):
    """A copy of a Localization with kernels and the localizer's bias from a twin.

    Args:
        weights: of `weights_of`.
    """
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    for layer in copy.feature_extractor.layers:
        for name in ("kernel", "depthwise_kernel"):
            value = weights.get(f"{layer.name}/{name}")
            if value is not None and not isinstance(layer, keras.layers.Rescaling):
                layer.set_weights([value, *layer.get_weights()[1:]])
    kernel, bias = copy.localizer.get_layer("localizer_conv").get_weights()
    channels = slice(None)
    if map_.startswith("class:"):
        channel = model.classes.index(map_.removeprefix("class:"))
        channels = slice(channel, channel + 1)
    kernel[..., channels] = weights["localizer_conv/kernel"]
    bias[channels] = weights["localizer_conv/bias"]
    copy.localizer.get_layer("localizer_conv").set_weights([kernel, bias])
    return copy


def twin(model, map_, tf_keras):
    """Rebuilds extractor and localizer as one flat Keras 2 model with the same weights.

    Args:
        model: a Localization.
        map_: "mean", "class:NAME" or "all".

    Returns:
        A model of raw RGB float `[batch, H, W, 3]` -> `[batch, h, w, channels]`, channels = 1
        unless the map is "all". Scaling is a 1x1 depthwise convolution, which tfmot can quantize;
        the mean over channels is a 1x1 convolution.

    Raises:
        ValueError: a layer that has no counterpart.
    """
    layers, weights = tf_keras.layers, {}
    image = layers.Input(model.feature_extractor.input.shape[1:], name="image")
    tensors = {id(model.feature_extractor.input): image}
    for layer in model.feature_extractor.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if isinstance(layer, keras.layers.Rescaling):
            copy = layers.DepthwiseConv2D(1, name=layer.name, trainable=False)
            weights[copy] = [np.full((1, 1, 3, 1), layer.scale), np.full(3, layer.offset)]
        else:
            copy = _counterpart(layer, layers)
            weights[copy] = layer.get_weights()
        source = layer.input
        inputs = (
            [tensors[id(t)] for t in source] if isinstance(source, list) else tensors[id(source)]
        )
        tensors[id(layer.output)] = copy(inputs)
    x = tensors[id(model.feature_extractor.output)]
    kernel, bias = kernel_of(model, map_)
    head = layers.Conv2D(kernel.shape[-1], 3, padding="same", name="localizer_conv")
    weights[head] = [kernel, bias]
    x = layers.Activation("sigmoid", name="localizer_sigmoid")(head(x))
    if map_ == "mean" and kernel.shape[-1] > 1:
        mean = layers.Conv2D(1, 1, use_bias=False, name="mean", trainable=False)
        weights[mean] = [np.full((1, 1, kernel.shape[-1], 1), 1 / kernel.shape[-1])]
        x = mean(x)
    twin_ = tf_keras.Model(image, x, name="localize")
    for copy, values in weights.items():
        copy.set_weights(values)
    return twin_


def _counterpart(layer, layers):
    kind = type(layer).__name__
    if kind not in _SHARED:
        raise ValueError(
            f"Quantization-aware training knows no counterpart of the layer '{layer.name}' "
            f"({kind}). Take --formats=int8."
        )
    config = {key: value for key, value in layer.get_config().items() if key in _SHARED[kind]}
    if kind == "BatchNormalization":
        config["trainable"] = False  # few pictures: the statistics of the training stay
    return getattr(layers, kind)(name=layer.name, **config)


def distill(student, targets, pictures, *, steps, learning_rate, seed, tf_keras, callbacks=()):
    """Trains a Keras 2 model to give the float model's masks; every second batch is mirrored.

    Args:
        student: the model to train.
        targets: float32 `[n, 2, h, w, channels]`, the masks of each picture and of its mirror
            image.
        pictures: uint8 `[n, H, W, 3]`.
        steps: batches of BATCH_SIZE.
    """
    rng = np.random.default_rng(seed)
    schedule = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    student.compile(tf_keras.optimizers.Adam(schedule), loss="binary_crossentropy")

    def batches():
        while True:
            chosen = rng.choice(len(pictures), min(BATCH_SIZE, len(pictures)), replace=False)
            mirrored = int(rng.integers(2))
            batch = pictures[chosen, :, :: -1 if mirrored else 1].astype(np.float32)
            yield batch, targets[chosen, mirrored]

    return student.fit(
        batches(), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=list(callbacks)
    ).history["loss"][-1]


def masks(run, pictures):
    """The masks of pictures and of their mirror images, `[n, 2, h, w, channels]`."""
    return np.stack(
        [
            np.concatenate(
                [run(p[None])["foreground_mask"], run(p[None, :, ::-1])["foreground_mask"]]
            )
            for p in pictures
        ]
    )


def quantized(twin_, pictures, tf_keras, tfmot):
    """Wraps a twin so that kernels and activations are rounded as in the int8 file.

    tfmot's defaults are not used for two reasons: they round depthwise kernels per tensor, where
    the file has a scale per channel, and their ranges of activations start at -6..6 and need
    thousands of steps to move. Here both are what the converter does.

    Args:
        twin_: the Keras 2 model, which shares its weights with the result.
        pictures: uint8 `[n, H, W, 3]`, for the ranges of activations.
    """
    ranges = _ranges(twin_, pictures, tf_keras)
    quantization = tfmot.quantization.keras

    class RoundedKernel(quantization.quantizers.Quantizer):
        """int8 per output channel, symmetric, straight-through gradient."""

        def __init__(self, axes):
            self.axes = axes  # all but that of the output channels

        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            scale = tf.reduce_max(tf.abs(inputs), self.axes, keepdims=True) / 127.0
            rounded = tf.math.divide_no_nan(inputs, scale)
            return inputs + tf.stop_gradient(tf.round(rounded) * scale - inputs)

        def get_config(self):
            return {"axes": self.axes}

    class RoundedOutput(quantization.quantizers.Quantizer):
        """8 bits over a range that stays."""

        def __init__(self, low, high):
            self.low, self.high = low, high

        def build(self, tensor_shape, name, layer):
            return {}

        def __call__(self, inputs, training, weights, **kwargs):
            return tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high)

        def get_config(self):
            return {"low": self.low, "high": self.high}

    class Rounding(quantization.QuantizeConfig):
        """What of one layer is rounded."""

        def __init__(self, kernel, low, high):
            self.kernel, self.low, self.high = kernel, low, high

        def get_weights_and_quantizers(self, layer):
            if not self.kernel:
                return []
            axes = (0, 1) if self.kernel == "depthwise_kernel" else (0, 1, 2)
            return [(getattr(layer, self.kernel), RoundedKernel(axes))]

        def set_quantize_weights(self, layer, quantize_weights):
            if self.kernel:
                setattr(layer, self.kernel, quantize_weights[0])

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return [] if self.low is None else [RoundedOutput(self.low, self.high)]

        def get_config(self):
            return {"kernel": self.kernel, "low": self.low, "high": self.high}

    def annotate(layer):
        kind = type(layer).__name__
        kernel = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel"}.get(kind)
        # A convolution, its normalization and its ReLU are one operation in the file.
        inside = kind in ("Conv2D", "DepthwiseConv2D", "BatchNormalization", "ZeroPadding2D")
        if layer.name in ("localizer_conv", "rescaling"):
            inside = False
        low, high = (None, None) if inside else ranges[layer.name]
        return quantization.quantize_annotate_layer(layer, Rounding(kernel, low, high))

    annotated = tf_keras.models.clone_model(twin_, clone_function=annotate)
    with quantization.quantize_scope(
        {c.__name__: c for c in (RoundedKernel, RoundedOutput, Rounding)}
    ):
        student = quantization.quantize_apply(annotated)
    for variable in student.layers[1].weights:  # the rounding of the picture
        if variable.name.endswith(("_min:0", "_max:0")):
            variable.assign(255.0 if "_max" in variable.name else 0.0)
    student.get_layer("quant_rescaling").trainable = False
    return student


def _ranges(twin_, pictures, tf_keras):
    """(lowest, highest) output of each layer on pictures, with 0 inside."""
    probe = tf_keras.Model(twin_.input, {layer.name: layer.output for layer in twin_.layers[1:]})
    ranges = {}
    for picture in pictures:
        for name, value in probe(picture[None].astype(np.float32), training=False).items():
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(np.min(value))), max(high, float(np.max(value)), 1e-3)
    return ranges
