"""A server of OpenAI's protocol on the loopback, whose answers a test gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], Any]
"""Function from what is asked to the answer: a text, a whole reply, or an HTTP status with a body."""


@dataclass
class Served:
    """What a server was asked."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(answer: Answer, models: tuple[str, ...] = ("small",)) -> Iterator[Served]:
    """Serve answers while the body runs."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.reply(200, {"data": [{"id": name, "owned_by": "a test"} for name in models]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(asked)
            served.paths.append(self.path)
            served.headers.append(dict(self.headers))
            given = answer(asked)
            if isinstance(given, tuple):
                self.reply(*given)
            elif isinstance(given, str):
                chat = "messages" in asked
                choice = {"message": {"content": given}} if chat else {"text": given}
                self.reply(200, {"choices": [choice | {"finish_reason": "stop"}], "usage": {"completion_tokens": 2}})
            else:
                self.reply(200, given)

        def reply(self, status: int, content: Any, **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if isinstance(content, dict) and "location" in content:
                self.send_header("Location", content["location"])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
