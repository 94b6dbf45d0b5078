import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from helpers import run, tiny_model
from wsol_tf import predict
from wsol_tf.data import images, shapes
from wsol_tf.model.localizing import Localizing
from wsol_tf.report import pictures

CLASSES = ("bright", "dark")
ROOT = pathlib.Path(__file__).parent.parent


class FakeModel(Localizing, SimpleNamespace):
    """A Localization without layers."""


def fake_model(size=100, **changes):
    """A model whose every map is the brightness of the picture it sees."""

    def predict_on_batch(images):
        assert images.dtype == np.uint8 and images.shape[1:] == (size, size, 3)
        maps = np.repeat(images[..., :1].astype(np.float32) / 255, 2, axis=-1)
        logits = np.tile(np.float32([2, 0]), (len(images), 1))
        return {"logits": logits, "score_map": maps, "localization_map": maps}

    settings = dict(
        input_size=size, classes=CLASSES, map="mean", refine="none", top_k=5, offset=(0.0, 0.0),
        thresholds={"mean": 0.5, "predicted": 0.25}, predict_on_batch=predict_on_batch,
        presence_threshold=None,
        localizer=SimpleNamespace(output=np.zeros((1, size, size, 2))),
    )  # fmt: skip
    return FakeModel(**settings | changes)


