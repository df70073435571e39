// Runs beside the page, so that the page answers while the network computes.

// Largest allowed difference to Flax, in a probability of a known picture.
const TOLERANCE = 1e-3;

let ort, session;
// What the page knows about the model, such as the size of its pictures.
let model;

// One question after the other.
let last = Promise.resolve();
self.onmessage = ({data}) => {
  last = last.then(() => answer(data));
};

async function answer({id, kind, details}) {
  try {
    self.postMessage({id, value: await {load, predict, mask}[kind](details)});
  } catch (error) {
    self.postMessage({id, error: error.message ?? String(error)});
  }
}

async function load({network, script, wasm, gpu, settings}) {
  model = settings;
  const code = new Blob([script], {type: 'text/javascript'});
  ort = await import(URL.createObjectURL(code));
  const cores = navigator.hardwareConcurrency || 1;
  const threads = self.crossOriginIsolated ? Math.min(4, cores) : 1;
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmBinary = wasm;
  const problems = [];
  for (const provider of gpu ? ['webgpu', 'wasm'] : ['wasm']) {
    try {
      session = await ort.InferenceSession.create(
        new Uint8Array(network), {executionProviders: [provider]});
      const difference = await checked(model.check);
      if (difference <= TOLERANCE) return {provider, threads};
      problems.push(`${provider}: off by ${difference}`);
    } catch (error) {
      problems.push(`${provider}: ${error.message}`);
    }
  }
  throw new Error('This browser does not run the model correctly ' +
    `(${problems.join('; ')}). Try another browser.`);
}

// The largest difference; `check_picture` of web_page.py draws the same.
async function checked({stride, expected}) {
  const {height, width} = model;
  const picture = new Uint8Array(3 * height * width);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i += 3) {
      const distance = (2 * y - height) ** 2 + (2 * x - width) ** 2;
      const inside = 4 * distance < Math.min(height, width) ** 2;
      picture.set(inside ? [90, 60, 50] : [200, 150, 140], i);
    }
  }
  const found = await run(picture);
  const differences = expected.map((p, i) => Math.abs(p - found[stride * i]));
  // What is not a number must not pass.
  return differences.every((d) => d <= 1) ? Math.max(...differences) : NaN;
}

async function run(picture) {
  const {height, width} = model;
  const image = new ort.Tensor('uint8', picture, [1, height, width, 3]);
  const {probability} = await session.run({image});
  return new Float32Array(await probability.getData());
}

// `file` and `orientation` are what `unturned` returns; `view` is the width and
// height on the page. The image `base` that is returned is not turned.
async function predict({file, orientation, view}) {
  const began = performance.now();
  const bitmap = await decoded(file);
  const [width, height] =
    turnedSize(orientation, bitmap.width, bitmap.height);
  const picture = resizeImage(
    stripsOf(bitmap, orientation), width, height, model.width, model.height);
  const ready = performance.now();
  const probability = await run(picture);
  const done = performance.now();
  const [resizeWidth, resizeHeight] = turnedSize(orientation, ...view);
  const base = await createImageBitmap(
    bitmap, {resizeWidth, resizeHeight, resizeQuality: 'medium'});
  bitmap.close();
  const levels = new Float32Array(resizeWidth * resizeHeight);
  let used = 0;
  for (const row of resizedProbability(
    probability, model.width, model.height, ...view)) {
    for (const p of row) levels[used++] = 255 * p;
  }
  return {
    base, levels, probability, size: [width, height],
    reading: ready - began, predicting: done - ready,
  };
}

function decoded(file) {
  // Python reads the numbers in the file, so no colour profile is applied.
  return createImageBitmap(file, {
    imageOrientation: 'from-image',
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'none',
  }).catch(() => {
    throw new Error('The picture is damaged, too large for this device, or ' +
      'of a kind that this browser cannot read. Save it as JPEG or PNG, or ' +
      'make it smaller.');
  });
}

// The mask at the size of the picture.
function mask({probability, size: [width, height], cut}) {
  const rows = resizedProbability(
    probability, model.width, model.height, width, height);
  return maskPng(width, height, rows, Math.fround(cut));
}
