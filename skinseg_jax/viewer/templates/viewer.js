'use strict';

// A page's own script defines
//   predict(file, signal): resolves to what is shown: threshold; width and
//     height on the page; base, an image, and its EXIF orientation, by which it
//     is still to be turned; levels, 255 times the probability of each pixel on
//     the page; model, what to say about it; and, if there is
//     more to show, describe(). `shown` is that, and the file;
//   mask(own, cut): resolves to the mask of what was shown, as a PNG of the size
//     of the picture; cut is null for the model's own threshold.

// Longest side of the picture on the page, in pixels.
const VIEW = 1024;
const find = (id) => document.getElementById(id);
const say = (text) => { find('status').textContent = text; };
const complain = (text) => { find('problem').textContent = text; };
const settings = JSON.parse(find('settings').textContent);

// What writing a mask needs.
const FOR_MASKS = {
  OffscreenCanvas: window.OffscreenCanvas,
  CompressionStream: window.CompressionStream,
};

let shown = null;
let request = null;

// Throws if this browser lacks one of the features that a task needs. `features`
// has values by name; they are falsy if the feature is missing.
function checkBrowser(task, features) {
  const lacking = Object.keys(features).filter((name) => !features[name]);
  if (lacking.length) {
    throw new Error(`This browser cannot ${task}: it lacks ` +
      `${lacking.join(', ')}. Use a current Chrome, Edge or Firefox, or ` +
      'Safari 16.4 or later.');
  }
}

async function choose(file) {
  request?.abort();
  const own = request = new AbortController();
  complain('');
  find('result').hidden = true;
  shown = null;
  say('Reading the picture …');
  try {
    const next = await predict(file, own.signal);
    if (own !== request) return;
    shown = {...next, file};
    show();
    say('Done. The result is below.');
    find('result-title').focus();
  } catch (error) {
    if (own !== request) return;
    say('');
    complain(error.message);
  }
}

function drawn(image, width, height, orientation = 1) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  drawUpright(context, image, orientation, width, height);
  return {canvas, pixels: context.getImageData(0, 0, width, height)};
}

// Height and width on the page of a picture of that size.
function viewSize(width, height) {
  const scale = Math.min(1, VIEW / Math.max(width, height));
  return [width, height].map((side) => Math.max(1, Math.round(side * scale)));
}

function show() {
  const {canvas, pixels} = drawn(
    shown.base, shown.width, shown.height, shown.orientation);
  shown.pixels = pixels.data;
  find('view').width = canvas.width;
  find('view').height = canvas.height;
  find('threshold').value = shown.threshold;
  // The slider may round it.
  shown.start = find('threshold').value;
  find('model').textContent = shown.model;
  shown.describe?.();
  find('result').hidden = false;
  paint();
}

function threshold() {
  const {value} = find('threshold');
  return value === shown.start ? shown.threshold : Number(value);
}

// Draws picture, uncertainty and outline. The outline has a white line inside
// and a black one outside, so that it can be seen on every skin.
function paint() {
  if (!shown) return;
  const {levels, width, height} = shown;
  const cut = 255 * threshold();
  const unsure = find('unsure').checked;
  const outline = find('outline').checked;
  const out = new ImageData(
    new Uint8ClampedArray(shown.pixels), width, height);
  const data = out.data;
  let lesion = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const level = levels[i];
      const inside = level > cut;
      if (inside) lesion++;
      if (unsure) {
        const share = 0.75 * (1 - Math.abs(2 * level / 255 - 1));
        data[4 * i] += share * (255 - data[4 * i]);
        data[4 * i + 1] += share * (140 - data[4 * i + 1]);
        data[4 * i + 2] += share * (0 - data[4 * i + 2]);
      }
      const edge = outline && (
        (x > 0 && (levels[i - 1] > cut) !== inside) ||
        (x + 1 < width && (levels[i + 1] > cut) !== inside) ||
        (y > 0 && (levels[i - width] > cut) !== inside) ||
        (y + 1 < height && (levels[i + width] > cut) !== inside));
      if (edge) data.fill(inside ? 255 : 0, 4 * i, 4 * i + 3);
    }
  }
  find('view').getContext('2d').putImageData(out, 0, 0);
  find('value').textContent = threshold().toFixed(2);
  const covers =
    `The lesion covers ${(100 * lesion / levels.length).toFixed(1)} % ` +
    'of the picture.';
  find('covers').textContent = covers;
  find('view').setAttribute(
    'aria-label', `Picture with the outline of the lesion. ${covers}`);
}

async function save() {
  // Another picture may be chosen while the mask is made.
  const own = shown;
  const moved = find('threshold').value !== own.start;
  try {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(
      await mask(own, moved ? threshold() : null));
    link.download = `${own.file.name.replace(/\.[^.]*$/, '')}_mask.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    if (own === shown) say('The mask was downloaded.');
  } catch (error) {
    complain(error.message);
  }
}

for (const id of ['file', 'camera']) {
  find(id).addEventListener('change', (event) => {
    const [file] = event.target.files;
    if (file) choose(file);
    event.target.value = '';  // The same file can be chosen again.
  });
}
for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find('drop').classList.toggle('over', name === 'dragover');
    if (name === 'drop' && event.dataTransfer.files.length) {
      choose(event.dataTransfer.files[0]);
    }
  });
}
let planned = 0;
for (const id of ['threshold', 'unsure', 'outline']) {
  find(id).addEventListener('input', () => {
    cancelAnimationFrame(planned);
    planned = requestAnimationFrame(paint);
  });
}
find('reset').addEventListener('click', () => {
  find('threshold').value = shown.start;
  paint();
});
find('save').addEventListener('click', save);
