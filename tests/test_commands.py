"""`wsol-tf NAME`, and files of settings that come with the package."""

import pathlib
import subprocess
import sys
import tomllib

import pytest
from absl import flags

from helpers import ROOT
from wsol_tf import __main__ as commands
from wsol_tf import programs


def call(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "wsol_tf", *arguments], cwd=cwd, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""}, timeout=300,
    )  # fmt: skip


def test_every_program_that_is_there_is_listed_with_what_it_does(tmp_path):
    done = call("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    files = {p.stem for p in (ROOT / "wsol_tf").glob("*.py")} | {"export"}
    assert listed == [name for name in commands.PROGRAMS if name in files]
    assert {"train", "evaluate", "predict", "export", "study", "datasets", "demo"} <= set(listed)


def test_without_a_name_the_list_is_shown_as_an_error(tmp_path):
    assert call(cwd=tmp_path).returncode == 2


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    done = call("foretell", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no program 'foretell'. There are: train, evaluate, ")


def test_a_program_is_called_as_by_its_own_name(tmp_path):
    done = call("datasets", "--dataset=voc_folder", "--data_dir=none", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    known = call("datasets", "--help", cwd=tmp_path).stdout
    assert "--splits" in known and known.startswith("Shows what is in a data set")


def test_the_wheel_has_the_command_and_all_that_the_package_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"wsol-tf": "wsol_tf.__main__:main"}
    patterns = project["tool"]["setuptools"]["package-data"]
    packed = {
        path for package, globs in patterns.items() for pattern in globs
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }  # fmt: skip
    data = {path for path in (ROOT / "wsol_tf").rglob("*") if path.is_file()}
    data |= set((ROOT / "wsol_tf" / "configs").rglob("*.*")) | set((ROOT / "edge/web").iterdir())
    data = {p for p in data if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert data - packed == set()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_packages_own_settings_are_found_by_name_from_anywhere(elsewhere):
    config = programs.from_flagfile("voc.flags")
    assert config.dataset == "voc"
    assert programs.from_flagfile("configs/voc.flags") == config
    assert pathlib.Path(programs.find_config("studies/parts.study")).is_file()


def test_a_file_that_is_there_wins_over_the_packages(elsewhere):
    (elsewhere / "voc.flags").write_text("--dataset=shapes\n")
    assert programs.find_config("voc.flags") == "voc.flags"
    assert programs.from_flagfile("voc.flags").dataset == "shapes"


def test_a_file_that_is_nowhere_is_named_as_it_was_given(elsewhere):
    assert programs.find_config("configs/none.flags") == "configs/none.flags"
    with pytest.raises(flags.Error, match="configs/none.flags"):
        programs.from_flagfile("configs/none.flags")


def test_flagfiles_of_a_command_line_are_found_in_either_form(elsewhere):
    own = str(pathlib.Path(programs.CONFIGS) / "voc.flags")
    argv = ["train", "--flagfile=voc.flags", "--flagfile", "voc.flags", "--data_dir=voc.flags"]
    assert programs.prepared(argv) == [
        "train", f"--flagfile={own}", "--flagfile", own, "--data_dir=voc.flags",
    ]  # fmt: skip
