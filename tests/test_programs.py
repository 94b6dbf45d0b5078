"""How programs start and end; their flags are in test_config.py."""

import importlib
import re

import pytest
from absl import app, flags

from wsol_tf import annotate, datasets, demo, evaluate, files, predict, programs, signals, study
from wsol_tf.config import Config

EDGE = [
    importlib.import_module(f"edge.{name}")
    for name in ("annotate", "build_web", "evaluate", "export.__main__", "golden", "predict")
]


def test_a_program_takes_the_arguments_of_its_signature():
    seen = []

    def without(values):
        seen.append("without")

    def with_paths(values, *paths):
        seen.append(paths)

    programs.call(without, ["program"])
    programs.call(with_paths, ["program"])
    programs.call(with_paths, ["program", "a.jpg", "b.jpg"])
    assert seen == ["without", (), ("a.jpg", "b.jpg")]
    with pytest.raises(app.UsageError, match="Unknown argument 'stray': settings are given as"):
        programs.call(without, ["program", "stray", "another"])
    assert len(seen) == 3


@pytest.mark.parametrize(
    "error, status, words",
    [
        (ValueError("Lower `nothing_set`."), "Error: Lower nothing_set.", ""),
        (
            OSError(28, "No space left"),
            "Error: No space left, while a file was read or written.",
            "",
        ),
        (
            OSError(36, "File name too long", "a/b"),
            "Error: 'a/b' can't be read or written: File name too long.",
            "",
        ),
        (OSError("Broken."), "Error: Broken.", ""),
        (ValueError("a\x1b[31m\nb\udcff"), "Error: a\\x1b[31m\nb\\udcff", ""),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (signals.Terminated(), 143, "Ended by SIGTERM."),
        (signals.Preempted("Ended at step 3."), 75, "Ended at step 3."),
    ],
)
def test_what_ends_a_program_is_a_sentence_and_a_status(error, status, words, capsys):
    def run(values):
        raise error

    with pytest.raises(SystemExit) as ended:
        programs.call(run, ["program"])
    assert ended.value.code == status
    assert words in capsys.readouterr().err


def test_an_error_of_the_program_itself_is_not_hidden():
    def run(values):
        return {}["missing"]

    with pytest.raises(KeyError):
        programs.call(run, ["program"])
    with pytest.raises(SystemExit) as ended:
        programs.call(lambda values: 3, ["program"])
    assert ended.value.code == 3


def test_a_type_error_in_a_program_is_no_wrong_argument():
    def run(values):
        return len(3)

    with pytest.raises(TypeError, match="has no len"):
        programs.call(run, ["program"])


# --- paths ----------------------------------------------------------------------------------------


def test_home_and_variables_are_expanded_in_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA_1", "data")
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert files.expanded("~/run") == f"{tmp_path}/run"
    assert files.expanded("~") == str(tmp_path)
    assert files.expanded("a/$DATA_1/b") == files.expanded("a/${DATA_1}/b") == "a/data/b"
    assert files.expanded("$HOME/$DATA_1") == f"{tmp_path}/data"
    for plain in ("", "a b", "a~b", "price$", "~no_such_user_1/x", "imagenet"):
        assert files.expanded(plain) == plain
    for wrong in ("$NOT_THERE/run", "runs/${NOT_THERE}_1"):
        with pytest.raises(ValueError, match="no environment variable NOT_THERE"):
            files.expanded(wrong)
    (tmp_path / "$NOT_THERE").mkdir()
    assert files.expanded("$NOT_THERE") == "$NOT_THERE"


def test_every_path_of_every_program_is_expanded(monkeypatch, tmp_path):
    """By the type of its flag: no program expands by itself, and none forgets to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = {}
    for program in (annotate, datasets, demo, evaluate, predict, study, *EDGE):
        before = set(flags.FLAGS)
        program.define_flags()
        for name in set(flags.FLAGS) - before:
            flag = flags.FLAGS[name]
            looks = re.search(r"\bfolder\b|\.(keras|tflite|npz|h5)\b", flag.help.lower())
            if flag.flag_type() == "path":
                assert flag.parser.parse("~/x") == f"{tmp_path}/x"
                seen[name] = True
            elif looks and flag.flag_type() == "string":
                raise AssertionError(f"{program.__name__}: --{name} is no path: {flag.help}")
            delattr(flags.FLAGS, name)
    evaluated = {"model", "output_dir", "data_dir", "score_maps", "class_scores", "study"}
    assert seen.keys() >= evaluated | {"calibration_data", "parity_data", "image"}


def test_arguments_and_settings_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    programs.call(lambda values, *paths: seen.extend(paths), ["program", "~/a.jpg", "b.jpg"])
    assert seen == [f"{tmp_path}/a.jpg", "b.jpg"]
    config = Config(data_dir="~/data", output_dir=tmp_path / "run", extractor_weights="~/w.h5")
    assert config.data_dir == f"{tmp_path}/data" and config.output_dir == f"{tmp_path}/run"
    assert config.extractor_weights == f"{tmp_path}/w.h5"
    (tmp_path / "a.flags").write_text("--output_dir=~/run\n--data_dir=$HOME/data\n")
    assert programs.from_flagfile("~/a.flags").output_dir == f"{tmp_path}/run"


def test_a_folder_of_results_that_is_removed_is_made_again_and_that_is_said(tmp_path):
    said, folder = [], tmp_path / "out"
    programs.make_output_dir(str(folder))
    programs.keep_output_dir(str(folder), said.append)
    assert not said
    folder.rmdir()
    programs.keep_output_dir(str(folder), said.append)
    assert folder.is_dir() and f"'{folder}' was removed or renamed" in said[0]


@pytest.mark.parametrize(
    "number, what, text",
    [(0, "picture", "0 pictures"), (1, "picture", "1 picture"), (2, "class", "2 classes"),
     (1, "class", "1 class"), (3, "box", "3 boxes"), (2, "epoch", "2 epochs")],
)  # fmt: skip
def test_what_is_counted_is_in_the_right_number(number, what, text):
    assert files.counted(number, what) == text
