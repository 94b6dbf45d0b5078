"""evaluate and annotate on Apache Beam: what one process writes, whoever does the work."""

import json
import os
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("apache_beam", reason="Apache Beam has an environment of its own")

from edge import annotate as edge_annotate
from edge import evaluate as edge_evaluate
from edge_files import LABELS, brightness
from helpers import ROOT, run, tiny_model, varied
from scenes import SCENES, draw_scenes, localize
from wsol_tf import annotate, evaluate
from wsol_tf.annotations.look import Looking, Wanted, version_of
from wsol_tf.beam import look_at, looking
from wsol_tf.data import shapes

# What engines that run on several machines have in common with two processes of this one: what is
# said to workers goes to them as bytes, and so does what they find.
TWO = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
TWICE = ("--", "--direct_runner_bundle_repeat=1")  # as where a worker died after its work


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    varied(tiny_model(shapes.CLASSES)).save(path)
    return path


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """40 pictures, two batches; one is empty, one is cut off."""
    folder = tmp_path_factory.mktemp("voc")
    shapes.write_voc(str(folder), 40, size=80, seed=0, split="val")
    (folder / "JPEGImages" / "val_00003.jpg").write_bytes(b"")
    whole = folder / "JPEGImages" / "val_00035.jpg"
    whole.write_bytes(whole.read_bytes()[:500])
    return folder


