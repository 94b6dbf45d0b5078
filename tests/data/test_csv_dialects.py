"""Tables as spreadsheets and other tools write them."""

import os

import pytest
from PIL import Image

from wsol_tf.data.registry import open_dataset

HEADER = "filename,class,xmin,ymin,xmax,ymax"
ROWS = ["a.png,cat,4.5,2.5,14.5,8.5", "b.png,apple,1.5,2.5,9.5,20.5"]
BOXES = [[[4.5, 2.5, 14.5, 8.5]], [[1.5, 2.5, 9.5, 20.5]]]
TABLE = "\n".join([HEADER, *ROWS, ""])


@pytest.fixture
def table(tmp_path):
    """Writes a table beside two pictures and opens it."""
    for number, name in enumerate("ab"):
        Image.new("RGB", (40, 30), (50 * number, 0, 0)).save(tmp_path / f"{name}.png")

    def open_table(text, encoding="utf-8"):
        (tmp_path / "train.csv").write_bytes(text.encode(encoding))
        return open_dataset("csv", tmp_path, "train")

    return open_table


def check_both(source, image_ids=("a.png", "b.png")):
    assert source.classes == ("apple", "cat") and source.image_ids == image_ids
    assert [labels.tolist() for labels in source.labels] == [[1], [0]]
    assert [source.read_example(i).boxes.tolist() for i in range(2)] == BOXES
    assert [int(source.read_image(i)[0, 0, 0]) for i in range(2)] == [0, 50]
    assert not source.report.skipped


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", "|"),
        TABLE.replace(",", ", "),
        "sep=;\n" + TABLE.replace(",", ";"),
        "sep=,\r\n" + TABLE,
        '"sep=\t"\n' + TABLE.replace(",", "\t"),
        "\n\n" + TABLE.replace("\n", "\n\n"),
        TABLE.replace("\n", ",\n"),  # a separator at the end of each line
        TABLE.replace("a.png", '"a.png"').replace("cat", '"cat"'),
        TABLE.replace("a.png", " a.png ").replace("b.png", ".\\b.png"),
        TABLE.replace("filename,class", "ImageID,LabelName").replace("xmin", "XMin"),
        TABLE.replace(HEADER, "image_path,label,x_min,y_min,x_max,y_max"),
        TABLE.replace(HEADER, "Image Name,Class Name,x1,y1,x2,y2"),
        TABLE.replace(HEADER, "file_name,category,x0,y0,x1,y1"),
        TABLE.replace(HEADER, "img,category_name,left,top,right,bottom"),
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
        "cat,4.5,2.5,10,6,a.png,40,30\napple,1.5,2.5,8,18,b.png,40,30\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialects(table, text, encoding):
    source = table(text, encoding)
    ids = tuple(name.replace(".\\", "") for name in source.image_ids)
    check_both(source, ids)
    assert not source.report.noted


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_decimal_commas(table, separator):
    source = table(TABLE.replace(",", separator).replace(".5", ",5"))
    check_both(source)
    assert source.report.noted == {"train.csv": "its numbers have decimal commas"}


def test_decimal_commas_in_quotes(table):
    check_both(table(f'{HEADER}\na.png,cat,"4,5","2,5","14,5","8,5"\n'
                     'b.png,apple,"1,5","2,5","9,5","20,5"\n'))  # fmt: skip


def test_decimal_commas_that_are_separators_too_are_refused_as_that(table):
    with pytest.raises(ValueError, match=r"(?s)train.csv.*10 values for 6 columns.*decimal comma"):
        table(TABLE.replace(".5", ",5"))


def test_a_row_of_too_many_values_is_named(table):
    source = table(TABLE + "a.png,cat,4,5,2,5,14,5,8,5\n")
    assert list(source.report.skipped) == ["line 4"]
    assert "10 values for 6 columns" in source.report.skipped["line 4"]
    assert len(source.read_example(0).boxes) == 1


@pytest.mark.parametrize("numbers", ["1,000;2,000;3,000;4,000", "1,5;2.5;3;4"])
def test_commas_that_may_be_thousands_are_named(table, numbers):
    source = table(f"{HEADER.replace(',', ';')}\na.png;cat;{numbers}\nb.png;apple;5;6;7;8\n")
    assert source.report.skipped == {
        "a.png line 2": "no readable box (commas in its numbers), only the label is used"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace(HEADER, ""), "must start with.*, which is a row and no header"),
        (
            TABLE.replace(HEADER, "filename,class,x,y,width,height"),
            "x, y, width, height, which may",
        ),
        (TABLE.replace(HEADER, "filename,class,x_center,y_center,w,h"), "xcenter, ycenter, which"),
        ('path,label,bbox\na.png,cat,"[1, 2, 3, 4]"\n', "boxes under bbox"),
        (TABLE.replace(HEADER, "filename,class,xmin,ymin,width,height"), "not all four"),
        (TABLE.replace("ymax", "ymax,x1,y1,x2,y2"), "boxes in several columns"),
        (TABLE.replace("ymax", "ymax,Class"), "several columns 'class'"),
        ('path,label\n"a.png,cat\nb.png,apple\n"c.png",cat\n', "quotation mark is not closed"),
        ("path,label\n" + "x" * 200_000 + ",cat\n", "cannot be read as CSV"),
    ],
)
def test_what_may_mean_several_things_is_refused(table, text, message):
    with pytest.raises(ValueError, match=f"(?s)train.csv.*{message}"):
        table(text)


