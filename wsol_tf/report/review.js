"use strict";
// Pictures as they were found are never changed: what a person decides lies in `decisions`, by the
// name and the version of the picture, and is kept by the browser for this page alone.
const PER_PAGE = 48, KEPT_FOR = 300;
const $ = (id) => document.getElementById(id);
const classes = JSON.parse($("classes").textContent);
const key = "wsol_tf review " + $("classes").dataset.key;
const pictures = [...document.querySelectorAll("script.one")].map((script) => {
  const picture = JSON.parse(script.textContent);
  script.remove();
  return picture;
});
pictures.forEach((picture, i) => { picture.id = i + 1; });
const decisions = kept();
let shown = pictures, current = null, chosen = 0, page = 0, waiting = 0;

function kept() {
  try {
    return JSON.parse(localStorage.getItem(key)) || {};
  } catch {
    return {};
  }
}

function keep() {
  clearTimeout(waiting);
  waiting = setTimeout(keepNow, KEPT_FOR);
}

function keepNow() {
  clearTimeout(waiting);
  try {
    localStorage.setItem(key, JSON.stringify(decisions));
    $("unkept").hidden = true;
  } catch {  // it is full, or keeps nothing
    $("unkept").hidden = false;
  }
}

const nameOf = (picture) => `${picture.name} ${picture.version}`;
const decisionOf = (picture) => (Object.hasOwn(decisions, nameOf(picture)) ? decisions[nameOf(picture)] : {});
const objectsOf = (picture) => decisionOf(picture).objects || picture.objects;
const statusOf = (picture) => decisionOf(picture).status || "open";
const isEdited = (picture) => Boolean(decisionOf(picture).objects);

function decide(changes) {
  decisions[nameOf(current)] = { ...decisionOf(current), ...changes };
  keep();
}

function edit(objects) {
  decide({ objects });
  drawEditor();
  drawTile(current);
  count();
}

// --- which pictures are shown ---------------------------------------------------------------------

function fits(picture) {
  const [label, status] = [$("class").value, $("status").value];
  const objects = objectsOf(picture);
  if (label && !objects.some((known) => known.label === label)) return false;
  if (status === "edited" ? !isEdited(picture) : status && statusOf(picture) !== status) return false;
  const [low, high] = [Number($("low").value), Number($("high").value)];
  if (low <= 0 && high >= 1) return true;  // pictures without an object have no confidence
  const confidence = Math.max(...objects.map((known) => known.score));
  return confidence >= low && confidence <= high;
}

const ORDERS = {
  doubtful: (a, b) => a.id - b.id,
  certain: (a, b) => b.id - a.id,
  name: (a, b) => (a.path < b.path ? -1 : 1),
};

function filter() {
  shown = pictures.filter(fits).sort(ORDERS[$("order").value]);
  $("confidence").value = `${$("low").value} to ${$("high").value}`;
  page = 0;
  show(shown[0] || null);
  drawGrid();
}

function show(picture) {
  current = picture;
  chosen = 0;
  const place = shown.indexOf(picture);
  if (place >= 0 && Math.floor(place / PER_PAGE) !== page) {
    page = Math.floor(place / PER_PAGE);
    drawGrid();
  }
  drawEditor();
  for (const tile of $("grid").children) tile.classList.toggle("chosen", tile.picture === picture);
  count();
}

function step(by) {
  const next = shown[shown.indexOf(current) + by];
  if (next) show(next);
}

function judge(status) {
  if (!current) return;
  decide({ status });
  drawTile(current);
  count();
  if (shown.indexOf(current) < shown.length - 1) step(1);
  else drawEditor();
}

function count() {
  const number = { accepted: 0, rejected: 0, open: 0 };
  let edited = 0;
  for (const picture of pictures) {
    number[statusOf(picture)] += 1;
    edited += isEdited(picture);
  }
  $("counts").textContent =
    `${number.accepted} accepted, ${number.rejected} rejected, ${number.open} not decided, ` +
    `${edited} corrected; ${shown.length} shown`;
}

// --- drawing --------------------------------------------------------------------------------------

function svg(name, attributes, parent) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  parent.append(node);
  return node;
}

