"""Takes the mean error out of every convolution of an int8 .tflite by changing its bias.

Rounding a kernel shifts the mean of its output, most of all in depthwise convolutions, where nine
errors do not average out. As in Nagel et al., ICCV 2019 (arXiv 1906.04721), section 4.2, with means
measured on pictures: layer by layer, the difference between a channel's mean output in the float
file and in the int8 file is added to the channel's bias. The file's size and speed do not change.
"""

import collections
import warnings

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

_CONVOLUTIONS = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
_INT32 = np.iinfo(np.int32)


def correct(int8_bytes: bytes, float_bytes: bytes, pictures: np.ndarray) -> bytes:
    """Returns the bytes of an int8 .tflite with corrected biases.

    Args:
        int8_bytes: the .tflite to change, with int8 convolutions and int32 biases.
        float_bytes: the same network in float32.
        pictures: uint8 `[n, H, W, 3]`; 16 are enough.

    Raises:
        ValueError: the files do not hold the same convolutions.
    """
    data = bytearray(int8_bytes)
    model = schema.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    quantized = _convolutions(model)
    original = _convolutions(schema.Model.GetRootAs(float_bytes, 0))
    if [shape for _, _, shape in quantized] != [shape for _, _, shape in original]:
        raise ValueError(
            "The biases can't be corrected: the float and the int8 file hold different "
            "convolutions."
        )
    expected = _means(float_bytes, [output for _, output, _ in original], pictures)
    buffers = [graph.Tensors(i).Buffer() for i in range(graph.TensorsLength())]
    users = collections.Counter(buffers)
    for (bias, output, _), mean in zip(quantized, expected, strict=True):
        tensor = graph.Tensors(bias) if bias >= 0 else None
        # Equal constants share a buffer, so a change would reach the other layers as well.
        if tensor is None or users[tensor.Buffer()] > 1 or not mean.size:
            continue
        error = mean - _means(data, [output], pictures)[0]
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int32)
        corrected = values + np.rint(error / tensor.Quantization().ScaleAsNumpy().astype(float))
        values[:] = np.clip(corrected, _INT32.min, _INT32.max).astype(np.int32)
    return bytes(data)


def _convolutions(model):
    """(index of the bias or -1, index of the output, shape of the kernel), in order."""
    graph = model.Subgraphs(0)
    found = []
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) in _CONVOLUTIONS:
            bias = operator.Inputs(2) if operator.InputsLength() > 2 else -1
            kernel = graph.Tensors(operator.Inputs(1)).ShapeAsNumpy()
            found.append((bias, operator.Outputs(0), tuple(kernel.tolist())))
    return found


def _means(data, tensors, pictures):
    """Mean of each tensor per channel over pictures and positions, in real values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keeping all tensors needs memory, as it warns
        interpreter = Interpreter(model_content=bytes(data), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    image = interpreter.get_input_details()[0]
    means = [0.0] * len(tensors)
    for picture in pictures:
        interpreter.set_tensor(image["index"], picture[None].astype(image["dtype"]))
        interpreter.invoke()
        for i, tensor in enumerate(tensors):
            mean = interpreter.get_tensor(tensor).mean((0, 1, 2), np.float64)
            scale, zero_point = details[tensor]["quantization"]
            means[i] = means[i] + (scale * (mean - zero_point) if scale else mean) / len(pictures)
    return means
