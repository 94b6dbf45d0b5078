import json
import os
import signal
import sys

import pytest

from fake_study import patch
from helpers import ROOT, run, start
from test_study import has_started, names_in, starts_of, wait_for
from wsol_tf import study
from wsol_tf.studies import search, trials

FAKE = str(ROOT / "tests" / "studies" / "fake_study.py")
SHAPES = ("--num_examples=12", "--input_size=64", "--epochs=4")


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    patch(lambda *arguments: monkeypatch.setattr(*arguments))


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def ask(folder, *arguments):
    return run(study, *SHAPES, f"--output_dir={folder}", *arguments)


def opened(folder, storage=""):
    return search.open_study(str(folder), storage, 4)


def states_of(folder, storage=""):
    return [trial.state.name for trial in opened(folder, storage).trials]


def test_without_optuna_a_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert ask(tmp_path, "--grid=bas_weight=0..1", "--search=2") == 1
    assert "pip install 'optuna>=4', or leave --search out" in capsys.readouterr().err


def test_a_search_begins_with_the_settings_as_they_are_and_finds_better_ones(
    tmp_path, optuna, capsys
):
    grid = "--grid=bas_weight=0..2; map=mean,true; seed=0"
    assert ask(tmp_path, grid, "--search=6", "--folds=2") == 0
    rows = {name.split(",seed")[0] for name in names_in(tmp_path)}
    assert len(rows) == 6 and "bas_weight=1,map=mean" in rows
    assert len(names_in(tmp_path)) == 12
    found = opened(tmp_path)
    assert [trial.number for trial in found.trials] == list(range(6))
    assert found.trials[0].params == {"bas_weight": 1.0, "map": "mean"}
    output = capsys.readouterr().out
    assert "Row 6 of 6: bas_weight=" in output and "held-out GT-known Loc" in output
    # The row that changes nothing is what the others are compared with.
    table = (tmp_path / "table.md").read_text().splitlines()
    assert next(line for line in table if line.startswith("| bas")).startswith(
        "| bas_weight=1,map=mean |"
    )


def test_the_objective_is_of_held_out_pictures_and_not_of_those_that_are_scored(
    tmp_path, optuna, monkeypatch
):
    held = {"0": 0.9, "1": 0.1}  # the weight that scores worse is better on what was held out

    def held_scores(trial):
        return [(4, held[trial.row.settings["bas_weight"]])]

    monkeypatch.setattr(trials, "held_scores", held_scores)
    for weight in held:
        opened(tmp_path).enqueue_trial({"bas_weight": weight})
    assert ask(tmp_path, "--grid=bas_weight=0,1", "--search=2") == 0
    values = {trial.params["bas_weight"]: trial.value for trial in opened(tmp_path).trials}
    assert values == {"0": 0.9, "1": 0.1}


def test_a_finished_search_only_reports_and_a_larger_number_goes_on(tmp_path, optuna):
    grid = "--grid=bas_weight=0..2"
    assert ask(tmp_path, grid, "--search=2") == 0
    assert ask(tmp_path, grid, "--search=2") == 0
    assert len(opened(tmp_path).trials) == 2
    assert ask(tmp_path, grid, "--search=3") == 0
    assert len(opened(tmp_path).trials) == 3
    assert set(starts_of(tmp_path).values()) == {1}


def test_a_row_whose_run_fails_is_told_so_and_the_search_goes_on(tmp_path, optuna):
    # Batch size 13 fails; the first row is the default, of 32.
    assert ask(tmp_path, "--grid=batch_size=32,13", "--search=5") in (0, 1)
    for trial in opened(tmp_path).trials:
        assert trial.state.name == ("FAIL" if trial.params["batch_size"] == "13" else "COMPLETE")


def test_a_search_ends_where_every_row_fails(tmp_path, optuna, capsys):
    assert ask(tmp_path, "--grid=bas_weight=0..2", "--search=2", "--batch_size=13") == 1
    assert states_of(tmp_path) == ["FAIL", "FAIL"]
    assert "2 rows failed, as many as the search was to try: it ends" in capsys.readouterr().out
    # The same command tries again, as with a grid.
    assert ask(tmp_path, "--grid=bas_weight=0..2", "--search=2", "--batch_size=13") == 1
    assert states_of(tmp_path) == ["FAIL"] * 4


def test_a_hopeless_row_is_given_up_while_it_runs(tmp_path, optuna, monkeypatch, capsys):
    """Five rows had 0.5 after three of four epochs, and this one has 0.1 and would never end."""
    study_of_five = opened(tmp_path)
    for number in range(5):
        study_of_five.add_trial(
            optuna.trial.create_trial(
                params={"bas_weight": number / 4},
                distributions={"bas_weight": optuna.distributions.FloatDistribution(0, 2)},
                value=0.5,
                intermediate_values={1: 0.0, 3: 0.5},
            )
        )
    monkeypatch.setattr(trials, "held_scores", lambda trial: [(1, 0.0), (3, 0.1)])
    assert ask(tmp_path, "--grid=bas_weight=0..2", "--search=6", "--batch_size=14") == 0
    assert states_of(tmp_path) == ["COMPLETE"] * 5 + ["PRUNED"]
    assert opened(tmp_path).trials[5].intermediate_values == {1: 0.0, 3: 0.1}
    assert "given up" in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["", "shared.journal"])
def test_a_row_of_a_dead_process_is_taken_up_by_another(tmp_path, optuna, storage, capsys):
    """Two processes, as on two machines: one is killed with its run, the other takes its row up."""
    folder = tmp_path / "out"
    storage = storage and str(tmp_path / storage)
    arguments = ["--grid=bas_weight=0..2", "--batch_size=15", f"--storage={storage}"]
    first = start(*SHAPES, f"--output_dir={folder}", *arguments, "--search=2", command=(FAKE,))
    name = "bas_weight=1,seed=0"
    wait_for(lambda: has_started(folder, name))
    second = start(*SHAPES, f"--output_dir={folder}", *arguments, "--search=2", command=(FAKE,))
    wait_for(lambda: len(names_in(folder)) == 2)
    other = next(n for n in names_in(folder) if n != name)
    wait_for(lambda: has_started(folder, other))
    first.kill()
    first.communicate()
    os.kill(int((folder / "trials" / name / "starts").read_text()), signal.SIGKILL)
    for each in (name, other):
        (folder / "trials" / each / "go").write_text("")
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert "Taking up row 1, which another process left." in output
    assert starts_of(folder) == {name: 2, other: 1}
    assert states_of(folder, storage) == ["COMPLETE", "COMPLETE"]
    assert json.loads((folder / "trials" / name / "metrics.json").read_text())
    assert (folder / "optuna.db").exists() == (not storage)


def test_runs_without_a_score_of_held_out_pictures_end_a_search(
    tmp_path, optuna, monkeypatch, capsys
):
    monkeypatch.setattr(trials, "held_scores", lambda trial: [])
    assert ask(tmp_path, "--grid=bas_weight=0..2", "--search=2") == 1
    assert "needs a score of held-out pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    "storage, sentence",
    [("here.txt", "a path that ends with .journal"), ("nonsense://x", "can't be opened")],
)
def test_storages_that_cannot_be_are_refused(tmp_path, optuna, storage, sentence, capsys):
    given = ("--grid=bas_weight=0..2", "--search=2", f"--storage={storage}")
    assert ask(tmp_path, *given) == 1
    assert sentence in capsys.readouterr().err
