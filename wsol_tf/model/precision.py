"""Which precision `mixed_precision=auto` stands for on this machine."""

import tensorflow as tf

from wsol_tf import files

WIDE = 512  # head width from which bfloat16 was faster on a CPU; at 256 it was not


def policy_of(mixed_precision: str, head_width: int) -> str:
    """Returns the Keras policy that the setting `mixed_precision` asks for.

    Args:
        mixed_precision: a choice of the setting; "auto" is "mixed_bfloat16" where this saves time:
            on GPUs of compute capability 8 and above; and without a GPU, where the processor
            multiplies bfloat16 (AVX512-BF16 or AMX) and the heads are wide, which is where most
            multiplications are. Elsewhere it is "float32".
        head_width: channels of the classifier's two 3x3 convolutions.
    """
    if mixed_precision != "auto":
        return mixed_precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        fast = all(_compute_capability(gpu) >= (8, 0) for gpu in gpus)
    else:
        fast = head_width >= WIDE and not _processor_flags().isdisjoint({"avx512_bf16", "amx_bf16"})
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
