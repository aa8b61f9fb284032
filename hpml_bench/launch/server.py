"""Runs of a server's model: each test row is asked over HTTP, kept in a line of a file, and scored
at the end.

The protocol is OpenAI's: chat completions, or completions of a prompt. The server tells no losses,
so that a run has the scores of its answers alone: its predictions hold no token, and NaN as loss.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import Field, ValidationError

from hpml_bench.data.prepared import Prepared
from hpml_bench.launch.launcher import ended_as, here
from hpml_bench.launch.watchdog import INTERRUPTED
from hpml_bench.plugins.dataset import GROUP, IGNORE_INDEX
from hpml_bench.plugins.decoding import Decoding, Scaffold
from hpml_bench.plugins.task import Asked, Task, make_task
from hpml_bench.records.points import MOST_BYTES
from hpml_bench.records.predictions import (
    Predictions,
    TextAnswers,
    read_predictions,
    write_predictions,
)
from hpml_bench.records.run import Consumed, Outcome, RunError
from hpml_bench.select.checks import RunFigures, self_checks
from hpml_bench.suite import registry
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import RunSpec, Settings
from hpml_bench.system import environment, heartbeat
from hpml_bench.system.errors import UserError
from hpml_bench.system.files import is_plain_file, open_plain, remove, write_atomically
from hpml_bench.system.redaction import redacted
from hpml_bench.system.signals import Stop
from hpml_bench.system.text import digest, sanitize
from hpml_bench.training.request import RunRequest

if TYPE_CHECKING:
    from hpml_bench.plugins.rows import Rows

METHOD = "served"
ANSWERS = "answers.jsonl"
TRIES = (
    5  # requests for a row, with pauses of 1, 2, 4, ... seconds between, after errors that may pass
)
PASSING = frozenset(
    {408, 409, 425, 429, 500, 502, 503, 504}
)  # HTTP statuses after which the same request may succeed
LONGEST_REPLY = 50_000_000
LONGEST_LINE = 4 * LONGEST_REPLY  # of kept answers: JSON may take six bytes for a character


@dataclass(frozen=True)
class Access:
    """Keys and limits of requests to servers; not part of a run's identity."""

    keys: Mapping[str, str]  # Method's name -> its key; never written anywhere
    concurrency: int = 8
    timeout: float = 120.0  # seconds for one answer


@dataclass(frozen=True)
class Reply:
    """A server's answer to one row, as it came."""

    text: str
    tokens: int | None = None
    cut: bool | None = (
        None  # whether it ended at the limit of tokens; None where the server doesn't say
    )


