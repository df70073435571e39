'use strict';

// Keeps the page for use without a network. The page itself keeps the model and
// the runtime, after it has checked them.
const NAME = `skinseg ${self.registration.scope} {{ version }}`;
const SHELL = {{ shell|tojson }};

self.addEventListener('install', (event) => {
  event.waitUntil((async () => {
    const store = await caches.open(NAME);
    await store.addAll(SHELL.map((name) => new Request(name, {cache: 'reload'})));
    await self.skipWaiting();
  })());
});

self.addEventListener('activate', (event) => {
  event.waitUntil((async () => {
    const old = (await caches.keys()).filter(
      (name) => name.startsWith(`skinseg ${self.registration.scope} `) && name !== NAME);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  })());
});

self.addEventListener('fetch', (event) => {
  const {request} = event;
  if (request.method !== 'GET' || !request.url.startsWith(self.registration.scope)) {
    return;
  }
  event.respondWith((async () => {
    const store = await caches.open(NAME);
    const ignoreSearch = request.mode === 'navigate';
    return isolated(await store.match(request, {ignoreSearch}) ?? await fetch(request));
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
