// From a picture to a mask and boxes in the browser, as edge/runtime.py does it, on LiteRT.js.
// It knows nothing of the page: app.js draws, and any other page can import this file as it is.

import {getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';
import {
  components, otsu, presentClasses, readMetadata, refine, resizeImage, resizeMap, softmax, stretch,
} from './arrays.js';
import {separate} from './separation.js';

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
   * @param {{accelerator?: string, numThreads?: number}} options accelerator: 'wasm', or 'webgpu'
   *     for the GPU; numThreads: of wasm, where the page is cross-origin isolated
   * @return {Promise<Localizer>} its accelerator is the one that it runs on: wasm, too, where the
   *     browser has no WebGPU or the file does not run there; note then says so
   */
  static async load(bytes, wasmFolder, {
    accelerator = 'wasm', numThreads = Math.min(4, navigator.hardwareConcurrency || 1),
  } = {}) {
    if (accelerator !== 'wasm' && accelerator !== 'webgpu') {
      throw new Error(`The accelerator must be wasm or webgpu. Received: ${accelerator}.`);
    }
    const localizer = new Localizer();
    localizer.metadata = readMetadata(bytes);
    const threads = await loadRuntime(wasmFolder);
    localizer.numThreads = threads ? numThreads : 1;
    localizer.accelerator = accelerator;
    if (accelerator === 'webgpu') {
      try {
        await localizer.compileForGpu(bytes);
        return localizer;
      } catch (error) {
        localizer.note = `CPU, not GPU: ${error.message}`;
        localizer.accelerator = 'wasm';
      }
    }
    localizer.model = await loadAndCompile(
        bytes, {accelerator: 'wasm', cpuOptions: {numThreads: localizer.numThreads}});
    return localizer;
  }

  /** Compiles for WebGPU. A file may be taken and still fail when it runs, so it runs once. */
  async compileForGpu(bytes) {
    if (!getWebGpuDevice()) throw new Error('the browser offers no WebGPU.');
    const [height, width] = this.metadata.input_size;
    try {
      this.model = await loadAndCompile(
          bytes, {accelerator: 'webgpu', gpuOptions: {precision: 'fp32'}});
      if (!this.model.isFullyAccelerated) throw new Error('some operations are missing there');
      await this.run(new Uint8Array(height * width * 3));
    } catch (error) {
      throw new Error(`WebGPU does not run this file (${error.message}).`);
    }
  }

  /**
   * Finds the objects in a picture; with map 'present', those of every class that is in it.
   * @param {ImageData} image at its own size
   * @param {{className?: string, threshold?: number|string, minArea?: number,
   *     minPictureArea?: number, maxObjects?: number}} options className: with map 'all', or with 'present' in place of all that are, whose map is
   *     taken; threshold: 0..1 or 'otsu' in place of the one in the file; the other
   *     three: which components of the mask are objects, see components() in arrays.js
   * @return {Promise<object>} map {values, width, height} stretched to 0..1, threshold, mask
   *     Uint8Array of 0 and 1 at the picture's size, boxes [x0, y0, x1, y1] of the objects in
   *     pixels, half-open, the largest first, with their scores and areas, box: the first of them,
   *     or the whole picture where there is none, and null where the class is that of pictures
   *     without any object, or minPictureArea leaves none, className and probability or null, others: with map 'present' the same
   *     of each of the other classes, the most probable first, and milliseconds {resize, network,
   *     mask}
   */
  async localize(image, {
    className = null, threshold = this.metadata.threshold, ...limits
  } = {}) {
    const started = performance.now();
    const [height, width] = this.metadata.input_size;
    const pixels = resizeImage(image.data, image.width, image.height, width, height);
    const resized = performance.now();
    const outputs = await this.run(pixels);
    const ran = performance.now();
    const [first, ...others] = this.classify(outputs.class_scores, className).map((known) => {
      let map = this.chooseMap(outputs.foreground_mask, known.channel);
      if (this.metadata.refine === 'guided') map = refine(map, pixels, width, height);
      return find(map, image, threshold, limits, known, this.metadata.separate);
    });
    return {
      ...first, others,
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
        outputs[name] = {values: await tensor.data(), shape};  // a copy
      }
      return outputs;
    } finally {
      for (const tensor of [input, ...Object.values(tensors)]) tensor.delete();
    }
  }

  chooseMap({values, shape}, channel) {
    const [, height, width, channels] = shape;
    const map = new Float32Array(height * width);
    for (let i = 0; i < map.length; i++) map[i] = values[i * channels + channel];
    return {values: map, width, height};
  }

  /**
   * The classes whose maps are taken, the first one first, each {className, probability, channel,
   * isEmpty}. Of a class that was asked for, no probability is told: it is none that was predicted.
   */
  classify(scores, className) {
    const {map, labels, background_class: empty = null, presence_threshold: presence} = this.metadata;
    const asked = map.startsWith('class:') ? map.slice('class:'.length) : className;
    let channel = 0;
    if (className !== null && map !== 'all' && map !== 'present') {
      throw new Error(
          `The file holds map '${map}': no class can be chosen. Received: ${className}.`);
    }
    if (map === 'all' || className !== null) {
      channel = labels.indexOf(className);
      if (channel < 0) throw new Error(`Name a class of the file. Received: ${className}.`);
    }
    if (!scores) return [{className: asked, probability: null, channel, isEmpty: false}];
    // Bytes of int8 files stand for scale * (byte - zero point); softmax needs the scale alone.
    const [scale] = this.metadata.quantization.class_scores ?? [1];
    const probabilities = softmax(Array.from(scores.values, (value) => value * scale));
    const background = empty === null ? null : labels.indexOf(empty);
    const present = presentClasses(probabilities, map === 'present' ? presence : 2, background);
    const known = (label) => ({className: labels[label], probability: probabilities[label]});
    if (!present.length) return [{...known(background), channel, isEmpty: true}];
    if (asked !== null) return [{className: asked, probability: null, channel, isEmpty: false}];
    return present.map((label) =>
        ({...known(label), channel: map === 'present' ? label : channel, isEmpty: false}));
  }
}

