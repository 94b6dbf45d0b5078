"""Keras set up for other projects: a sentence, before anything fails because of it."""

import json
import os
import subprocess
import sys

import keras
import pytest

from helpers import ROOT
from wsol_tf import keras_settings


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Checks what a process would ask Keras for: (keras.json or None, KERAS_BACKEND or None)."""

    def check(settings=None, backend=None):
        if settings is not None:
            (tmp_path / "keras.json").write_text(settings)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if backend is not None:
            monkeypatch.setenv("KERAS_BACKEND", backend)
        keras_settings._check_what_is_asked_for()

    return check


@pytest.mark.parametrize(
    "settings, backend, words",
    [
        (None, "torch", "backend 'tensorflow': set KERAS_BACKEND=tensorflow .*'torch', from the "),
        (None, "jax", "Received: 'jax', from the environment variable KERAS_BACKEND"),
        ({"backend": "jax"}, None, "Received: 'jax', from .*keras.json"),
        ({"backend": "jax"}, "", "Received: 'jax', from .*keras.json"),
        ({"image_data_format": "channels_first"}, None, "'channels_first', from .*keras.json"),
        ({"image_data_format": None}, None, "image_data_format 'channels_last'.*Received: None"),
        ({"floatx": "float16"}, "tensorflow", "floatx 'float32'.*Received: 'float16'"),
        ({"epsilon": "1e-7"}, None, "epsilon of Keras must be a small number.*keras.json"),
        ([], None, "holds no settings of Keras"),
    ],
)
def test_other_settings_are_refused(settings, backend, words, asked):
    with pytest.raises(keras_settings.UnusableKeras, match=words):
        asked(None if settings is None else json.dumps(settings), backend)


def test_what_keras_can_do_with_is_let_through(asked):
    asked()
    asked(json.dumps({"backend": "torch", "epsilon": 1e-7, "floatx": "float32"}), "tensorflow")
    asked("{ half a file")


def test_what_was_set_in_the_process_is_refused_where_a_model_is_built():
    keras_settings.check()
    keras.config.set_image_data_format("channels_first")
    hook = sys.excepthook
    try:
        with pytest.raises(ValueError, match="'channels_first', from keras.config"):
            keras_settings.check()
    finally:
        keras.config.set_image_data_format("channels_last")
        sys.excepthook = hook


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "wsol_tf.predict", "--help"),
        ("-m", "wsol_tf.datasets", "--help"),
        ("-m", "edge.evaluate", "--help"),
        ("-m", "edge.export", "--help"),
        ("-c", "import wsol_tf; wsol_tf.Config(); wsol_tf.load('model.keras')"),
    ],
)
def test_a_program_says_one_sentence(command):
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "Keras" in line or "Error" in line]
    assert said == [
        "Error: This project needs Keras with backend 'tensorflow': set KERAS_BACKEND=tensorflow "
        "before Python starts. Received: 'torch', from the environment variable KERAS_BACKEND."
    ]
    assert "Traceback" not in done.stderr
