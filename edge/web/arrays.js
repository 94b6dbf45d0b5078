// What is done to arrays before and after the network, and the reading of metadata. No imports, so
// that it runs anywhere. Numbers are those of edge/arrays.py.

/**
 * Reads wsol_tf.json out of the zip behind a .tflite, and compares its digest with the network: an
 * Error says what is wrong with the file. Files of version 0.1.0 have no digest.
 */
export function readMetadata(bytes) {
  if (bytes.length < 30 || textOf(bytes.subarray(4, 8)) !== 'TFL3') {
    throw new Error('This is not a .tflite file.');
  }
  let metadata, modelEnd;
  try {
    const entries = zipEntries(bytes);
    const {start, size, crc} = entries.find(({name}) => name === 'wsol_tf.json');
    const block = bytes.subarray(start, start + size);
    if (size > 2 ** 22 || crc32(block) !== crc) throw new Error('damaged');
    metadata = JSON.parse(textOf(block));
    modelEnd = entries[0].header;
  } catch {
    throw new Error('This .tflite is cut off or damaged, or edge.export did not write it: no metadata.');
  }
  if (metadata.sha256 !== undefined && sha256(bytes.subarray(0, modelEnd)) !== metadata.sha256) {
    throw new Error('This .tflite is damaged: its network is not the one that was exported.');
  }
  const legal = {refine: ['none', 'guided'], separate: [false, true]};  // older files don't say it
  for (const key of Object.keys(legal)) {
    const value = JSON.stringify(metadata[key]);
    if (key in metadata && !legal[key].includes(metadata[key])) {
      throw new Error(`This .tflite is of another version: its ${key} is ${value}.`);
    }
  }
  return metadata;
}

/** Turns logits into probabilities. */
export function softmax(logits) {
  checkFinite(logits);
  const top = logits.reduce((a, b) => Math.max(a, b));
  const exponents = Array.from(logits, (value) => Math.exp(value - top));
  const sum = exponents.reduce((a, b) => a + b);
  return exponents.map((value) => value / sum);
}

/**
 * The ids of the classes in a picture, the most probable first: that one, and all of at least
 * `presence`, without the background (an id or null); none where that is the most probable.
 */
export function presentClasses(probabilities, presence, background = null) {
  const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  if (ranked[0] === background) return [];
  return ranked.filter((label, rank) =>
      label !== background && (rank === 0 || probabilities[label] >= presence));
}

const textOf = (bytes) => new TextDecoder().decode(bytes);

/** The entries of an uncompressed zip; a RangeError where it is damaged. */
function zipEntries(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end--;
  const entries = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [nameLength, extra, comment] = [28, 30, 32].map((i) => view.getUint16(at + i, true));
    const header = view.getUint32(at + 42, true);
    entries.push({
      name: textOf(bytes.subarray(at + 46, at + 46 + nameLength)),
      header, crc: view.getUint32(at + 16, true), size: view.getUint32(at + 24, true),
      start: header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true),
    });
    at += 46 + nameLength + extra + comment;
  }
  return entries;
}

