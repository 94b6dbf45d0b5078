"""Whole files or none."""

import json
import os
import socket
import tracemalloc

import numpy as np
import pytest

from helpers import arrays_in
from wsol_tf import files


def test_replacing_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as unfinished:
        files.write(unfinished, "ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["metrics.json"]
    files.write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"new": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_the_suffix_stays_for_those_who_write_by_it(tmp_path):
    path = tmp_path / "arrays.npz"
    with files.replacing(path) as unfinished:
        np.savez(unfinished, a=[1, 2])
    assert arrays_in(path)["a"].tolist() == [1, 2]
    assert os.listdir(tmp_path) == ["arrays.npz"]


def test_a_failed_write_names_the_file_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    files.write(path, "before")
    with pytest.raises(TypeError):
        files.write(path, 3)
    with pytest.raises(OSError) as error, files.replacing(path):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(path) and error.value.errno == 28
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(OSError, match="missing"):
        files.write(tmp_path / "missing" / "file", "text")


# --- reading -------------------------------------------------------------------------------------


def test_a_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfeins\r\nzwei\rdrei\n")
    assert files.read_bytes(tmp_path / "a") == b"\xef\xbb\xbfeins\r\nzwei\rdrei\n"
    assert files.read_text(tmp_path / "a") == "eins\nzwei\ndrei\n"


def refused(path, limit=files.MAX_BYTES):
    with pytest.raises(files.BadFile) as info:
        files.read_bytes(path, limit)
    assert str(info.value) == f"{files.printable(str(path))}: {info.value.reason}."
    return info.value.reason


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe") == "this is a pipe, not a file"
    assert refused(tmp_path) == "this is a folder, not a file"
    assert refused("/dev/zero") == "this is a device, not a file"
    with socket.socket(socket.AF_UNIX) as server:
        place = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        try:
            server.bind("socket")
        finally:
            os.chdir(place)
        assert refused(tmp_path / "socket") == "this is a socket, not a file"


def test_what_cannot_be_opened_is_named_with_its_reason(tmp_path):
    assert refused(tmp_path / "none") == "there is no such file"
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file" / "inside") == "there is no such file"
    (tmp_path / "gone").symlink_to("nothing")
    assert refused(tmp_path / "gone") == "this is a link to a file that is not there"
    (tmp_path / "loop").symlink_to("loop")
    assert refused(tmp_path / "loop") == "this is a link that leads back to itself"
    assert refused(tmp_path / ("x" * 300)) == "no file can have so long a name"
    assert refused("a\0b") == "no file can have this name"


def test_a_file_with_too_many_bytes_is_not_read(tmp_path):
    (tmp_path / "ten").write_bytes(bytes(10))
    assert files.read_bytes(tmp_path / "ten", 10) == bytes(10)
    assert refused(tmp_path / "ten", 9).startswith("the file has 10 bytes, more than 9 bytes")
    assert refused("/proc/self/maps", 9).startswith("the file has more than 9 bytes")


def test_a_file_is_read_in_one_go(tmp_path, monkeypatch):
    asked, read = [], os.read

    def counting(number, count):
        asked.append(count)
        return read(number, count)

    (tmp_path / "ten").write_bytes(bytes(10))
    monkeypatch.setattr(os, "read", counting)
    assert files.read_bytes(tmp_path / "ten") == bytes(10)
    assert asked == [11]
    # What stands in /proc says that it has no bytes, and comes in parts.
    assert len(files.read_bytes("/proc/self/maps")) > 0
    assert len(asked) > 2


def test_a_file_that_comes_in_parts_is_read_whole(tmp_path, monkeypatch):
    read = os.read
    (tmp_path / "ten").write_bytes(bytes(range(10)))
    monkeypatch.setattr(os, "read", lambda number, count: read(number, min(count, 4)))
    assert files.read_bytes(tmp_path / "ten") == bytes(range(10))


def test_a_small_file_takes_little_memory(tmp_path):
    (tmp_path / "ten").write_bytes(bytes(10))
    tracemalloc.start()
    try:
        files.read_bytes(tmp_path / "ten")
        assert tracemalloc.get_traced_memory()[1] < 2 * files.MEBI
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"])
def test_json_that_is_none_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(files.BadFile, match=r"a\.json: .*JSON"):
        files.read_json(tmp_path / "a.json")


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(files.BadFile, match=r"not text in UTF-8 \(byte 1"):
        files.read_text(tmp_path / "a")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_in_other_encodings_of_unicode_is_read(tmp_path, encoding):
    (tmp_path / "a").write_bytes("path,K\u00e4se\r\nb".encode(encoding))
    assert files.read_text(tmp_path / "a") == "path,K\u00e4se\nb"


def test_names_are_safe_to_print():
    assert files.printable("Käse 0.jpg") == "Käse 0.jpg"
    assert files.printable("a\x1b[31m\nb") == r"a\x1b[31m\nb"
    assert files.printable(os.fsdecode(b"\xff.jpg")) == r"\udcff.jpg"
