"""Objects that touch are cut apart in the browser as by wsol_tf."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import separated_objects
from edge_files import brightness, copy_localizer

WEB = pathlib.Path(__file__).parents[2] / "edge" / "web"
NODE = shutil.which("node")
SCRIPT = """
import {readFileSync} from 'node:fs';
const {components} = await import(process.argv[2]);
const {separate} = await import(process.argv[3]);
const results = JSON.parse(readFileSync(0)).map(({values, width, height, threshold, ...limits}) => {
  const map = Float32Array.from(values);
  const whole = Uint8Array.from(map, (value) => value > Math.fround(threshold) ? 1 : 0);
  const mask = separate(whole, map, width, height, threshold);
  const cut = [...whole.keys()].filter((i) => whole[i] !== mask[i]);
  return {cut, objects: components(mask, map, width, height, limits)};
});
console.log(JSON.stringify(results));
"""


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        # The bridge from 70 to 90 is cut in its middle; the pixel on the first disc's side goes.
        ("two discs", [(80, 25, 151, 86), (10, 25, 79, 86)]),
        ("three discs", [(102, 10, 203, 91), (10, 10, 101, 91), (199, 10, 291, 91)]),
        ("one after the other", [(102, 10, 203, 91), (10, 10, 101, 91), (199, 10, 291, 91)]),
        ("a small disc", [(10, 25, 133, 86)]),  # less than a quarter of both
        # Ten positions of a bridge: five for each block; of eleven, the middle one is the first's.
        ("blocks", [(25, 10, 45, 30), (5, 10, 24, 30)]),
        ("blocks with a tie", [(5, 10, 25, 30), (26, 10, 46, 30)]),
        ("U", [(10, 10, 100, 100)]),
        ("at the border", [(56, 0, 112, 3), (0, 0, 55, 3)]),
        ("steps", [(77, 0, 154, 30), (0, 0, 76, 30)]),
        ("nothing", []),
        ("a pixel", [(0, 0, 1, 1)]),
        ("everything", [(0, 0, 10, 10)]),
    ],
)
def test_maps_by_hand(name, boxes):
    case = separated_objects.case(separated_objects.by_hand()[name], separated_objects.THRESHOLD)
    assert case["boxes"] == [list(box) for box in boxes]
    if name.startswith("blocks"):  # two of 300 and a bridge of 10 rows, without a column of it
        assert case["areas"] == ([350, 350] if "tie" in name else [350, 340])
        column = 25 if "tie" in name else 24
        assert case["cut"] == [row * 56 + column for row in range(15, 25)]


@pytest.mark.skipif(not NODE, reason="needs node")
def test_the_browsers_objects_are_those_of_the_model(tmp_path):
    cases = separated_objects.cases()
    assert sum(case["cut"] != [] for case in cases) > 20
    (tmp_path / "script.mjs").write_text(SCRIPT)
    done = subprocess.run(
        [NODE, tmp_path / "script.mjs", WEB / "arrays.js", WEB / "separation.js"],
        input=json.dumps(cases), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for case, found in zip(cases, json.loads(done.stdout), strict=True):
        assert found["cut"] == case["cut"]
        objects = found["objects"]
        assert [each["box"] for each in objects] == case["boxes"]
        assert [each["area"] for each in objects] == case["areas"]
        scores = [each["score"] for each in objects]
        np.testing.assert_allclose(scores, case["scores"], rtol=1e-6)


LOCALIZE = """
import {readFileSync} from 'node:fs';
import {Localizer} from './localizer.js';
import {readMetadata} from './arrays.js';
const {model, values, side} = JSON.parse(readFileSync(0));
const localizer = new Localizer();
localizer.metadata = readMetadata(readFileSync(model));
const foreground_mask = {values: Float32Array.from(values), shape: [1, side, side, 1]};
localizer.run = () => ({foreground_mask});
const image = {data: new Uint8Array(4 * side * side), width: side, height: side};
const {boxes, mask} = await localizer.localize(image);
console.log(JSON.stringify({boxes, size: mask.reduce((a, b) => a + b)}));
"""


@pytest.mark.skipif(not NODE, reason="needs node")
@pytest.mark.parametrize("said", [{"separate": True}, {"separate": False}, {}])
def test_the_browser_cuts_where_the_file_says_so(said, tmp_path):
    copy_localizer(tmp_path)
    (tmp_path / "script.js").write_text(LOCALIZE)
    blocks = separated_objects.by_hand()["blocks"] / np.float32(0.9)
    model = brightness(tmp_path / "mean.tflite", threshold=0.35, **said)
    given = {"model": model, "values": blocks.ravel().tolist(), "side": len(blocks)}
    done = subprocess.run(
        [NODE, tmp_path / "script.js"], input=json.dumps(given), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    boxes, size = [[5, 10, 45, 30]], 2 * 20 * 15 + 10 * 10
    if said.get("separate"):
        boxes, size = [[25, 10, 45, 30], [5, 10, 24, 30]], size - 10
    assert json.loads(done.stdout) == {"boxes": boxes, "size": size}
