import dataclasses
import json
import os
import re
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

import wsol_tf
from fake_study import patch
from fake_train import PICTURES, iou_of, pictures_of
from helpers import ROOT, run, start
from wsol_tf import study
from wsol_tf.programs import from_arguments
from wsol_tf.signals import PREEMPTED
from wsol_tf.studies import show, trials
from wsol_tf.studies.grid import Row, make_rows, parse_grid
from wsol_tf.studies.record import read_record
from wsol_tf.studies.results import Finished
from wsol_tf.studies.run import Plan
from wsol_tf.studies.trials import Trial, folder_name, make_trial

FAKE = str(ROOT / "tests" / "studies" / "fake_study.py")
SHAPES = ("--num_examples=12", "--input_size=64")
FINISHED = Finished(
    Trial(Row("a", {}), 0, 0, 0, "/nowhere/a,seed=0", ()),
    {"map": "mean"},
    [{"image_id": "1.jpg", "class": "cat", "iou": {"mean": 0.6251}}],
)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    patch(lambda *arguments: monkeypatch.setattr(*arguments))


def ask(folder, *arguments):
    return run(study, *SHAPES, f"--output_dir={folder}", *arguments)


def names_in(folder):
    return sorted(os.listdir(folder / "trials"))


def starts_of(folder):
    paths = {name: folder / "trials" / name / "starts" for name in names_in(folder)}
    return {n: len(path.read_text().splitlines()) for n, path in paths.items() if path.exists()}


def wait_for(what, seconds=40):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def row_of_table(folder, label):
    """The cells of a row in both tables, the figures and the differences, one after the other."""
    rows = [line.strip("|").split("|") for line in (folder / "table.md").read_text().splitlines()]
    found = [[cell.strip() for cell in row] for row in rows if row[0].strip() == label]
    assert found, f"table.md has no row {label}"
    return [cell for row in found for cell in row]


# --- a study from end to end ---------------------------------------------------------------------


def test_a_grid_with_folds_and_seeds(tmp_path, capsys):
    grid = "--grid=bas_weight=0,1.25; seed=0,1"
    assert ask(tmp_path, grid, "--folds=3", "--parallel=2", "--title=My <study>") == 0
    assert names_in(tmp_path) == sorted(
        f"bas_weight={b},seed={s},fold={k}of3" for b in (0, 1.25) for s in (0, 1) for k in (1, 2, 3)
    )
    output = capsys.readouterr().out
    assert "2 rows, 12 trials: 0 finished, 12 to go." in output
    assert re.search(r"\[12/12\] bas_weight=[\d.]+,seed=\d,fold=\dof3: GT-known Loc", output)
    assert re.search(r"1 to go, about \d+ s", output)
    # By hand, see fake_train: of 12 pictures 2 and 3 are hit at weight 0, 7 and 8 at weight 1.25.
    first, second = (row_of_table(tmp_path, f"bas_weight={weight}") for weight in (0, 1.25))
    assert first[1].startswith(f"{2.5 / 12:.3f} [")
    assert first[1].endswith(f"] ± {0.5 / 12 * 2**0.5:.3f}")
    assert second[1].startswith(f"{7.5 / 12:.3f}")
    difference = second[second.index("bas_weight=1.25", 1) :]
    assert difference[1].startswith(f"+{5 / 12:.3f} [")  # pictures 2 to 7, two of them half
    assert difference[2:4] == ["better", "6, 0; p = 0.031"]
    assert f"by seed +{5 / 12:.3f}, +{5 / 12:.3f}" in difference[1]
    table = (tmp_path / "table.md").read_text()
    assert "12 pictures in 3 folds" in table and "2 seeds." in table
    record = read_record(str(tmp_path / "study.json"))
    assert (record.title, record.folds, record.data) == ("My <study>", 3, "shapes")
    assert record.version == wsol_tf.__version__ and str(tmp_path.parent) not in record.command
    assert [row.row.settings["bas_weight"] for row in record.results] == ["0", "1.25"]
    assert record.results[0].figures["gt_known_loc"].mean == pytest.approx(2.5 / 12, abs=1e-5)
    assert record.results[1].differences["gt_known_loc"].gained == 6
    above = record.results[1].baselines["cam"]  # which hits nothing
    assert (above.mean, above.gained, above.lost) == (pytest.approx(7.5 / 12), 8, 0)
    assert f"| +{7.5 / 12:.3f} [" in table
    page = (tmp_path / "report.html").read_text()
    assert "My &lt;study&gt;" in page and "6 pictures gained, 0 lost, p = 0.031" in page
    assert f'<data value="{above.mean}">+0.625</data>' in page.partition("no localizer")[2]
    assert "http" not in re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page)
    assert page.count("<figure>") == 2 * 4  # of the four pictures in the first fold
    assert len(os.listdir(tmp_path / "pictures")) == 8


