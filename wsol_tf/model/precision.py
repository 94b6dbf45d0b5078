"""Which precision `mixed_precision=auto` stands for on this machine."""

import tensorflow as tf

from wsol_tf import files

# What was faster in bfloat16 on a CPU that multiplies it (docs/training.md): networks with many
# multiplications for each value that they write, or heads of this width. Others gain little.
WIDE = 512
FASTER = {
    *("resnet50", "resnet101", "resnet50_v2", "vgg16", "vgg19", "densenet121", "inception_v3"),
    *("xception", "convnext_tiny"),
}


def policy_of(
    mixed_precision: str, head_width: int, extractor: str = "", width: float = 1.0
) -> str:
    """Returns the Keras policy that the setting `mixed_precision` asks for.

    Args:
        mixed_precision: a choice of the setting; "auto" is "mixed_bfloat16" where this saves time:
            on GPUs of compute capability 8 and above; and without a GPU, where the processor
            multiplies bfloat16 (AVX512-BF16 or AMX) and the network or its heads are large enough
            to gain by it. Elsewhere it is "float32".
        head_width: channels of the classifier's two 3x3 convolutions.
        extractor: the setting of this name; "": a network of your own, of which nothing is known.
        width: its width multiplier.
    """
    if mixed_precision != "auto":
        return mixed_precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        fast = all(_compute_capability(gpu) >= (8, 0) for gpu in gpus)
    else:
        large = extractor in FASTER or (extractor == "mobilenet_v1" and width >= 1)
        able = not _processor_flags().isdisjoint({"avx512_bf16", "amx_bf16"})
        fast = able and (large or head_width >= WIDE)
    return "mixed_bfloat16" if fast else "float32"


def _compute_capability(gpu):
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _processor_flags():
    """Instruction sets of this processor as Linux names them; empty where there is no such list."""
    try:
        rows = (line.partition(":") for line in files.read_text("/proc/cpuinfo").splitlines())
    except files.BadFile:
        return set()
    return next((set(value.split()) for name, _, value in rows if name.strip() == "flags"), set())