class KeptReply(Frozen):
    """A line of the file of answers that a later call goes on from."""

    row: int = Field(ge=0)
    text: str
    tokens: int | None
    cut: bool | None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """One model of a server."""

    def __init__(self, options: Mapping[str, Any], key: str | None, timeout: float) -> None:
        self.url, self.model, self.api = (
            options["url"].rstrip("/"),
            options["model"],
            options["api"],
        )
        self._key, self._timeout, self._opener = (
            key,
            timeout,
            urllib.request.build_opener(_NoRedirect),
        )

    def by(self, api: str) -> Client:
        return Client({"url": self.url, "model": self.model, "api": api}, self._key, self._timeout)

    def listed(self) -> list[dict[str, Any]]:
        """Return what the server says of its models; a UserError where it doesn't."""
        found = self._call("models", None).get("data")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def says(self) -> dict[str, Any]:
        """Return what the server says of the model; empty where it lists none."""
        with suppress(UserError):
            return next((one for one in self.listed() if one.get("id") == self.model), {})
        return {}

    def ask(self, row: Asked, text: str, decoding: Decoding, seed: int) -> Reply:
        """Return the answer to a row, whose prompt is `text`; a UserError where the server gives
        none.
        """
        given: dict[str, Any] = {
            "model": self.model,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "n": 1,
            "stream": False,
        }
        given |= {"stop": list(decoding.stop)} if decoding.stop else {}
        given |= {"seed": seed} if decoding.temperature else {}
        if self.api == "chat":
            given |= {"messages": row.turns, **({"tools": row.tools} if row.tools else {})}
            content = self._call("chat/completions", given)
        else:
            content = self._call("completions", given | {"prompt": text})
        try:
            choice = content["choices"][0]
            said = choice["message"].get("content") if self.api == "chat" else choice["text"]
            tokens = (content.get("usage") or {}).get("completion_tokens")
            ended = choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise UserError(
                f"{self.url}: the reply isn't one of OpenAI's protocol: {_short(content)}"
            ) from None
        cut = None if ended is None else ended == "length"
        return Reply(str(said or ""), tokens if isinstance(tokens, int) else None, cut)

    def _call(self, path: str, content: Mapping[str, Any] | None) -> dict[str, Any]:
        given = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        headers = {"Content-Type": "application/json", **given}
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)  # noqa: S310 - the scheme is checked
        for pause in [*(2.0**number for number in range(TRIES - 1)), None]:
            try:
                with closing(self._opener.open(request, timeout=self._timeout)) as reply:
                    found = json.loads(reply.read(LONGEST_REPLY))
                if isinstance(found, dict):
                    return found
                raise UserError(f"{self.url}/{path}: replies with no object of JSON")
            except urllib.error.HTTPError as error:
                problem = (
                    f"HTTP {error.code} {error.reason}: "
                    f"{_short(error.read(2000).decode(errors='replace'))}"
                )
                if error.code not in PASSING:
                    raise UserError(f"{self.url}/{path}: {problem}") from None
            except (
                OSError,
                HTTPException,
                ValueError,
            ) as error:  # no connection, none any more, or half a reply
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
            if pause is None or content is None:
                raise UserError(f"{self.url}/{path}: no answer in {TRIES} tries: {_short(problem)}")
            time.sleep(pause)
        raise AssertionError


def only_model(options: Mapping[str, Any], key: str | None, timeout: float) -> str:
    """Return the name of a server's model; a UserError where it doesn't list one alone."""
    names = [str(one.get("id")) for one in Client(options, key, timeout).listed()]
    if len(names) != 1:
        raise UserError(
            f"{options['url']}: serves {', '.join(names[:5]) or 'no model that it lists'}; name "
            f"one as #MODEL"
        )
    return names[0]


def _short(value: object) -> str:
    return sanitize(redacted(str(value)), 200)


# A run


def here_or_served(request: RunRequest, stop: Stop, access: Access) -> Outcome:
    """Run the ranks of a run here, or ask its server where the method is `served`."""
    if request.spec.method.method != METHOD:
        return here(request, stop)
    try:
        return _asked(request, stop, access)
    except UserError as error:
        return ended_as("failed", RunError(kind="Server", message=str(error)))


def client_of(spec: RunSpec, access: Access) -> Client:
    return Client(spec.method.options, access.keys.get(spec.method.name), access.timeout)