def bright_square(path, *, size=(300, 200), box=(60, 40, 180, 120)):
    """A black picture (width, height) with a white rectangle."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return str(path)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    tiny_model(shapes.CLASSES, whole=True).save(path)
    return path


def lines_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_few_pictures_trace_no_graph_many_freeze_the_weights_and_all_give_the_same(
    model_path, tmp_path, monkeypatch, rng
):
    from wsol_tf.model import build  # with TensorFlow, which the program imports itself

    for name in "abcd":
        image = rng.integers(0, 256, (8, 6, 3), np.uint8).repeat(9, 0).repeat(9, 1)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    models, load = [], build.load_model
    monkeypatch.setattr(
        build, "load_model", lambda *a, **k: models.append(load(*a, **k)) or models[-1]
    )
    monkeypatch.setattr(predict, "MANY", 4)
    for out, names in (("few", "a"), ("some", "abc"), ("many", "abcd")):
        paths = [tmp_path / f"{name}.png" for name in names]
        arguments = f"--model={model_path}", f"--output_dir={tmp_path / out}", "--threshold=otsu"
        assert run(predict, *arguments, *paths) == 0
    assert [model.run_eagerly for model in models] == [True, False, False]
    # The last one has the graph of its frozen weights, and no other.
    assert [model.predict_function is None for model in models] == [False, False, True]
    few = lines_of(tmp_path / "few")[0]
    probability, mask = few.pop("probability"), Image.open(tmp_path / "few" / "a_mask.png")
    for out in ("some", "many"):
        line = lines_of(tmp_path / out)[0]
        assert line.pop("probability") == pytest.approx(probability, abs=1e-6)
        assert line == few
        np.testing.assert_array_equal(Image.open(tmp_path / out / "a_mask.png"), mask)


# --- what is written -----------------------------------------------------------------------------


def test_box_and_mask_are_in_the_pixels_of_the_picture(tmp_path):
    path = bright_square(tmp_path / "square.png")
    lines, skipped = predict.predict(fake_model(), [path], str(tmp_path / "out"))
    assert skipped == {}
    (line,) = lines
    assert lines_of(tmp_path / "out") == lines
    # One position of the map is 3 x 2 pixels.
    np.testing.assert_allclose(line["box"], [60, 40, 180, 120], atol=3)
    assert line["image"] == path
    assert line["size"] == {"height": 200, "width": 300}
    assert (line["class"], line["map"], line["threshold"]) == ("bright", "mean", 0.5)
    assert line["probability"] == pytest.approx(1 / (1 + np.exp(-2)))
    with Image.open(tmp_path / "out" / line["mask"]) as mask:
        assert mask.size == (300, 200) and mask.mode == "L"
        mask = np.asarray(mask)
    assert set(np.unique(mask)) == {0, 255}
    expected = np.zeros((200, 300), bool)
    expected[40:120, 60:180] = True
    assert np.mean((mask > 0) != expected) < 0.02
    with Image.open(tmp_path / "out" / line["overlay"]) as overlay:
        assert overlay.mode == "RGB" and overlay.width >= 300
        assert overlay.height > overlay.width * 200 / 300  # the caption is below the picture


@pytest.mark.parametrize("size", [(300, 200), (57, 400), (33, 9), (1600, 1200)])
def test_masks_have_the_size_of_the_picture(size, tmp_path):
    box = (0, 0, size[0] // 2, size[1] // 2)
    path = bright_square(tmp_path / "picture.png", size=size, box=box)
    ((line,), _) = predict.predict(fake_model(), [path], str(tmp_path / "out"))
    with Image.open(tmp_path / "out" / line["mask"]) as mask:
        assert mask.size == size
    assert line["size"] == {"height": size[1], "width": size[0]}
    np.testing.assert_allclose(line["box"], box, atol=max(size) / 50)


def test_rotated_photographs_are_seen_upright(tmp_path):
    image = np.zeros((200, 300, 3), np.uint8)
    image[:100, :60] = 255  # turned by 90 degrees clockwise: the right upper corner
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.fromarray(image).save(path, exif=exif, quality=95)
    ((line,), _) = predict.predict(fake_model(), [str(path)], str(tmp_path / "out"))
    assert line["size"] == {"height": 300, "width": 200}
    np.testing.assert_allclose(line["box"], [100, 0, 200, 60], atol=4)


def test_kinds_of_map_and_thresholds(tmp_path):
    path = bright_square(tmp_path / "square.png")
    out = str(tmp_path / "out")
    # Nobody knows the true class here, so 'true' shows the predicted one.
    ((line,), _) = predict.predict(fake_model(), [path], out, kind="true")
    assert (line["map"], line["threshold"]) == ("predicted", 0.25)
    ((line,), _) = predict.predict(fake_model(), [path], out, kind="cam", threshold="otsu")
    assert (line["map"], line["threshold"]) == ("cam", "otsu")
    with pytest.raises(ValueError, match="stores no threshold for map 'cam'. Pass `threshold"):
        predict.predict(fake_model(), [path], out, kind="cam")


def test_objects_of_all_classes_are_listed_and_drawn(tmp_path):
    image = np.zeros((100, 100, 3), np.uint8)
    image[10:40, 10:50] = image[60:80, 60:90] = image[92:94, 20:22] = 255
    Image.fromarray(image).save(tmp_path / "several.png")
    path, out = str(tmp_path / "several.png"), tmp_path / "out"
    model = fake_model(presence_threshold=0.1)  # the second class has a probability of 0.12
    boxes = [[10, 10, 50, 40], [60, 60, 90, 80], [20, 92, 22, 94]]
    ((line,), _) = predict.predict(model, [path], str(out), max_objects=0)
    assert [each["box"] for each in line["objects"]] == boxes and line["box"] == boxes[0]
    assert [each["area"] for each in line["objects"]] == [1200, 600, 4]
    assert {each["score"] for each in line["objects"]} == {1.0}
    overlay = np.asarray(Image.open(out / line["overlay"]))
    scale = overlay.shape[1] / 100
    for x0, y0, x1, _ in boxes[:2]:  # the box's colour stands in the middle of its upper edge
        top = overlay[round(y0 * scale) + np.arange(-3, 4), round((x0 + x1) / 2 * scale)]
        assert (top == pictures.PREDICTED).all(-1).any()
    ((line,), _) = predict.predict(
        model, [path], str(out), classes="present", max_objects=0, min_area=0.1
    )
    assert line["map"] == "predicted"
    assert [(each["class"], each["box"]) for each in line["objects"]] == [
        (name, box) for name in CLASSES for box in boxes[:2]
    ]
    ((line,), _) = predict.predict(model, [path], str(out))
    assert [each["box"] for each in line["objects"]] == boxes[:1]


def test_what_is_too_small_for_the_picture_is_nothing(tmp_path, capsys):
    path = bright_square(tmp_path / "square.png")
    for share, found in ((0.01, True), (0.9, False)):
        ((line,), _) = predict.predict(
            fake_model(), [path], str(tmp_path / "out"), min_picture_area=share
        )
        assert (line["box"] is not None, len(line["objects"])) == (found, int(found))
        assert ("nothing found" in capsys.readouterr().out) != found
        assert (np.asarray(Image.open(tmp_path / "out" / line["mask"])) > 0).any()


def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path):
    paths = [bright_square(tmp_path / folder / "same.png") for folder in "abc"]
    paths.append(bright_square(tmp_path / "d" / "same_2.png"))
    lines, _ = predict.predict(fake_model(), paths, str(tmp_path / "out"))
    assert len({line["mask"] for line in lines} | {line["overlay"] for line in lines}) == 8
    assert all((tmp_path / "out" / line["mask"]).exists() for line in lines)


def test_pictures_in_the_output_folder_are_not_replaced(tmp_path):
    names = ("a.png", "a_mask.png", "a_overlay.png", "b_mask.png")
    paths = [bright_square(tmp_path / name) for name in names]
    before = [pathlib.Path(path).read_bytes() for path in paths]
    lines, _ = predict.predict(fake_model(), paths, str(tmp_path))
    assert [pathlib.Path(path).read_bytes() for path in paths] == before
    assert [line["mask"] for line in lines] == [
        *("a_2_mask.png", "a_mask_mask.png", "a_overlay_mask.png", "b_mask_mask.png")
    ]


def test_each_picture_gets_its_own_box(tmp_path):
    boxes = [(5 * i, 0, 5 * i + 60, 50) for i in range(6)]
    paths = [
        bright_square(tmp_path / f"{i}.png", size=(200, 100), box=box)
        for i, box in enumerate(boxes)
    ]
    lines, _ = predict.predict(fake_model(), paths, str(tmp_path / "out"))
    assert [line["image"] for line in lines] == paths
    np.testing.assert_allclose([line["box"] for line in lines], boxes, atol=2)


def test_interrupted_predictions_are_kept(tmp_path, monkeypatch):
    paths = [bright_square(tmp_path / f"{i}.png") for i in range(3)]
    read_image = images.read_image

    def interrupt_the_third(path, **options):
        if path == paths[2]:
            raise KeyboardInterrupt
        return read_image(path, **options)

    monkeypatch.setattr(images, "read_image", interrupt_the_third)
    with pytest.raises(KeyboardInterrupt):
        predict.predict(fake_model(), paths, str(tmp_path / "out"))
    assert [line["image"] for line in lines_of(tmp_path / "out")] == paths[:2]


# --- as a user runs it ---------------------------------------------------------------------------


def test_folder_with_broken_pictures(model_path, tmp_path, capsys):
    folder = tmp_path / "in"
    good = [bright_square(folder / name) for name in ("a.png", "deep/er/b.png")]
    (folder / "empty.jpg").touch()
    (folder / "page.png").write_text("<!DOCTYPE html><html></html>")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:90])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "notes.txt").write_text("not looked at")
    out = tmp_path / "out"
    arguments = (f"--model={model_path}", f"--output_dir={out}")
    assert run(predict, *arguments, folder, tmp_path / "gone.png") == 0
    lines = lines_of(out)
    assert [line["image"] for line in lines] == good
    names = {line["overlay"] for line in lines} | {line["mask"] for line in lines}
    assert set(os.listdir(out)) == names | {"predictions.jsonl"}
    assert all(line["class"] in shapes.CLASSES for line in lines)
    output = capsys.readouterr()
    for name, reason in (("empty.jpg", "the file is empty"), ("page.png", "web page"),
                         ("cut.png", "cannot be decoded"), ("dot.png", "1 x 1 pixels"),
                         ("gone.png", "there is no such file")):  # fmt: skip
        (line,) = [line for line in output.err.splitlines() if name in line]
        assert line.startswith("Skipped: ") and reason in line
        assert line.count(name) == 1
    assert "2 pictures localized, 5 skipped" in output.out
    assert run(predict, *arguments, "--on_bad_image=fail", folder / "a.png", folder) == 1
    assert "cut.png: the picture cannot be decoded" in (said := capsys.readouterr().err)
    assert said.startswith("Error: ") and "Repair or remove it" in said
    assert [line["image"] for line in lines_of(out)] == [good[0], good[0]]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["{tmp}/missing.png"], "missing.png: there is no such file"),
        (["{tmp}/nothing"], "No picture in folder"),
        ([], "name pictures or folders of pictures"),
        (["{tmp}/text.png"], "not a picture in a known format"),
        (["{tmp}/a.png", "--threshold=abc"], "Received: 'abc'"),
        (["{tmp}/a.png", "--model={tmp}/text.png"], "is cut off or no .keras file"),
        (["{tmp}/a.png", "--model={tmp}/missing.keras"], "is no file"),
        (["{tmp}/a.png", "--output_dir={tmp}/a.png"], "a file has this name"),
        (["{tmp}/a.png", "--output_dir="], "--output_dir is empty"),
    ],
)
def test_what_cannot_work_is_refused(arguments, sentence, model_path, tmp_path, capsys):
    bright_square(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "nothing").mkdir()
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    options = (f"--model={model_path}", f"--output_dir={tmp_path / 'out'}")
    assert run(predict, *options, *given) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--map=xyz", "--top_k=two"])
def test_flags_outside_their_values_are_refused(argument, tmp_path):
    with pytest.raises(flags.Error, match=argument.split("=")[0].lstrip("-")):
        run(predict, "--model=m", f"--output_dir={tmp_path}", argument)


def test_refusals_as_a_user_sees_them(model_path, tmp_path):
    truncated = tmp_path / "truncated.keras"
    truncated.write_bytes(model_path.read_bytes()[:-1000])
    out = f"--output_dir={tmp_path / 'out'}"
    started = [
        (
            subprocess.Popen(
                [sys.executable, "-m", "wsol_tf.predict", *map(str, arguments)],
                cwd=ROOT, stderr=subprocess.PIPE, text=True,
            ),
            sentence,
        )
        for arguments, sentence in (
            ([f"--model={truncated}", out, "a.png"], "Error: Model"),
            ([out, "a.png"], "--model=None: Flag --model must have a value"),
        )
    ]  # fmt: skip
    for process, sentence in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert sentence in errors and "Traceback" not in errors


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left")])
def test_what_was_found_until_the_end_is_kept(error, tmp_path, capsys):
    paths = [bright_square(tmp_path / f"{name}.png") for name in "abc"]
    model = fake_model()
    localize, seen = model.localize, []

    def interrupted(image, **settings):
        seen.append(image)
        if len(seen) == 3:
            raise error
        return localize(image, **settings)

    model.localize = interrupted
    out = tmp_path / "out"
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        predict.predict(model, paths, str(out))
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [os.path.basename(json.loads(line)["image"]) for line in lines] == ["a.png", "b.png"]
    assert "Ended after 2 of 3 pictures." in capsys.readouterr().err
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_lines_of_an_earlier_call_stay_until_there_are_new_ones(tmp_path):
    path, out = bright_square(tmp_path / "a.png"), tmp_path / "out"
    predict.predict(fake_model(), [path], str(out))
    before = (out / "predictions.jsonl").read_text()
    model = fake_model()
    localize = model.localize

    def look(image, **settings):
        assert (out / "predictions.jsonl").read_text() == before
        return localize(image, **settings)

    model.localize = look
    predict.predict(model, [path, path], str(out))
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2


def test_a_folder_that_is_removed_meanwhile_is_a_sentence(tmp_path):
    path, out = bright_square(tmp_path / "a.png"), tmp_path / "out"
    model = fake_model()
    localize = model.localize

    def remove(image, **settings):
        shutil.rmtree(out)
        return localize(image, **settings)

    model.localize = remove
    with pytest.raises(ValueError, match=f"'{out}' was removed or renamed while pictures"):
        predict.predict(model, [path], str(out))


def test_names_that_are_long_or_no_text_get_files(tmp_path, capsys):
    """Names of up to 255 bytes, of which an ending and a number need some."""
    names = ["x" * 250 + ".png", "ü" * 124 + ".png", "\x1b[31mred.png", "no\udcfftext.png"]
    paths = [bright_square(tmp_path / name) for name in names]
    lines, skipped = predict.predict(fake_model(), paths, str(tmp_path / "out"))
    assert not skipped and [line["image"] for line in lines] == paths
    for line in lines:
        assert len(os.fsencode(line["overlay"])) <= 200
        assert os.path.isfile(tmp_path / "out" / line["overlay"])
    said = capsys.readouterr().out
    assert "\x1b" not in said and r"\x1b[31mred.png" in said and r"no\udcfftext.png" in said


def test_names_of_any_bytes_and_lengths(tmp_path, capsys):
    folder = tmp_path / "in"
    long = [bright_square(folder / f"{'n' * 240}{i}.png") for i in range(2)]
    wide = bright_square(folder / f"{chr(0x732B) * 83}.png")  # 249 bytes and a suffix
    loud = bright_square(folder / "red\x1b[31m.png")
    latin = os.path.join(os.fsencode(folder), b"caf\xe9.png")
    os.rename(bright_square(folder / "latin.png"), latin)
    lines, skipped = predict.predict(
        fake_model(), images.find_images([str(folder)]), str(tmp_path / "out")
    )
    assert not skipped
    assert sorted(line["image"] for line in lines) == sorted(
        [*long, wide, loud, os.fsdecode(latin)]
    )
    written = {line[name] for line in lines for name in ("mask", "overlay")}
    assert written | {"predictions.jsonl"} == set(os.listdir(tmp_path / "out"))
    assert len(written) == 10 and max(len(os.fsencode(name)) for name in written) < 240
    assert lines_of(tmp_path / "out") == lines
    said = capsys.readouterr().out
    assert r"red\x1b[31m.png" in said and "\x1b" not in said
    assert r"caf\udce9.png" in said


def test_what_is_no_file_is_skipped_and_what_is_no_picture_named(model_path, tmp_path, capsys):
    folder = tmp_path / "in"
    bright_square(folder / "a.png")
    os.mkfifo(folder / "pipe.jpg")
    os.symlink("/dev/zero", folder / "endless.jpg")
    os.symlink(folder, folder / "loop")
    (folder / "notes.md").write_text("no picture")
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    (folder / "deep.png").write_bytes(_dark_16_bits())
    arguments = (f"--model={model_path}", f"--output_dir={tmp_path / 'out'}")
    assert run(predict, *arguments, folder, folder / "pipe.jpg") == 0
    said = capsys.readouterr()
    assert "2 pictures localized, 3 skipped" in said.out
    assert "Not taken from" in said.out and "notes.md (not a picture)" in said.out
    assert "loop (a link to a folder that is read already)" in said.out
    for name, reason in (("pipe.jpg", "a pipe"), ("endless.jpg", "a device"),
                         ("IMG_1.HEIC", "HEIC picture.*heif-convert")):  # fmt: skip
        assert re.search(f"Skipped: {folder / name}: this is .*{reason}", said.err)
    assert "deep.png: 16-bit samples of which none is above 4095" in said.err


def _dark_16_bits():
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 50), 4000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def test_nothing_is_found_in_pictures_of_the_background_class(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    made = tiny_model(("widget", "nothing"), background_class="nothing")
    *_, last = made.classifier.layers
    weights = last.get_weights()
    weights[-1] = np.array([0, 100], np.float32)  # whatever the picture shows
    last.set_weights(weights)
    made.save(tmp_path / "model.keras")
    picture = bright_square(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    arguments = (f"--model={tmp_path / 'model.keras'}", f"--output_dir={out}", picture)
    assert run(predict, *arguments) == 0
    assert "nothing 100%, nothing found" in capsys.readouterr().out
    (line,) = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert (line["class"], line["box"]) == ("nothing", None)
    assert not np.asarray(Image.open(out / line["mask"])).any()
