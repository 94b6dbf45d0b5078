from helpers import run
from wsol_tf import demo


def test_interrupted_it_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "run", interrupted)
    assert run(demo, f"--output_dir={tmp_path / 'demo'}") == 130
    output = capsys.readouterr()
    assert "python -m wsol_tf.train" in output.out and "Interrupted." in output.err
