import pathlib
import subprocess
import sys

import pytest

from edge import benchmark
from edge_files import brightness
from helpers import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [brightness(folder / "one.tflite"), brightness(folder / "all.tflite", map_="all")]


def test_the_table_has_medians_and_ratios_to_the_first_file():
    here = pathlib.Path(__file__)
    times = {
        ("a", 1): ([0.010, 0.020, 0.030], [0.5, 0.7, 0.6]),
        ("a", 2): ([0.004, 0.004, 0.010], [1, 1, 1]),
        (str(here), 1): ([0.005, 0.011, 0.015], [0.3, 0.1, 0.2]),
        (str(here), 2): ([0.008, 0.002, 0.005], [1, 1, 1]),
    }
    times = {(str(here.parent) if path == "a" else path, n): v for (path, n), v in times.items()}
    head, _, first, second = benchmark.to_markdown(times).splitlines()
    assert head == (
        "| file | MB | network, 1 thread | to the first | network, 2 threads | to the first "
        "| localize, 1 thread |"
    )
    assert first.endswith("| 20.0 ms | 1.00 | 4.0 ms | 1.00 | 600.0 ms |")
    # Ratios are of the same round: .5, .55, .5 and 2, .5, .5.
    assert second.endswith("| 11.0 ms | 0.50 | 5.0 ms | 0.50 | 200.0 ms |")
    # The whole path: files of two exports have the same name.
    assert second.startswith(f"| {here} |")


def test_files_and_threads_take_turns(files):
    times = benchmark.measure(files, [1, 2], 3, (40, 30))
    assert list(times) == [(path, number) for path in files for number in (1, 2)]
    for network, localize in times.values():
        assert len(network) == len(localize) == 3 and min(network + localize) > 0


def test_as_a_user_runs_it(files, capsys):
    assert run(benchmark, f"--models={','.join(files)}", "--threads=1", "--rounds=1") == 0
    output = capsys.readouterr().out
    assert "1 rounds, photograph of 640x480" in output
    assert f"| {files[0]} | 0.00 |" in output and f"| {files[1]} |" in output


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--models=gone.tflite", "can't be read: No such file"),
        ("--models=", "--models is empty"),
        ("--threads=1,x", "Received: '1,x'"),
        ("--threads=0", "Received: '0'"),
        ("--size=640", "Received: '640'"),
        ("--size=0x9", "Received: '0x9'"),
    ],
)
def test_what_cannot_work_is_refused(files, argument, sentence, capsys):
    assert run(benchmark, f"--models={files[0]}", argument) == 1
    assert sentence in capsys.readouterr().err


def test_it_runs_without_tensorflow():
    code = "import sys, edge.benchmark; assert not {'tensorflow', 'wsol_tf'} & set(sys.modules)"
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