def test_half_a_photograph_is_never_taken_for_one(tmp_path, monkeypatch):
    """Another process that reports on the same folder may read it, or this one may be killed."""

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            show._photographs(str(tmp_path), FINISHED, [("1.jpg", "cat")], print)
    assert not list((tmp_path / "pictures").iterdir())
    (photograph,) = show._photographs(str(tmp_path), FINISHED, [("1.jpg", "cat")], print)
    assert photograph.caption == "cat, IoU 0.62" and photograph.tile.shape == (40, 60, 3)


def test_photographs_are_of_settings_not_of_ways_to_read_their_maps(tmp_path, monkeypatch):
    """Rows of the same models took the places of settings, whose photographs were missing."""
    monkeypatch.setattr(show, "MOST_ROWS", 2)
    labels = ("a", "a, not separated", "a, not refined", "b", "b, not refined", "c")
    results = [SimpleNamespace(row=Row(label, {})) for label in labels]
    paths = {x: f"/nowhere/{x},seed=0" for x in "abc"}
    finished = [
        dataclasses.replace(FINISHED, trial=Trial(Row(x, {}), 0, 0, 0, path, ()))
        for x, path in paths.items()
    ]
    drawn = show.photographs_of(str(tmp_path), results, finished, print)
    assert list(drawn) == ["a", "b"]


def test_a_page_says_how_many_settings_are_drawn(tmp_path, monkeypatch):
    assert ask(tmp_path, "--grid=bas_weight=0,0.5,1") == 0
    assert "settings are drawn" not in (tmp_path / "report.html").read_text()
    monkeypatch.setattr(show, "MOST_ROWS", 2)
    assert ask(tmp_path, "--grid=bas_weight=0,0.5,1", "--report_only") == 0
    assert "2 of 3 settings are drawn." in (tmp_path / "report.html").read_text()


def test_each_picture_is_scored_once_and_alike_in_every_row(tmp_path):
    assert ask(tmp_path, "--grid=bas_weight=0,1", "--folds=4") == 0
    for weight in (0, 1):
        scored = []
        for fold in range(1, 5):
            folder = tmp_path / "trials" / f"bas_weight={weight},seed=0,fold={fold}of4"
            arguments = json.loads((folder / "trial.json").read_text())["arguments"]
            config = from_arguments(*arguments)
            assert config.data_seed == 0  # other seeds have the same pictures
            inside, outside = pictures_of(config.val_split), pictures_of(config.split)
            assert sorted(inside + outside) == list(range(PICTURES))
            scored += inside
        assert sorted(scored) == list(range(PICTURES))


