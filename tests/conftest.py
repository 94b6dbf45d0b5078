"""Fixtures that several test files use."""

import gc
import os
import pathlib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# As `import wsol_tf` sets it, which may come after TensorFlow here: processes that tests start, and
# compare with to the bit, shall compute with the same kernels.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    """Puts the slowest folder first: of two processes, none shall wait for the other in the end."""
    items.sort(key=lambda item: "training" not in item.path.parts)


def pytest_collection_finish():
    """Spares the garbage collector TensorFlow and all else that was imported and will stay.

    Graphs make very many objects: looking through them less often saves a tenth of building one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="session")
def shared_dir():
    """The folder with real pictures, weights and the peers' vectors; skips without it."""
    folder = os.environ.get("WSOL_TF_SHARED", "")
    if not folder:
        pytest.skip("WSOL_TF_SHARED does not name the folder with real data")
    return pathlib.Path(folder)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def quick(monkeypatch):
    """Trains a network of a few layers without tracing a graph: small steps are faster so."""
    from helpers import make_quick

    make_quick(monkeypatch.setattr)
