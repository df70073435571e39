'use strict';

// The rules of data/preprocessing.py: OpenCV's INTER_LINEAR, which does not
// antialias. Numbers are rounded to single precision where numpy does.

// Both neighbours of each target pixel, and the share of the second.
function neighbours(source, target, round) {
  const first = new Int32Array(target);
  const second = new Int32Array(target);
  const share = new Float32Array(target);
  const limit = (index) => Math.min(Math.max(index, 0), source - 1);
  const scale = 1 / (target / source);
  for (let i = 0; i < target; i++) {
    const place = round((i + 0.5) * scale - 0.5);
    const floor = Math.floor(place);
    first[i] = limit(floor);
    second[i] = limit(floor + 1);
    share[i] = place - floor;
  }
  return {first, second, share};
}

// Share of 2048, rounded half to even.
function weigh(share) {
  const value = share * 2048;
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

// Resizes a picture of that width and height to `toWidth` and `toHeight`.
// `rows(top)` returns {top, data}: some whole rows from `top` on, RGBA.
// Rows are asked for from the top down. Returns RGB.
function resizeImage(rows, width, height, toWidth, toHeight) {
  const across = neighbours(width, toWidth, Math.fround);
  const down = neighbours(height, toHeight, Math.fround);
  const out = new Uint8Array(3 * toWidth * toHeight);
  let strip = null;
  // One row after the step across; the last two are kept.
  const kept = new Map();
  const row = (y) => {
    if (kept.has(y)) return kept.get(y);
    const place = () => 4 * width * (y - strip.top);
    if (!strip || place() < 0 || place() >= strip.data.length) strip = rows(y);
    const start = place();
    const values = new Int32Array(3 * toWidth);
    for (let x = 0; x < toWidth; x++) {
      const left = weigh(Math.fround(1 - across.share[x]));
      const right = weigh(across.share[x]);
      const a = start + 4 * across.first[x];
      const b = start + 4 * across.second[x];
      for (let c = 0; c < 3; c++) {
        values[3 * x + c] =
          (strip.data[a + c] * left + strip.data[b + c] * right) >> 4;
      }
    }
    if (kept.size > 1) kept.delete(kept.keys().next().value);
    kept.set(y, values);
    return values;
  };
  for (let y = 0; y < toHeight; y++) {
    const upper = row(down.first[y]);
    const lower = row(down.second[y]);
    const top = weigh(Math.fround(1 - down.share[y]));
    const bottom = weigh(down.share[y]);
    for (let i = 0; i < upper.length; i++) {
      out[y * upper.length + i] =
        (((upper[i] * top) >> 16) + ((lower[i] * bottom) >> 16) + 2) >> 2;
    }
  }
  return out;
}

// Resizes probabilities, and gives the result row by row. The array is the same
// for all rows.
function* resizedProbability(values, width, height, toWidth, toHeight) {
  const exact = (value) => value;
  const across = neighbours(width, toWidth, exact);
  const down = neighbours(height, toHeight, exact);
  const {fround} = Math;
  const wide = new Float32Array(toWidth * height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < toWidth; x++, i++) {
      const left = values[y * width + across.first[x]];
      const right = values[y * width + across.second[x]];
      wide[i] = left + fround(fround(right - left) * across.share[x]);
    }
  }
  const out = new Float32Array(toWidth);
  for (let y = 0; y < toHeight; y++) {
    const upper = down.first[y] * toWidth;
    const lower = down.second[y] * toWidth;
    for (let x = 0; x < toWidth; x++) {
      const difference = fround(wide[lower + x] - wide[upper + x]);
      out[x] = wide[upper + x] + fround(difference * down.share[y]);
    }
    yield out;
  }
}
