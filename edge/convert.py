"""From the Keras model of `graphs.build` to the bytes of a .tflite, and what must hold of them."""

import contextlib
import os
import tempfile
import warnings

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edge import bias_correction

SIGNATURE = "localize"
FORMATS = ("float32", "float16", "dynamic", "int8", "int8_qat")
QUANTIZED = ("int8", "int8_qat")
NUM_CORRECTION = 16  # pictures; 48 gave the same


def convert(graph, format_):
    """Converts a model to the bytes of a float .tflite, without metadata.

    Args:
        graph: Keras model of `graphs.build`.
        format_: "float32", "float16" or "dynamic" (int8 weights, float activations).

    Raises:
        ValueError: the file breaks a promise of `check`.
    """
    with _saved(graph, tf.uint8) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        if format_ != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if format_ == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return _checked(converter, format_)


def quantize(graph, float_bytes, calibration):
    """Converts a model to int8 weights and activations, with ranges seen on pictures.

    Args:
        graph: Keras model of `graphs.build`.
        float_bytes: the "float32" file of the same model, to correct biases by.
        calibration: uint8 pictures `[n, H, W, 3]` that span 0..255, see `calibration.pictures`.

    Raises:
        ValueError: the file breaks a promise of `check`.
    """
    with _saved(graph, tf.float32) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            (SIGNATURE, {"image": picture[None].astype(np.float32)}) for picture in calibration
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
        model_bytes = _checked(converter, "int8")
    return bias_correction.correct(model_bytes, float_bytes, calibration[:NUM_CORRECTION])


@contextlib.contextmanager
def _saved(graph, dtype):
    """A SavedModel whose input `image` has a dtype; the converter makes uint8 of float32."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        archive = keras.export.ExportArchive()
        archive.track(graph)
        archive.add_endpoint(
            SIGNATURE,
            lambda image: graph(tf.cast(image, tf.float32), training=False),
            [tf.TensorSpec(graph.input.shape, dtype, name="image")],
        )
        archive.write_out(folder, verbose=False)
        yield folder


def _checked(converter, format_):
    model_bytes = converter.convert()
    check(model_bytes, format_)
    return model_bytes


@contextlib.contextmanager
def _quiet():
    """Keeps the converter's log of its steps off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def operations(model_bytes):
    """Names of the operations in a .tflite, sorted, with how often each stands there."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(model_bytes, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    used = [names[codes[op.opcodeIndex]] for graph in model.subgraphs for op in graph.operators]
    return {name: used.count(name) for name in sorted(set(used))}


def check(model_bytes, format_):
    """Refuses a file that breaks the promises of `edge/__init__.py`.

    Raises:
        ValueError: operations that are not builtin, dynamic shapes, an input that is not raw
            bytes.
    """
    used = operations(model_bytes)
    if "CUSTOM" in used or "DELEGATE" in used:
        raise ValueError(
            "The file would need operations that are not in every TFLite runtime (Flex or "
            f"custom). Operations: {', '.join(used)}."
        )
    interpreter = Interpreter(model_content=model_bytes)
    runner = interpreter.get_signature_runner(SIGNATURE)
    image = runner.get_input_details()["image"]
    for name, tensor in [("image", image), *runner.get_output_details().items()]:
        if (np.asarray(tensor["shape_signature"]) < 0).any():
            raise ValueError(f"The shape of '{name}' is not static: {tensor['shape_signature']}.")
    if image["dtype"] != np.uint8:
        raise ValueError(f"The input is {image['dtype'].__name__}, not uint8.")
    if format_ in QUANTIZED and image["quantization"] != (1.0, 0):
        raise ValueError(
            f"The input's quantization is {image['quantization']}, not (1.0, 0), so bytes would "
            "not mean what they are. Calibration must span 0..255."
        )


def write_atomically(path, data):
    """Writes bytes or text so that the final name never holds a part of them."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".export-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
