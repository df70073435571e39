// Pixels of the largest picture, as in data/pictures.py.
const PIXELS = 100e6;
// (func (result v128) i32.const 0 i8x16.splat)
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6,
  0, 65, 0, 253, 15, 11);
// Whether the files are inside this page.
const single = find(`file:${settings.model}`) !== null;

// Questions to the worker that it has not answered yet.
const asked = new Map();
let count = 0;
let worker;
// Where the network runs, in words, once it does.
const model = start();
model.catch((error) => {
  find('loading').hidden = true;
  find('broken').textContent = error.message;
});

async function start() {
  checkBrowser();
  let gpu = !single && await hasGpu();
  let files;
  try {
    files = await loadFiles(needed(gpu));
  } catch (error) {
    if (!gpu) throw error;
    gpu = false;
    files = await loadFiles(needed(gpu));
  }
  const [network, script, wasm] = files;
  say('Starting the model …');
  const code = new Blob(
    [find('worker').textContent], {type: 'text/javascript'});
  // Not a module: from a disk, browsers refuse those.
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({data: {id, value, error}}) => {
    const {resolve, reject} = asked.get(id);
    asked.delete(id);
    error === undefined ? resolve(value) : reject(new Error(error));
  };
  worker.onerror = ({message}) => {
    for (const {reject} of asked.values()) {
      reject(new Error('The model stopped ' +
        `(${message ?? 'it did not start'}). Reload the page.`));
    }
    asked.clear();
  };
  const loaded = await ask(
    'load', {network, script, wasm, gpu, settings},
    [network, script, wasm]);
  find('loading').hidden = true;
  if (!request) say('Ready.');
  keepOffline(gpu);
  return loaded.provider === 'webgpu' ? 'WebGPU'
    : `WebAssembly, threads: ${loaded.threads}`;
}

function checkBrowser() {
  if (!single && location.protocol === 'file:') {
    const instead =
      settings.single_file ? 'Open single_file.html instead, or start' : 'Start';
    throw new Error(`This page needs a web server. ${instead} one in this ` +
      'folder with "python -m http.server" and open http://localhost:8000');
  }
  if (!window.isSecureContext) {
    throw new Error('This page needs an address that begins with https:// ' +
      'or http://localhost.');
  }
  const lacking = [
    ['WebAssembly SIMD', window.WebAssembly?.validate(SIMD)],
    ['OffscreenCanvas', window.OffscreenCanvas],
    ['CompressionStream', window.CompressionStream],
  ].filter(([, there]) => !there).map(([name]) => name);
  if (lacking.length) {
    throw new Error('This browser cannot run the model: it lacks ' +
      `${lacking.join(', ')}. Use a current Chrome, Edge or Firefox, or ` +
      'Safari 16.4 or later.');
  }
}

async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    // A processor that imitates one is slower than WebAssembly.
    if (!adapter) return false;
    return !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

function ask(kind, details, transfer = []) {
  const id = count++;
  return new Promise((resolve, reject) => {
    asked.set(id, {resolve, reject});
    worker.postMessage({id, kind, details}, transfer);
  });
}

function providerOf(gpu) {
  return gpu ? 'webgpu' : 'wasm';
}

function needed(gpu) {
  return [settings.model, ...settings.runtimes[providerOf(gpu)]];
}

async function loadFiles(names) {
  const sizes = names.map((name) => settings.files[name].bytes);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  let loaded = 0;
  const advance = (bytes) => {
    loaded += bytes;
    find('progress').value = loaded / total;
    find('loaded').textContent =
      `${megabytes(loaded)} of ${megabytes(total)} MB`;
  };
  return Promise.all(names.map((name) => loadFile(name, advance)));
}

const address = (name) =>
  new URL(`${name}?sha256=${settings.files[name].sha256}`, location.href).href;

