"""Networks as functions of one picture, and of the batches that scoring feeds them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge.runtime import SIGNATURE

if TYPE_CHECKING:
    import keras

# uint8 [H, W, 3] of the network's own size -> outputs by name, without the batch dimension
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]


def tflite_runner(model_bytes: bytes, threads: int = 1) -> Runner:
    """Returns the function that a .tflite computes: float32 outputs, whatever the file holds."""
    interpreter = Interpreter(model_content=model_bytes, num_threads=threads)
    signature = interpreter.get_signature_runner(SIGNATURE)
    details = signature.get_output_details()

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {}
        for name, values in signature(image=image[None]).items():
            if values.dtype == np.uint8:
                scale, zero_point = details[name]["quantization"]
                values = np.float32(scale) * (values.astype(np.float32) - zero_point)
            outputs[name] = values[0]
        return outputs

    return run


def keras_runner(graph: "keras.Model") -> Runner:
    """Returns the function that a model of `graphs.export_graph` computes."""

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = graph.predict_on_batch(image[None])
        return {name: np.asarray(values)[0] for name, values in outputs.items()}

    return run


def batched(run: Runner) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Turns a function of one picture into one of a batch, as `pairs.predict_pairs` takes it.

    Args:
        run: gives `foreground_mask` `[h, w, channels]` and, with a classifier, `class_scores`
            `[classes]`.

    Returns:
        A function of uint8 `[batch, H, W, 3]` -> dict of `localization_map` and, with a
        classifier, `logits`.
    """

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        rows = [run(image) for image in images]
        outputs = {"localization_map": np.stack([row["foreground_mask"] for row in rows])}
        if "class_scores" in rows[0]:
            outputs["logits"] = np.stack([row["class_scores"] for row in rows])
        return outputs

    return predict
