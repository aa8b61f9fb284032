"""A server of OpenAI's protocol on the loopback, whose answers a test gives."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from helpers import web

Answer = Callable[[dict[str, Any]], Any]
"""Function from what is asked to the answer: a text, a whole reply, or an HTTP status with a
body.
"""


@dataclass
class Served:
    """What a server was asked."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(answer: Answer, models: tuple[str, ...] = ("small",)) -> Iterator[Served]:
    served = Served()

    class Handler(web.Handler):
        def do_GET(self) -> None:
            self.tell(200, {"data": [{"id": name, "owned_by": "a test"} for name in models]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(asked)
            served.paths.append(self.path)
            served.headers.append(dict(self.headers))
            given = answer(asked)
            if isinstance(given, str):
                choice = {"message": {"content": given}} if "messages" in asked else {"text": given}
                given = {
                    "choices": [choice | {"finish_reason": "stop"}],
                    "usage": {"completion_tokens": 2},
                }
            self.tell(*given if isinstance(given, tuple) else (200, given))

        def tell(self, status: int, content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            more = (
                {"Location": content["location"]}
                if isinstance(content, dict) and "location" in content
                else {}
            )
            self.reply(data, status, **more)

    with web.Server(Handler) as server:
        served.url = f"{server.address}/v1"
        yield served
