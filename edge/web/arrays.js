// What is done to arrays before and after the network, and the reading of metadata. No imports, so
// that it runs anywhere. Numbers are those of edge/runtime.py.

/** Reads wsol_tf.json out of the zip behind a .tflite; an Error says what is wrong with the file. */
export function readMetadata(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (start, length) => new TextDecoder().decode(bytes.subarray(start, start + length));
  if (bytes.length < 30 || text(4, 4) !== 'TFL3') throw new Error('This is not a .tflite file.');
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end >= 0) {
    let entry = view.getUint32(end + 16, true);
    for (let left = view.getUint16(end + 10, true); left > 0; left--) {
      const nameLength = view.getUint16(entry + 28, true);
      if (text(entry + 46, nameLength) === 'wsol_tf.json') {
        const header = view.getUint32(entry + 42, true);
        const start =
            header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true);
        return JSON.parse(text(start, view.getUint32(entry + 24, true)));
      }
      entry +=
          46 + nameLength + view.getUint16(entry + 30, true) + view.getUint16(entry + 32, true);
    }
  }
  throw new Error('This .tflite is cut off, or edge.export did not write it: no metadata.');
}

/**
 * Resizes RGBA bytes to RGB bytes: bilinear, antialiased, aspect ignored, by Pillow's arithmetic:
 * one side, rounded to bytes, then the other, with weights in 1 / 2^22.
 */
export function resizeImage(rgba, width, height, toWidth, toHeight) {
  const across = triangles(width, toWidth), down = triangles(height, toHeight);
  const target = new Uint8Array(toWidth * toHeight * 3);
  // Pillow takes the rows first where they shrink much more.
  if (height - toHeight > Math.max(0, 2 * (width - toWidth))) {
    const rows = new Uint8Array(width * toHeight * 3);
    resample(rgba, width, 4, width * 4, down, rows, 3, width * 3);
    resample(rows, toHeight, width * 3, 3, across, target, toWidth * 3, 3);
  } else {
    const columns = new Uint8Array(toWidth * height * 3);
    resample(rgba, height, width * 4, 4, across, columns, toWidth * 3, 3);
    resample(columns, toWidth, 3, toWidth * 3, down, target, 3, toWidth * 3);
  }
  return target;
}

/** Resizes each of `lines` lines of RGB pixels; steps are distances in the arrays. */
function resample(source, lines, lineStep, step, {first, weights}, target, toLineStep, toStep) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < first.length; i++) {
      let from = line * lineStep + first[i] * step;
      let red = 1 << 21, green = red, blue = red;  // one half, for rounding
      for (const weight of weights[i]) {
        red += source[from] * weight;
        green += source[from + 1] * weight;
        blue += source[from + 2] * weight;
        from += step;
      }
      const to = line * toLineStep + i * toStep;
      target[to] = Math.min(red >> 22, 255);
      target[to + 1] = Math.min(green >> 22, 255);
      target[to + 2] = Math.min(blue >> 22, 255);
    }
  }
}

/** First source position and the weights of each of `size` positions made of n. */
function triangles(n, size) {
  const scale = n / size, support = Math.max(scale, 1);
  const first = new Int32Array(size), weights = [];
  for (let i = 0; i < size; i++) {
    const center = (i + 0.5) * scale;
    first[i] = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), n);
    const row = new Float64Array(last - first[i]);
    let sum = 0;
    for (let k = 0; k < row.length; k++) {
      row[k] = Math.max(1 - Math.abs((first[i] + k - center + 0.5) / support), 0);
      sum += row[k];
    }
    weights.push(row.map((weight) => Math.floor(weight / sum * 2 ** 22 + 0.5)));
  }
  return {first, weights};
}

/** Stretches a map to 0..1 by its own minimum and maximum; a constant map becomes zeros. */
export function stretch(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) throw new Error('The output of the model is not finite.');
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const span = Math.fround(high - low);
  return Float32Array.from(values, (value) => span > 0 ? Math.fround(value - low) / span : 0);
}

