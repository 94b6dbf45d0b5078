import os
import shutil

import numpy as np
import pytest
from PIL import Image

from wsol_tf.data import formats, images
from wsol_tf.data.formats import list_pictures
from wsol_tf.data.images import BadImage, find_images, read_image
from wsol_tf.data.registry import open_dataset

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "source.jpg"
    Image.fromarray(np.full((20, 30, 3), (200, 60, 30), np.uint8)).save(path)
    return path


def fill(folder, jpeg):
    """A folder with what people and systems put beside pictures."""
    folder.mkdir(parents=True)
    for name in ("a.jpg", "B.JPEG", "c.jpe", "d.jfif", "e.jpg_640x480", "no_suffix", "f.dat",
                 "j.heic"):  # fmt: skip
        shutil.copy(jpeg, folder / name)
    Image.open(jpeg).save(folder / "g.avif")
    for name in ("._a.jpg", ".hidden.jpg", "Thumbs.db", "desktop.ini", ".DS_Store"):
        shutil.copy(jpeg, folder / name)
    (folder / "notes.md").write_text("no picture")
    (folder / "a.xml").write_text("<annotation/>")
    (folder / "h.HEIC").write_bytes(HEIC)
    (folder / "i.tmp").write_bytes(HEIC)
    os.symlink(jpeg, folder / "linked.png")
    os.symlink(folder / "gone", folder / "broken.jpg")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    os.symlink("/dev/zero", folder / "endless.jpg")


PICTURES = ["B.JPEG", "a.jpg", "c.jpe", "d.jfif", "e.jpg_640x480", "f.dat", "g.avif", "j.heic",
            "linked.png", "no_suffix"]  # fmt: skip


def names(paths):
    return sorted(os.path.basename(path) for path in paths)


def test_what_of_a_folder_is_a_picture(tmp_path, jpeg):
    fill(tmp_path / "in", jpeg)
    found = list_pictures(tmp_path / "in")
    assert names(found.pictures) == PICTURES
    assert {os.path.basename(path): reason[:24] for path, reason in found.unreadable.items()} == {
        "broken.jpg": "this is a link to a file",
        "endless.jpg": "this is a device, not a ",
        "h.HEIC": "this is an HEIC picture,",
        "i.tmp": "this is an HEIC picture,",
        "pipe.jpg": "this is a pipe, not a fi",
    }
    assert {os.path.basename(path): reason for path, reason in found.others.items()} == {
        "a.xml": "not a picture by its suffix",
        "notes.md": "not a picture",
        "pipe": "this is a pipe, not a file",
    }
    for path in found.pictures:
        assert abs(read_image(path).mean(axis=(0, 1)) - (200, 60, 30)).max() < 4


def test_all_programs_take_the_same_pictures(tmp_path, jpeg):
    fill(tmp_path / "in" / "red", jpeg)
    fill(tmp_path / "in" / "also", jpeg)
    source = open_dataset("image_folder", tmp_path / "in")
    assert names(source.image_ids[:10]) == names(source.image_ids[10:]) == PICTURES
    for name in ("broken.jpg", "endless.jpg", "h.HEIC", "i.tmp", "pipe.jpg", "a.xml", "notes.md"):
        assert f"red/{name}" in source.report.skipped
    said = []
    paths = find_images([str(tmp_path / "in")], log=said.append)
    readable = [path for path in paths if not isinstance(_read(path), BadImage)]
    assert readable == sorted(str(tmp_path / "in" / image_id) for image_id in source.image_ids)
    assert {str(_read(path).reason)[:16] for path in set(paths) - set(readable)} == {
        "this is a link t", "this is a device", "this is an HEIC ", "this is a pipe, ",
    }  # fmt: skip
    assert any("red/notes.md" in line and "(not a picture)" in line for line in said)


def _read(path):
    try:
        return read_image(path)
    except BadImage as error:
        return error


def test_links_to_folders_are_followed_once(tmp_path, jpeg):
    (tmp_path / "in" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    shutil.copy(jpeg, tmp_path / "in" / "deep" / "er" / "a.jpg")
    shutil.copy(jpeg, tmp_path / "other" / "b.jpg")
    os.symlink(tmp_path / "other", tmp_path / "in" / "a_link")
    os.symlink(tmp_path / "in", tmp_path / "in" / "deep" / "loop")
    os.symlink(tmp_path / "in" / "deep", tmp_path / "in" / "again")
    os.symlink(tmp_path / "in", tmp_path / "other" / "back")
    found = list_pictures(tmp_path / "in", deep=True)
    assert [os.path.relpath(path, tmp_path / "in") for path in found.pictures] == [
        "a_link/b.jpg", "deep/er/a.jpg",
    ]  # fmt: skip
    assert set(found.others.values()) == {"a link to a folder that is read already"}
    assert len(found.others) == 3


def test_files_of_known_suffix_are_not_opened_to_list_them(tmp_path, jpeg, monkeypatch):
    for i in range(50):
        shutil.copy(jpeg, tmp_path / f"{i}.jpg")
        (tmp_path / f"{i}.xml").touch()
    monkeypatch.setattr(formats.files, "open_binary", None)
    monkeypatch.setattr(formats, "open_picture", None)
    assert len(list_pictures(tmp_path).pictures) == 51  # with source.jpg


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\nshowpage\n", "a PostScript file"),
        (b"%PDF-1.7\n", "a PDF file"),
        (HEIC, "HEIC.*heif-convert.*Most Compatible"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(90), "a JPEG 2000 file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b'<?xml version="1.0"?><svg width="9"/>', "SVG"),
        (b"GIMP", "not a picture in a known format"),
    ],
)
def test_other_formats_are_called_by_their_names(tmp_path, monkeypatch, content, reason):
    def started(*arguments, **options):
        raise AssertionError(f"Another program was started: {arguments}.")

    monkeypatch.setattr("subprocess.Popen", started)
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=reason):
        read_image(path)


def test_only_listed_formats_are_opened(tmp_path):
    """TGA and ICO are formats that Pillow reads and the documentation does not name."""
    Image.new("RGB", (20, 20)).save(tmp_path / "x.tga")
    (tmp_path / "x.tga").rename(tmp_path / "x.png")
    with pytest.raises(BadImage, match="known format"):
        read_image(tmp_path / "x.png")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(BadImage, match="x.jpg: this is a pipe, not a file"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(BadImage, match="a device, not a file"):
        read_image("/dev/zero")
    with pytest.raises(BadImage, match="a folder, not a file"):
        read_image(tmp_path)


def test_a_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    (tmp_path / "x.jpg").write_bytes(bytes(1001))
    with pytest.raises(BadImage, match="the file has 1001 bytes, more than 1000 bytes"):
        read_image(tmp_path / "x.jpg")
