// From a picture to a mask and boxes in the browser, as edge/runtime.py does it, on LiteRT.js.
// It knows nothing of the page: app.js draws, and any other page can import this file as it is.

import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';
import {
  components, otsu, readMetadata, refine, resizeImage, resizeMap, stretch,
} from './arrays.js';

let runtime;

/** Loads LiteRT.js, once; threads work where the page is cross-origin isolated. */
function loadRuntime(wasmFolder) {
  runtime ??= (async () => {
    const threads = globalThis.crossOriginIsolated === true;
    try {
      await loadLiteRt(wasmFolder, {threads});
      return threads;
    } catch (error) {
      if (!threads) throw error;
      await loadLiteRt(wasmFolder);  // a browser without relaxed SIMD has no threads
      return false;
    }
  })();
  return runtime;
}

export class Localizer {
  /**
   * Makes a localizer of the bytes of a .tflite file that edge.export wrote.
   * @param {Uint8Array} bytes
   * @param {string} wasmFolder where LiteRT's wasm files are, with a slash at the end
   */
  static async load(bytes, wasmFolder) {
    const localizer = new Localizer();
    localizer.metadata = readMetadata(bytes);
    const threads = await loadRuntime(wasmFolder);
    localizer.numThreads = threads ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    localizer.model = await loadAndCompile(
        bytes, {accelerator: 'wasm', cpuOptions: {numThreads: localizer.numThreads}});
    return localizer;
  }

  /**
   * Finds the objects in a picture.
   * @param {ImageData} image at its own size
   * @param {{className?: string, threshold?: number|string, minArea?: number, maxObjects?: number}}
   *     options className: with map 'all', whose map is taken; threshold: 0..1 or 'otsu' in place of
   *     the one in the file; minArea and maxObjects: which components of the mask are objects, see
   *     components() in arrays.js
   * @return {Promise<object>} map {values, width, height} stretched to 0..1, threshold, mask
   *     Uint8Array of 0 and 1 at the picture's size, boxes [x0, y0, x1, y1] of the objects in
   *     pixels, half-open, the largest first, with their scores and areas, box: the first of them,
   *     or the whole picture where there is none, and null where the class is that of pictures
   *     without any object, className and probability or null, and milliseconds {resize, network,
   *     mask}
   */
  async localize(image, {
    className = null, threshold = this.metadata.threshold, minArea = 0, maxObjects = 0,
  } = {}) {
    const started = performance.now();
    const [height, width] = this.metadata.input_size;
    const pixels = resizeImage(image.data, image.width, image.height, width, height);
    const resized = performance.now();
    const outputs = await this.run(pixels);
    const ran = performance.now();
    let map = this.chooseMap(outputs.foreground_mask, className);
    if (this.metadata.refine === 'guided') map = refine(map, pixels, width, height);
    map.values = stretch(map.values);
    const full = resizeMap(map.values, map.width, map.height, image.width, image.height);
    const cut = Math.fround(threshold === 'otsu' ? otsu(full) : threshold);
    const mask = new Uint8Array(full.length);
    for (let i = 0; i < full.length; i++) mask[i] = full[i] > cut ? 1 : 0;
    let objects = components(mask, full, image.width, image.height, {minArea, maxObjects});
    const known = this.classify(outputs.class_scores, className);
    // Of a class that was asked for, no probability is told: it is none that was predicted.
    const isEmpty = known.probability !== null && known.className === this.metadata.background_class;
    if (isEmpty) {  // of pictures without any object
      map.values.fill(0);
      mask.fill(0);
      objects = [];
    }
    const whole = isEmpty ? null : [0, 0, image.width, image.height];
    return {
      map, mask, threshold: cut,
      boxes: objects.map(({box}) => box), scores: objects.map(({score}) => score),
      areas: objects.map(({area}) => area),
      box: objects[0]?.box ?? whole, ...known,
      milliseconds: {
        resize: resized - started, network: ran - resized, mask: performance.now() - ran,
      },
    };
  }

  /** Runs the network on RGB bytes [height * width * 3] of its own input size. */
  async run(pixels) {
    const input = new Tensor(pixels, [1, ...this.metadata.input_size, 3]);
    let tensors = {};
    try {
      tensors = await this.model.run('localize', {image: input});
      const outputs = {};
      for (const [name, tensor] of Object.entries(tensors)) {
        const shape = [...tensor.type.layout.dimensions];
        outputs[name] = {values: tensor.toTypedArray().slice(), shape};
      }
      return outputs;
    } finally {
      for (const tensor of [input, ...Object.values(tensors)]) tensor.delete();
    }
  }

  chooseMap({values, shape}, className) {
    const [, height, width, channels] = shape;
    let channel = 0;
    if (this.metadata.map === 'all') {
      channel = this.metadata.labels.indexOf(className);
      if (channel < 0) throw new Error(`Name a class of the file. Received: ${className}.`);
    }
    const map = new Float32Array(height * width);
    for (let i = 0; i < map.length; i++) map[i] = values[i * channels + channel];
    return {values: map, width, height};
  }

  classify(scores, className) {
    const map = this.metadata.map;
    if (!scores) {
      const name = map.startsWith('class:') ? map.slice('class:'.length) : className;
      return {className: name, probability: null};
    }
    // Bytes of int8 files stand for scale * (byte - zero point); softmax needs the scale alone.
    const [scale] = this.metadata.quantization.class_scores ?? [1];
    const best = scores.values.indexOf(scores.values.reduce((a, b) => Math.max(a, b)));
    const label = this.metadata.labels[best];
    if (label !== this.metadata.background_class) {  // else the class is the one whose map was taken
      const name = map.startsWith('class:') ? map.slice('class:'.length) : className;
      if (name !== null) return {className: name, probability: null};
    }
    let sum = 0;
    for (const score of scores.values) sum += Math.exp((score - scores.values[best]) * scale);
    return {className: label, probability: 1 / sum};
  }
}
