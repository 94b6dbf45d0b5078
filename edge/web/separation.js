// Objects that touch, cut apart: a component that comes apart into large parts at a higher threshold
// is as many objects. Numbers are those of wsol_tf/model/separation.py.

import {labelsOf} from './arrays.js';

const GRID = 56;  // positions along each side at which a map is looked at, whatever its size
const STEP = 0.03;  // between two thresholds
const STEPS = 8;
const SHARE = 0.25;  // of the cells of an object that a part must have

/**
 * Cuts the components of a mask into objects.
 * @param {Uint8Array} mask 1 where the map lies above the threshold, row by row
 * @param {Float32Array} map in 0..1, as large
 * @param {number} width
 * @param {number} height
 * @param {number} threshold not rounded to a float32
 * @return {Uint8Array} the mask without the pixels on one side of each cut, so that each object is a
 *     component of its own
 */
export function separate(mask, map, width, height, threshold) {
  const labels = labelsOf(mask, width, height);
  const centers = (side) => Array.from({length: GRID}, (_, i) => Math.trunc((i + 0.5) * side / GRID));
  const seen = centers(height).flatMap((y) => centers(width).map((x) => y * width + x));
  const cells = Int32Array.from(seen, (pixel) => labels[pixel]);
  const values = Float32Array.from(seen, (pixel) => map[pixel]);
  const cutInto = new Map();  // of each component that is cut, the part of each cell
  for (const component of new Set(cells)) {
    if (component === 0) continue;
    const partOf = partsOf(values, cells.map((cell) => cell === component), threshold);
    if (partOf.some((part) => part > 0)) cutInto.set(component, partOf);
  }
  if (!cutInto.size) return mask;
  const columns = Int32Array.from({length: width}, (_, x) => Math.trunc(x * GRID / width));
  const rows = Int32Array.from({length: height}, (_, y) => Math.trunc(y * GRID / height) * GRID);
  const kept = mask.slice();
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const partOf = labels[i] && cutInto.get(labels[i]);
      if (!partOf) continue;
      const part = partOf[rows[y] + columns[x]];
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          if (mask[v * width + u] && partOf[rows[v] + columns[u]] > part) kept[i] = 0;
        }
      }
    }
  }
  return kept;
}

/** The highest number among each cell and its eight neighbours. */
function highestAround(numbers, width) {
  const rows = numbers.slice();
  for (let i = 0; i < rows.length; i++) {
    const x = i % width;
    if (x > 0) rows[i] = Math.max(rows[i], numbers[i - 1]);
    if (x < width - 1) rows[i] = Math.max(rows[i], numbers[i + 1]);
  }
  const highest = rows.slice();
  for (let i = 0; i < rows.length; i++) {
    if (i >= width) highest[i] = Math.max(highest[i], rows[i - width]);
    if (i < rows.length - width) highest[i] = Math.max(highest[i], rows[i + width]);
  }
  return highest;
}

/** Which part of a component (cells where inside is 1) each cell is nearest to, from 0 on. */
function partsOf(values, inside, threshold) {
  const partOf = new Int32Array(values.length);
  let count = 0;
  const cut = (region, firstStep) => {
    const own = region.map((cell, i) => cell && inside[i]);
    const area = own.reduce((sum, cell) => sum + cell, 0);
    let seeds = [], step = firstStep;
    for (; step <= STEPS; step++) {
      const above = Math.fround(threshold + step * STEP);
      seeds = seedsOf(own.map((cell, i) => cell && values[i] > above), area);
      if (seeds.length !== 1) break;  // where there is none, there is none at a higher threshold
    }
    if (seeds.length > 1) {
      const nearest = nearestOf(seeds);
      seeds.forEach((_, i) => cut(region.map((cell, at) => cell && nearest[at] === i), step + 1));
    } else {
      region.forEach((cell, i) => { if (cell) partOf[i] = count; });
      count++;
    }
  };
  cut(new Uint8Array(values.length).fill(1), 1);
  return partOf;
}

/** The parts of a grid that are thick and large enough: lists of cells, by their first ones. */
function seedsOf(cells, area) {
  // Opened by 3 x 3 cells. Beyond the edge of the picture an object may go on.
  const outside = highestAround(cells.map((cell) => 1 - cell), GRID);
  const opened = highestAround(outside.map((cell) => 1 - cell), GRID);
  const parts = new Map();
  labelsOf(opened, GRID, GRID).forEach((label, cell) => {
    if (label && !parts.has(label)) parts.set(label, []);
    if (label) parts.get(label).push(cell);
  });
  return [...parts.values()].filter((part) => part.length >= SHARE * area);
}

/** Which of the parts each cell is nearest to; of equally near ones the first. */
function nearestOf(seeds) {
  const nearest = new Uint8Array(GRID * GRID);
  const least = new Float64Array(GRID * GRID).fill(Infinity);
  seeds.forEach((seed, number) => {
    squaredDistances(seed).forEach((distance, cell) => {
      if (distance < least[cell]) [least[cell], nearest[cell]] = [distance, number];
    });
  });
  return nearest;
}

/** The square of the distance of each cell to the nearest one of a part: along rows, then columns. */
function squaredDistances(part) {
  const along = new Float64Array(GRID * GRID).fill(Infinity);
  for (const cell of part) {
    const row = cell - cell % GRID;
    for (let x = 0; x < GRID; x++) {
      along[row + x] = Math.min(along[row + x], (x - cell % GRID) ** 2);
    }
  }
  return along.map((_, cell) => {
    let least = Infinity;
    for (let y = 0; y < GRID; y++) {
      const down = y - Math.trunc(cell / GRID);
      least = Math.min(least, along[y * GRID + cell % GRID] + down * down);
    }
    return least;
  });
}
