"""The page of a review in a browser: decisions, a dragged corner, what is saved."""

import html
import json
import re
import shutil
import subprocess

import pytest

from scenes import CLASSES, SCENES, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome",
                                                "google-chrome-stable"))), None)  # fmt: skip

# Runs behind the page's own script: what a person does, one picture after the other.
PERSON = """
localStorage.clear();
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const see = (path) => show(pictures.find((picture) => picture.path === path));
const seen = {tiles: document.querySelectorAll("#grid button").length};

see("a/same.png");
const stage = $("drawing").getBoundingClientRect(), width = stage.width / 120;
const corner = document.querySelectorAll("#drawing .reach")[2];
const at = (x, y) => ({bubbles: true, cancelable: true,
                       clientX: stage.left + x * width, clientY: stage.top + y * width});
corner.dispatchEvent(new PointerEvent("pointerdown", at(60, 70)));
window.dispatchEvent(new PointerEvent("pointermove", at(80, 75)));
window.dispatchEvent(new PointerEvent("pointermove", at(90, 80)));
window.dispatchEvent(new PointerEvent("pointerup", at(90, 80)));
press("a");
document.dispatchEvent(new KeyboardEvent("keydown", {key: "a", bubbles: true, repeat: true}));

see("b/same.png"); press("r");
see("b/two.png"); press("d");
see("a/nothing here.png"); press("b");
see("a/ü, 'q' & \\"<b>\\" 100%20#;.png"); press("d"); press("u");
seen.counts = $("counts").textContent;
seen.kept = coco();
$("which").value = "accepted";
seen.accepted = coco();
$("status").value = "rejected"; filter(); seen.rejected = shown.map((picture) => picture.path);
$("status").value = ""; $("class").value = classes[1]; filter(); seen.second = shown.length;
$("class").value = ""; $("high").value = 0.5; filter(); seen.unsure = shown.length;
keepNow();
seen.stored = Object.keys(JSON.parse(localStorage.getItem(key))).length;
seen.warned = [$("unkept").checkVisibility()];
let others = 0;
for (let size = 2 ** 20; size >= 1; size /= 2) {
  try {
    for (;;) localStorage.setItem(`other page ${others++}`, "x".repeat(size));
  } catch { /* it is full */ }
}
see("a/same.png"); press("b"); keepNow();
press("n"); press("a");
seen.warned.push($("unkept").checkVisibility());
while (others--) localStorage.removeItem(`other page ${others}`);
keepNow();
seen.warned.push($("unkept").checkVisibility());
Object.assign(pictures[0], {version: "another"});
seen.changed = statusOf(pictures[0]);
document.body.replaceChildren(Object.assign(document.createElement("pre"),
                                            {id: "seen", textContent: JSON.stringify(seen)}));
"""


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_person_accepts_rejects_drags_and_saves(tmp_path):
    write(tmp_path / "in", tmp_path / "out")
    page = tmp_path / "out" / "review.html"
    text = page.read_text().replace("</body>", f"<script>{PERSON}</script></body>")
    page.write_text(text)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--window-size=1200,900", f"--user-data-dir={tmp_path / 'user'}", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr
    seen = json.loads(html.unescape(found.group(1)))
    assert seen["tiles"] == len(SCENES)
    assert seen["counts"].startswith("1 accepted, 1 rejected, 3 not decided, 3 corrected")
    assert seen["rejected"] == ["b/same.png"] and seen["stored"] == 5
    assert seen["second"] == 2 and seen["unsure"] == 0
    assert seen["warned"] == [False, True, False]  # nothing that is said later hides it
    assert seen["changed"] == "open"  # what was decided is of the picture as it was

    kept = seen["kept"]
    assert [one["name"] for one in kept["categories"]] == list(CLASSES)
    names = {image["id"]: image["file_name"] for image in kept["images"]}
    boxes = {}
    for entry in kept["annotations"]:
        boxes.setdefault(names[entry["image_id"]], []).append(entry)
    assert "b__same.png" not in names.values() and len(names) == 4
    (dragged,) = boxes["a__same.png"]
    assert dragged["bbox"] == pytest.approx([10, 20, 80, 60], abs=1)
    assert dragged["segmentation"] == [] and dragged["category_id"] == 1
    (left,) = boxes["b__two.png"]  # the first one was deleted, the other is as it was
    assert left["bbox"] == [70, 50, 50, 40] and len(left["segmentation"][0]) == 8
    assert boxes["a__nothing here.png"][0]["bbox"] == [30, 23, 60, 45]
    (undone,) = next(value for name, value in boxes.items() if "100%20" in name)
    assert undone["bbox"] == [1, 2, 3, 7] and len(undone["segmentation"][0]) == 8
    assert [image["file_name"] for image in seen["accepted"]["images"]] == ["a__same.png"]