def _asked(request: RunRequest, stop: Stop, access: Access) -> Outcome:
    """Ask all rows that have no answer yet, score the answers, and return the outcome."""
    from hpml_bench.plugins.rows import Rows

    spec, prepared = request.spec, request.prepared
    task = make_task(
        spec.settings.task, prepared.label_names, prepared.facts, spec.settings.rank_by
    )
    if task.decoding is None:
        raise UserError(
            "a server is scored by its answers, and the task has none: it takes a scorer of answers"
        )
    rows = questions(spec.settings, prepared)
    if spec.method.options["api"] == "chat" and (cut := sum(row.cut > 0 for row, _ in rows)):
        raise UserError(
            f"{cut} prompts are cut to max_length, which turns can't be; add ,api=completions to "
            f"the system"
        )
    client = client_of(spec, access)
    heartbeat.begin(request.folder, 0)
    file = request.folder.with_name(f"{request.folder.name}.{ANSWERS}")
    run_digest = digest([spec.run_id, prepared.digests.model_dump()])
    replies = _kept(file, run_digest, len(rows))
    began = time.monotonic()
    try:
        for done in _ask_missing(
            client, rows, replies, file, task.decoding, spec.seed, access.concurrency
        ):
            heartbeat.beat(f"asking {client.url}, {done} of {len(rows)} rows")
            if stop.requested:
                return ended_as("interrupted", RunError(kind="Interrupted", message=INTERRUPTED))
            if (most := request.limits.run_timeout) and time.monotonic() - began > most:
                return ended_as(
                    "timeout", RunError(kind="RunTimeout", message=f"not done after {most:g} s")
                )
    finally:
        heartbeat.remove(request.folder)
    outcome = _scored(request, task, Rows(Path(prepared.data) / "test", prepared.pad_id), replies)
    server = {
        "url": client.url,
        "model": client.model,
        "api": client.api,
        "says": redacted(client.says()),
    }
    file.replace(request.folder / ANSWERS)
    return outcome.model_copy(update={"environment": environment.of_run() | {"server": server}})