def test_finished_trials_are_not_run_again_and_another_grid_adds_to_them(tmp_path, capsys):
    assert ask(tmp_path, "--grid=bas_weight=0,1") == 0
    (tmp_path / "report.html").unlink()
    assert ask(tmp_path, "--grid=bas_weight=0,1") == 0
    assert "2 rows, 2 trials: 2 finished, 0 to go." in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    chart = "Differences in GT-known Loc to the first row"
    assert chart not in (tmp_path / "report.html").read_text()  # there is but one
    assert ask(tmp_path, "--grid=ae_weight=0.3; seed=0") == 0
    assert set(starts_of(tmp_path).values()) == {1}
    assert chart in (tmp_path / "report.html").read_text()
    # The row of the new grid is what the others, which stay, are compared with.
    table = (tmp_path / "table.md").read_text()
    assert table.index("| ae_weight=0.3 |") < table.index("| bas_weight=0 |")
    assert "no difference" in row_of_table(tmp_path, "bas_weight=1")


@pytest.mark.parametrize("folds", [0, 2])
def test_a_study_whose_folder_and_flagfile_have_moved_goes_on(tmp_path, folds):
    for place in ("old", "new"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "base.flags").write_text("--epochs=3\n")
    old = tmp_path / "old" / "study"
    arguments = [f"--flagfile={tmp_path}/old/base.flags", f"--folds={folds}"]
    assert ask(old, *arguments, "--grid=bas_weight=0,1") == 0
    before = row_of_table(old, "bas_weight=1")[:2]
    shutil.move(tmp_path / "old", tmp_path / "gone")
    new = shutil.move(tmp_path / "gone" / "study", tmp_path / "new" / "study")
    shutil.rmtree(tmp_path / "gone")
    arguments[0] = f"--flagfile={tmp_path}/new/base.flags"
    assert ask(new, *arguments, "--grid=ae_weight=0.3") == 0
    assert row_of_table(new, "bas_weight=1")[:2] == before
    assert set(starts_of(new).values()) == {1}


@pytest.mark.parametrize("name", ["{}.old", "Copy of {}"])
def test_a_copy_of_a_trial_is_named_and_does_not_count(tmp_path, capsys, name):
    """As where somebody moves a trial aside to have it trained anew; by hand, see fake_train."""
    assert ask(tmp_path, "--grid=bas_weight=0,1.25") == 0
    right = row_of_table(tmp_path, "bas_weight=1.25")
    assert right[1].startswith(f"{7 / 12:.3f}")
    folder = tmp_path / "trials"
    copy = name.format("bas_weight=1.25,seed=0")
    shutil.copytree(folder / "bas_weight=1.25,seed=0", folder / copy)
    outcomes = folder / copy / "outcomes.jsonl"
    outcomes.write_text(re.sub(r'("iou": {"mean": )[\d.]+', r"\g<1>0", outcomes.read_text()))
    for grid in ("bas_weight=0,1.25", "bas_weight=0"):
        capsys.readouterr()
        assert ask(tmp_path, f"--grid={grid}", "--report_only") == 0
        output = capsys.readouterr().out
        assert output.count(f"'{copy}' is left out") == 1
        assert row_of_table(tmp_path, "bas_weight=1.25")[1] == right[1]


def test_a_trial_that_fails_is_named_with_its_last_lines_and_the_others_go_on(tmp_path, capsys):
    assert ask(tmp_path, "--grid=batch_size=8,13,16") == 1
    output = capsys.readouterr().out
    assert "batch_size=13,seed=0: FAILED with status 1" in output
    assert "    a line\n    Error: it went wrong" in output
    assert row_of_table(tmp_path, "batch_size=16")
    assert "Trial batch_size=13,seed=0 failed" in (tmp_path / "table.md").read_text()
    # It is tried again, the finished ones are not.
    assert ask(tmp_path, "--grid=batch_size=8,13,16") == 1
    assert starts_of(tmp_path) == {
        "batch_size=13,seed=0": 2, "batch_size=16,seed=0": 1, "batch_size=8,seed=0": 1,
    }  # fmt: skip


def test_report_only_shows_what_is_there(tmp_path, capsys):
    assert ask(tmp_path, "--grid=bas_weight=0,1", "--report_only") == 0
    assert "nothing to report yet" in capsys.readouterr().out
    assert ask(tmp_path, "--grid=bas_weight=0") == 0
    assert ask(tmp_path, "--grid=bas_weight=0,1; seed=0,1", "--report_only") == 0
    assert names_in(tmp_path) == ["bas_weight=0,seed=0"]
    text = (tmp_path / "table.md").read_text()
    assert "Row bas_weight=0: 1 of 2 trials are finished." in text


