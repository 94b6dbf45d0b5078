import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import run, tiny_model
from wsol_tf import demo, progress
from wsol_tf.data import shapes

METRICS = {"num_images": 200, "gt_known_loc": 0.95, "miou_mask": 0.828, "top1_cls": 1.0,
           "other_maps": {"cam": {"gt_known_loc": 0.795, "gt_known_loc_oracle": 0.9,
                                  "miou_mask": 0.688}},
           "baselines": {"centered_box_oracle": {"gt_known_loc": 0.2}}}  # fmt: skip


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    return str(path)


def script(monkeypatch, tmp_path, text):
    """Makes `text` a module that stages can run."""
    (tmp_path / "stage_of_test.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stage_of_test"


def test_interrupted_it_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "Popen", interrupted)
    assert run(demo, f"--output_dir={tmp_path / 'demo'}") == 130
    output = capsys.readouterr()
    assert "pretrained on other drawn pictures, with one label each" in output.out
    assert "Interrupted." in output.err
    assert "python -m wsol_tf.train" in (tmp_path / "demo" / "log.txt").read_text()


def test_a_stage_is_one_line_and_its_words_go_to_the_log(tmp_path, monkeypatch, capfd, log):
    module = script(monkeypatch, tmp_path, "import sys; print('step 1/2', sys.argv[1:])")
    demo.run_stage("Train", 5, log, module, "--x=1")
    output = capfd.readouterr()
    assert re.fullmatch(r"Train +\d+ s\n", output.out) and not output.err
    with open(log) as file:
        assert file.read() == f"before\n\n$ python -m {module} --x=1\nstep 1/2 ['--x=1']\n"


def test_a_stage_that_is_interrupted_leaves_no_process(tmp_path, monkeypatch, log):
    module = script(monkeypatch, tmp_path, "import time; time.sleep(600)")
    started = []
    popen = demo.subprocess.Popen
    monkeypatch.setattr(
        demo.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[0]
    )

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_stage("Train", 5, log, module)
    assert started[0].returncode is not None


def test_it_stops_where_a_program_fails_and_says_what_that_printed(tmp_path, monkeypatch, log):
    module = script(monkeypatch, tmp_path, "print('a'); raise SystemExit('Error: no such thing.')")
    with pytest.raises(SystemExit) as stopped:
        demo.run_stage("Train", 5, log, module)
    assert "stage_of_test ended with status 1" in str(stopped.value)
    assert log in str(stopped.value) and "Error: no such thing." in str(stopped.value)
    assert "before" not in str(stopped.value)


def test_a_bar_follows_the_steps_that_a_program_counts(log, monkeypatch, capsys):
    assert demo.steps_done(log, 0) is None
    with open(log, "a") as file:
        before = file.tell()
        file.write("Epoch 1/4, step 10/40: loss\n  step 30/40: loss\n")
    assert demo.steps_done(log, before) == 0.75 and demo.steps_done(log, before + 40) is None
    said = iter(["step 30/40\n", "step 40/40\n", ""])

    class Process:
        returncode = 0

        def __init__(self, command, stdout, stderr):
            self.log = stdout

        def poll(self):
            self.log.write(text := next(said))
            self.log.flush()
            return None if text else 0

        def kill(self):
            pass

        wait = kill

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "REDRAWN", 0)
    monkeypatch.setattr(demo.subprocess, "Popen", Process)
    demo.run_stage("Train", 5, log, "module")
    first, late, erased = capsys.readouterr().out.split("\r")[1:]
    assert "[##################......] Train, 0 s" in first and not first.endswith("\n")
    assert "[#######################.] Train" in late  # it has not ended
    assert re.fullmatch(r"\x1b\[KTrain +0 s\n", erased)


def test_the_verdict_compares_with_cam_and_names_what_was_pretrained(monkeypatch, capsys, tmp_path):
    demo.say_results(str(tmp_path), json.loads(json.dumps(METRICS)), quick=False)
    said = capsys.readouterr().out
    for figure in ("95%", "0.83", "100%", "79.5%", "0.69", "20%", "200 drawn pictures"):
        assert figure in said, figure
    commands = re.findall(r"-m ((?:wsol_tf|edge)\.\w+)", said)
    assert commands == ["wsol_tf.train", "wsol_tf.predict", "edge.export"]
    assert "quick" not in said


def test_the_picture_shows_both_maps_of_the_same_objects(tmp_path):
    model, path = tmp_path / "model.keras", tmp_path / "sheet.png"
    tiny_model(shapes.CLASSES).save(model)
    demo.draw_side_by_side(str(model), str(path))
    sheet = np.array(Image.open(path))
    assert sheet.shape[1] > demo.SHOWN * 256 and sheet.shape[0] > 2 * 256
