"""How programs start and end; their flags are in test_config.py."""

import pytest
from absl import app

from wsol_tf import programs, signals


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