def test_a_study_file_names_everything_and_flags_win(tmp_path, capsys):
    (tmp_path / "base.flags").write_text("--num_examples=12\n--input_size=64\n--epochs=7\n")
    (tmp_path / "a.study").write_text(
        "flagfile=base.flags\ntitle=Rows\nquestion=Which one?\nfolds=2\n"
        "row=plain:\nrow=strong bas: bas_weight=1; ac_weight=2\n"
    )
    folder = tmp_path / "out"
    given = (f"--study={tmp_path / 'a.study'}", f"--output_dir={folder}", "--epochs=3")
    assert run(study, *given) == 0
    rows = ("plain", "strong_bas")
    assert names_in(folder) == [f"{row},seed=0,fold={k}of2" for row in rows for k in (1, 2)]
    flags_of_run = (folder / "trials" / "strong_bas,seed=0,fold=1of2" / "run.flags").read_text()
    for line in ("--epochs=3", "--ac_weight=2.0", "--num_examples=12",
                 "--split=train+val[fold!=1/2]", "--val_split=train+val[fold=1/2]"):  # fmt: skip
        assert line in flags_of_run
    page = (folder / "report.html").read_text()
    assert "<h1>Rows</h1>" in page and "Which one?" in page
    assert row_of_table(folder, "strong bas")


def test_the_studies_that_come_along_can_be_read(tmp_path):
    paths = sorted((ROOT / "configs" / "studies").glob("*.study"))
    assert paths
    for path in paths:
        plan = Plan.make(str(tmp_path), (), study=str(path))
        definition = plan.definition
        rows, _ = make_rows(plan.base, parse_grid(definition.grid), definition.rows)
        assert len(rows) > 1 and definition.question and definition.title, path


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--grid=ae_wieght=0"], "Unknown setting 'ae_wieght'"),
        (["--grid=ae_weight=0..1"], "--ae_weight has an interval, which only a search"),
        (["--grid=ae_weight=-3"], "--ae_weight must be at least 0"),
        (["--grid=split=a,b", "--folds=2"], "--folds and a grid over --split can't go together"),
        (["--folds=20"], "pictures can't be cut into 20 folds"),
        (["--folds=2", "--split=train[fold=1/2]"], "--folds can't cut a fold again"),
        (["--val_split=nowhere"], "There is no split 'nowhere' to score on"),
        (["--study=/nowhere/a.study"], "there is no such file"),
        (["--search=3"], "A search needs settings in --grid"),
    ],
)
def test_what_cannot_work_is_refused_before_any_trial(tmp_path, capsys, arguments, sentence):
    assert ask(tmp_path / "out", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out" / "trials").exists()


def test_trials_of_one_study_share_what_the_grid_does_not_vary(tmp_path, capsys):
    assert ask(tmp_path, "--grid=bas_weight=0", "--epochs=3") == 0
    for grid in ("bas_weight=0", "ae_weight=1"):
        assert ask(tmp_path, f"--grid={grid}", "--epochs=4") == 1
        error = capsys.readouterr().err
        assert "'bas_weight=0,seed=0' was begun with other settings: --epochs=3 (here: 4)" in error
    assert ask(tmp_path, "--grid=bas_weight=0", "--epochs=3", "--folds=2") == 1
    assert "holds trials with no folds, and these have 2" in capsys.readouterr().err


# --- ends and other processes --------------------------------------------------------------------


def begin(folder, *arguments):
    return start(*SHAPES, f"--output_dir={folder}", *arguments, command=(FAKE,))


def has_started(folder, name, times=1):
    path = folder / "trials" / name / "starts"
    return path.exists() and len(path.read_text().splitlines()) >= times


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, PREEMPTED), (signal.SIGINT, 130)])
def test_a_study_that_is_ended_saves_its_trials_and_goes_on(tmp_path, number, status):
    grid = "--grid=batch_size=8,15"
    process = begin(tmp_path, grid)
    wait_for(lambda: has_started(tmp_path, "batch_size=15,seed=0"))
    pid = int((tmp_path / "trials" / "batch_size=15,seed=0" / "starts").read_text().split()[-1])
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Stopping 1 trial: what was learned is saved" in output
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    (tmp_path / "trials" / "batch_size=15,seed=0" / "go").write_text("")
    assert ask(tmp_path, grid) == 0
    assert starts_of(tmp_path) == {"batch_size=15,seed=0": 2, "batch_size=8,seed=0": 1}


