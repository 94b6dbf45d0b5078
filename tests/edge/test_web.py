import json
import pathlib
import shutil
import subprocess
import urllib.parse

import numpy as np
import pytest
from PIL import Image

import headless
import present_classes
from edge import build_web, golden, runtime
from edge_files import LABELS, brightness, copy_localizer
from headless import CHROMIUM
from helpers import run
from wsol_tf.data.transforms import resize_image
from wsol_tf.model import refinement, score_maps

HERE = pathlib.Path(__file__).parent
WEB = HERE.parents[1] / "edge" / "web"
NODE = shutil.which("node")


# --- the arrays, in node -------------------------------------------------------------------------

SCRIPT = """
import {readFileSync} from 'node:fs';
const arrays = await import(process.argv[2]);
const {pictures, maps, refined, present, model} = JSON.parse(readFileSync(0));
const results = {
  pictures: pictures.map(({rgba, width, height, size}) =>
      [...arrays.resizeImage(rgba, width, height, size, size)]),
  maps: maps.map(({values, width, height, toWidth, toHeight, threshold, ...limits}) => {
    const stretched = arrays.stretch(Float32Array.from(values));
    const resized = arrays.resizeMap(stretched, width, height, toWidth, toHeight);
    const mask = resized.map((value) => value > Math.fround(threshold) ? 1 : 0);
    return {resized: [...resized], otsu: arrays.otsu(resized),
            objects: arrays.components(mask, resized, toWidth, toHeight, limits)};
  }),
  refined: refined.map(({map, pixels, width, height}) => {
    const found = arrays.refine(map, pixels, width, height);
    return {...found, values: [...found.values]};
  }),
  present: present.map(({logits, presence, background}) => {
    const probabilities = arrays.softmax(logits);
    const labels = arrays.presentClasses(probabilities, presence, background);
    return {labels, probabilities: labels.map((label) => probabilities[label])};
  }),
  metadata: arrays.readMetadata(readFileSync(model)),
};
console.log(JSON.stringify(results));
"""


