import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from wsol_tf import workers

ROOT = pathlib.Path(__file__).parent.parent
# Processes that are forked where TensorFlow has run wait for ever for locks of its threads.
ALONE = "WSOL_TF_ALONE" in os.environ
linux = pytest.mark.skipif(
    sys.platform != "linux" or not ALONE, reason="forks: runs in test_in_a_process_of_its_own"
)


@pytest.mark.skipif(sys.platform != "linux" or ALONE, reason="processes are forked on Linux alone")
def test_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "tests/test_workers.py"],
        cwd=ROOT, env={**os.environ, "WSOL_TF_ALONE": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "forks: runs in" not in done.stdout


def square(number):
    return number * number, os.getpid()


def invert(number):
    return 1 / number


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@linux
def test_results_come_in_the_order_of_items_from_several_processes():
    with workers.mapper(2) as map_items:
        found = list(map_items(square, range(200)))
    assert [value for value, _ in found] == [number**2 for number in range(200)]
    pids = {pid for _, pid in found}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2


@pytest.mark.parametrize("count", [1, 0])
def test_one_process_is_this_one(count, monkeypatch):
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    with workers.mapper(count) as map_items:
        assert map_items is map


def test_several_processes_are_refused_where_they_cannot_be_forked(monkeypatch):
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    with pytest.raises(ValueError, match="on Linux alone. Received: 3 on darwin. Take 1"):
        with workers.mapper(3):
            pass


@linux
def test_few_items_are_read_ahead():
    numbers = itertools.count()
    with workers.mapper(2) as map_items:
        found = map_items(square, numbers)
        assert [next(found)[0] for _ in range(50)] == [number**2 for number in range(50)]
        assert next(numbers) <= 50 + 2 * 2 + 1
        found.close()


@linux
def test_errors_of_the_function_and_of_the_items_reach_the_caller():
    def broken():
        yield 1
        raise ValueError("the items end here")

    with workers.mapper(2) as map_items:
        with pytest.raises(ZeroDivisionError):
            list(map_items(invert, [1, 0, 2]))
        with pytest.raises(ValueError, match="the items end here"):
            list(map_items(invert, broken()))


@linux
def test_the_loss_of_a_process_is_told():
    with workers.mapper(2) as map_items:
        with pytest.raises(OSError, match="ended from outside.*Take fewer processes, or 1"):
            list(map_items(die, range(8)))


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_caller(number):
    code = (
        "import sys, time\n"
        "sys.path[:0] = ['.', 'tests']\n"
        "import test_workers\n"
        "with test_workers.workers.mapper(2) as map_items:\n"
        "    found = set(pid for _, pid in map_items(test_workers.square, range(50)))\n"
        "    print(*found, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as caller:
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        caller.send_signal(number)
    assert pids
    for _ in range(100):
        if not any(map(_runs, pids)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{pids} still run")


def _runs(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
