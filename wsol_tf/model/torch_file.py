"""Reads the tensors of a checkpoint of PyTorch, and nothing else that one can hold."""

import os
from typing import Any

import numpy as np

from wsol_tf import files

LEAST_TORCH = (2, 6)  # before, a file could run code in spite of weights_only (CVE-2025-32434)
MISSING = (
    "Reading a checkpoint of PyTorch needs PyTorch, for this alone: pip install 'torch>=2.6'. "
)


def read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict: what `torch.save(model.state_dict(), path)` wrote.

    Only tensors are read: a file that holds anything else, such as code, is refused.

    Args:
        path: the file, such as `.pth` or `.pth.tar`, in either of PyTorch's formats.

    Returns:
        Name -> array; numbers with a fraction are float32, and those without stay as they are.

    Raises:
        BadFile: the file can't be read, or isn't a state dict.
        ValueError: PyTorch is not installed, or too old to read files of others safely.
    """
    with files.open_binary(path) as file:
        torch = _torch()
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what damage does to PyTorch has no end of kinds
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise files.BadFile(
                path,
                "this is no checkpoint of PyTorch that holds tensors alone "
                f"({files.printable(reason).rstrip('.')})",
            ) from None
        if not isinstance(state, dict) or not state:
            raise files.BadFile(path, f"this holds a {type(state).__name__}, not named tensors")
        return {str(name): _array(torch, path, name, value) for name, value in state.items()}


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(MISSING.strip()) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        raise ValueError(f"{MISSING}Received: {torch.__version__}, which is too old to be safe.")
    return torch


def _array(torch, path, name, value):
    shown = files.printable(str(name))
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        raise files.BadFile(path, f"'{shown}' in it is a {type(value).__name__}, not plain numbers")
    bytes_there = 0 if value.is_meta else value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > bytes_there:  # one number repeated fills no memory
        raise files.BadFile(path, f"'{shown}' in it is larger than what the file holds of it")
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).numpy()
