"""Random damages of an exported file: it is refused in a sentence, or it is the same network."""

import logging
import random
import shutil
import subprocess
import zipfile

import pytest

from edge import runtime
from edge_files import brightness


def flip_a_bit(data, rng):
    position = rng.randrange(len(data) * 8)
    data[position // 8] ^= 1 << (position % 8)


def cut(data, rng):
    del data[rng.randrange(len(data)) :]


def cut_the_start(data, rng):
    del data[: rng.randrange(1, len(data))]


def overwrite(data, rng):
    start = rng.randrange(len(data))
    block = data[start : start + rng.randrange(1, 64)]
    data[start : start + len(block)] = rng.choice((rng.randbytes(len(block)), bytes(len(block))))


def swap_blocks(data, rng):
    size = rng.choice((1, 4, 16, 64, 512))
    one, other = (rng.randrange(0, len(data) - size + 1, size) for _ in range(2))
    if abs(one - other) >= size:
        data[one : one + size], data[other : other + size] = (
            data[other : other + size], data[one : one + size],
        )  # fmt: skip


def remove(data, rng):
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 100)]


def repeat(data, rng):
    start = rng.randrange(len(data))
    data[start:start] = data[start : start + rng.randrange(1, 100)]


DAMAGES = ((flip_a_bit, 2000), (cut, 300), (cut_the_start, 100), (overwrite, 500),
           (swap_blocks, 500), (remove, 200), (repeat, 200))  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.tflite"
    brightness(path, map_="predicted", format_="int8")
    return path


def end_of_network(path):
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()[0].header_offset


@pytest.mark.parametrize(
    "damage, number", DAMAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_no_damage_reaches_the_network(damage, number, whole, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    rng = random.Random(0)
    original, metadata = runtime._read_file(str(whole))
    network = original[: end_of_network(whole)]
    path = tmp_path / "damaged.tflite"
    refused = 0
    for _ in range(number):
        data = bytearray(original)
        damage(data, rng)
        path.write_bytes(data)
        try:
            found = runtime._read_file(str(path))
        except ValueError as error:
            assert str(error).startswith(repr(str(path))) and "\n" not in str(error)
            refused += data != original
        else:  # what was damaged belongs to the zip alone, and nobody reads it
            assert found == (bytes(data), metadata) and data.startswith(network)
    assert refused > 0.9 * number
    assert not caplog.records  # none passed for a file of before there were digests


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_page_refuses_what_is_damaged_too(whole, tmp_path):
    """All single bits, in JavaScript."""
    script = tmp_path / "script.mjs"
    script.write_text(
        """
        import {readFileSync} from 'node:fs';
        const {readMetadata} = await import(process.argv[2]);
        const bytes = new Uint8Array(readFileSync(process.argv[3])), end = Number(process.argv[4]);
        const right = JSON.stringify(readMetadata(bytes));
        let refused = 0;
        for (let bit = 0; bit < bytes.length * 8; bit += bit < end * 8 ? 5 : 1) {
          bytes[bit >> 3] ^= 1 << (bit & 7);
          try {
            if (JSON.stringify(readMetadata(bytes)) !== right || bit < end * 8) {
              throw new TypeError(`bit ${bit} went unnoticed`);
            }
          } catch (error) {
            if (error.constructor !== Error) throw error;
            if (!error.message.startsWith('This ')) throw error;
            refused++;
          }
          bytes[bit >> 3] ^= 1 << (bit & 7);
        }
        console.log(refused);
        """
    )
    arrays = tmp_path / "arrays.mjs"
    shutil.copy(runtime.__file__.replace("runtime.py", "web/arrays.js"), arrays)
    done = subprocess.run(
        ["node", script, arrays, whole, str(end_of_network(whole))],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8000
