// The page: pictures and camera frames in, mask and box drawn over them.

import {resizeMap} from './arrays.js';
import {Localizer, maskOf} from './localizer.js';

const $ = (id) => document.getElementById(id);
const canvas = $('canvas'), video = $('video');
const reader = document.createElement('canvas'), shown = document.createElement('canvas');
const LONGER_SIDE = [800, 1280];  // of what is drawn; masks and boxes have the picture's own size
const MIN_AREA = 0.05;  // of the largest object's pixels: smaller parts of the mask get no box

let bytes, localizer, described, picture;  // described: a line about it; picture: ImageData
const localizers = {};  // accelerator -> promise of a localizer
let running = false, again = false;

async function start() {
  if (await serviceWorkerTakesOver()) return;
  const asked = new URLSearchParams(location.search);
  const file = asked.get('model') ?? 'localizer.tflite';
  const response = await fetch(file);
  if (!response.ok) throw new Error(`There is no ${file} beside this page.`);
  bytes = new Uint8Array(await response.arrayBuffer());
  await runOn(asked.get('accelerator') ?? 'wasm');
  setUpControls(localizer.metadata);
  $('gpu').hidden = !await navigator.gpu?.requestAdapter();
  await show(await fetchPicture('golden.png'));
}

/** Takes the localizer for an accelerator, 'wasm' or 'webgpu'; it is made the first time. */
async function runOn(accelerator) {
  const wasmFolder = new URL('litert/wasm/', document.baseURI).pathname;
  localizers[accelerator] ??= Localizer.load(bytes, wasmFolder, {accelerator});
  localizer = await localizers[accelerator];
  const {metadata, numThreads, note} = localizer;
  const onGpu = localizer.accelerator === 'webgpu';
  described = [
    metadata.format, `map: ${metadata.map}`, `${(bytes.length / 1e6).toFixed(1)} MB`,
    `${metadata.labels.length} classes`,
    onGpu ? 'GPU' : numThreads > 1 ? `${numThreads} threads` : '1 thread', ...(note ? [note] : []),
  ].join(' · ');
  $('gpu').setAttribute('aria-pressed', String(onGpu));
  say(described);
}

/** Starts service_worker.js where browsers allow it; true where the page is loaded once more. */
async function serviceWorkerTakesOver() {
  if (!navigator.serviceWorker) return false;  // neither https nor localhost
  await navigator.serviceWorker.register('service_worker.js');
  await navigator.serviceWorker.ready;
  if (crossOriginIsolated || sessionStorage.getItem('reloaded')) return false;
  sessionStorage.setItem('reloaded', 'yes');
  location.reload();
  return true;
}

function setUpControls({map, labels, threshold}) {
  if (map === 'all') {
    $('class').replaceChildren(...labels.map((label) => new Option(label)));
    $('classes').hidden = false;
    $('class').onchange = () => update();
  }
  $('every').onchange = () => update();
  $('gpu').onclick = () => {
    const other = localizer.accelerator === 'webgpu' ? 'wasm' : 'webgpu';
    runOn(other).then(update).catch(fail);
  };
  const stored = typeof threshold === 'number';
  $('threshold').value = stored ? threshold : 0.5;
  $('value').textContent = stored ? threshold.toFixed(2) : 'otsu';
  $('threshold').oninput = () => {
    $('value').textContent = Number($('threshold').value).toFixed(2);
    update();
  };
}

async function fetchPicture(url) {
  const response = await fetch(url);
  return response.ok ? pixelsOf(await response.blob()) : null;
}

/** Decodes a picture file upright, transparency on white. */
async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob);
  return readPixels(bitmap, bitmap.width, bitmap.height);
}

function readPixels(source, width, height) {
  if (reader.width !== width || reader.height !== height) {
    [reader.width, reader.height] = [width, height];
  }
  const context = reader.getContext('2d', {willReadFrequently: true});
  context.fillStyle = 'white';
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

async function show(image) {
  if (!image) return;
  picture = image;
  await update();
}

/** Localizes what is shown; while one is under way, the next waits and replaces older ones. */
async function update() {
  if (!localizer || !picture) return;
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      const image = picture, {accelerator} = localizer;
      const found = await localizer.localize(image, {
        className: localizer.metadata.map === 'all' ? $('class').value : null,
        threshold: $('value').textContent === 'otsu' ? 'otsu' : Number($('threshold').value),
        minArea: MIN_AREA,
        maxObjects: $('every').checked ? 0 : 1,
      });
      draw(image, found);
      showFigures(found);
      const {width, height} = image;
      window.localized = {...found, width, height, accelerator};  // for tests
    } while (again);
  } finally {
    running = false;
  }
}

