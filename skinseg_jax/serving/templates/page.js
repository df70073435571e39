'use strict';

// Longest side of the picture on the page, in pixels.
const VIEW = 1024;
const find = (id) => document.getElementById(id);
const say = (text) => { find('status').textContent = text; };
const complain = (text) => { find('problem').textContent = text; };

// What is shown: the answer, the picture, and 255 times the probability.
let shown = null;
let request = null;

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
    shown = next;
    show();
    say('Done. The result is below.');
    find('result-title').focus();
  } catch (error) {
    if (own !== request) return;
    say('');
    complain(error.message);
  }
}

async function predict(file, signal) {
  const most = Number(document.body.dataset.bytes);
  if (file.size > most) {
    throw new Error(`The file has ${(file.size / 2 ** 20).toFixed(1)} MiB; ` +
      `at most ${most / 2 ** 20} are allowed.`);
  }
  const form = new FormData();
  // The server never learns the name of the file.
  form.append(document.body.dataset.field, file, 'picture');
  const token = find('token')?.value;
  say('Predicting …');
  let response;
  try {
    response = await fetch('predict?probability=true', {
      method: 'POST',
      body: form,
      headers: token ? {Authorization: `Bearer ${token}`} : {},
      signal,
    });
  } catch {
    throw new Error('The server cannot be reached. Is it still running?');
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(`${answer.detail ?? `The server answered ${response.status}`}.`);
  }
  const [picture, probability] = await Promise.all([
    createImageBitmap(file),
    createImageBitmap(blob(answer.probability)),
  ]);
  const scale = Math.min(1, VIEW / Math.max(answer.width, answer.height));
  const width = Math.max(1, Math.round(answer.width * scale));
  const height = Math.max(1, Math.round(answer.height * scale));
  const levels = levelsOf(probability, width, height);
  return {answer, picture, probability, levels, width, height, file};
}

function blob(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Blob([bytes], {type: 'image/png'});
}

function drawn(image, width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0, width, height);
  return {canvas, context, pixels: context.getImageData(0, 0, width, height)};
}

// Grey values of an image, at a size.
function levelsOf(image, width, height) {
  const {data} = drawn(image, width, height).pixels;
  return Uint8Array.from({length: width * height}, (_, i) => data[4 * i]);
}

function show() {
  const {answer, width, height} = shown;
  const {canvas, pixels} = drawn(shown.picture, width, height);
  shown.base = pixels;
  find('view').width = canvas.width;
  find('view').height = canvas.height;
  find('threshold').value = answer.threshold;
  // The slider may round it.
  shown.start = find('threshold').value;
  find('measured').textContent = answer.threshold.toFixed(2);
  find('model').textContent =
    `Model ${answer.model.name}, ${answer.model.architecture}, step ` +
    `${answer.model.step}, SHA-256 ${answer.model.digest.slice(0, 12)}.`;
  for (const cell of document.querySelectorAll('[data-measure]')) {
    cell.textContent =
      words(answer.measures[cell.dataset.measure], cell.dataset.unit);
  }
  find('result').hidden = false;
  paint();
}

function words(value, unit) {
  if (value === null || value === '') return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'string') return value;
  if (unit === '%') return (100 * value).toFixed(1);
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

function threshold() {
  const {value} = find('threshold');
  return value === shown.start ? shown.answer.threshold : Number(value);
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
    new Uint8ClampedArray(shown.base.data), width, height);
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

// The mask at the size of the picture: that of the server, or, after the
// threshold was moved, that of the probability.
async function mask() {
  const {answer, probability} = shown;
  if (find('threshold').value === shown.start) return blob(answer.mask);
  const cut = 255 * threshold();
  const {canvas, context, pixels} =
    drawn(probability, answer.width, answer.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data.fill(pixels.data[i] > cut ? 255 : 0, i, i + 3);
  }
  context.putImageData(pixels, 0, 0);
  return new Promise((done) => canvas.toBlob(done, 'image/png'));
}

async function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await mask());
  link.download = `${shown.file.name.replace(/\.[^.]*$/, '')}_mask.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say('The mask was downloaded.');
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