/** Resamples a map to a larger or smaller one as OpenCV's INTER_LINEAR does. */
export function resizeMap(values, width, height, toWidth, toHeight) {
  const across = linear(width, toWidth), down = linear(height, toHeight);
  const rows = new Float32Array(height * toWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < toWidth; x++) {
      const a = values[y * width + across.before[x]], b = values[y * width + across.after[x]];
      rows[y * toWidth + x] = a + Math.fround(b - a) * across.share[x];
    }
  }
  const resized = new Float32Array(toHeight * toWidth);
  for (let y = 0; y < toHeight; y++) {
    const above = down.before[y] * toWidth, below = down.after[y] * toWidth, share = down.share[y];
    for (let x = 0; x < toWidth; x++) {
      const a = rows[above + x];
      resized[y * toWidth + x] = a + Math.fround(rows[below + x] - a) * share;
    }
  }
  return resized;
}

function linear(n, size) {
  const before = new Int32Array(size), after = new Int32Array(size), share = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const position = (i + 0.5) * (n / size) - 0.5, floor = Math.floor(position);
    before[i] = Math.min(Math.max(floor, 0), n - 1);
    after[i] = Math.min(before[i] + 1, n - 1);
    share[i] = floor < 0 || floor >= n - 1 ? 0 : position - floor;
  }
  return {before, after, share};
}

/** Otsu's threshold of a map in 0..1: the middle one of the best splits of 256 bins. */
export function otsu(values) {
  const counts = new Float64Array(256);
  for (const value of values) counts[Math.min(255, Math.trunc(value * 256))]++;
  const total = counts.reduce((sum, count, bin) => sum + count * bin, 0);
  let below = 0, moment = 0;
  const between = [];
  for (let bin = 0; bin < 255; bin++) {
    below += counts[bin];
    moment += counts[bin] * bin;
    const above = values.length - below;
    between.push((moment * above - (total - moment) * below) ** 2 / Math.max(below * above, 1));
  }
  const best = Math.max(...between) * (1 - 1e-9);
  const first = between.findIndex((value) => value >= best);
  const last = between.findLastIndex((value) => value >= best);
  return (first + last + 2) / 512;
}

/**
 * Tight boxes [x0, y0, x1, y1] of the 8-connected components of a mask: the one with the most
 * pixels first, equally large ones in the order of their first pixel, row by row.
 */
export function componentBoxes(mask, width, height) {
  const runs = [];  // {y, start, end, parent}; a component's number is its first run
  const root = (i) => {
    while (runs[i].parent !== i) i = runs[i].parent = runs[runs[i].parent].parent;
    return i;
  };
  let above = 0, aboveEnd = 0;  // runs of the row above
  for (let y = 0; y < height; y++) {
    const rowStart = runs.length;
    for (let x = 0; x < width; x++) {
      if (!mask[y * width + x]) continue;
      const start = x;
      while (x < width && mask[y * width + x]) x++;
      const own = runs.length;
      runs.push({y, start, end: x, parent: own});
      while (above < aboveEnd && runs[above].end < start) above++;
      for (let i = above; i < aboveEnd && runs[i].start <= x; i++) {
        const a = root(i), b = root(own);
        runs[Math.max(a, b)].parent = Math.min(a, b);
      }
    }
    [above, aboveEnd] = [rowStart, runs.length];
  }
  const components = new Map();  // in the order of their first runs
  runs.forEach(({y, start, end}, i) => {
    if (root(i) === i) components.set(i, {size: 0, box: [start, y, end, y + 1]});
    const component = components.get(root(i)), {box} = component;
    component.size += end - start;
    box[0] = Math.min(box[0], start);
    box[2] = Math.max(box[2], end);
    box[3] = y + 1;
  });
  return [...components.values()].sort((a, b) => b.size - a.size).map(({box}) => box);
}
