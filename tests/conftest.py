"""Fixtures that several test files use."""

import os
import pathlib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


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
