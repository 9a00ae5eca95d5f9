"""A page in a real browser, and all that the browser asked for to show it, of whatever host.

The browser's only way out is a proxy, which is this recorder: it answers nothing but the page.
"""

import shutil
import subprocess
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

CHROMIUM = shutil.which("chromium")
PAGE = "http://page.invalid/page.html"
"""The page's address, which exists at the recorder only."""
OWN = "http://browser.invalid"
"""Where what the browser asks for on its own account is sent, as no page would."""
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,HttpsUpgrades,AimEnabled,"
    "NetworkTimeServiceQuerying,PreconnectToSearch,DSEPreconnect2,SearchEnginePreconnect2",
    f"--google-base-url={OWN}", f"--gaia-url={OWN}",
    "--proxy-bypass-list=<-loopback>",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")


@contextmanager
def recorded(page):
    """Address of a proxy that has the page alone, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            if self.command != "GET" or self.path != PAGE:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        do_GET = do_HEAD = do_POST = do_OPTIONS = do_CONNECT = answer  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def browsed(page, folder):
    """The page as the browser has it after loading, and the addresses that were asked for.

    Of what it would ask for under TLS the recorder hears host and port, as `HOST:443`.
    """
    with recorded(page) as (proxy, asked):
        done = subprocess.run(
            [CHROMIUM, *QUIET, f"--proxy-server={proxy}", f"--user-data-dir={folder}",
             "--dump-dom", PAGE],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    return done.stdout, [one for one in asked if not one.startswith(f"{OWN}/")]
