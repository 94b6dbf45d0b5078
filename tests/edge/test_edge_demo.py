import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_the_demo_stops_where_a_program_fails(tmp_path):
    # That it works is seen by `make demo DEMO_FLAGS=--quick`, which .ci/run does.
    done = subprocess.run(
        [sys.executable, "-m", "edge.demo", f"--model={tmp_path / 'gone.keras'}",
         f"--output_dir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The demo stopped: edge.export ended with status 1." in done.stderr