async function loadFile(name, advance) {
  const {sha256, bytes} = settings.files[name];
  const stream = single ? unpacked(name) : (await fetched(name)).body;
  let data;
  try {
    data = await collected(stream, bytes, advance);
  } catch {
    throw new Error(`${name} was not loaded completely. Reload the page.`);
  }
  if (data === null || await digest(data) !== sha256) {
    throw new Error(`${name} is not the file that this page was made with: ` +
      'its SHA-256 differs. Reload the page. If this message stays, export ' +
      'the page again.');
  }
  return data;
}

async function fetched(name) {
  let response;
  try {
    response = await fetch(address(name), {cache: 'no-cache'});
  } catch {
    throw new Error(`${name} cannot be loaded. Check the network ` +
      'connection.');
  }
  if (!response.ok) {
    throw new Error(`${name} cannot be loaded (${response.status}). All ` +
      'files of the exported folder must be beside this page.');
  }
  return response;
}

// A file that is inside this page.
function unpacked(name) {
  const element = find(`file:${name}`);
  const text = element.textContent;
  element.remove();
  let place = 0;
  return new ReadableStream({
    pull(controller) {
      if (place >= text.length) return controller.close();
      const part = atob(text.slice(place, place += 2 ** 20));
      const bytes = new Uint8Array(part.length);
      for (let i = 0; i < part.length; i++) bytes[i] = part.charCodeAt(i);
      controller.enqueue(bytes);
    },
  }).pipeThrough(new DecompressionStream('gzip'));
}

// All bytes of a stream; null if they are not as many as they should be.
async function collected(stream, size, advance) {
  const data = new Uint8Array(size);
  const reader = stream.getReader();
  let used = 0;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return used === size ? data.buffer : null;
    if (used + value.length > size) return null;
    data.set(value, used);
    used += value.length;
    advance(value.length);
  }
}

async function digest(data) {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

// Keeps the page for visits without a network.
async function keepOffline(gpu) {
  if (single || !navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register(
      `service_worker.js?provider=${providerOf(gpu)}`);
    await navigator.serviceWorker.ready;
    if (await isStored(gpu)) {
      find('offline').textContent = 'From now on this page works offline.';
    }
  } catch {
    // No space, or a private window: the page works as long as it is open.
  }
}

// Whether all files of the page are in one of its caches.
async function isStored(gpu) {
  const {href} = new URL('./', location.href);
  const files = [
    ...settings.shell.map((name) => new URL(name, href).href),
    ...needed(gpu).map(address),
  ];
  for (const name of await caches.keys()) {
    if (!name.startsWith(`skinseg ${href} `)) continue;
    const store = await caches.open(name);
    const stored = new Set((await store.keys()).map(({url}) => url));
    if (files.every((file) => stored.has(file))) return true;
  }
  return false;
}

async function predict(file) {
  const plain = await unturned(file);
  const view = viewSize(...await measured(plain));
  const where = await model;
  say('Predicting …');
  const found = await ask('predict', {...plain, view});
  return {
    ...found,
    orientation: plain.orientation,
    width: view[0],
    height: view[1],
    threshold: settings.threshold,
    model: `${settings.about} Reading took ${Math.round(found.reading)} ms, ` +
      `the network ${Math.round(found.predicting)} ms (${where}).`,
  };
}

// Width and height of the upright picture, from the head of the file; nothing is
// decoded yet.
async function measured({file, orientation}) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
    });
  } catch {
    throw new Error('This browser cannot read the file as a picture. Choose ' +
      'a JPEG, PNG or WebP file.');
  } finally {
    URL.revokeObjectURL(image.src);
  }
  const {naturalWidth: width, naturalHeight: height} = image;
  if (width * height > PIXELS) {
    throw new Error(`The picture has ${(width * height / 1e6).toFixed(0)} ` +
      `megapixels; at most ${PIXELS / 1e6} are allowed. Make it smaller.`);
  }
  return turnedSize(orientation, width, height);
}

function mask({probability, size}, cut) {
  return ask('mask', {probability, size, cut: cut ?? settings.threshold});
}