/**
 * Where a map of any size lies above the threshold, as a mask of 0 and 1.
 * @param {Float32Array} map in 0..1, row by row
 * @param {number} width
 * @param {number} height
 * @param {number} threshold not rounded to a float32
 * @param {boolean} isSeparated whether objects that touch are cut apart
 * @return {Uint8Array}
 */
export function maskOf(map, width, height, threshold, isSeparated) {
  const cut = Math.fround(threshold);
  const mask = new Uint8Array(map.length);
  for (let i = 0; i < mask.length; i++) mask[i] = map[i] > cut ? 1 : 0;  // from() is far slower
  return isSeparated ? separate(mask, map, width, height, threshold) : mask;
}

/** What the map of a class says of a picture; nothing where `isEmpty`. */
function find(map, image, threshold, limits, {className, probability, isEmpty}, isSeparated) {
  map.values = stretch(map.values);
  const full = resizeMap(map.values, map.width, map.height, image.width, image.height);
  const exact = threshold === 'otsu' ? otsu(full) : threshold;
  const mask = maskOf(full, image.width, image.height, exact, isSeparated);
  let objects = components(mask, full, image.width, image.height, limits);
  if (isEmpty) {  // of pictures without any object
    map.values.fill(0);
    mask.fill(0);
    objects = [];
  }
  const whole = isEmpty || limits.minPictureArea > 0 ? null : [0, 0, image.width, image.height];
  return {
    map, mask, threshold: exact,
    boxes: objects.map(({box}) => box), scores: objects.map(({score}) => score),
    areas: objects.map(({area}) => area),
    box: objects[0]?.box ?? whole, className, probability,
  };
}