def test_other_encodings_are_refused_with_the_file(table):
    with pytest.raises(ValueError, match=r"train\.csv: this is not text in UTF-8"):
        table(TABLE.replace("cat", "K\u00e4se"), "cp1252")


# --- pictures ------------------------------------------------------------------------------------


def test_one_file_by_different_spellings_is_one_picture(table):
    source = table(f"{TABLE}./a.png,cat,0,0,5,5\nA.PNG,apple,0,0,6,6\nx\\..\\a.png,cat,0,0,7,7\n")
    assert source.image_ids == ("a.png", "b.png")
    assert source.labels[0].tolist() == [0, 1]
    assert source.read_example(0).boxes.tolist() == [
        *BOXES[0], [0, 0, 5, 5], [0, 0, 6, 6], [0, 0, 7, 7]
    ]  # fmt: skip
    assert "a.png, ./a.png, A.PNG" in next(iter(source.report.noted))


def test_names_that_may_mean_one_file_are_left_out(table):
    source = table(f"{TABLE}1/a.png,cat,0,0,5,5\n2/a.png,apple,0,0,6,6\n")
    assert source.image_ids == ("a.png", "b.png")
    assert source.read_example(0).boxes.tolist() == BOXES[0]
    assert list(source.report.skipped) == ["a.png, 1/a.png, 2/a.png"]


def test_names_without_suffix_are_those_of_pictures(table):
    check_both(table(TABLE.replace(".png", "")), ("a", "b"))


def test_a_row_that_comes_twice_counts_once(table):
    source = table(TABLE + ROWS[0] + "\n")
    check_both(source)
    assert source.report.noted == {"a.png line 4": "another line says the same, used once"}


def test_classes_that_differ_in_case_alone_are_noted(table):
    source = table(TABLE + "b.png,Cat,,,,\n")
    assert source.classes == ("Cat", "apple", "cat")
    assert list(source.report.noted) == ["classes 'Cat', 'cat'"]


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0.png", "..", "/"])
def test_a_name_that_no_picture_has_is_skipped(table, name):
    source = table(f"{TABLE}{name},cat,,,,\n")
    assert source.image_ids == ("a.png", "b.png")
    assert source.report.skipped == {name: "there is no such file"}


def test_splits_whatever_their_case(table):
    source = table("path,label,Split\na.png,cat,TRAIN\nb.png,apple,Val\n")
    assert source.image_ids == ("a.png",)


# --- sizes ---------------------------------------------------------------------------------------

SIZED = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def test_boxes_of_another_size_are_not_used(table):
    source = table(f"{SIZED}a.png,80,60,cat,4,2,14,8\nb.png,40,30,apple,1,2,9,20\n")
    boxes = [source.read_example(i).boxes.tolist() for i in range(2)]
    assert boxes == [[], [[1, 2, 9, 20]]]
    assert source.report.skipped == {
        "a.png boxes": "they are for 80 x 60 pixels, the picture has 40 x 30"
    }


def test_sizes_that_contradict_each_other_are_named(table):
    source = table(
        f"{SIZED}a.png,40,30,cat,4,2,14,8\na.png,80,60,cat,1,2,9,20\nb.png,,,apple,1,2,3,4\n"
    )
    assert source.read_example(0).boxes.shape == (0, 4)
    assert source.report.skipped == {"a.png boxes": "its lines name different sizes of the picture"}


def test_sizes_that_cannot_be_read_are_noted(table):
    source = table(f"{SIZED}a.png,wide,30,cat,4,2,14,8\nb.png,40.0,30,apple,1,2,9,20\n")
    assert source.read_example(0).boxes.tolist() == [[4, 2, 14, 8]]
    assert list(source.report.noted) == ["a.png line 2 size"]


# --- the file ------------------------------------------------------------------------------------


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "train.csv").mkdir()
    with pytest.raises(ValueError, match=r"train\.csv: this is a folder"):
        open_dataset("csv", tmp_path, "train")
    os.mkfifo(tmp_path / "val.csv")
    with pytest.raises(ValueError, match=r"val\.csv: this is a pipe"):
        open_dataset("csv", tmp_path, "val")
    (tmp_path / "test.csv").symlink_to("nothing")
    with pytest.raises(ValueError, match=r"test\.csv: this is a link to a file that is not there"):
        open_dataset("csv", tmp_path, "test")
