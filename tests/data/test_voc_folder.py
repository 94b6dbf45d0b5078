import os
import unicodedata

import pytest
from PIL import Image

from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Report
from wsol_tf.data.voc_xml import BadAnnotation, read_annotation, read_xml

XML = "<annotation><object><name>{}</name>{}</object></annotation>"
BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>9</ymax></bndbox>"


def add(folder, stem, name="cat", suffix=".png", xml=None):
    """A picture and its XML, bytes or text in UTF-8."""
    xml = XML.format(name, BOX) if xml is None else xml
    for path in (folder / "JPEGImages" / (stem + suffix), folder / "Annotations" / f"{stem}.xml"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".xml":
            Image.new("RGB", (20, 10), "red").save(path, "PNG")
        else:
            path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())


def write_list(folder, *lines, split="train"):
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "suffix", "line"),
    [
        ("IMG 2021 at 10.00 (1)", ".png", "IMG 2021 at 10.00 (1)"),
        ("IMG 1", ".png", "IMG 1.png"),
        ("cat 1", ".png", "cat 1"),
        ("a.rgb_0.v1", ".png", "a.rgb_0.v1"),
        ("a", ".PNG", "a"),
        ("a", ".PNG", "a.png"),
        ("A", ".png", "a"),
        ("sub/a", ".png", "sub/a"),
        ("sub/a", ".png", r"sub\a.png"),
        ("a", ".png", r"C:\data\JPEGImages\a.png"),
        ("a", ".png", "/home/me/data/JPEGImages/a.png"),
        (unicodedata.normalize("NFD", "caf\u00e9"), ".png", "caf\u00e9"),
        ("\u82f9\u679c", ".jfif", "\u82f9\u679c"),
    ],
)
def test_a_line_of_a_list_is_the_id_of_a_picture(tmp_path, stem, suffix, line):
    add(tmp_path, stem, suffix=suffix)
    add(tmp_path, "other", "dog")
    write_list(tmp_path, line, "other")
    source = open_dataset("voc_folder", tmp_path)
    assert source.image_ids == (line, "other")
    assert [labels.tolist() for labels in source.labels] == [[0], [1]]
    assert source.read_example(0).boxes.tolist() == [[0, 1, 10, 9]]
    assert not source.report.skipped


@pytest.mark.parametrize("lines", [["one  1", "two -1"], ["one", "two 0"], ["one.png one.xml"]])
def test_lists_of_several_columns_are_refused(tmp_path, lines):
    for stem in ("one", "two"):
        add(tmp_path, stem)
    write_list(tmp_path, *lines)
    with pytest.raises(ValueError, match="train.txt has several columns"):
        open_dataset("voc_folder", tmp_path)


