// Pixels of the largest picture, as in data/pictures.py.
const PIXELS = 100e6;
// (func (result v128) i32.const 0 i8x16.splat)
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6,
  0, 65, 0, 253, 15, 11);
// Whether the files are inside this page.
const single = find(`file:${settings.model}`) !== null;
// How long a service worker may take to answer, in milliseconds.
const PATIENCE = 60e3;
// Address of the folder that the page is in.
const folder = new URL('./', location.href).href;

// Questions to the worker that it has not answered yet.
const asked = new Map();
let count = 0;
let worker;
// Bytes of the files that are loaded, and of those that are to be loaded.
let loaded = 0;
let total = 0;
// Where the network runs, in words, once it does.
const model = start();
model.catch((error) => {
  find('loading').hidden = true;
  find('broken').textContent = error.message;
});

async function start() {
  checkPlace();
  checkBrowser('run the model', {
    'WebAssembly SIMD': window.WebAssembly?.validate(SIMD),
    ...FOR_MASKS,
  });
  const gpu = !single && await hasGpu();
  const {network, provider, script, wasm} = await loadAll(gpu);
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
  const ready = await ask(
    'load',
    {network, script, wasm, gpu: gpu && provider === 'webgpu', settings},
    [network, script, wasm]);
  find('loading').hidden = true;
  if (!request) say('Ready.');
  if (!single) keepOffline(provider);
  return ready.provider === 'webgpu' ? 'WebGPU'
    : `WebAssembly, threads: ${ready.threads}`;
}

function checkPlace() {
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

// Loads the network, and what runs it.
async function loadAll(gpu) {
  const stop = new AbortController();
  try {
    const [[network], runtime] = await Promise.all([
      loadFiles([settings.model], stop.signal),
      loadRuntime(gpu, stop.signal),
    ]);
    return {network, ...runtime};
  } catch (error) {
    stop.abort();
    throw error;
  }
}

// Loads the files for WebGPU, or those without it. If they cannot be loaded, it
// loads the others: offline, only those of an earlier visit are there. The
// files for WebGPU also work without it.
async function loadRuntime(gpu, signal) {
  const providers = gpu ? ['webgpu', 'wasm'] : ['wasm', 'webgpu'];
  let problem;
  for (const provider of single ? ['wasm'] : providers) {
    try {
      const names = settings.runtimes[provider];
      const [script, wasm] = await loadFiles(names, signal);
      return {provider, script, wasm};
    } catch (error) {
      problem ??= error;
    }
  }
  throw problem;
}

// Loads files that are of no use without each other.
async function loadFiles(names, signal) {
  for (const name of names) total += settings.files[name].bytes;
  const stop = new AbortController();
  signal.addEventListener('abort', () => stop.abort());
  try {
    return await Promise.all(names.map((name) => loadFile(name, stop.signal)));
  } catch (error) {
    stop.abort();
    throw error;
  }
}

function advance(bytes) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  loaded += bytes;
  find('progress').value = loaded / total;
  find('loaded').textContent = `${megabytes(loaded)} of ${megabytes(total)} MB`;
}

async function loadFile(name, signal) {
  const {sha256, bytes} = settings.files[name];
  const stream = single ? unpacked(name) : (await fetched(name, signal)).body;
  let data;
  try {
    data = await collected(stream, bytes);
  } catch {
    throw new Error(`${name} was not loaded completely. Reload the page.`);
  }
  if (data === null || await digest(data) !== sha256) {
    throw new Error(`${name} is not the file that this page was made with: ` +
      'its SHA-256 differs. Reload the page. If this message stays, export ' +
      'the page again.');
  }
  // If keeping fails, the service worker loads the file itself.
  if (!single && navigator.serviceWorker) await keep(name, data).catch(() => {});
  return data;
}

async function fetched(name, signal) {
  let response;
  try {
    const {address} = settings.files[name];
    response = await fetch(address, {cache: 'no-cache', signal});
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
async function collected(stream, size) {
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

// Keeps a file for the service worker, which need not load it again.
async function keep(name, data) {
  const {address} = settings.files[name];
  if (await caches.match(address)) return;
  const store = await caches.open(cacheName(folder, LOADED));
  await store.put(address, new Response(data));
}

// Keeps the page for visits without a network, and says whether it can.
async function keepOffline(provider) {
  let stored = false;
  try {
    stored = await isStored(provider);
  } catch {
    // No space, or a private window: the page works as long as it is open.
  }
  find('offline').textContent = stored
    ? 'From now on this page works offline.'
    : 'This page could not be stored for offline use. ' +
      'The next visit needs a network connection.';
  await window.caches?.delete(cacheName(folder, LOADED)).catch(() => {});
}

// Lets the service worker store the page. Resolves to whether it did.
async function isStored(provider) {
  const {serviceWorker} = navigator;
  // Offline, `register` can fail; then the existing registration is used.
  const registration = await serviceWorker.register(
    `service_worker.js?provider=${provider}`,
  ).catch(() => serviceWorker.getRegistration());
  if (registration?.scope !== folder) return false;
  if (registration.installing) await installed(registration.installing);
  if (!registration.active && !registration.waiting) return false;
  await serviceWorker.ready;
  for (const each of [registration.waiting, registration.active]) {
    if (each && await hasStored(each)) return true;
  }
  return false;
}

// Asks a service worker to store what it lacks. Resolves to whether all is
// stored; one that does not answer counts as no.
function hasStored(each) {
  const {port1, port2} = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({data}) => resolve(data);
    setTimeout(() => resolve(false), PATIENCE);
    each.postMessage('store', [port2]);
  });
}

// Waits until a service worker is installed, or cannot be.
function installed(next) {
  return new Promise((resolve) => {
    next.onstatechange = () => resolve();
    if (next.state !== 'installing') resolve();
  });
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
    throw new Error(UNREADABLE);
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
