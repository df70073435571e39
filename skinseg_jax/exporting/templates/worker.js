// Runs beside the page, so that the page answers while the network computes.

// Largest allowed difference to Flax, in a probability of a known picture.
const TOLERANCE = 1e-3;
// Bytes of pixels that are read at once: phones limit the size of a canvas.
const STRIP = 2 ** 25;

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

async function predict({file, view}) {
  const began = performance.now();
  const bitmap = await decoded(file);
  const {width, height} = bitmap;
  const picture = resizeImage(
    stripsOf(bitmap), width, height, model.width, model.height);
  const ready = performance.now();
  const probability = await run(picture);
  const done = performance.now();
  const [resizeWidth, resizeHeight] = view;
  const base = await createImageBitmap(
    bitmap, {resizeWidth, resizeHeight, resizeQuality: 'medium'});
  bitmap.close();
  const levels = new Float32Array(resizeWidth * resizeHeight);
  resizeProbability(
    probability, model.width, model.height, resizeWidth, resizeHeight,
    (row, y) => levels.set(row.map((p) => 255 * p), y * resizeWidth));
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

function stripsOf(bitmap) {
  const {width, height} = bitmap;
  const most = Math.max(1, Math.floor(STRIP / (4 * width)));
  const canvas = new OffscreenCanvas(width, Math.min(most, height));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.globalCompositeOperation = 'copy';
  return (top) => {
    context.drawImage(bitmap, 0, -top);
    const rows = Math.min(canvas.height, height - top);
    return {top, data: context.getImageData(0, 0, width, rows).data};
  };
}

// A grey PNG of the mask: 255 for lesion, 0 for skin. It is written row by
// row, because a canvas of a large picture would not fit into a phone.
async function mask({probability, size: [width, height], cut}) {
  const least = Math.fround(cut);
  const packer = new CompressionStream('deflate');
  const writer = packer.writable.getWriter();
  const packed = new Response(packer.readable).arrayBuffer();
  const bytes = new Uint8Array((width + 1) * Math.min(height, 256));
  let used = 0;
  resizeProbability(
    probability, model.width, model.height, width, height, (row, y) => {
      bytes[used++] = 0;  // No filter.
      for (const p of row) bytes[used++] = p > least ? 255 : 0;
      if (used === bytes.length || y === height - 1) {
        writer.write(bytes.slice(0, used));
        used = 0;
      }
    });
  await writer.close();
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, 8);  // Bits of each pixel, which is grey.
  return new Blob([
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    ...chunk('IHDR', new Uint8Array(head.buffer)),
    ...chunk('IDAT', new Uint8Array(await packed)),
    ...chunk('IEND', new Uint8Array(0)),
  ], {type: 'image/png'});
}

function chunk(kind, data) {
  const name = Uint8Array.from(kind, (c) => c.charCodeAt(0));
  const number = (value) => {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value);
    return view.buffer;
  };
  return [number(data.length), name, data, number(checksum([name, data]))];
}

function checksum(parts) {
  let crc = -1;
  for (const part of parts) {
    for (const byte of part) {
      crc ^= byte;
      for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 && 0xedb88320);
    }
  }
  return (crc ^ -1) >>> 0;
}
