import errno
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from wsol_tf import files
from wsol_tf.training import checkpoints

ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.int64(7), np.zeros((0, 2), np.float32)]


def write(folder, step, keep=9, arrays=ARRAYS):
    checkpoints.write(str(folder), arrays, {"step": step, "sums": {"cls": 0.1 + 0.2}}, keep)


def steps(folder):
    return [step for step, _ in checkpoints.paths(str(folder))]


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    write(tmp_path, 12)
    arrays, state = checkpoints.newest(str(tmp_path), print)
    for array, expected in zip(arrays, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert state == {"step": 12, "sums": {"cls": 0.1 + 0.2}}


def test_arrays_keep_their_order_beyond_ten(tmp_path):
    write(tmp_path, 1, arrays=[np.float32(i) for i in range(200)])
    arrays, _ = checkpoints.newest(str(tmp_path), print)
    assert [float(array) for array in arrays] == list(range(200))


def test_the_newest_are_kept(tmp_path):
    assert checkpoints.newest(str(tmp_path), print) is None
    for step in (5, 100, 30):
        write(tmp_path, step, keep=2)
    assert steps(tmp_path) == [100, 30]
    checkpoints.clear(str(tmp_path))
    assert steps(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 100, -30, -1])
def test_a_cut_off_checkpoint_is_named_and_the_older_one_used(cut, tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2, arrays=[2 * array for array in ARRAYS])
    path = tmp_path / "checkpoints" / "step-000000002.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    said = []
    arrays, state = checkpoints.newest(str(tmp_path), said.append)
    assert state["step"] == 1
    np.testing.assert_array_equal(arrays[0], ARRAYS[0])
    assert len(said) == 1 and str(path) in said[0] and "The one before it is used" in said[0]


def test_a_flipped_bit_is_found(tmp_path):
    write(tmp_path, 1, arrays=[np.ones(1000, np.float32)])
    path = tmp_path / "checkpoints" / "step-000000001.npz"
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="None of the 1 checkpoints.*`resume=false`"):
        checkpoints.newest(str(tmp_path), print)


