"""What programs import before they do anything, and for what they do: by name, not by time."""

import platform
import subprocess
import sys

import numpy as np
import pytest

from helpers import ROOT, add_picture, tiny_model
from wsol_tf.evaluation import workers

HEAVY = ("tensorflow", "keras", "matplotlib", "tensorflow_datasets", "torch")
PROGRAMS = ("wsol_tf.train", "wsol_tf.evaluate", "wsol_tf.predict", "wsol_tf.annotate",
            "edge.annotate", "wsol_tf.datasets", "wsol_tf.import_bas",
            "wsol_tf.study", "wsol_tf.compare", "wsol_tf.pretrain", "wsol_tf.data.shapes",
            "edge.export", "edge.predict", "edge.evaluate", "edge.benchmark", "edge.build_web",
            "edge.golden")  # fmt: skip


def imported(code, *names):
    """Which of some modules a process has imported once it has run the code."""
    code += f"\nimport sys\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def run_program(program, *arguments):
    return (
        "import runpy, sys\n"
        f"sys.argv = {['program', *map(str, arguments)]}\n"
        "try:\n"
        f"    runpy.run_module({program!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert end.code in (None, 0, 1), end.code"
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_needs_nothing_heavy(program):
    assert imported(run_program(program, "--help"), *HEAVY) == "[]"


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="TensorFlow decides"
)
@pytest.mark.parametrize("given, is_on", [(None, True), ("1", True), ("0", False)])
def test_onednn_is_on_wherever_the_user_does_not_switch_it_off(monkeypatch, given, is_on):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    code = (
        "import wsol_tf\n"
        "from tensorflow.python.util import _pywrap_util_port\n"
        "print(_pywrap_util_port.IsMklEnabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == f"{is_on}\n", done.stderr


def test_stored_maps_are_scored_without_a_network(tmp_path, rng):
    pictures, maps = tmp_path / "pictures", tmp_path / "maps"
    maps.mkdir()
    for i in range(3):
        add_picture(pictures, f"p{i}", [("cat", (4, 4, 20, 20))])
        np.save(maps / f"p{i}.npy", rng.random((7, 7)))
    code = run_program(
        "wsol_tf.evaluate", f"--score_maps={maps}", "--dataset=voc_folder",
        f"--data_dir={pictures}", "--split=val", f"--output_dir={tmp_path / 'out'}",
    )  # fmt: skip
    assert imported(code, "tensorflow", "keras") == "[]"
    assert (tmp_path / "out" / "report.html").is_file()


def test_processes_that_share_the_scoring_import_no_network():
    code = [
        "bool(__import__('wsol_tf.evaluation.score'))",
        "[m in __import__('sys').modules for m in ('wsol_tf.evaluation.score', 'keras')]",
    ]
    with workers.mapper(1) as map_items:
        assert list(map_items(eval, code)) == [True, [True, False]]


def test_what_is_found_is_drawn_without_matplotlib():
    code = (
        "import numpy as np\n"
        "import edge.predict\n"
        "from wsol_tf.report import pictures\n"
        "image = np.zeros((64, 64, 3), np.uint8)\n"
        "pictures.overlay(image, np.eye(7), image[..., 0] == 0, (0, 0, 9, 9), caption='cat 90%')"
    )
    assert imported(code, *HEAVY) == "[]"


def test_keras_is_imported_without_matplotlib_which_can_be_imported_afterwards():
    code = (
        "from wsol_tf import importing\n"
        "importing.import_keras()\n"
        "import gc, sys\n"
        "assert 'keras' in sys.modules and gc.isenabled()\n"
        "assert not {'matplotlib', 'pandas', 'scipy', 'IPython'} & set(sys.modules)\n"
        "from wsol_tf.report import charts\n"
        "assert charts.training_curves({'loss': [1.0, 0.5]}, {}).shape[-1] == 3"
    )
    assert imported(code, "matplotlib.figure") == "['matplotlib.figure']"


ALL_NAMES = """
import types
import tensorflow as tf


def walk(namespace, path):
    for name in dir(namespace):
        value = getattr(namespace, name)
        if name.startswith("_") or name == "keras":
            continue
        is_module = isinstance(value, types.ModuleType)
        print(f"{path}.{name}", "module" if is_module else type(value).__name__)
        if is_module and len(path.split(".")) < 3:
            walk(value, f"{path}.{name}")


assert not tf.distribute.has_strategy()
walk(tf, "tf")
"""


def test_a_program_that_needs_few_names_of_tensorflow_still_has_all():
    few = "from wsol_tf import importing\nimporting.import_keras(few_names=True)\n"
    said = []
    for code in (few + ALL_NAMES, ALL_NAMES):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert len(said[0]) > 4000
    assert set(said[0]) ^ set(said[1]) == set()


def test_prediction_of_one_picture_fills_no_namespace_that_it_does_not_use(tmp_path):
    tiny_model(("cat", "dog")).save(tmp_path / "model.keras")
    add_picture(tmp_path / "pictures", "p", [("cat", (4, 4, 20, 20))])
    code = run_program(
        "wsol_tf.predict", f"--model={tmp_path / 'model.keras'}", "--threshold=0.5",
        f"--output_dir={tmp_path / 'out'}", tmp_path / "pictures" / "JPEGImages" / "p.png",
    )  # fmt: skip
    unused = ("tensorflow.python.feature_column.feature_column", "tensorflow.lite.python.lite")
    assert imported(code, "tensorflow", *unused) == "['tensorflow']"
    assert (tmp_path / "out" / "p_mask.png").is_file()
