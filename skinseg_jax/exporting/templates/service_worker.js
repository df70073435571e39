'use strict';

// Keeps the page for use without a network. The page itself keeps the model and
// the runtime, after it has checked them.
const {scope} = self.registration;
const NAME = `skinseg ${scope} {{ version }}`;
const SHELL = {{ shell|tojson }};

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const store = await caches.open(NAME);
    const newest = (name) => new Request(name, {cache: 'reload'});
    await store.addAll(SHELL.map(newest));
    await self.skipWaiting();
  })());
});

self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      const ours = name.startsWith(`skinseg ${scope} `);
      if (ours && name !== NAME) await caches.delete(name);
    }
    await self.clients.claim();
  })());
});

self.addEventListener('fetch', (event) => {
  const {request} = event;
  if (request.method !== 'GET' || !request.url.startsWith(scope)) return;
  event.respondWith((async () => {
    const store = await caches.open(NAME);
    const ignoreSearch = request.mode === 'navigate';
    const kept = await store.match(request, {ignoreSearch});
    return isolated(kept ?? await fetch(request));
  })());
});

// With these headers browsers allow the network to use several threads.
function isolated(response) {
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  const {status, statusText} = response;
  return new Response(response.body, {status, statusText, headers});
}
