"""--runner before anything is loaded: what goes together, what is refused, which versions."""

import pathlib
import sys

import pytest
from absl import app

from edge import annotate as edge_annotate
from edge import evaluate as edge_evaluate
from helpers import run
from wsol_tf import annotate, evaluate, predict, programs, runners

ROOT = pathlib.Path(__file__).parent.parent
EVALUATE = ("--model=m", "--dataset=shapes", "--output_dir=o")
ANNOTATE = ("--model=m", "--format=coco", "--output_dir=o", "picture.jpg")
PROGRAMS = [
    (evaluate, EVALUATE),
    (edge_evaluate, EVALUATE),
    (annotate, ANNOTATE),
    (edge_annotate, ANNOTATE),
]


@pytest.fixture
def without_beam(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("wsol_tf.beam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)


@pytest.mark.parametrize(("program", "arguments"), PROGRAMS)
def test_a_missing_beam_is_named_with_what_installs_it(
    program, arguments, without_beam, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(program, *arguments, "--runner=direct") == 1
    error = capsys.readouterr().err
    assert "--runner needs Apache Beam" in error
    assert "pip install -r requirements-beam.txt" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("program", "arguments"), PROGRAMS)
def test_options_without_a_runner_are_refused(program, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(program, *arguments, "--", "--direct_num_workers=2") == 1
    error = capsys.readouterr().err
    assert "options of Apache Beam, and go with --runner" in error
    assert "'--direct_num_workers=2'" in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--", "stray"], "as --name=value. Received: 'stray'"),
        (["--", "--region", "west"], "as --name=value. Received: 'west'"),
        (["--", "--a=b", "--"], "as --name=value. Received: '--'"),
        (["--", "--runner=DirectRunner"], "--runner comes before --"),
        (["--on_bad_image=fail"], "--on_bad_image=fail ends at the first picture"),
        (["--workers=2"], "--workers are processes of this machine"),
    ],
)
def test_what_does_not_go_with_a_runner_is_refused(arguments, expected, capsys):
    assert run(evaluate, *EVALUATE, "--runner=direct", *arguments) == 1
    assert expected in capsys.readouterr().err


def test_an_unknown_runner_is_refused():
    with pytest.raises(Exception, match="value should be one of <direct|dask|flink|spark"):
        run(evaluate, *EVALUATE, "--runner=hadoop")


def test_a_stray_argument_is_still_refused():
    with pytest.raises(app.UsageError, match="Unknown argument 'stray'"):
        run(evaluate, *EVALUATE, "stray", "--", "--direct_num_workers=2")


def test_programs_without_a_runner_take_what_follows_the_dashes_as_paths(tmp_path, capsys):
    arguments = ("--model=m", f"--output_dir={tmp_path}", "a.jpg", "--", "-odd.jpg", "--x=1", "--")
    seen = []

    class Program:
        define_flags = staticmethod(predict.define_flags)

        @staticmethod
        def run(values, *paths):
            seen.extend(paths)

    Program.__name__ = "program"
    assert run(Program, *arguments) == 0
    assert seen == ["a.jpg", "-odd.jpg", "--x=1", "--"]


def test_the_report_names_the_options_of_beam():
    from absl import flags

    values = flags.FlagValues()
    flags.DEFINE_string("runner", None, "", flag_values=values)
    values(["", "--runner=direct"])
    assert programs.command_line("wsol_tf.evaluate", values, ["--a=b c"]).split(" \\\n    ") == [
        "python -m wsol_tf.evaluate", "--runner=direct", "--", "'--a=b c'"
    ]  # fmt: skip


def test_every_runner_is_one_that_beam_has():
    beam = pytest.importorskip("apache_beam.runners.runner")
    for name, path in runners.RUNNERS.items():
        if name != "dask":  # which has packages of its own
            assert (
                type(beam.create_runner(path))
                .__name__.lower()
                .startswith({"direct": "fnapi"}.get(name, name))
            )


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {package: version for package, _, version in pairs if package}


def test_the_versions_for_beam_differ_where_it_needs_them_to():
    ours, for_beam = pins("requirements.txt"), pins("requirements-beam.txt")
    changed = {name for name in ours if name in for_beam and for_beam[name] != ours[name]}
    assert changed == {"pillow", "protobuf"}
    assert set(for_beam) - set(ours) == {"apache-beam", "dask", "distributed"}
    left_out = {"tf_keras", "tensorflow-model-optimization", "optuna", "ruff", "mypy", "nbclient",
                "ipykernel"}  # fmt: skip
    assert set(ours) - set(for_beam) == left_out


def test_the_versions_for_jax_are_those_of_all_else():
    ours, for_jax = pins("requirements.txt"), pins("requirements-jax.txt")
    assert set(for_jax) - set(ours) == {"jax"} and "tensorflow" not in for_jax
    assert {name: for_jax[name] for name in for_jax if name != "jax"}.items() <= ours.items()
