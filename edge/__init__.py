"""TFLite files of trained localizers: how they are made, checked and run.

What `localizer_<format>.tflite` holds (float32, float16, dynamic, int8, int8_qat, int8_pruned or
int8_clustered): one signature, `localize`, with static shapes and builtin operations only.

Input `image`, uint8 [1, H, W, 3], raw RGB 0..255: the whole picture resized to H x W (aspect
    ignored, antialiased bilinear, as `wsol_tf.data.transforms.resize_image`). The graph scales it.
    The quantization of int8 files is (1.0, 0), so bytes are fed as they are.
Output `foreground_mask`, [1, h, w, 1], with maps "all" and "present" [1, h, w, C]: the score map in
    0..1.
    float32 in float32, float16 and dynamic files; uint8 in those of int8, where
    value = scale * (byte - zero_point) with the tensor's own quantization.
Output `class_scores`, [1, C], only with map "predicted", "topk" or "present" or a background class:
    logits, since 8 bits of a probability would lose the order of the classes; softmax gives
    probabilities. float32 or uint8, as above.

Take outputs by their names in the signature, not by their order.

An uncompressed zip follows the flatbuffer; `zipfile.ZipFile(path)` reads it:
`labels.txt`, one class name per line, and `wsol_tf.json`:

    {"labels": class names in the order of their ids,
     "map": "mean", "topk", "predicted", "class:NAME", "all" or "present": every class's map, of
         which those of the classes in the picture are taken,
     "top_k": k of map "topk", else null,
     "threshold": score-map threshold in 0..1, after the map is stretched to 0..1, or "otsu" where
         the trained model stores none,
     "refine": "guided" where a map is refined by the picture before the threshold cuts it, else
         "none", as in files that lack the key,
     "separate": whether objects that touch are cut apart in the mask; false in files that lack it,
     "background_class": the class of pictures without any object, or null: where it has the highest
         of the class scores, nothing is found: an empty mask, no boxes, and no box,
     "presence_threshold": with map "present", the class with the highest of the class scores is in
         the picture, and every other one whose probability is at least this, 0..1, but for the
         background class; null where the trained model stores none,
     "map_offset": [down, right], in positions, by which the localizer's map lay beside the objects,
         "mirror": whether the map is the average with the mirror image's; for information, since
         the graph does both,
     "normalization": {"scale": s, "offset": o, "in_graph": true}: what the network itself does to
         the bytes, numbers or one for each channel; "channels": "BGR" where it reverses them first,
     "input_size": [H, W], "output_size": [h, w], "format": "int8",
     "quantization": {output: [scale, zero_point]} of outputs in bytes,
     "versions": {"wsol_tf": ..., "tensorflow": ..., "keras": ...},
     "sha256": of the flatbuffer, in hexadecimal: of all bytes before the zip's first entry}

Damaged weights run and give another mask, so every runtime compares the digest before it runs the
network, and the zip's CRC-32 of this block before it reads it. Files of version 0.1.0 have no
digest.

From the map to mask and boxes: with "refine": "guided" first as `wsol_tf.model.refinement.refine`
(a guided filter; its guide are the bytes that the network saw), then as
`wsol_tf.model.score_maps.localize` and `components` (min-max to 0..1, bilinear to the
picture's size, `> threshold`, the tight box of each 8-connected component, the largest first). The
threshold is that of the refined map: without refinement it gives another mask. With "separate":
true, `wsol_tf.model.separation.separate` cuts the mask before its components are taken.

The flatbuffer itself carries the metadata of MediaPipe's image segmenter, which takes models with
one output: maps "mean", "class:NAME" and "all".
"""
