"""Reading what PyTorch writes; most of it needs PyTorch, which the project does not."""

import os
import sys
import types
import zipfile

import numpy as np
import pytest

from wsol_tf import files
from wsol_tf.model import torch_file


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_what_is_no_file_is_refused_before_pytorch_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for path, reason in ((tmp_path, "a folder"), (tmp_path / "none.pth", "no such file")):
        with pytest.raises(files.BadFile, match=reason):
            torch_file.read_tensors(path)


@pytest.mark.parametrize("found", [None, types.SimpleNamespace(__version__="2.5.1+cpu")])
def test_without_a_pytorch_that_is_safe_it_is_asked_for(tmp_path, monkeypatch, found):
    monkeypatch.setitem(sys.modules, "torch", found)
    path = tmp_path / "some.pth"
    path.write_bytes(b"some")
    with pytest.raises(ValueError, match=r"pip install 'torch>=2\.6'\.( Received: 2\.5\.1)?"):
        torch_file.read_tensors(path)


def test_an_archive_that_expands_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000))
    size = path.stat().st_size
    with open(path, "rb") as file, pytest.raises(ValueError, match="compressed"):
        torch_file._check_expanded(file, size)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", bytes(10_000))
    with open(path, "rb") as file:
        torch_file._check_expanded(file, path.stat().st_size)
        assert file.tell() == 0


@pytest.mark.parametrize("zipped", [False, True])
def test_tensors_are_read_in_both_formats(torch, tmp_path, zipped):
    path = tmp_path / "saved.pth.tar"
    state = {
        "a.weight": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor(3),
    }
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    read = torch_file.read_tensors(path)
    np.testing.assert_array_equal(read["a.weight"], [[0, 3], [1, 4], [2, 5]])
    assert {name: array.dtype.kind for name, array in read.items()} == {
        "a.weight": "f", "half": "f", "count": "i"
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_checkpoint_does_not_run(torch, tmp_path, zipped):
    path, made = tmp_path / "hostile.pth", tmp_path / "made"
    torch.save({"a": Hostile(made)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(files.BadFile, match="holds more than tensors"):
        torch_file.read_tensors(path)
    assert not made.exists()


def test_what_is_no_state_dict_is_refused(torch, tmp_path):
    path = tmp_path / "other.pth"
    for state, reason in (
        ([torch.ones(2)], "holds no named tensors"),
        ({}, "holds no named tensors"),
        ({"epoch": 3}, "'epoch' in it is no tensor"),
        ({"a": torch.empty(2, device="meta")}, "'a' in it is no tensor"),
        ({"a": torch.eye(2).to_sparse()}, "'a' in it is no tensor"),
        ({"a": torch.ones(1).expand(2**40)}, "larger than the file"),
    ):
        torch.save(state, path)
        with pytest.raises(files.BadFile, match=reason):
            torch_file.read_tensors(path)
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(files.BadFile, match="cut off or damaged"):
        torch_file.read_tensors(path)