def test_a_study_that_is_killed_leaves_a_trial_that_goes_on_and_is_waited_for(tmp_path):
    grid = "--grid=batch_size=8,15"
    process = begin(tmp_path, grid)
    wait_for(lambda: has_started(tmp_path, "batch_size=15,seed=0"))
    process.kill()
    process.communicate()
    again = begin(tmp_path, grid)
    assert "Waiting for 1 trial of another process" in "".join(
        again.stdout.readline() for _ in "123"
    )
    (tmp_path / "trials" / "batch_size=15,seed=0" / "go").write_text("")
    output, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert "finished by another process" in output
    assert set(starts_of(tmp_path).values()) == {1}


def test_a_killed_trial_is_taken_up_by_the_other_process_of_a_study(tmp_path):
    """Two processes, as on two machines with one folder: each trial runs once in one of them."""
    grid = "--grid=batch_size=8,15,16,17"
    name = "batch_size=15,seed=0"
    first = begin(tmp_path, grid)
    wait_for(lambda: has_started(tmp_path, name))
    second = begin(tmp_path, grid)
    wait_for(lambda: has_started(tmp_path, "batch_size=17,seed=0"))
    first.kill()  # the machine is gone, and its trial with it
    first.communicate()
    os.kill(int((tmp_path / "trials" / name / "starts").read_text()), signal.SIGKILL)
    (tmp_path / "trials" / name / "go").write_text("")
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    starts = starts_of(tmp_path)
    assert starts.pop(name) == 2 and set(starts.values()) == {1}
    assert row_of_table(tmp_path, "batch_size=15")


# --- parts ---------------------------------------------------------------------------------------


def test_names_of_folders_are_legible_and_legal():
    assert folder_name("ae_weight=0.1,seed=0,fold=2of5") == "ae_weight=0.1,seed=0,fold=2of5"
    assert folder_name("late drop,seed=0") == "late_drop,seed=0"
    weights = [folder_name(f"extractor_weights={path}") for path in ("/a/b", "/a_b", "../a")]
    assert len(set(weights)) == 3 and not any("/" in name for name in weights)
    assert len(folder_name("x" * 1000)) < 255


def test_a_trial_without_its_outcomes_or_with_half_a_file_is_not_finished(tmp_path):
    base = ("--num_examples=12", "--data_seed=0")
    trial = make_trial(str(tmp_path), base, Row("plain", {}), seed=0)
    trials.record(trial)
    assert trials.figures_of(trial) is None
    from fake_train import write_run

    write_run(trial.config)
    assert trials.figures_of(trial)["gt_known_loc"] == 6 / 12  # bas_weight is 1 by default
    assert iou_of(5, trial.config) == 0.75
    text = (tmp_path / "trials" / trial.name / "metrics.json").read_text()
    (tmp_path / "trials" / trial.name / "metrics.json").write_text(text[:30])
    assert trials.figures_of(trial) is None
    (tmp_path / "trials" / trial.name / "metrics.json").write_text(text)
    (tmp_path / "trials" / trial.name / "outcomes.jsonl").unlink()
    assert trials.figures_of(trial) is None
    assert trials.recorded(str(tmp_path), base) == [trial]
