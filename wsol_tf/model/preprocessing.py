"""What a pretrained network expects its picture to be, as one layer on raw RGB in 0..255."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

# Mean and standard deviation of ImageNet's RGB in 0..1, as torchvision has them, and the mean of
# its BGR in 0..255, as Caffe's networks have it: the constants of keras.applications.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable(package="wsol_tf")
class ReversedRescaling(keras.layers.Rescaling):
    """Rescaling of a picture whose channels are put in reverse order first: RGB to BGR.

    A 1x1 convolution does it, which every accelerator has, unlike a reversal.
    """

    def call(self, inputs: Any) -> Any:
        """Scales `[batch, height, width, 3]`."""
        reverse = ops.convert_to_tensor(np.eye(3)[::-1][None, None], dtype=self.compute_dtype)
        images = ops.cast(inputs, self.compute_dtype)
        return super().call(ops.conv(images, reverse, padding="valid", data_format="channels_last"))


# kind -> what makes its layer
_LAYERS: dict[str, Callable[..., keras.layers.Layer]] = {
    "tf": lambda **kw: keras.layers.Rescaling(1 / 127.5, -1.0, **kw),
    "torch": lambda **kw: keras.layers.Rescaling(
        [1 / (255 * deviation) for deviation in _DEVIATION],
        [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
        **kw,
    ),
    "caffe": lambda **kw: ReversedRescaling(1.0, [-mean for mean in _CAFFE_MEAN], **kw),
    "unit": lambda **kw: keras.layers.Rescaling(1 / 255, 0.0, **kw),
}
KINDS = ("none", *_LAYERS)


def preprocessing(kind: str, name: str = "rescaling") -> Callable[[Any], Any]:
    """Makes the function from raw RGB in 0..255 to what a network takes.

    Args:
        kind: "none": the raw values; "tf": -1..1; "torch": 0..1, less ImageNet's mean, divided by
            its standard deviation; "caffe": BGR less ImageNet's mean; "unit": 0..1.
        name: of the layer.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown `preprocessing` '{kind}'. Legal: {', '.join(KINDS)}.")
    if kind == "none":
        return lambda image: image
    return _LAYERS[kind](dtype="float32", name=name)
