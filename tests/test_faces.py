"""What `import wsol_tf` and the wings offer."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
WINGS = sorted(path.parent.name for path in ROOT.glob("wsol_tf/*/__init__.py"))
FACES = ["wsol_tf", *(f"wsol_tf.{wing}" for wing in WINGS)]
HEAVY = (
    "tensorflow",
    "keras",
    "numpy",
    "cv2",
    "PIL",
    "matplotlib",
    "absl",
    "tensorflow_datasets",
    "apache_beam",
)


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def for_type_checkers(face):
    """Public name -> (module, name there) of the imports that only type checkers see."""
    tree = ast.parse((ROOT / face.replace(".", "/") / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)][:1]
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        for alias in node.names
    }


@pytest.mark.parametrize("face", FACES)
def test_every_name_is_there_and_is_what_type_checkers_see(face):
    if face == "wsol_tf.beam":
        pytest.importorskip("apache_beam")
    package = importlib.import_module(face)
    seen = for_type_checkers(face)
    assert sorted(seen) == package.__all__
    for name, (module, inner) in seen.items():
        own = f"{module}.{inner}" if module == face else module
        expected = importlib.import_module(own)
        assert getattr(package, name) is (expected if module == face else getattr(expected, inner))
        assert name in dir(package)
        assert getattr(package, name).__doc__, f"{face}.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    package = importlib.import_module("wsol_tf")
    with pytest.raises(AttributeError, match="'wsol_tf' has no attribute 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize("face", FACES)
def test_importing_a_face_imports_nothing_heavy(face):
    found = run_python(f"import {face}, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert found == "[]\n"


def test_keras_loads_a_saved_model_after_importing_the_package(tmp_path):
    path = tmp_path / "model.keras"
    run_python(
        "import sys; sys.path.insert(0, 'tests')\n"
        f"from helpers import toy; toy().save({str(path)!r})"
    )
    load = (
        "import keras, wsol_tf\n"
        f"print(type(keras.saving.load_model({str(path)!r})) is wsol_tf.Localization)"
    )
    assert run_python(load) == "True\n"
    load = f"import wsol_tf; print(type(wsol_tf.load({str(path)!r})) is wsol_tf.Localization)"
    assert run_python(load) == "True\n"
