// Lets the page work without network after its first visit, and sets the two headers that wasm
// threads ask for, so that any static server will do.

addEventListener('install', () => skipWaiting());
addEventListener('activate', (event) => event.waitUntil(clients.claim()));
addEventListener('fetch', (event) => {
  const {method, url} = event.request;
  if (method === 'GET' && new URL(url).origin === location.origin) {
    event.respondWith(answer(event.request));
  }
});

/** The server's answer, kept for later; without a server the one that was kept. */
async function answer(request) {
  const kept = await caches.open('localizer');
  let response;
  try {
    response = await fetch(request);
    if (response.ok) await kept.put(request, response.clone());
  } catch (error) {
    response = await kept.match(request);
    if (!response) throw error;
  }
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  return new Response(response.body, {status: response.status, headers});
}
