"""Reads the tensors of a checkpoint of PyTorch, and nothing else that one can hold."""

import os
import warnings
import zipfile
from typing import IO, Any

import numpy as np

from wsol_tf import files

LEAST_TORCH = (2, 6)  # before, a file could run code in spite of weights_only (CVE-2025-32434)
MISSING = "Reading a checkpoint of PyTorch needs PyTorch, for this alone: pip install 'torch>=2.6'."
EXPECTED = "write it with torch.save(model.state_dict(), path)"


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
        size = os.fstat(file.fileno()).st_size
        try:
            _check_expanded(file, size)
            with warnings.catch_warnings(action="ignore"):
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # what damage does to PyTorch has no end of kinds
            raise files.BadFile(
                path,
                "this is no checkpoint of PyTorch, is cut off or damaged, or holds more than "
                f"tensors; {EXPECTED}",
            ) from None
    if not isinstance(state, dict) or not state:
        raise files.BadFile(path, f"this holds no named tensors; {EXPECTED}")
    for name, value in state.items():
        if not _is_plain(torch, value):
            shown = files.printable(str(name))
            raise files.BadFile(path, f"'{shown}' in it is no tensor of numbers; {EXPECTED}")
    # The same numbers under many names, or one number repeated, would fill the memory.
    if sum(value.numel() * value.element_size() for value in state.values()) > size:
        raise files.BadFile(path, f"its tensors are larger than the file; {EXPECTED}")
    return {
        str(name): (value.float() if value.is_floating_point() else value).detach().numpy()
        for name, value in state.items()
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError(MISSING) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < LEAST_TORCH:
        raise ValueError(f"{MISSING} Received: {torch.__version__}, which is too old to be safe.")
    return torch


def _check_expanded(file: IO[bytes], size: int) -> None:
    """Refuses an archive that is larger than its file: PyTorch compresses nothing."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > size:
                raise ValueError("compressed")
    file.seek(0)


def _is_plain(torch, value):
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )
