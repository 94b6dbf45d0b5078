"""Names of the kinds of file that `edge.export` makes."""

TRAINED = {"int8_qat": "qat", "int8_pruned": "pruned", "int8_clustered": "clustered"}
QUANTIZED = ("int8", *TRAINED)
FORMATS = ("float32", "float16", "dynamic", *QUANTIZED)
