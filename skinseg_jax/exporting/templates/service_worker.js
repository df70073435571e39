'use strict';

// Keeps the page for use without a network: all files of one version, or none.
// A new version is used after all pages of the old one were closed.
const {scope} = self.registration;
const NAMES = `skinseg ${scope} `;
// Where the network runs: the page says it in the address of this script.
const provider = new URL(self.location.href).searchParams.get('provider');
const NAME = `${NAMES}{{ version }} ${provider}`;
// SHA-256 of each file, by its address.
const FILES = new Map(Object.entries({{ files|tojson }}[provider]).map(
  ([name, sha256]) => [new URL(name, scope).href, sha256]));

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const store = await caches.open(NAME);
    for (const [url, sha256] of FILES) {
      await store.put(url, await right(url, sha256));
    }
  })());
});

// A file of this version: from an older cache, or from the host.
async function right(url, sha256) {
  for (const find of [
    () => caches.match(url), () => fetch(url, {cache: 'no-cache'}),
  ]) {
    const response = await find();
    if (!response?.ok) continue;
    const data = await response.arrayBuffer();
    const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
    const found = Array.from(bytes, (b) => b.toString(16).padStart(2, '0'));
    const type = response.headers.get('Content-Type') ?? '';
    if (found.join('') === sha256) {
      return new Response(data, {headers: {'Content-Type': type}});
    }
  }
  throw new Error(`${url} is not the file that was exported`);
}

self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(NAMES) && name !== NAME) await caches.delete(name);
    }
  })());
});

self.addEventListener('fetch', (event) => {
  const {method, mode, url} = event.request;
  const wanted = new URL(url);
  wanted.hash = '';
  // Links to the page may end with a question mark and anything.
  if (mode === 'navigate') wanted.search = '';
  if (method !== 'GET' || !FILES.has(wanted.href)) return;
  event.respondWith((async () => {
    const store = await caches.open(NAME);
    const kept = await store.match(wanted.href);
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
