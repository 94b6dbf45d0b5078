"""Opens pages of a local site in a headless Chromium, and takes what they send back."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome",
                                                "google-chrome-stable"))), None)  # fmt: skip
# WebGPU that the CPU computes: right for masks, and of no use for times.
SOFTWARE_GPU = (
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
)  # fmt: skip


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a site until it is told to be offline; what is posted goes to the server's queue."""

    def do_GET(self):
        if not self.server.offline:  # else the connection ends without an answer
            super().do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        if self.path == "/offline":
            self.server.offline = True
        else:
            self.server.results.put(json.loads(body))

    def end_headers(self):
        if self.server.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


def browse(site, page, profile, options=("--disable-gpu",), isolated=False, timeout=120):
    """Opens a page in a browser that reaches localhost alone, and returns what it posts.

    Args:
        site: the folder that is served.
        page: a file in it, with its query.
        profile: folder for the browser's own files.
        options: further ones of Chromium's command line.
        isolated: whether the server sends the headers that wasm threads ask for.
        timeout: seconds.

    Raises:
        queue.Empty: the page posted nothing in time.
    """
    server = http.server.ThreadingHTTPServer(
        ("localhost", 0), functools.partial(Handler, directory=str(site))
    )
    server.results, server.offline, server.isolated = queue.Queue(), False, isolated
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = subprocess.Popen(
        [CHROMIUM, "--headless", "--no-sandbox", f"--user-data-dir={profile}", *options,
         "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
         "--remote-debugging-port=0", f"http://localhost:{server.server_address[1]}/{page}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return server.results.get(timeout=timeout)
    finally:
        browser.terminate()
        browser.wait()
        server.shutdown()
        server.server_close()
