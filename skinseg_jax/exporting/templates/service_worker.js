'use strict';

// Keeps the page for use without a network: all files of one version, or none.
// A new version is used after all pages of the old one were closed.

{% include 'stored.js' %}

const {scope} = self.registration;
// Where the network runs: the page says it in the address of this script.
// Older pages do not say it. They get the WebAssembly files.
const provider =
  new URL(self.location.href).searchParams.get('provider') ?? 'wasm';
const NAME = cacheName(scope, `{{ version }} ${provider}`);
// SHA-256 of each file, by its address.
const FILES = new Map(Object.entries({{ files|tojson }}[provider]).map(
  ([name, sha256]) => [new URL(name, scope).href, sha256]));

self.addEventListener('install', (event) => event.waitUntil(store()));

// Files may have been deleted since they were stored.
self.addEventListener(
  'activate', (event) => event.waitUntil(store().then(tidy)));

// The page asks whether its files are stored. They may have been deleted since.
self.addEventListener('message', (event) => {
  const [port] = event.ports;
  event.waitUntil(store().then(tidy).then(
    () => port.postMessage(true), () => port.postMessage(false)));
});

// Stores what is not stored yet.
async function store() {
  const ours = await caches.open(NAME);
  const there = new Set((await ours.keys()).map(({url}) => url));
  for (const [url, sha256] of FILES) {
    if (!there.has(url)) await ours.put(url, await right(url, sha256));
  }
}

// Deletes the files of other versions. Does nothing while one of them is being
// stored or waits: the version that becomes active last deletes the others.
async function tidy() {
  for (const name of await caches.keys()) {
    const {installing, waiting} = self.registration;
    if (installing || waiting) return;
    if (name.startsWith(cacheName(scope, '')) && name !== NAME) {
      await caches.delete(name);
    }
  }
}

// A file of this version: from another cache, or from the host.
async function right(url, sha256) {
  for (const find of [
    () => caches.match(url), () => fetch(url, {cache: 'no-cache'}),
  ]) {
    const response = await find();
    if (!response?.ok) continue;
    const data = await response.arrayBuffer();
    const type = response.headers.get('Content-Type') ?? '';
    if (await digest(data) === sha256) {
      return new Response(data, {headers: {'Content-Type': type}});
    }
  }
  throw new Error(`${url} is not the file that was exported`);
}

self.addEventListener('fetch', (event) => {
  const {method, mode, url} = event.request;
  const wanted = new URL(url);
  wanted.hash = '';
  // Links to the page may end with a question mark and anything.
  if (mode === 'navigate') wanted.search = '';
  if (method !== 'GET' || !FILES.has(wanted.href)) return;
  event.respondWith((async () => {
    const ours = await caches.open(NAME);
    const kept = await ours.match(wanted.href);
    return kept ? isolated(kept) : fetch(event.request);
  })());
});

// With these headers browsers allow the network to use several threads.
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  return new Response(response.body, {headers});
}
