"""What an exported file says about itself: a JSON block, labels, and MediaPipe's metadata.

`edge/__init__.py` describes the layout. MediaPipe's part follows its metadata_schema.fbs (file
identifier M001) and image_segmenter_metadata_schema.fbs (V001); the numbers below are positions of
fields in those tables. The packaged writers need a native module that wheels lack.
"""

import hashlib
import io
import json
import zipfile
from typing import Any

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import wsol_tf
from edge.export.exported_map import ExportedMap
from edge.runtime import DIGEST, METADATA
from wsol_tf.model.localization import Localization
from wsol_tf.model.preprocessing import ReversedRescaling

LABELS_NAME = "labels.txt"


def threshold_of(model: Localization, map_: ExportedMap) -> float | str:
    """Returns the score-map threshold of a map, 0..1; "otsu" where the model stores none."""
    return model.thresholds.get(map_.stored_kind, "otsu")


def information_of(model: Localization, map_: ExportedMap, graph: keras.Model) -> dict[str, Any]:
    """Returns what `wsol_tf.json` holds for the files of all formats, without their format."""
    return {
        "labels": list(model.classes),
        "map": str(map_),
        "top_k": min(model.top_k, len(model.classes)) if map_.kind == "topk" else None,
        "threshold": threshold_of(model, map_),
        "refine": model.refine,
        "separate": model.separate,
        "background_class": model.background_class,
        "presence_threshold": model.presence_threshold,
        "map_offset": list(model.offset),  # the map is moved back by it already
        "mirror": model.mirror,  # the map is the average with the mirror image's
        "normalization": _normalization(model),
        "input_size": list(graph.input.shape[1:3]),
        "output_size": list(graph.output["foreground_mask"].shape[1:3]),
        "versions": {
            "wsol_tf": wsol_tf.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _normalization(model):
    """What the network does to raw RGB before anything else."""
    scalings = [x for x in model.feature_extractor.layers if isinstance(x, keras.layers.Rescaling)]
    scaling = next((x for x in scalings if x.input is model.feature_extractor.input), None)
    if scaling is None:  # a backbone of the user's that sees raw values, or hides what it does
        return {"scale": 1.0, "offset": 0.0, "in_graph": True}
    # A number, or one for each channel, whatever the axes that broadcast it.
    values = {
        name: np.squeeze(np.asarray(getattr(scaling, name), float)) for name in ("scale", "offset")
    }
    order = {"channels": "BGR"} if isinstance(scaling, ReversedRescaling) else {}
    return {**{name: value.tolist() for name, value in values.items()}, **order, "in_graph": True}


def add(model_bytes: bytes, information: dict[str, Any]) -> bytes:
    """Returns the bytes of a .tflite with metadata inside.

    Args:
        model_bytes: a .tflite without metadata.
        information: what `wsol_tf.json` holds, see `information_of`, and its `format`;
            `quantization` and the digest are added here.
    """
    model = schema.ModelT.InitFromPackedBuf(model_bytes, 0)
    information = {**information, "quantization": _quantization(model)}
    buffer = schema.BufferT()
    buffer.data = _segmenter_metadata(model, information)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(model_bytes))
    builder.Finish(model.Pack(builder), b"TFL3")
    flatbuffer = bytes(builder.Output())
    information[DIGEST] = hashlib.sha256(flatbuffer).hexdigest()
    archive = io.BytesIO(flatbuffer)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:  # MediaPipe wants it stored
        for name, text in (
            (LABELS_NAME, "\n".join(information["labels"]) + "\n"),
            (METADATA, json.dumps(information, indent=1)),
        ):
            file.writestr(zipfile.ZipInfo(name), text)  # no time stamp: same model, same bytes
    return archive.getvalue()


def _quantization(model):
    """Output -> [scale, zero point] of outputs in bytes, which some runtimes don't tell."""
    found = {}
    for output in model.signatureDefs[0].outputs:
        quantization = model.subgraphs[0].tensors[output.tensorIndex].quantization
        if quantization is not None and quantization.scale is not None:
            scale, zero_point = quantization.scale[0], quantization.zeroPoint[0]
            found[output.name.decode()] = [float(scale), int(zero_point)]
    return found


def _segmenter_metadata(model, information):
    """ModelMetadata of MediaPipe for a model with one image input."""
    graph = model.subgraphs[0]
    outputs = {m.tensorIndex: m.name.decode() for m in model.signatureDefs[0].outputs}
    b = flatbuffers.Builder(1024)
    image = _table(b, 2, int8=[(0, 1)])  # ImageProperties, RGB
    content = _table(b, 3, offsets=[(1, image)], int8=[(0, 2)])  # 2: ImageProperties
    normalization = _table(b, 2, offsets=[(0, _floats(b, [0.0])), (1, _floats(b, [1.0]))])
    unit = _table(b, 2, offsets=[(1, normalization)], int8=[(0, 1)])  # 1: NormalizationOptions
    fields = [
        (0, b.CreateString("image")),
        (1, b.CreateString("Whole picture, RGB, 0..255")),
        (3, content),
        (4, _vector(b, [unit])),
    ]
    inputs = _vector(b, [_table(b, 7, offsets=fields)])
    labels = _table(b, 5, offsets=[(0, b.CreateString(LABELS_NAME))], int8=[(2, 2)])  # axis labels
    tensors = []
    for index in graph.outputs:
        fields = [(0, b.CreateString(outputs[index]))]
        if outputs[index] == "class_scores" or information["map"] in ("all", "present"):
            fields.append((6, _vector(b, [labels])))
        tensors.append(_table(b, 7, offsets=fields))
    outputs = _vector(b, tensors)
    custom = [
        (0, b.CreateString("SEGMENTER_METADATA")),
        (1, b.CreateByteVector(_segmenter_options())),
    ]
    custom = _vector(b, [_table(b, 2, offsets=custom)])
    subgraph = _table(b, 10, offsets=[(2, inputs), (3, outputs), (9, custom)])
    fields = [
        (0, b.CreateString("localizer")),
        (1, b.CreateString(f"Score map of objects; kind of map: {information['map']}")),
        (2, b.CreateString(information["versions"]["wsol_tf"])),
        (3, _vector(b, [subgraph])),
        (6, _vector(b, [labels])),
        (7, b.CreateString("1.5.0")),
    ]
    b.Finish(_table(b, 8, offsets=fields), b"M001")
    return bytes(b.Output())


def _segmenter_options():
    b = flatbuffers.Builder(64)
    version = b.CreateString("1.0.0")
    b.Finish(_table(b, 2, offsets=[(1, version)]), b"V001")  # activation 0: none, as in the graph
    return bytes(b.Output())


def _table(builder, size, *, offsets=(), int8=()):
    builder.StartObject(size)
    for slot, offset in offsets:
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in int8:
        builder.PrependInt8Slot(slot, value, 0)
    return builder.EndObject()


def _vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder, values):
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()