def test_a_full_disk_leaves_the_older_ones_and_no_rest(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(path, **arrays):
        files.write(path, "half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2, keep=1)
    assert os.listdir(tmp_path / "checkpoints") == ["step-000000001.npz"]


def test_files_that_are_no_checkpoints_are_left_alone(tmp_path):
    write(tmp_path, 1)
    for name in ("notes.txt", "step-3.npz"):
        (tmp_path / "checkpoints" / name).write_text("x")
    assert steps(tmp_path) == [1]
    checkpoints.clear(str(tmp_path))
    assert len(os.listdir(tmp_path / "checkpoints")) == 2


def test_a_kill_while_writing_leaves_the_older_one(tmp_path):
    write(tmp_path, 1)
    script = """
import os, signal, sys
import numpy as np
from wsol_tf import files
from wsol_tf.training import checkpoints
def killed(path, **arrays):
    files.write(path, "half")
    os.kill(os.getpid(), signal.SIGKILL)
np.savez = killed
checkpoints.write(sys.argv[1], [np.zeros(3)], {"step": 2})
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment())
    assert done.returncode == -9
    assert checkpoints.newest(str(tmp_path), print)[1]["step"] == 1
    write(tmp_path, 2)
    assert checkpoints.newest(str(tmp_path), print)[1]["step"] == 2
    assert not [name for name in os.listdir(tmp_path / "checkpoints") if name[0] == "."]


def environment():
    return {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}


def test_one_run_holds_a_folder_and_lets_go_when_killed(tmp_path):
    script = """
import sys, time
from wsol_tf.training import checkpoints
with checkpoints.lock(sys.argv[1], print):
    print("held", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert other.stdout.readline() == "held\n"
        refused = pytest.raises(ValueError, match=f"process {other.pid} on .*another `output_dir`")
        with refused, checkpoints.lock(str(tmp_path), print):
            pass
    finally:
        other.kill()
        other.communicate()
    with checkpoints.lock(str(tmp_path), print):
        assert f"process {os.getpid()} on" in (tmp_path / "checkpoints" / "lock").read_text()


def test_a_folder_that_cannot_be_locked_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    said = []
    with checkpoints.lock(str(tmp_path), said.append):
        pass
    assert "No locks available" in said[0]


# --- damage ---------------------------------------------------------------------------------------


def same(found, expected):
    arrays, state = found
    return state == expected[1] and all(
        (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())
        for array, other in zip(arrays, expected[0], strict=True)
    )


def test_no_single_changed_bit_is_silent_or_a_traceback(tmp_path):
    """4,000 bits of a small file: refused by a sentence, or read as if nothing were changed."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.normal(size=shape), np.float32) for shape in ((3, 2), (), (5,), (2,))]
    write(tmp_path, 1, arrays=[*arrays, np.int64(7)])
    path = tmp_path / "checkpoints" / "step-000000001.npz"
    whole = path.read_bytes()
    expected = checkpoints.read(str(path))
    refused = 0
    for bit in rng.choice(8 * len(whole), 4000, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert same(checkpoints.read(str(path)), expected), f"bit {bit} changes what is read"
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    # The rest is what nobody reads, such as the times of members.
    assert refused > 2500


def test_members_that_changed_places_are_found(tmp_path):
    """Each member is whole, and no checksum of theirs is wrong."""
    write(tmp_path, 1, arrays=[np.float32(1), np.float32(2)])
    path = tmp_path / "checkpoints" / "step-000000001.npz"
    swapped = path.read_bytes()
    for name, other in ((b"00000", b"xxxxx"), (b"00001", b"00000"), (b"xxxxx", b"00001")):
        swapped = swapped.replace(name, other)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        members["00000.npy"], members["00001.npy"] = members["00001.npy"], members["00000.npy"]
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="digest is that of other values"):
        checkpoints.read(str(path))
    path.write_bytes(swapped)
    with pytest.raises(ValueError, match="members are not those of a checkpoint"):
        checkpoints.read(str(path))


@pytest.mark.parametrize("change", ["state", "dtype", "shape", "left out"])
def test_the_digest_holds_all_that_a_checkpoint_holds(change, tmp_path):
    write(tmp_path, 1, arrays=[np.zeros((2, 3), np.float32), np.zeros(2, np.float32)])
    path = tmp_path / "checkpoints" / "step-000000001.npz"
    with np.load(path) as file:
        members = dict(file)
    if change == "state":
        members["record"] = np.array(str(members["record"]).replace("0.30000", "0.30001"))
    elif change == "dtype":
        members["00000"] = members["00000"].view(np.int32)
    elif change == "shape":
        members["00000"] = members["00000"].reshape(3, 2)
    else:
        del members["00001"]
    np.savez(path, **members)
    with pytest.raises(ValueError, match="digest is that of other values"):
        checkpoints.read(str(path))


def test_a_damaged_checkpoint_of_another_kind_falls_back(tmp_path):
    write(tmp_path, 1)
    for step, make in ((2, os.mkdir), (3, os.mkfifo), (4, lambda path: os.symlink("gone", path))):
        make(tmp_path / "checkpoints" / f"step-{step:09}.npz")
    said = []
    assert checkpoints.newest(str(tmp_path), said.append)[1]["step"] == 1
    assert ["a link to a file" in said[0], "a pipe" in said[1], "a folder" in said[2]] == [True] * 3


def test_the_lock_and_the_folder_come_back_where_they_were_removed(tmp_path):
    said, folder = [], tmp_path / "run"
    with checkpoints.lock(str(folder), said.append) as keep:
        assert not keep() and not said
        for remove in (shutil.rmtree, lambda path: path.rename(tmp_path / "elsewhere")):
            remove(folder)
            assert keep() and not keep()
            assert len(said) == 1 and f"'{folder}' was removed or renamed" in said.pop()
        taken = pytest.raises(ValueError, match=f"process {os.getpid()} on .*another `output_dir`")
        with taken, checkpoints.lock(str(folder), print):
            pass
        shutil.rmtree(folder)
        lost = pytest.raises(ValueError, match="Another run is writing")
        with checkpoints.lock(str(folder), print), lost:  # another run takes its place
            keep()
