// What the page and its service worker share about stored files.

// Name of a cache of the page that is in the folder `scope`.
function cacheName(scope, name) {
  return `skinseg ${scope} ${name}`;
}

// Name of the cache that holds the files which the page loaded, until the
// service worker has stored them.
const LOADED = 'loaded';

// SHA-256 as hexadecimal digits.
async function digest(data) {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', data));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}
