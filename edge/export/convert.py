"""From the Keras model of `graphs.export_graph` to the bytes of a .tflite, and their promises."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edge.export.formats import QUANTIZED
from edge.runtime import SIGNATURE

# What TFLite's GPU delegate takes, by tensorflow/lite/tools/versioning/gpu_compatibility.cc, as far
# as networks for pictures have it. A CAST from bytes, as float files begin with, is not among it.
# The converter's own analyzer can't be asked: with TensorFlow 2.21 it calls any file compatible.
_ON_GPU = {
    "ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D",
    "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU", "EXP", "FULLY_CONNECTED",
    "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM",
    "MIRROR_PAD", "MUL", "NEG", "PACK", "PAD", "PADV2", "POW", "PRELU", "QUANTIZE",
    "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SELECT", "SELECT_V2", "SLICE", "SOFTMAX",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE",
    "STRIDED_SLICE", "SUB", "SUM", "TANH", "TILE", "TRANSPOSE", "TRANSPOSE_CONV",
}  # fmt: skip


def convert(
    graph: keras.Model, format_: str, calibration: Iterable[np.ndarray] | None = None
) -> bytes:
    """Converts a model to the bytes of a .tflite without metadata.

    Args:
        graph: of `graphs.export_graph`.
        format_: "float32", "float16", "dynamic" (int8 weights, float activations) or "int8".
        calibration: uint8 pictures `[n, H, W, 3]` that span 0..255, for "int8" only; see
            `calibration.read_pictures`.

    Raises:
        ValueError: the file breaks a promise of `check`.
    """
    full_int8 = format_ == "int8"
    pictures = () if calibration is None else calibration
    with tempfile.TemporaryDirectory() as folder, _log_on_failure():
        archive = keras.export.ExportArchive()
        archive.track(graph)
        archive.add_endpoint(
            SIGNATURE,
            lambda image: graph(tf.cast(image, tf.float32), training=False),
            # The converter turns a float input into a quantized uint8 one.
            [tf.TensorSpec(graph.input.shape, tf.float32 if full_int8 else tf.uint8, "image")],
        )
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        if format_ != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if format_ == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if full_int8:
            converter.representative_dataset = lambda: (
                (SIGNATURE, {"image": picture[None].astype(np.float32)}) for picture in pictures
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        model_bytes = converter.convert()
    check(model_bytes, format_)
    return model_bytes


@contextlib.contextmanager
def _log_on_failure() -> Iterator[None]:
    """Keeps the pages that the converter writes to stderr, and shows them only if it fails."""
    # Python's own stderr apart: programs have it write past descriptor 2, see wsol_tf.quiet.
    with (
        tempfile.TemporaryFile() as log,
        open(log.fileno(), "w", closefd=False) as text,
        contextlib.redirect_stderr(text),
    ):
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            text.flush()
            log.seek(0)
            os.write(stderr, log.read()[-4000:])
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def operations(model_bytes: bytes) -> dict[str, int]:
    """Counts the operations in a .tflite by name; the names are sorted."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(model_bytes, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    used = [names[codes[op.opcodeIndex]] for graph in model.subgraphs for op in graph.operators]
    return {name: used.count(name) for name in sorted(set(used))}


def gpu_fallbacks(model_bytes: bytes) -> list[str]:
    """Names the operations that a GPU delegate leaves to the CPU, see _ON_GPU; sorted."""
    return sorted(operations(model_bytes).keys() - _ON_GPU)


def check(model_bytes: bytes, format_: str) -> None:
    """Refuses a file that breaks the promises of `edge/__init__.py`.

    Args:
        model_bytes: a .tflite.
        format_: name of `formats.FORMATS`.

    Raises:
        ValueError: operations that are not builtin, dynamic shapes, an input that is not raw
            bytes.
    """
    used = operations(model_bytes)
    if "CUSTOM" in used or "DELEGATE" in used:
        raise ValueError(
            "The file would need operations that not every TFLite runtime has (Flex or custom). "
            f"Operations: {', '.join(used)}."
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
            f"The input's quantization is {image['quantization']}, not (1.0, 0), so raw bytes "
            "would be misread. The pictures for calibration must span 0..255."
        )