function draw(image, found) {
  const longer = Math.max(image.width, image.height);
  const scale = Math.min(Math.max(longer, LONGER_SIDE[0]), LONGER_SIDE[1]) / longer;
  const width = Math.max(1, Math.round(image.width * scale));
  const height = Math.max(1, Math.round(image.height * scale));
  [canvas.width, canvas.height] = [width, height];
  $('hint').hidden = true;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  [shown.width, shown.height] = [image.width, image.height];
  shown.getContext('2d').putImageData(image, 0, 0);
  context.drawImage(shown, 0, 0, width, height);

  const parts = [found, ...found.others];  // one for each class that is present
  const masks = parts.map(({map, threshold}) => maskOf(
      resizeMap(map.values, map.width, map.height, width, height), width, height, threshold,
      localizer.metadata.separate));
  const pixels = context.getImageData(0, 0, width, height);
  const onScreen = Math.min(canvas.clientWidth / width, canvas.clientHeight / height) || 1;
  const line = Math.max(1, Math.round(1.8 / onScreen));
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height &&
      masks.some((mask) => mask[y * width + x]);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const at = i * 4;
      if (!inside(x, y)) {  // what is not the object steps back
        for (let c = 0; c < 3; c++) pixels.data[at + c] *= 0.42;
      } else if (!inside(x - line, y) || !inside(x + line, y) || !inside(x, y - line) ||
                 !inside(x, y + line)) {
        pixels.data.set([255, 236, 130], at);
      }
    }
  }
  context.putImageData(pixels, 0, 0);

  if (found.box === null) return;  // a picture without any object
  const boxes = parts.flatMap((part) => part.boxes);
  for (const box of boxes.length ? boxes.reverse() : [found.box]) {
    const [x0, y0, x1, y1] = box.map(
        (edge, i) => edge * (i % 2 ? height / image.height : width / image.width));
    for (const [colour, extra] of [['rgba(0, 0, 0, 0.75)', 2], ['#00d6ff', 0]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * 1.5 + extra;
      const inset = line;
      context.strokeRect(
          Math.max(x0, inset), Math.max(y0, inset),
          Math.min(x1, width - inset) - Math.max(x0, inset),
          Math.min(y1, height - inset) - Math.max(y0, inset));
    }
  }
}

function showFigures(found) {
  const {box, mask, className, milliseconds} = found;
  const parts = [found, ...found.others];
  $('found').textContent = parts.map(({className: name, probability}) =>
      [name, probability === null ? '' : `${Math.round(probability * 100)} %`].join(' ')).join(', ');
  $('known').hidden = className === null;
  $('box').textContent = box === null ? 'nothing found' : box.join(', ');
  const inside = mask.reduce((sum, _, i) => sum + parts.some((part) => part.mask[i]), 0);
  $('area').textContent = `${Math.round(100 * inside / mask.length)} %`;
  const {resize, network, mask: cut} = milliseconds;
  $('time').textContent = `${(resize + network + cut).toFixed(0)} ms`;
  $('times').textContent =
      `network ${network.toFixed(0)} · picture ${resize.toFixed(0)} · mask ${cut.toFixed(0)}`;
  say(described);  // where an error stood, of a picture before
}

function say(text, style = '') {
  $('model').textContent = text;
  $('model').className = style;
}

function fail(error) {
  console.error(error);
  say(error.message ?? String(error), 'bad');
}

async function open(file) {
  stopCamera();
  try {
    await show(await pixelsOf(file));
  } catch (error) {
    const undecodable = error.name === 'InvalidStateError';
    fail(undecodable ? new Error(`${file.name} is no picture that this browser reads.`) : error);
  }
}

// Picture from a file, by drag and drop, or pasted

$('file').onchange = () => $('file').files.length && open($('file').files[0]);
addEventListener('dragover', (event) => {
  event.preventDefault();
  $('stage').classList.add('over');
});
addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) $('stage').classList.remove('over');
});
addEventListener('drop', (event) => {
  event.preventDefault();
  $('stage').classList.remove('over');
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});
addEventListener('paste', (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});

// Camera: one frame at a time, as fast as the device manages

$('camera').onclick = () => video.srcObject ? stopCamera() : startCamera().catch(fail);

async function startCamera() {
  if (!navigator.mediaDevices) throw new Error('The camera needs https, or localhost.');
  video.srcObject = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
  await video.play();
  $('camera').setAttribute('aria-pressed', 'true');
  while (video.srcObject) {
    await show(readPixels(video, video.videoWidth, video.videoHeight));
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  $('camera').setAttribute('aria-pressed', 'false');
}

start().catch(fail);
