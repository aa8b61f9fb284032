"""Asking a server: what is sent, what passes and is tried again, and what ends a run with a
sentence.
"""

from typing import Any

import pytest

from helpers.fake_server import serving
from hpml_bench.launch import server
from hpml_bench.launch.server import Client, Reply, content_of, only_model
from hpml_bench.plugins.decoding import Decoding, Scaffold
from hpml_bench.plugins.task import Asked
from hpml_bench.system.errors import UserError

TURNS = [{"role": "user", "content": "Which?"}]
ROW = Asked(TURNS, None, (5, 6), 0)
DECODING = Decoding(8, ("\n",))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait between tries."""
    monkeypatch.setattr(server.time, "sleep", lambda _: None)


def client(url: str, api: str = "chat", key: str | None = None) -> Client:
    return Client({"url": url, "model": "small", "api": api}, key, 5.0)


def test_what_is_sent() -> None:
    """Turns or the prompt, the suite's limits, greedy, and the key in the header alone."""
    with serving(lambda _: " This.") as served:
        assert client(served.url, key="abc").ask(ROW, "Q: Which?", DECODING, 7) == Reply(
            " This.", 2, False
        )
        client(served.url, "completions").ask(ROW, "Q: Which?", Decoding(8, temperature=0.5), 7)
    common = {"model": "small", "max_tokens": 8, "top_p": 1.0, "n": 1, "stream": False}
    assert served.asked == [
        common | {"messages": TURNS, "stop": ["\n"], "temperature": 0.0},
        common | {"prompt": "Q: Which?", "temperature": 0.5, "seed": 7},
    ]
    assert served.paths == ["/v1/chat/completions", "/v1/completions"]
    assert [headers.get("Authorization") for headers in served.headers] == ["Bearer abc", None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    """An overloaded server, until it answers; but not for ever."""
    given: list[Any] = [(status, {"error": "later"}), (status, b"not JSON"), "Yes"]
    with serving(lambda _: given.pop(0)) as served:
        assert client(served.url).ask(ROW, "", DECODING, 0).text == "Yes"
    with serving(lambda _: (status, {"error": "later"})) as served:
        with pytest.raises(
            UserError, match=rf"no answer in {server.TRIES} tries: HTTP {status}.*later"
        ):
            client(served.url).ask(ROW, "", DECODING, 0)
        assert len(served.asked) == server.TRIES
    with pytest.raises(UserError, match=r"no answer in 5 tries: .*refused"):  # it has ended
        client(served.url).ask(ROW, "", DECODING, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((401, {"error": "no such key"}), "HTTP 401 Unauthorized: .*no such key"),
        ((302, {"location": "http://127.0.0.1:9/other"}), "HTTP 302"),
        ({"object": "error", "message": "no model"}, "isn't one of OpenAI's protocol: .*no model"),
        ({"choices": []}, "isn't one of OpenAI's protocol"),
    ],
)
def test_what_does_not_pass(given: Any, said: str) -> None:
    """A sentence at once; a redirect is not followed, since it would carry the key elsewhere."""
    with serving(lambda _: given) as served:
        with pytest.raises(UserError, match=said):
            client(served.url, key="abc").ask(ROW, "", DECODING, 0)
        assert len(served.asked) == 1


def test_the_only_model_needs_no_name() -> None:
    """Of several, one has to be named."""
    with serving(str) as served:
        options = {"url": served.url, "model": "", "api": "chat"}
        assert only_model(options, None, 5.0) == "small"
        assert client(served.url).says() == {"id": "small", "owned_by": "a test"}
    with (
        serving(str, ("one", "two")) as served,
        pytest.raises(UserError, match="serves one, two; name one as #MODEL"),
    ):
        only_model({"url": served.url, "model": "", "api": "chat"}, None, 5.0)


@pytest.mark.parametrize(
    ("text", "scaffold", "content"),
    [
        ("It is 4.\nNext", Scaffold(), "It is 4."),
        ("<think>2+2</think> It is 4.", Scaffold(), "It is 4."),
        ("It is 4.", Scaffold(before="</think>"), "It is 4."),
        ("2+2</think> It is 4.", Scaffold(before="</think>"), "It is 4."),
        ("It is 4.</answer>", Scaffold(after="</answer>"), "It is 4."),
    ],
)
def test_what_of_a_reply_is_scored(text: str, scaffold: Scaffold, content: str) -> None:
    """Not the reasoning, whether a server sends it or not, nor what the template writes, nor
    what follows a stop.
    """
    assert content_of(text, scaffold, DECODING) == content
