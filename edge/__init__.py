"""TFLite files of trained localizers: how they are made, checked and run.

What is inside `localizer_<format>.tflite` (format: float32, float16, dynamic, int8, int8_qat)
----------------------------------------------------------------------------------------------
One signature, `localize`, static shapes, builtin operations only.

| tensor | shape | type |
|---|---|---|
| input `image` | [1, H, W, 3] | uint8 raw RGB 0..255. The whole picture resized to H x W (aspect ignored, antialiased bilinear, as `wsol_tf.pipeline.resize_image`). Scaling is in the graph; quantization is (1.0, 0) in int8 files, so feed bytes |
| output `foreground_mask` | [1, h, w, 1]; with map "all" [1, h, w, C] | the score map in 0..1. float32 in float32, float16 and dynamic files; uint8 in int8 and int8_qat files: value = scale * (byte - zero_point), both from the tensor's quantization, (1/256, 0) |
| output `class_scores` | [1, C] | only with map "predicted" or "topk". Logits (take softmax for probabilities: 8 bits of a probability would lose the order of classes). float32, or uint8 with its own quantization in int8 files |

Output names are read from the signature, not from the order of the tensors.

After the flatbuffer a zip is appended (stored, not compressed), which `zipfile.ZipFile(path)`
reads: `labels.txt`, one class name per line, and `wsol_tf.json`:

    {"labels": [C names in the order of class ids],
     "map": "mean" | "topk" | "predicted" | "class:NAME" | "all",
     "top_k": k of map "topk", else null,
     "threshold": score-map threshold in 0..1 after the map's min-max stretch, or "otsu" where the
         trained model stores none,
     "normalization": {"scale": s, "offset": o, "in_graph": true},
     "input_size": [H, W], "output_size": [h, w],
     "format": "int8", "versions": {"wsol_tf": ..., "tensorflow": ..., "keras": ...}}

From the map to the mask: `wsol_tf.score_maps.localize` (min-max to 0..1, bilinear to the
picture's size, `> threshold`, largest component, tight box).

The flatbuffer also carries the metadata of MediaPipe's image segmenter (buffer TFLITE_METADATA).
MediaPipe takes models with one output only: maps "mean", "class:NAME" and "all".
"""
