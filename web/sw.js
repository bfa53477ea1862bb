// Keeps the page for use without a connection. `build_web.py` writes offline.js: FILES, and VERSION, a digest of them.
importScripts("offline.js");

const NAME = "derain-page-";

self.addEventListener("install", (event) => {
  // no-cache: what the page has loaded a moment ago is asked for again, but not sent again.
  const files = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(NAME + VERSION).then((cache) => cache.addAll(files)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const outdated = (name) => name.startsWith(NAME) && name !== NAME + VERSION;
  event.waitUntil(
    caches.keys()
      .then((names) => Promise.all(names.filter(outdated).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const found = caches.open(NAME + VERSION).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(found.then((answer) => answer ?? fetch(event.request)));
});