@pytest.fixture(autouse=True)
def workers_find_the_project(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def files_of(folder):
    """Relative path -> bytes of every file, without what says where it is."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(bytes(folder), b"OUT")
        for path in folder.rglob("*")
        # These have the command, the time of writing, and the process.
        if path.is_file() and path.name not in ("report.html", "written.json", ".lock")
    }


@pytest.fixture(scope="module")
def scored_here(model_path, voc, tmp_path_factory):
    out = tmp_path_factory.mktemp("here")
    arguments = (f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={voc}")
    arguments += ("--view=whole", "--threshold=otsu")
    arguments += ("--max_objects=2", "--min_area=0.2", "--min_picture_area=0.01")
    assert run(evaluate, *arguments, f"--output_dir={out}") == 0
    return arguments, files_of(out)


@pytest.mark.parametrize("options", [(), TWICE, TWO], ids=["direct", "twice", "two processes"])
def test_evaluate_writes_the_same_files(scored_here, options, tmp_path, capsys):
    arguments, expected = scored_here
    out = tmp_path / "out"
    assert run(evaluate, *arguments, f"--output_dir={out}", "--runner=direct", *options) == 0
    found = files_of(out)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name
    assert set(json.loads(found["metrics.json"])["skipped"]) == {"val_00003", "val_00035"}
    output = capsys.readouterr().out
    assert "40 pictures go to the workers of --runner=direct." in output
    assert "Skipped: 2" in output and "1 x the file is empty: val_00003" in output
    page = (out / "report.html").read_text()
    assert "--runner=direct" in page and all(option in page for option in options)


def test_notes_on_stored_maps_come_together(voc, tmp_path, capsys):
    maps = tmp_path / "maps"
    maps.mkdir()
    for number in range(39):  # the last has none
        values = np.full((4, 4), 2.0 if number == 7 else 0.5)
        np.save(maps / f"val_{number:05d}.npy", values)
    (maps / "val_00033.npy").write_bytes(b"damaged")
    np.save(maps / "other.npy", np.zeros((4, 4)))
    arguments = (f"--score_maps={maps}", "--dataset=voc_folder", f"--data_dir={voc}")
    texts = []
    for name, more in (("one", ()), ("beam", ("--runner=direct",))):
        assert run(evaluate, *arguments, f"--output_dir={tmp_path / name}", *more) == 0
        texts.append((tmp_path / name / "metrics.json").read_text())
    assert texts[0] == texts[1]
    found = json.loads(texts[1])["score_maps"]
    assert found["missing"] == ["val_00039"] and list(found["unreadable"]) == ["val_00033"]
    # Maps of pictures that can't be read are read by nobody.
    assert found["outside_0_1"] == ["val_00007"]
    assert found["unused"] == ["other", "val_00003", "val_00035"]


@pytest.fixture
def pictures(tmp_path):
    draw_scenes(tmp_path / "in")
    (tmp_path / "in" / "a" / "bad.jpg").write_bytes(b"")
    return tmp_path / "in"


@pytest.mark.parametrize("options", [TWICE, TWO], ids=["twice", "two processes"])
def test_annotate_writes_the_same_files(model_path, pictures, options, tmp_path, capsys):
    arguments = (f"--model={model_path}", "--format=coco", "--crops", "--budget=3", pictures)
    out = f"--output_dir={tmp_path / 'out'}"  # the same for both: the page remembers its place
    assert run(annotate, out, *arguments) == 0
    said = capsys.readouterr()
    expected = files_of((tmp_path / "out").rename(tmp_path / "one"))
    assert run(annotate, out, "--runner=direct", *arguments, *options) == 0
    assert files_of(tmp_path / "out") == expected and len(expected) > 2 * len(SCENES)
    again = capsys.readouterr()
    assert again.err == said.err and "bad.jpg: the file is empty" in said.err
    assert f"{len(SCENES)} localized now, 1 skipped." in again.out


def test_exported_files_are_shared_among_workers_too(pictures, tmp_path):
    model = f"--model={brightness(tmp_path / 'x.tflite', map_='predicted')}"
    data = tmp_path / "data" / "val"
    for label, path in zip(LABELS, sorted((pictures / "a").glob("*.png")), strict=False):
        (data / label).mkdir(parents=True)
        (data / label / "1.png").write_bytes(path.read_bytes())
    found = []
    for name, more in (("one", ()), ("beam", ("--runner=direct",))):
        out = tmp_path / "out"
        scored = (model, "--dataset=image_folder", f"--data_dir={tmp_path / 'data'}")
        assert run(edge_evaluate, *scored, f"--output_dir={out / 'e'}", *more) == 0
        made = (model, "--format=voc", f"--output_dir={out / 'a'}", pictures)
        assert run(edge_annotate, *made, *more) == 0
        found.append(files_of(out / "e") | files_of(out / "a"))
        out.rename(tmp_path / f"{name} was here")
    assert found[0] == found[1] and "metrics.json" in found[0] and "found.jsonl" in found[0]


# --- what workers are given, and what they leave behind ------------------------------------------


@pytest.fixture
def program(monkeypatch):
    """A program whose localizer and scored data a test chooses; it counts how often it loads."""
    made = types.ModuleType("a_program")
    made.loads = 0

    def open_localizer(values):
        assert values.threshold == "stored"
        made.loads += 1
        return localize, ()

    made.open_localizer = open_localizer
    monkeypatch.setitem(sys.modules, "a_program", made)
    return made


@pytest.fixture
def look_at_scenes(tmp_path):
    paths = draw_scenes(tmp_path / "in") * 20  # 100 of them: four pieces
    (tmp_path / "out").mkdir()

    def look_at_them(options=(), log=lambda text: None):
        wanted = (Wanted(path, f"{i}.png", version_of(path)) for i, path in enumerate(paths))
        return look_at(
            str(tmp_path / "out"),
            str(tmp_path / "in"),
            Looking(),
            wanted,
            program="a_program",
            settings={"runner": "direct", "threshold": "stored"},
            options=options,
            log=log,
        )

    return look_at_them


def test_outcomes_come_in_order_and_the_model_is_loaded_once(look_at_scenes, program, tmp_path):
    threads = ("--direct_running_mode=multi_threading", "--direct_num_workers=3")
    outcomes = list(look_at_scenes(threads))
    assert [outcome.picture.name for outcome in outcomes] == [f"{i}.png" for i in range(100)]
    assert program.loads == 1
    assert not list((tmp_path / "out").iterdir())
    list(look_at_scenes())
    assert program.loads == 2  # another run may be of another model of the same name


def test_a_run_that_was_stopped_takes_what_workers_have_left(
    look_at_scenes, program, tmp_path, monkeypatch
):
    expected = list(look_at_scenes())
    first = look_at_scenes()
    next(first)
    first.close()  # stopped when the workers had just ended
    lost = sorted((tmp_path / "out" / ".beam").glob("*[!l]"))[0]
    lost.unlink()
    said = []
    assert list(look_at_scenes(log=said.append)) == expected
    assert said in (["32 pictures go to the workers of `runner=direct`."],
                    ["4 pictures go to the workers of `runner=direct`."])  # fmt: skip


def test_a_picture_that_changed_meanwhile_is_not_taken_from_what_is_left(
    look_at_scenes, program, tmp_path
):
    outcomes = look_at_scenes()
    before = next(outcomes)
    outcomes.close()
    path = tmp_path / "in" / "a" / "same.png"
    wanted = [Wanted(str(path), "0.png", version_of(path))]
    ((_, _, name, _),) = looking._write_wanted(wanted, str(tmp_path / "list"))
    path.write_bytes((tmp_path / "in" / "b" / "two.png").read_bytes())
    again = [Wanted(str(path), "0.png", version_of(path))]
    ((_, _, other, _),) = looking._write_wanted(again, str(tmp_path / "list"))
    assert name != other
    assert len(before.picture.objects) == 1


def test_a_worker_that_fails_is_named_in_a_sentence(look_at_scenes, program):
    def broken(image):
        raise OSError("the disk is full")

    program.open_localizer = lambda values: (broken, ())
    with pytest.raises(OSError, match="The workers of `runner=direct` gave up: .*the disk is full"):
        list(look_at_scenes())


def test_workers_that_see_other_pictures_are_refused(model_path, tmp_path, monkeypatch, capsys):
    make_scored = evaluate.make_scored

    def of_fewer(values, threshold):
        method, source, stored = make_scored(values, threshold)
        return method, shapes_of(len(source) - 1), stored

    def shapes_of(number):
        from wsol_tf.data.registry import open_dataset

        return open_dataset("shapes", "", "val", image_size=80, num_examples=number)

    monkeypatch.setattr(evaluate, "make_scored", of_fewer)
    assert run(
        evaluate, f"--model={model_path}", "--dataset=shapes", "--num_examples=3",
        f"--output_dir={tmp_path}", "--runner=direct",
    ) == 1  # fmt: skip
    error = capsys.readouterr().err
    assert "gave up: A worker finds other pictures in shapes val" in error
    assert "same files under the same paths" in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--direct_num_worker=2", "no option --direct_num_worker for --runner=direct"),
        ("--direct_num_workers=two", "refuses an option: argument --direct_num_workers: invalid"),
        (
            "--direct_running_mode=many",
            "option: argument --direct_running_mode: invalid",
        ),
    ],
)
def test_options_that_beam_does_not_know_are_refused(
    model_path, option, expected, tmp_path, capsys
):
    assert run(
        evaluate, f"--model={model_path}", "--dataset=shapes", "--num_examples=3",
        f"--output_dir={tmp_path}", "--runner=direct", "--", option,
    ) == 1  # fmt: skip
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def with_a_dying_worker(tmp_path):
    """Runs beam_program on 100 pictures."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for height in range(10, 110):
        Image.new("RGB", (20, height)).save(tmp_path / "in" / f"{height:03d}.png")
    program = ROOT / "tests" / "annotations" / "beam_program.py"

    def run_program(*options):
        done = subprocess.run(
            [sys.executable, program, tmp_path / "in", tmp_path / "out", *options],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{program.parent}"},
            capture_output=True,
            text=True,
        )
        assert (tmp_path / "out" / "died").is_dir()  # and the process that made it is gone
        return done

    return run_program


def check_all(done, said, folder):
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"{said} pictures go to the workers of `runner={done.args[4]}`."
    assert lines == [f"{folder}/{height:03d}.png {height} " for height in range(10, 110)]


def test_dask_has_done_again_what_a_dead_worker_was_at(with_a_dying_worker, tmp_path):
    pytest.importorskip("dask")
    check_all(with_a_dying_worker("dask", "--dask_npartitions=4"), 100, tmp_path / "in")


@pytest.fixture
def interrupts_are_ignored():
    """As in what a script starts with `&`, and its children."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_this_machine_gives_up_with_a_dead_worker_and_goes_on_when_asked(
    with_a_dying_worker, interrupts_are_ignored, tmp_path
):
    done = with_a_dying_worker("direct", *TWO[1:])
    assert done.returncode == 1
    assert (
        "OSError: The workers of `runner=direct` gave up: Worker subprocess exited with return"
        in (done.stderr)
    )
    done = with_a_dying_worker("direct", *TWO[1:])
    pieces = int(done.stdout.split()[0])  # of the other worker, some or all are there
    assert pieces in (32, 36, 64, 68)
    check_all(done, pieces, tmp_path / "in")