def test_ids_without_picture_are_named(tmp_path):
    add(tmp_path, "one")
    add(tmp_path, "phone")
    (tmp_path / "JPEGImages" / "phone.png").rename(tmp_path / "JPEGImages" / "phone.HEIC")
    (tmp_path / "JPEGImages" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    write_list(tmp_path, "one", "not there", "x" * 300, "nul\0inside", "one.png", "phone")
    source = open_dataset("voc_folder", tmp_path)
    assert source.image_ids == ("one", "phone")
    assert source.report.skipped == {
        "not there": "no picture in JPEGImages",
        "x" * 300: "no picture in JPEGImages",
        "nul\0inside": "no picture in JPEGImages",
        "one.png": "the same picture as one",
    }
    assert "nul\\x00inside" in source.report.summary()
    assert len(list(source.read_examples())) == 1
    assert "HEIC" in source.report.skipped["phone"]


# --- files that are none -------------------------------------------------------------------------


def test_xml_that_is_no_file_is_named_and_passed_over(tmp_path):
    for stem in ("good", "pipe", "endless", "gone", "large"):
        add(tmp_path, stem)
        if stem != "good":
            (tmp_path / "Annotations" / f"{stem}.xml").unlink()
    add(tmp_path, "folder")
    (tmp_path / "Annotations" / "folder.xml").unlink()
    (tmp_path / "Annotations" / "folder.xml").mkdir()
    os.mkfifo(tmp_path / "Annotations" / "pipe.xml")
    os.symlink("/dev/zero", tmp_path / "Annotations" / "endless.xml")
    os.symlink(tmp_path / "nowhere", tmp_path / "Annotations" / "gone.xml")
    with open(tmp_path / "Annotations" / "large.xml", "wb") as file:
        file.truncate(17 * 2**20)
    write_list(tmp_path, "good", "pipe", "endless", "gone", "large", "folder")
    source = open_dataset("voc_folder", tmp_path)
    assert source.image_ids == ("good",)
    assert source.report.skipped == {
        "pipe": "the XML can't be read (this is a pipe, not a file)",
        "endless": "the XML can't be read (this is a device, not a file)",
        "large": "the XML can't be read (the file has 17 MiB, more than 16 MiB, the most that is "
        "read)",
        "folder": "no XML in Annotations",
        "gone": "no XML in Annotations",
    }


@pytest.mark.parametrize("name", ["ImageSets/Main/train.txt", "classes.txt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "latin-1"])
def test_lists_that_are_no_text_are_refused_with_their_name(tmp_path, name, kind):
    add(tmp_path, "one")
    write_list(tmp_path, "one")
    path = tmp_path / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        os.symlink("/dev/zero", path)
    else:
        path.write_bytes("caf\u00e9\n".encode("latin-1"))
    reason = "not text in UTF-8" if kind == "latin-1" else f"this is a {kind}, not a file"
    with pytest.raises(ValueError, match=f"{path}: .*{reason}"):
        open_dataset("voc_folder", tmp_path)


def test_masks_that_are_no_file_or_of_another_format_are_named(tmp_path):
    (tmp_path / "SegmentationClass").mkdir()
    for stem in ("pipe", "eps"):
        add(tmp_path, stem)
    os.mkfifo(tmp_path / "SegmentationClass" / "pipe.png")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\nshowpage\n"
    (tmp_path / "SegmentationClass" / "eps.png").write_bytes(eps)
    write_list(tmp_path, "pipe", "eps")
    source = open_dataset("voc_folder", tmp_path)
    assert [example.mask.size for example in source.read_examples()] == [0, 0]
    assert source.report.skipped["pipe mask"] == "mask not used (this is a pipe, not a file)"
    assert "mask not used (cannot identify" in source.report.skipped["eps mask"]


# --- XML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("gbk", "\u732b"),
        ("gb2312", "\u82f9\u679c"),
        ("big5", "\u8c93"),
        ("shift_jis", "\u732b"),
        ("euc-kr", "\uace0\uc591\uc774"),
        ("koi8-r", "\u043a\u043e\u0448\u043a\u0430"),
        ("windows-1251", "\u043a\u043e\u0448\u043a\u0430"),
        ("cp1252", "caf\u00e9 \u20ac"),
        ("ISO-8859-1", "caf\u00e9"),
        ("UTF-16", "\u732b"),
        ("utf-8", "\u732b"),
    ],
)
def test_xml_is_read_in_the_encoding_that_it_declares(tmp_path, encoding, name):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + XML.format(name, BOX)
    add(tmp_path, "one", xml=text.encode(encoding))
    write_list(tmp_path, "one")
    source = open_dataset("voc_folder", tmp_path)
    assert source.classes == (name,)
    assert source.read_example(0).boxes.tolist() == [[0, 1, 10, 9]]


def test_characters_beyond_the_declared_chinese_set_are_read(tmp_path):
    text = '<?xml version="1.0" encoding="GB2312"?>' + XML.format("\u6728\u69fa", BOX)
    (tmp_path / "a.xml").write_bytes(text.encode("gb18030"))
    assert read_xml(tmp_path / "a.xml").findtext("object/name") == "\u6728\u69fa"


def test_text_that_says_it_were_in_utf_16_is_read(tmp_path):
    text = '<?xml version="1.0" encoding="utf-16"?>' + XML.format("\u732b", BOX)
    (tmp_path / "a.xml").write_bytes(text.encode())
    assert read_xml(tmp_path / "a.xml").findtext("object/name") == "\u732b"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (XML.format("caf\u00e9", "").encode("cp1252"), "not text in utf-8 .*declares no other"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "not known .klingon"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation/>', "not known .rot13"),
        (b'<?xml version="1.0" encoding="ascii"?><a>\xe9</a>', "not text in ascii .it says so"),
        (b"<annotation><object>", "broken"),
        (b"", "broken"),
        (b"\0\0\0\0", "broken"),
    ],
)
def test_xml_that_cannot_be_read_says_why(tmp_path, content, reason):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(BadAnnotation, match=reason):
        read_annotation(tmp_path / "a.xml", "a", ("cat",), Report())


def test_entities_do_not_grow(tmp_path):
    bomb = '<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 9)
    )
    (tmp_path / "secret").write_text("do not tell")
    outside = f'<!ENTITY a8 SYSTEM "file://{tmp_path}/secret">'
    for entities in (bomb, outside):
        text = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]>' + XML.format("&a8;", BOX)
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(BadAnnotation, match="defines entities"):
            read_xml(tmp_path / "a.xml")


def test_where_no_xml_can_be_read_the_first_is_named(tmp_path):
    for stem in ("one", "two"):
        add(tmp_path, stem, xml=XML.format("caf\u00e9", "").encode("cp1252"))
    write_list(tmp_path, "one", "two")
    with pytest.raises(ValueError, match=r"2 of 2 XML files .*one.xml: .*not text in utf-8"):
        open_dataset("voc_folder", tmp_path)


def test_names_that_are_text_by_chance_are_not_trusted(tmp_path):
    """In GBK a cat is C3 A8, which UTF-8 takes for a letter; an apple is no UTF-8 at all."""
    add(tmp_path, "one", xml=XML.format("\u732b", "").encode("gbk"))
    add(tmp_path, "two", xml=XML.format("\u82f9\u679c", "").encode("gbk"))
    write_list(tmp_path, "one", "two")
    with pytest.raises(ValueError, match="can't be trusted: 1 of 2 .*'\u00e8'.*two.xml"):
        open_dataset("voc_folder", tmp_path)


def test_classes_that_differ_in_case_alone_are_noted(tmp_path):
    for stem, name in (("one", "Cat"), ("two", "cat")):
        add(tmp_path, stem, name)
    write_list(tmp_path, "one", "two")
    source = open_dataset("voc_folder", tmp_path)
    assert source.classes == ("Cat", "cat")
    assert list(source.report.noted) == ["classes 'Cat', 'cat'"]
