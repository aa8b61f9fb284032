"""Servers on this machine, each a class with a handler, which serve while they are entered."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Server(ThreadingHTTPServer):
    """A server on a free port of the loopback."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def handle_error(self, *_: object) -> None:
        """Print nothing of clients that are gone: it would be in the output of the test that
        runs then.
        """

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """A handler that says nothing."""

    def log_message(self, *_: object) -> None: ...

    def head(self, length: int, status: int = 200, **headers: str) -> None:
        """Send status and headers, named with `_` for a dash."""
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.head(len(content), status, **headers)
        self.wfile.write(content)

    def drip(self, content: bytes, seconds: float, begun: threading.Event) -> None:
        """Send a byte now and then, until who asked is gone."""
        begun.set()
        for byte in content:
            try:
                self.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(seconds)