@pytest.mark.skipif(not NODE, reason="needs node")
def test_arrays_equal_those_of_python(tmp_path):
    rng = np.random.default_rng(0)
    cases = {"pictures": [], "maps": [], "refined": [], "present": present_classes.cases()}
    cases["model"] = brightness(tmp_path / "mean.tflite", refine="guided")
    images, maps, refined = [], [], []
    for height, width, size in ((1, 1, 8), (60, 90, 32), (90, 60, 32), (200, 20, 32), (7, 5, 33)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        rgba = np.concatenate([image, np.full((height, width, 1), 255, np.uint8)], -1)
        cases["pictures"].append(
            {"rgba": rgba.ravel().tolist(), "width": width, "height": height, "size": size}
        )
        images.append((image, size))
    for trial in range(40):
        (height, width), (to_height, to_width) = rng.integers(2, 12, 2), rng.integers(1, 70, 2)
        score_map = rng.random((height, width), np.float32)
        if trial % 4 == 0:
            score_map = np.round(score_map * 3) / 3  # ties
        if trial == 8:
            score_map[:] = 0.5
        threshold = float(rng.uniform(0.2, 0.8))
        cases["maps"].append(
            {"values": score_map.ravel().tolist(), "width": int(width), "height": int(height),
             "toWidth": int(to_width), "toHeight": int(to_height), "threshold": threshold,
             "minArea": 0.2 * (trial % 3 == 2), "maxObjects": 4 * (trial % 5 == 4),
             "minPictureArea": 0.02 * (trial % 7 == 6)}
        )  # fmt: skip
        maps.append((score_map, int(to_height), int(to_width), threshold))
    for (height, width), sides in (
        ((28, 28), (224, 224)), ((7, 9), (67, 130)), ((3, 2), (4, 4)), ((5, 5), (64, 64)),
        ((56, 56), (224, 224)), ((112, 112), (224, 224)), ((4, 4), (32, 32)),
    ):  # fmt: skip
        score_map = rng.random((height, width), np.float32)
        picture = rng.integers(0, 256, (*sides, 3), dtype=np.uint8)
        if sides == (64, 64):
            picture[:] = 0
        elif height == 28:
            picture = np.repeat(np.repeat(picture[::16, ::16], 16, axis=0), 16, axis=1)
        elif height == 4:
            score_map[:] = 0.5  # as it is
        cases["refined"].append(
            {"map": {"values": score_map.ravel().tolist(), "width": width, "height": height},
             "pixels": picture.ravel().tolist(), "width": sides[1], "height": sides[0]}
        )  # fmt: skip
        refined.append(refinement.refine(score_map, picture))
    (tmp_path / "script.mjs").write_text(SCRIPT)
    done = subprocess.run(
        [NODE, tmp_path / "script.mjs", WEB / "arrays.js"], input=json.dumps(cases),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for (image, size), resized in zip(images, results["pictures"], strict=True):
        expected = resize_image(image, size).astype(int)
        assert np.abs(expected.ravel() - resized).max() <= 1
    several = left_out = 0
    for case, (score_map, *size, threshold), found in zip(
        cases["maps"], maps, results["maps"], strict=True
    ):
        resized, mask, box = score_maps.localize(score_map, *size, threshold)
        np.testing.assert_allclose(np.reshape(found["resized"], size), resized, atol=3e-6)
        assert found["otsu"] == pytest.approx(score_maps.otsu(resized), abs=1 / 256)
        if (np.abs(resized - threshold) > 3e-6).all():
            limits = {"min_area": case["minArea"], "max_objects": case["maxObjects"]}
            limits["min_picture_area"] = case["minPictureArea"]
            expected = score_maps.components(mask, resized, **limits)
            objects = found["objects"]
            assert [each["box"] for each in objects] == expected.boxes.tolist()
            assert [each["area"] for each in objects] == expected.areas.tolist()
            scores = [each["score"] for each in objects]
            np.testing.assert_allclose(scores, expected.scores, atol=1e-6)
            first = objects[0]["box"] if objects else [0, 0, *size[::-1]]
            np.testing.assert_array_equal(first, box)
            several += len(objects) > 1
            left_out += len(objects) < len(score_maps.components(mask, resized).boxes)
    assert several and left_out
    for expected, found in zip(refined, results["refined"], strict=True):
        assert (found["height"], found["width"]) == expected.shape
        np.testing.assert_allclose(np.reshape(found["values"], expected.shape), expected, atol=1e-6)
    for case, found in zip(cases["present"], results["present"], strict=True):
        assert found["labels"] == case["present"]
        np.testing.assert_allclose(found["probabilities"], case["probabilities"], atol=1e-12)
    assert results["metadata"] == runtime.LocalizerRuntime(cases["model"]).metadata


@pytest.mark.skipif(not NODE, reason="needs node")
@pytest.mark.parametrize(
    ("key", "value"),
    [("refine", None), ("refine", "Guided"), ("refine", True), ("refine", ["guided"]),
     ("separate", None), ("separate", "true"), ("separate", 1)],
)  # fmt: skip
def test_what_another_version_does_to_maps_is_refused(key, value, tmp_path):
    model = brightness(tmp_path / "mean.tflite", **{key: value})
    (tmp_path / "script.mjs").write_text("""
        import {readFileSync} from 'node:fs';
        const {readMetadata} = await import(process.argv[2]);
        try {
          readMetadata(readFileSync(process.argv[3]));
        } catch (error) {
          console.log(error.message);
        }
    """)
    said = subprocess.run(
        [NODE, tmp_path / "script.mjs", WEB / "arrays.js", model], capture_output=True, text=True
    ).stdout
    assert said == f"This .tflite is of another version: its {key} is {json.dumps(value)}.\n"


@pytest.mark.skipif(not NODE, reason="needs node")
def test_outputs_that_are_no_numbers_are_refused(tmp_path):
    (tmp_path / "script.mjs").write_text("""
        const {softmax, stretch} = await import(process.argv[2]);
        const said = [];
        for (const value of [NaN, Infinity, -Infinity, 2]) {
          for (const read of [softmax, stretch]) {
            try {
              said.push(read([1, value, 0]).length);
            } catch (error) {
              said.push(error.message);
            }
          }
        }
        console.log(JSON.stringify(said));
    """)
    said = subprocess.run(
        [NODE, tmp_path / "script.mjs", WEB / "arrays.js"], capture_output=True, text=True
    ).stdout
    assert json.loads(said) == ["The output of the model is not finite."] * 6 + [3, 3]


@pytest.mark.skipif(not NODE, reason="needs node")
@pytest.mark.parametrize("map_", ["mean", "topk", "predicted", "class:cat", "all", "present"])
def test_a_class_is_chosen_where_the_file_has_its_map_alone(map_, tmp_path):
    """As `LocalizerRuntime.check_class`: the mask of another class would get its name."""
    copy_localizer(tmp_path)
    (tmp_path / "script.js").write_text("""
        const {Localizer} = await import('./localizer.js');
        const localizer = new Localizer();
        localizer.metadata = {map: process.argv[2], labels: ['cat', 'dog'], presence_threshold: 1};
        for (const name of [null, 'dog', 'emu']) {
          try {
            console.log(localizer.classify(undefined, name)[0].channel);
          } catch (error) {
            console.log(error.message);
          }
        }
    """)
    done = subprocess.run([NODE, tmp_path / "script.js", map_], capture_output=True, text=True)
    assert not done.stderr
    default, dog, emu = done.stdout.splitlines()
    unknown = "Name a class of the file. Received: {}."
    assert default == (unknown.format("null") if map_ == "all" else "0")
    if map_ in ("all", "present"):
        assert (dog, emu) == ("1", unknown.format("emu"))
    else:
        assert dog == f"The file holds map '{map_}': no class can be chosen. Received: dog."


@pytest.mark.skipif(not NODE, reason="needs node")
@pytest.mark.parametrize(
    ("device", "accelerated", "run", "note"),
    [
        ("null", "true", "{}", "CPU, not GPU: the browser offers no WebGPU."),
        ("{}", "false", "{}",
         "CPU, not GPU: WebGPU does not run this file (some operations are missing there)."),
        ("{}", "true", "{throw new Error('lost')}",
         "CPU, not GPU: WebGPU does not run this file (lost)."),
        ("{}", "true", "{return {}}", None),
    ],
)  # fmt: skip
def test_what_the_gpu_cannot_run_goes_to_the_cpu(device, accelerated, run, note, tmp_path):
    model = brightness(tmp_path / "mean.tflite")
    copy_localizer(tmp_path)
    (tmp_path / "node_modules" / "@litertjs" / "core" / "index.js").write_text(f"""
        export const loadLiteRt = async () => {{}};
        export const getWebGpuDevice = () => ({device});
        export class Tensor {{ delete() {{}} }}
        export const loadAndCompile = async (bytes, options) =>
            ({{options, isFullyAccelerated: {accelerated}, async run() {run}}});
    """)
    (tmp_path / "script.js").write_text("""
        import {readFileSync} from 'node:fs';
        const {Localizer} = await import('./localizer.js');
        const bytes = readFileSync(process.argv[2]);
        const {accelerator, note = null, model} =
            await Localizer.load(bytes, '', {accelerator: 'webgpu', numThreads: 1});
        console.log(JSON.stringify([accelerator, note, model.options.accelerator]));
    """)
    done = subprocess.run([NODE, tmp_path / "script.js", model], capture_output=True, text=True)
    assert not done.stderr
    taken = "wasm" if note else "webgpu"
    assert json.loads(done.stdout) == [taken, note, taken]


# --- the page, in a browser ----------------------------------------------------------------------


FILES = {
    "localizer.tflite": {},
    "int8.tflite": {"map_": "predicted", "format_": "int8"},
    "predicted.tflite": {"map_": "predicted"},
    "all.tflite": {"map_": "all", "threshold": "otsu"},
    "refined.tflite": {"map_": "all", "threshold": 0.4, "refine": "guided"},
    "present.tflite": {"map_": "present"},
    "separate.tflite": {"separate": True, "threshold": 0.3},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with each of FILES beside it, and the test's own page."""
    folder = tmp_path_factory.mktemp("web") / "site"
    for name, settings in FILES.items():
        brightness(folder.parent / name, **settings)
    try:
        build_web.build_site(str(folder.parent / "localizer.tflite"), str(folder))
    except ValueError as error:
        if "npm could not download" in str(error):
            pytest.skip(str(error))
        raise
    for name in FILES:
        shutil.copy(folder.parent / name, folder)
    shutil.copy(HERE / "web_page.html", folder)
    return folder


def open_each(site, models, profile, **options):
    """Opens the page with each model: what follows `model=` in its address."""
    query = "&".join(f"model={urllib.parse.quote(model)}" for model in models)
    return headless.browse(site, f"web_page.html?{query}", profile, **options)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_the_page_shows_what_the_runtime_finds(site, tmp_path):
    whole = (site / "int8.tflite").read_bytes()
    (site / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    on_gpu, on_npu = (f"predicted.tflite&accelerator={name}" for name in ("webgpu", "npu"))
    names = [*FILES, "cut.tflite", "gone.tflite", on_gpu, on_npu]
    results = open_each(site, names, tmp_path / "profile")

    image = np.asarray(Image.open(site / "golden.png"))
    np.testing.assert_array_equal(image, golden.picture())
    for name in FILES:
        localizer = runtime.LocalizerRuntime(site / name)
        asked = LABELS[0] if localizer.metadata["map"] == "all" else None
        found = localizer.localize(image, class_name=asked)
        result = results[name]
        assert result["error"] is None, result["error"]
        assert (result["height"], result["width"]) == image.shape[:2]
        mask = np.reshape(result["mask"], image.shape[:2]).astype(bool)
        # Floats differ by rounding; a byte of the map may differ by one where kernels differ.
        assert np.mean(mask != found.mask) < (0.02 if name == "int8.tflite" else 1e-3)
        np.testing.assert_allclose(result["box"], found.box, atol=2)
        objects = localizer.localize(image, class_name=asked, min_area=0.05)
        assert result["boxes"] == [result["box"]], "one box until every one is asked for"
        np.testing.assert_allclose(result["every"]["boxes"], objects.boxes, atol=2)
        np.testing.assert_allclose(result["every"]["scores"], objects.scores, atol=0.02)
        np.testing.assert_allclose(result["every"]["areas"], objects.areas, rtol=0.05, atol=4)
        assert result["className"] == found.class_name
        for part, expected in zip(result["others"], found.others, strict=True):
            assert part["className"] == expected.class_name
            assert part["probability"] == pytest.approx(expected.probability, abs=1e-4)
            np.testing.assert_allclose(part["boxes"][0], expected.boxes[0], atol=2)
        assert result["isolated"], "service_worker.js sets the headers that threads need"
    assert results["offline"] == results["localizer.tflite"] | {
        "milliseconds": results["offline"]["milliseconds"]
    }
    several = results["present.tflite"]
    assert several["others"] and several["shown"].count("%") == 1 + len(several["others"])
    for name, tolerance in (("predicted.tflite", 1e-4), ("int8.tflite", 0.05)):
        expected = runtime.LocalizerRuntime(site / name).localize(image)
        probability = results[name]["probability"]
        assert probability == pytest.approx(expected.probability, abs=tolerance)
        assert results[name]["shown"] == f"{expected.class_name} {round(100 * probability)} %"
    assert results["files"]["said"] == [
        "notes.png is no picture that this browser reads.", results["files"]["before"],
    ]  # fmt: skip
    assert "cut off" in results["cut.tflite"]["error"]
    assert "There is no gone.tflite" in results["gone.tflite"]["error"]
    assert results[on_npu]["error"] == "The accelerator must be wasm or webgpu. Received: npu."
    assert results[on_gpu]["mask"] == results["predicted.tflite"]["mask"]
    assert results[on_gpu]["accelerator"] == "wasm" and "switched" not in results[on_gpu]
    assert results[on_gpu]["line"].endswith("· CPU, not GPU: the browser offers no WebGPU.")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_a_gpu_gives_the_masks_of_the_cpu(site, tmp_path):
    names = ["localizer.tflite", *(f"{name}&accelerator=webgpu" for name in FILES)]
    results = open_each(site, names, tmp_path / "profile", options=headless.SOFTWARE_GPU)
    if not results["adapter"]:
        pytest.skip("this browser has no WebGPU by software")
    image = golden.picture()
    for name in names:
        result = results[name]
        assert result["error"] is None, result["error"]
        on_gpu = "webgpu" in name and "int8" not in name
        assert result["accelerator"] == ("webgpu" if on_gpu else "wasm")
        switched = "wasm" if on_gpu or "int8" in name else "webgpu"
        assert result["switched"]["accelerator"] == switched
        localizer = runtime.LocalizerRuntime(site / name.partition("&")[0])
        asked = LABELS[0] if localizer.metadata["map"] == "all" else None
        mask = localizer.localize(image, class_name=asked).mask
        for shown in (result, result["switched"]):
            differ = np.reshape(shown["mask"], mask.shape).astype(bool) != mask
            assert np.mean(differ) < (0.02 if "int8" in name else 1e-3)
    assert results["localizer.tflite"]["switched"]["line"].endswith("· GPU")
    line = results["int8.tflite&accelerator=webgpu"]["line"]
    assert "CPU, not GPU: WebGPU does not run this file (" in line


# --- the folder ----------------------------------------------------------------------------------


def test_a_site_is_made_of_local_files_alone(tmp_path):
    site = tmp_path / "site"
    (site / "litert").mkdir(parents=True)
    (site / "litert" / "VERSION").write_text(build_web.LITERT_VERSION)  # so npm is not asked
    model = brightness(tmp_path / "mean.tflite")
    assert run(build_web, f"--model={model}", f"--output_dir={site}") == 0
    assert (site / "localizer.tflite").read_bytes() == pathlib.Path(model).read_bytes()
    for path in WEB.iterdir():
        text = (site / path.name).read_text()
        assert text == path.read_text()
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
    with Image.open(site / "golden_mask.png") as mask:
        found = runtime.LocalizerRuntime(model).localize(golden.picture())
        np.testing.assert_array_equal(np.asarray(mask) > 0, found.mask)


def test_what_cannot_work_is_refused(tmp_path, monkeypatch, capsys):
    model = brightness(tmp_path / "mean.tflite")
    (tmp_path / "page.tflite").write_text("<html>")
    out = f"--output_dir={tmp_path / 'site'}"
    assert run(build_web, f"--model={tmp_path / 'page.tflite'}", out) == 1
    assert "is not a .tflite file" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(build_web, f"--model={model}", out) == 1
    assert "npm is missing: install Node.js" in capsys.readouterr().err
