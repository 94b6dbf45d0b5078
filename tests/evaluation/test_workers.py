import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from wsol_tf.evaluation import workers

ROOT = pathlib.Path(__file__).parents[2]


def square(number):
    return number * number, os.getpid()


def invert(number):
    return 1 / number


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def in_two():
    with workers.mapper(2) as map_items:
        yield map_items


def test_no_process_is_this_one():
    with workers.mapper(0) as map_items:
        assert map_items is map


def test_results_come_in_the_order_of_items_from_several_processes(in_two):
    found = list(in_two(square, range(200)))
    assert [value for value, _ in found] == [number**2 for number in range(200)]
    pids = {pid for _, pid in found}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2


def test_few_items_are_read_ahead(in_two):
    numbers = itertools.count()
    found = in_two(square, numbers)
    assert [next(found)[0] for _ in range(50)] == [number**2 for number in range(50)]
    assert next(numbers) <= 50 + 2 * 2 + 1
    found.close()


def test_errors_of_the_function_and_of_the_items_reach_the_caller(in_two):
    def broken():
        yield 1
        raise ValueError("the items end here")

    with pytest.raises(ZeroDivisionError):
        list(in_two(invert, [1, 0, 2]))
    with pytest.raises(ValueError, match="the items end here"):
        list(in_two(invert, broken()))


def test_the_loss_of_a_process_is_told():
    ended = pytest.raises(OSError, match="ended from outside.*Take fewer processes, or none")
    with workers.mapper(1) as map_items, ended:
        list(map_items(die, range(8)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_caller(number):
    code = (
        "import sys, time\n"
        "sys.path[:0] = ['.', 'tests/evaluation']\n"
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
        os.kill(pid, 0)
    except OSError:
        return False
    stat = pathlib.Path(f"/proc/{pid}/stat")  # where there is none, it is not known to be a zombie
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
