"""Random damages of stored maps: each is a map of its shape, or a miss that is named."""

import random
import tracemalloc

import numpy as np
import pytest

from wsol_tf.evaluation.stored_maps import StoredArrays, check_map

# An old or damaged header can make numpy say that it had to guess.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
DTYPES = ("<f4", ">f8", "<f2", "u1", "<i8", "?", "<c8", "O", "<U9", "S4", "<M8[s]", "V8", "f4,i4",
          "<U99999999", "<f16", "x", "")  # fmt: skip
SHAPES = ("(4, 5)", "(5,)", "()", "(4, 5, 3)", "(1, 4, 5)", "(100000, 100000)", "(0, 3)", "(-4, 5)",
          "(4, True)", "(4.0, 5)", "4", "None", "(10**9,)", "(4, 5", "[4, 5]",
          "(0, 99999999999999999999)", "(2,) * 999", "((((4, 5))))")  # fmt: skip


def flip(data, rng):
    position = rng.randrange(len(data) * 8)
    data[position // 8] ^= 1 << (position % 8)


def flip_in_the_header(data, rng):
    position = rng.randrange(min(len(data), 200) * 8)
    data[position // 8] ^= 1 << (position % 8)


def cut(data, rng):
    del data[rng.randrange(len(data)) :]


def overwrite(data, rng):
    start = rng.randrange(len(data))
    size = min(rng.randrange(1, 40), len(data) - start)
    data[start : start + size] = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))


def insert(data, rng):
    start = rng.randrange(len(data))
    data[start:start] = rng.choice((b"(" * 50, b"\x00" * 9, b"9" * 30, rng.randbytes(20)))


DAMAGES = (flip, flip_in_the_header, cut, overwrite, insert)


def check(path, image_ids):
    """What is read are maps of numbers; everything else is named, in one line each."""
    try:
        stored = StoredArrays(str(path), "score maps", lambda array: check_map(array, 3))
    except ValueError as error:  # the archive as a whole
        assert str(path) in str(error) and "\n" not in str(error)
        return 0
    misses = 0
    for image_id in image_ids:
        found = stored.read_map(image_id)
        assert found.dtype.kind == "f" and found.ndim in (2, 3)
        findings = stored.findings()
        named = image_id in findings["unreadable"] or image_id in findings["missing"]
        misses += named
        if named:
            assert found.shape == (1, 1) and np.isnan(found).all()
    assert all("\n" not in reason for reason in findings["unreadable"].values())
    assert stored.summary().isprintable() or "\n" in stored.summary()
    return misses


@pytest.fixture
def bounded():
    """At no time were more than 16 MiB held."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files(damage, tmp_path, bounded):
    rng = random.Random(0)
    values = np.random.default_rng(0).random((7, 9))
    path = tmp_path / "a.npy"
    np.save(path, values)
    whole, misses = path.read_bytes(), 0
    for _ in range(500):
        data = bytearray(whole)
        damage(data, rng)
        path.write_bytes(data)
        misses += check(tmp_path, ["a"])
    assert misses > 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives(save, damage, tmp_path, bounded):
    rng = random.Random(0)
    maps = {name: np.random.default_rng(0).random((7, 9)) for name in ("a", "val/b")}
    path = tmp_path / "maps.npz"
    save(path, **maps)
    whole = path.read_bytes()
    for _ in range(250):
        data = bytearray(whole)
        damage(data, rng)
        path.write_bytes(data)
        check(path, maps)


def test_headers_of_all_kinds(tmp_path, bounded):
    rng = random.Random(0)
    misses = number = 0
    for dtype in DTYPES:
        for shape in SHAPES:
            for version in ((1, 0), (2, 0), (3, 0), (9, 9)):
                order = rng.choice((True, False))
                text = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}}}"
                size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
                values = rng.randbytes(20 * rng.choice((1, 2, 4, 8)))
                data = b"\x93NUMPY" + bytes(version) + size + text.encode() + values
                (tmp_path / "a.npy").write_bytes(data)
                misses += check(tmp_path, ["a"])
                number += 1
    assert 0.8 * number < misses < number  # (4, 5) of numbers are maps