function drawObjects(picture, parent) {
  return objectsOf(picture).map((known) => {
    if (known.polygon.length) {
      svg("polygon", { points: known.polygon.join(" "), "fill-rule": "evenodd" }, parent);
    }
    const [x0, y0, x1, y1] = known.box;
    return svg("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0 }, parent);
  });
}

function drawEditor() {
  const drawing = $("drawing");
  drawing.replaceChildren();
  for (const id of ["accept", "reject", "add", "undo", "next", "previous"]) $(id).disabled = !current;
  $("stage").hidden = !current;
  $("objects").replaceChildren();
  $("about").textContent = current ? "" : "No picture fits these filters.";
  if (!current) return;
  const { width, height } = current;
  $("stage").style.aspectRatio = `${width} / ${height}`;
  $("stage").style.maxWidth = `calc(62vh * ${width / height})`;
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawPicture();
  drawObjects(current, drawing).forEach((rect, i) => {
    rect.classList.toggle("chosen", i === chosen);
    rect.addEventListener("pointerdown", () => { if (i !== chosen) { chosen = i; drawEditor(); } });
  });
  if (objectsOf(current)[chosen]) drawCorners(objectsOf(current)[chosen]);
  const doubts = Object.entries(current.doubts).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  const status = { open: "", accepted: " · accepted", rejected: " · rejected" }[statusOf(current)];
  $("about").textContent =
    `${current.path} · uncertainty ${current.uncertainty.toFixed(2)} (${doubts.join(", ")})` +
    `${status}${isEdited(current) ? " · corrected" : ""}`;
  objectsOf(current).forEach(drawObjectRow);
  $("undo").disabled = !isEdited(current);
  $("previous").disabled = shown.indexOf(current) <= 0;
  $("next").disabled = shown.indexOf(current) >= shown.length - 1;
}

function drawPicture() {
  const image = $("picture");
  if (image.picture === current) return;
  image.picture = current;
  image.src = current.thumbnail;
  image.alt = current.path;
  // The picture itself, where it is still where it was: sharper than the thumbnail.
  const own = new Image(), picture = current;
  own.onload = () => {
    const same = own.naturalWidth === picture.width && own.naturalHeight === picture.height;
    if (same && image.picture === picture) image.src = own.src;
  };
  own.src = picture.file;
}

function drawCorners(known) {
  const scale = current.width / Math.max(1, $("drawing").clientWidth);
  for (const [i, j] of [[0, 1], [2, 1], [2, 3], [0, 3]]) {
    const place = { cx: known.box[i], cy: known.box[j] };
    svg("circle", { ...place, r: 6 * scale, class: "corner" }, $("drawing"));
    const reach = svg("circle", { ...place, r: 20 * scale, class: "reach" }, $("drawing"));
    reach.addEventListener("pointerdown", (event) => drag(event, known, i, j));
  }
}

// --- correcting -----------------------------------------------------------------------------------

function changed(place, changes) {
  return objectsOf(current).map((known, i) => (i === place ? { ...known, ...changes } : known));
}

function drag(event, known, i, j) {
  event.preventDefault();
  event.stopPropagation();
  const drawing = $("drawing"), frame = drawing.getBoundingClientRect();
  const { width, height } = current;
  const box = [...known.box];
  const clamp = (value, limit) => Math.min(limit, Math.max(0, Math.round(value)));
  const move = (now) => {
    // The opposite corner stays, a pixel away at least.
    const x = clamp(((now.clientX - frame.left) / frame.width) * width, width);
    const y = clamp(((now.clientY - frame.top) / frame.height) * height, height);
    box[i] = i === 0 ? Math.min(x, box[2] - 1) : Math.max(x, box[0] + 1);
    box[j] = j === 1 ? Math.min(y, box[3] - 1) : Math.max(y, box[1] + 1);
    drawing.replaceChildren();
    drawObjects({ name: "", version: "", objects: changed(chosen, { box, polygon: [] }) }, drawing);
  };
  const end = () => {
    window.removeEventListener("pointermove", move);
    window.removeEventListener("pointerup", end);
    window.removeEventListener("pointercancel", end);
    if (box.some((edge, at) => edge !== known.box[at])) {
      edit(changed(chosen, { box, polygon: [], area: (box[2] - box[0]) * (box[3] - box[1]) }));
    } else drawEditor();
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", end);
  window.addEventListener("pointercancel", end);
}

function addBox() {
  if (!current) return;
  const { width, height } = current;
  const box = [width / 4, height / 4, (3 * width) / 4, (3 * height) / 4].map(Math.round);
  const label = objectsOf(current)[0]?.label || classes[0];
  const area = (box[2] - box[0]) * (box[3] - box[1]);
  const objects = [...objectsOf(current), { label, score: 1, box, area, polygon: [] }];
  chosen = objects.length - 1;
  edit(objects);
}

function deleteObject(place) {
  if (!current || !objectsOf(current)[place]) return;
  chosen = 0;
  edit(objectsOf(current).filter((_, i) => i !== place));
}

function undo() {
  if (!current || !isEdited(current)) return;
  delete decisions[nameOf(current)].objects;
  chosen = 0;
  keep();
  drawEditor();
  drawTile(current);
  count();
}

function drawObjectRow(known, place) {
  const row = document.createElement("li"), label = document.createElement("select");
  row.classList.toggle("chosen", place === chosen);
  label.setAttribute("aria-label", "class");
  for (const name of new Set([...classes, known.label])) label.append(new Option(name, name));
  label.value = known.label;
  label.addEventListener("change", () => edit(changed(place, { label: label.value })));
  const score = document.createElement("span");
  score.textContent = known.score.toFixed(2);
  score.title = "confidence";
  const remove = document.createElement("button");
  remove.textContent = "Delete";
  remove.title = "D";
  remove.addEventListener("click", () => deleteObject(place));
  row.addEventListener("pointerdown", (event) => {
    if (event.target === row || event.target === score) { chosen = place; drawEditor(); }
  });
  row.append(label, score, remove);
  $("objects").append(row);
}

// --- the grid -------------------------------------------------------------------------------------

function drawGrid() {
  const pages = Math.max(1, Math.ceil(shown.length / PER_PAGE));
  page = Math.min(Math.max(0, page), pages - 1);
  $("page").textContent = `page ${page + 1} of ${pages}`;
  $("back").disabled = page === 0;
  $("forward").disabled = page === pages - 1;
  $("grid").replaceChildren(...shown.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map(makeTile));
}

function makeTile(picture) {
  const tile = document.createElement("button");
  tile.picture = picture;
  tile.addEventListener("click", () => show(picture));
  fillTile(tile);
  return tile;
}

function fillTile(tile) {
  const { picture } = tile;
  const image = document.createElement("img"), mark = document.createElement("span");
  image.src = picture.thumbnail;
  image.alt = picture.path;
  const objects = objectsOf(picture);
  const signs = { accepted: "✓ ", rejected: "✗ ", open: "" };
  mark.className = "mark";
  mark.textContent =
    signs[statusOf(picture)] + (isEdited(picture) ? "✎ " : "") +
    (objects.length ? objects[0].score.toFixed(2) : "nothing");
  tile.className = statusOf(picture);
  tile.title = `${picture.path}: ${objects.map((known) => known.label).join(", ") || "nothing"}`;
  tile.classList.toggle("chosen", picture === current);
  tile.replaceChildren(image);
  drawObjects(picture, svg("svg", { viewBox: `0 0 ${picture.width} ${picture.height}` }, tile));
  tile.append(mark);
}

function drawTile(picture) {
  for (const tile of $("grid").children) if (tile.picture === picture) fillTile(tile);
}

// --- saving ---------------------------------------------------------------------------------------

function coco() {
  const names = new Set(classes), images = [], annotations = [];
  for (const picture of pictures) {
    const status = statusOf(picture);
    if (status === "rejected" || ($("which").value === "accepted" && status !== "accepted")) continue;
    const { id, name, width, height, uncertainty } = picture;
    images.push({ id, file_name: name, width, height, uncertainty, status });
    for (const known of objectsOf(picture)) {
      names.add(known.label);
      const [x0, y0, x1, y1] = known.box;
      annotations.push({
        id: annotations.length + 1, image_id: id, category_id: [...names].indexOf(known.label) + 1,
        bbox: [x0, y0, x1 - x0, y1 - y0], area: known.area, iscrowd: 0,
        segmentation: known.polygon.length ? [known.polygon] : [], score: known.score,
      });
    }
  }
  const categories = [...names].map((name, i) => ({ id: i + 1, name }));
  return { info: { description: "wsol_tf, corrected" }, categories, images, annotations };
}

function save() {
  keepNow();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(coco())], { type: "application/json" }));
  link.download = "corrected.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// --- what happens when ----------------------------------------------------------------------------

const ACTIONS = {
  accept: () => judge("accepted"), reject: () => judge("rejected"),
  next: () => step(1), previous: () => step(-1), add: addBox, undo, save,
  back: () => { page -= 1; drawGrid(); }, forward: () => { page += 1; drawGrid(); },
};
const KEYS = {
  a: "accept", r: "reject", n: "next", arrowright: "next", p: "previous", arrowleft: "previous",
  b: "add", u: "undo", s: "save",
};
for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = KEYS[event.key.toLowerCase()];
  // A key that is held goes on through pictures, and decides on one of them.
  if (event.repeat && name !== "next" && name !== "previous") return;
  if (event.key.toLowerCase() === "d") deleteObject(chosen);
  else if (name) ACTIONS[name]();
  else return;
  event.preventDefault();
});
$("filters").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("pagehide", keepNow);
window.addEventListener("resize", () => { if (current) drawEditor(); });
for (const name of classes) $("class").append(new Option(name, name));
filter();