def questions(settings: Settings, prepared: Prepared) -> list[tuple[Asked, str]]:
    """Return the test rows, each with its prompt as text, without what the tokenizer puts before
    a text itself.
    """
    from hpml_bench.data.prepare import encoder_of
    from hpml_bench.plugins.rows import Rows

    encoder = encoder_of(settings, Path(prepared.backbone))
    task = make_task(settings.task, prepared.label_names, prepared.facts)
    rows = task.asked(Rows(Path(prepared.data) / "test", prepared.pad_id), encoder)
    whole, bare = (
        encoder.tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False)
    )
    front = tuple(whole[: whole.index(bare[0])])
    own = [row.ids[len(front) * (row.ids[: len(front)] == front) :] for row in rows]
    texts = (str(encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in own)
    return list(zip(rows, texts, strict=True))


def again(
    client: Client,
    rows: Sequence[tuple[Asked, str]],
    prepared: Prepared,
    spec: RunSpec,
    numbers: Sequence[int],
    api: str | None,
) -> list[str]:
    """Ask some rows once more, by the client's API or another one, and return the answers."""
    task = make_task(spec.settings.task, prepared.label_names, prepared.facts)
    asking, decoding = client.by(api or client.api), cast(Decoding, task.decoding)
    with ThreadPoolExecutor(4) as threads:
        told = threads.map(lambda number: asking.ask(*rows[number], decoding, number), numbers)
    return [content_of(one.text, prepared.scaffold, decoding) for one in told]


def _kept(file: Path, run_digest: str, rows: int) -> dict[int, Reply]:
    """Return the answers that a file holds of this run, which has `rows` rows, and leave only them
    there: no torn line, and nothing of another run or of what is no regular file.
    """
    if not is_plain_file(file):
        remove(file)  # a folder can't be replaced by a file
    replies = dict(_replies(file, run_digest, rows)) if file.exists() else {}
    lines = [_line(number, reply) for number, reply in replies.items()]
    write_atomically(file, f"{run_digest}\n" + "".join(lines))
    return replies


def _replies(file: Path, run_digest: str, rows: int) -> Iterator[tuple[int, Reply]]:
    with open_plain(file) as lines:
        if os.fstat(lines.fileno()).st_size > MOST_BYTES:
            return
        if lines.readline(LONGEST_LINE) != f"{run_digest}\n".encode():
            return
        while line := lines.readline(LONGEST_LINE):
            with suppress(ValidationError):
                kept = KeptReply.model_validate_json(line)
                if kept.row < rows:
                    yield kept.row, Reply(kept.text, kept.tokens, kept.cut)


def _line(number: int, reply: Reply) -> str:
    return json.dumps({"row": number, **asdict(reply)}) + "\n"


def _ask_missing(
    client: Client,
    rows: Sequence[tuple[Asked, str]],
    replies: dict[int, Reply],
    file: Path,
    decoding: Decoding,
    seed: int,
    threads: int,
) -> Iterator[int]:
    """Ask the rows without an answer, several at a time; yield how many have one, every half
    second or sooner.
    """
    left: SimpleQueue[int] = SimpleQueue()
    came: SimpleQueue[tuple[int, Reply | Exception]] = SimpleQueue()
    for number in sorted(set(range(len(rows))) - replies.keys()):
        left.put(number)
    over = threading.Event()

    def ask() -> None:
        with suppress(Empty):
            while not over.is_set():
                number = left.get_nowait()
                try:
                    came.put(
                        (number, client.ask(*rows[number], decoding, seed * 1_000_003 + number))
                    )
                except Exception as error:
                    came.put((number, error))
                    over.set()

    for _ in range(min(threads, left.qsize())):
        threading.Thread(target=ask, daemon=True).start()  # none holds up the end of the process
    try:
        while len(replies) < len(rows):
            with suppress(Empty):
                number, reply = came.get(timeout=0.5)
                if isinstance(reply, Exception):
                    raise UserError(f"row {number}: {reply}") from reply
                replies[number] = reply
                with file.open("a", encoding="utf-8") as end:
                    end.write(_line(number, reply))
            yield len(replies)
    finally:
        over.set()


def _scored(request: RunRequest, task: Task, test: Rows, replies: Mapping[int, Reply]) -> Outcome:
    """Write the predictions and return the outcome: of answers alone, without any loss."""
    said = [replies[number] for number in range(len(test))]
    limited = cast(Decoding, task.decoding)
    texts = TextAnswers(
        question=tuple(test.column("question")),
        expected=tuple(test.column("expected")),
        bytes=np.asarray(test.column("bytes")),
        answer=tuple(content_of(one.text, request.prepared.scaffold, limited) for one in said),
        tokens=np.array([one.tokens for one in said])
        if all(one.tokens is not None for one in said)
        else None,
        cut=np.array([one.cut for one in said])
        if all(one.cut is not None for one in said)
        else None,
    )
    references = cast(tuple[np.ndarray, ...], test.references)
    nothing = tuple(np.full_like(row, IGNORE_INDEX) for row in references)
    group = np.asarray(test.column(GROUP)) if test.has(GROUP) else None
    unknown = np.full(len(test), np.nan)
    predictions = Predictions(np.arange(len(test)), references, nothing, unknown, texts, group)
    write_predictions(request.folder, predictions, task.scores(predictions))
    stored = read_predictions(request.folder)
    assert stored is not None  # noqa: S101 - written just now
    metrics = {f"test_{name}": value for name, value in task.evaluate(stored).items()} | {
        "trainable_parameters": 0.0
    }
    parameters = registry.plugin("probes", "parameters").metrics
    definitions = tuple(metric for metric in (*task.metrics, *parameters) if metric.name in metrics)
    used = Consumed(
        steps=0, samples=0, real_tokens=0, padded_tokens=0, order=hashlib.sha256().hexdigest()[:16]
    )
    figures = RunFigures(
        metrics, [], used, request.spec.settings, stored, len(test), task, {"trainable": 0}
    )
    return Outcome(
        status="ok",
        headline=task.headline,
        definitions=definitions,
        metrics=dict(metrics),
        consumed=used,
        checks=self_checks(figures),
    )


def content_of(text: str, scaffold: Scaffold, decoding: Decoding) -> str:
    """Return an answer without reasoning, what the template writes around it, and all from a
    stop text on.
    """
    shut = scaffold.closing.strip() in text or not scaffold.before.strip().startswith(
        scaffold.closing.strip()
    )
    begin = scaffold.begin(text) if shut else 0  # a server may have taken the reasoning away
    text = text[begin:].lstrip() if begin else text
    text = text.partition(scaffold.after)[0] if scaffold.after else text
    return text[
        : min([text.find(stop) for stop in decoding.stop if stop in text], default=len(text))
    ]
