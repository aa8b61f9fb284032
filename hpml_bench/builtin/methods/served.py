"""Served: nothing is trained; a server that speaks OpenAI's protocol answers the test rows
(`hpml-bench score`).
"""

from typing import Any, Literal

from hpml_bench.plugins.method import Method
from hpml_bench.suite.base import Frozen
from hpml_bench.system.errors import Unsupported


class Served(Method):
    """A model behind a server, of which only the answers are known."""

    title = "Served"
    trains = False

    class Options(Frozen):
        """The server and its model."""

        url: str = ""
        """Address up to the version, as http://127.0.0.1:8000/v1."""
        model: str = ""
        """Name of the model there."""
        api: Literal["chat", "completions"] = "chat"
        """`chat`: the turns are sent, and the server writes them with its own template;
        `completions`: the prompt is sent as the suite's template writes it.
        """

    def build(self, backbone: Any) -> Any:
        raise Unsupported(
            "a server answers, which `hpml-bench score --system NAME=http://...` asks"
        )