/** CRC-32 of bytes, as in zip files. */
function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc >>> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** SHA-256 of bytes in hexadecimal; a page without https has no crypto.subtle. */
export function sha256(bytes) {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (root) => root % 1 * 2 ** 32 | 0;
  const state = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
  const constants = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
  const turn = (x, by) => x >>> by | x << 32 - by;
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 128;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const words = new Int32Array(64);
  for (let at = 0; at < padded.length; at += 64) {
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      if (i < 16) {
        words[i] = view.getInt32(at + 4 * i);
      } else {
        const x = words[i - 15], y = words[i - 2];
        words[i] = words[i - 16] + words[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ x >>> 3) +
            (turn(y, 17) ^ turn(y, 19) ^ y >>> 10);
      }
      const first = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (e & f ^ ~e & g) +
          constants[i] + words[i];
      const second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + (a & b ^ a & c ^ b & c);
      h = g; g = f; f = e; e = d + first | 0;
      d = c; c = b; b = a; a = first + second | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
  }
  return [...state].map((word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
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
      const row = weights[i];
      for (let k = 0; k < row.length; k++) {  // a third faster than over the row itself
        const weight = row[k];
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

/** Refuses NaN and infinity: an Error. */
function checkFinite(values) {
  if (!values.every(Number.isFinite)) throw new Error('The output of the model is not finite.');
}

/** Stretches a map to 0..1 by its own minimum and maximum; a constant map becomes zeros. */
export function stretch(values) {
  checkFinite(values);
  let low = Infinity, high = -Infinity;
  for (const value of values) {
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

/**
 * Moves the edges of a map {values, width, height} to those of the picture by a guided filter, as
 * refine in edge/arrays.py. pixels: the RGB bytes that the network saw. The refined map is a quarter
 * of that wide and high, in 0..1; a constant map is returned as it is.
 */
export function refine(map, pixels, inputWidth, inputHeight) {
  const stretched = stretch(map.values);
  if (!stretched.some((value) => value > 0)) return map;
  const width = Math.trunc(inputWidth / 4), height = Math.trunc(inputHeight / 4);
  const coarse = resizeMap(stretched, map.width, map.height, width, height);
  const guide = [0, 1, 2].map((colour) => {
    const plane = new Float64Array(width * height);
    for (let y = 0; y < 4 * height; y++) {
      for (let x = 0; x < 4 * width; x++) {
        plane[(y >> 2) * width + (x >> 2)] += pixels[(y * inputWidth + x) * 3 + colour] / (16 * 255);
      }
    }
    return plane;
  });
  const filtered = guidedFilter(Float64Array.from(coarse), guide, width, height);
  return {values: Float32Array.from(filtered, (x) => Math.min(Math.max(x, 0), 1)), width, height};
}

/** Filters a plane by a guide of three planes in 0..1: He et al., ECCV 2010, equations 19 to 21. */
function guidedFilter(values, [red, green, blue], width, height) {
  const epsilon = 3e-4;  // variance of colours below which a window counts as flat
  const mean = (plane) => windowMeans(plane, width, height);
  const product = (a, b) => mean(a.map((value, i) => value * b[i]));
  const r = mean(red), g = mean(green), b = mean(blue), v = mean(values);
  const rv = product(red, values), gv = product(green, values), bv = product(blue, values);
  const rr = product(red, red), rg = product(red, green), rb = product(red, blue);
  const gg = product(green, green), gb = product(green, blue), bb = product(blue, blue);
  const [slopeR, slopeG, slopeB, offset] = [0, 1, 2, 3].map(() => new Float64Array(v.length));
  for (let i = 0; i < v.length; i++) {
    const covR = rv[i] - r[i] * v[i], covG = gv[i] - g[i] * v[i], covB = bv[i] - b[i] * v[i];
    const RR = rr[i] - r[i] * r[i] + epsilon, RG = rg[i] - r[i] * g[i], RB = rb[i] - r[i] * b[i];
    const GG = gg[i] - g[i] * g[i] + epsilon, GB = gb[i] - g[i] * b[i];
    const BB = bb[i] - b[i] * b[i] + epsilon;
    // The inverse of the symmetric 3 x 3 matrix of covariances, by its cofactors.
    const iRR = GG * BB - GB * GB, iRG = GB * RB - RG * BB, iRB = RG * GB - GG * RB;
    const iGG = RR * BB - RB * RB, iGB = RB * RG - RR * GB, iBB = RR * GG - RG * RG;
    const determinant = RR * iRR + RG * iRG + RB * iRB;
    slopeR[i] = (iRR * covR + iRG * covG + iRB * covB) / determinant;
    slopeG[i] = (iRG * covR + iGG * covG + iGB * covB) / determinant;
    slopeB[i] = (iRB * covR + iGB * covG + iBB * covB) / determinant;
    offset[i] = v[i] - slopeR[i] * r[i] - slopeG[i] * g[i] - slopeB[i] * b[i];
  }
  const [a, c, d, e] = [slopeR, slopeG, slopeB, offset].map(mean);
  return values.map((_, i) => a[i] * red[i] + c[i] * green[i] + d[i] * blue[i] + e[i]);
}

/** Averages over windows that reach 1/7 of each side in either direction; borders are mirrored. */
function windowMeans(plane, width, height) {
  return slide(slide(plane, height, width, width, 1), width, 1, height, width);
}

/** Slides a window along each of `lines` lines of n positions; steps are distances in the array. */
function slide(source, lines, lineStep, n, step) {
  const radius = Math.max(1, Math.round(n / 7)), size = 2 * radius + 1;
  const at = new Int32Array(n + size);  // of what the windows hold, position by position
  for (let i = 0; i < at.length; i++) {
    const around = (i - radius + 2 * n * size) % (2 * n);  // ... 1 0 | 0 1 2 ... | 2 1 ...
    at[i] = Math.min(around, 2 * n - 1 - around) * step;
  }
  const means = new Float64Array(source.length);
  for (let line = 0; line < lines; line++) {
    const start = line * lineStep;
    let sum = 0;
    for (let i = 0; i < size; i++) sum += source[start + at[i]];
    for (let i = 0; i < n; i++) {
      means[start + i * step] = sum / size;
      sum += source[start + at[i + size]] - source[start + at[i]];
    }
  }
  return means;
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
 * The 8-connected components of a mask that count as objects: {box: [x0, y0, x1, y1], score, area},
 * the one with the most pixels first, equally large ones in the order of their first pixel, row by
 * row. score: the mean of the map (values in 0..1) inside; area: pixels. Those with fewer pixels than
 * the share minArea of the largest one's, or minPictureArea of the picture's, are left out, and at
 * most maxObjects are kept (0: all).
 */
export function components(
    mask, map, width, height, {minArea = 0, minPictureArea = 0, maxObjects = 0} = {}) {
  const found = objectsOf(labelsOf(mask, width, height), map, width, height);
  const sorted = found.sort((a, b) => b.area - a.area);
  const least = Math.max(minArea * (sorted[0]?.area ?? 0), minPictureArea * mask.length);
  return sorted.filter(({area}) => area >= least).slice(0, maxObjects || undefined);
}

/** The 8-connected component of each pixel of a mask, from 1 on by their first pixels; 0: none. */
export function labelsOf(mask, width, height) {
  const runs = [];  // {y, start, end, parent}; a component's number is its first run's
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
  const labels = new Int32Array(mask.length);
  runs.forEach(({y, start, end}, i) => {
    labels.fill(root(i) + 1, y * width + start, y * width + end);
  });
  return labels;
}

/** {box, score, area} of each label above 0, in the order of their first pixels. */
function objectsOf(labels, map, width, height) {
  const found = new Map();
  for (let y = 0; y < height; y++) {
    for (let start = 0, end = 0; start < width; start = end) {
      const row = y * width, label = labels[row + start];
      while (end < width && labels[row + end] === label) end++;
      if (!label) continue;
      if (!found.has(label)) found.set(label, {box: [start, y, end, y + 1], sum: 0, area: 0});
      const object = found.get(label), {box} = object;
      object.area += end - start;
      for (let x = start; x < end; x++) object.sum += map[row + x];
      box[0] = Math.min(box[0], start);
      box[2] = Math.max(box[2], end);
      box[3] = y + 1;
    }
  }
  return [...found.values()].map(
      ({box, sum, area}) => ({box, score: Math.fround(sum / area), area}));
}
