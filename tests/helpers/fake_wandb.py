"""Reads wandb's own files back, and plays its server, for the tests of publishing."""

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from helpers import web
from helpers.waiting import until


def messages(path: Path) -> Iterator[bytes]:
    """Yield what a .wandb file frames: LevelDB's log format behind a header of seven bytes;
    checksums are verified.
    """
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, message = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            at += left
            continue
        part = data[at + 7 : at + 7 + length]
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        at += 7 + length
        message += part
        if kind in {1, 4}:  # a full record, or the last part of one
            yield message
            message = b""
    assert not message


def read_back(folder: Path) -> dict[str, Any]:
    """Return what an offline run's folder holds: identity, config, history, summary, exit code,
    tables.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    found: dict[str, Any] = {
        "config": {},
        "history": [],
        "summary": {},
        "exit": None,
        "kinds": set(),
        "defined": [],
    }
    for message in messages(path):
        item = wandb_internal_pb2.Record()
        item.ParseFromString(message)
        kind = item.WhichOneof("record_type")
        found["kinds"].add(kind)
        if kind == "run":
            found |= {
                "id": item.run.run_id,
                "name": item.run.display_name,
                "group": item.run.run_group,
            }
            found |= {
                "job_type": item.run.job_type,
                "project": item.run.project,
                "host": item.run.host,
            }
            found |= {"git": item.run.git.remote_url + item.run.git.commit}
            found["config"] |= {
                update.key: json.loads(update.value_json) for update in item.run.config.update
            }
        elif kind == "history":
            found["history"].append(
                {".".join(i.nested_key): json.loads(i.value_json) for i in item.history.item}
            )
        elif kind == "summary":
            for update in item.summary.update:
                found["summary"][update.key or ".".join(update.nested_key)] = json.loads(
                    update.value_json
                )
        elif kind == "exit":
            found["exit"] = item.exit.exit_code
        elif kind == "metric":
            found["defined"].append((item.metric.glob_name, item.metric.step_metric))
    tables = (folder / "files" / "media" / "table").glob("*.json")
    found["tables"] = {path.name.rsplit("_", 2)[0]: json.loads(path.read_text()) for path in tables}
    return found


def runs_below(suite: Path) -> dict[str, dict[str, Any]]:
    """Return every offline run of a results folder by name; no name twice."""
    found = [read_back(folder) for folder in (suite / "wandb").glob("offline-run-*")]
    assert len({run["name"] for run in found}) == len(found)
    return {run["name"]: run for run in found}


def nothing_left() -> bool:
    """Tell that no service of wandb's is left by this process of tests, after a moment."""
    return until(lambda: not _services())


def _services() -> list[psutil.Process]:
    """Return wandb's services that this process of tests has started; others beside it have some
    of their own.
    """
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if (process.info["name"] or "").startswith("wandb-core"):
                here = process.environ().get("PYTEST_XDIST_WORKER") == os.environ.get(
                    "PYTEST_XDIST_WORKER"
                )
                found += [process] if here else []
    return found


class serving(web.Server):
    """As much of wandb's server as a run needs, with the faults that a real one may have."""

    def __init__(self, fault: str = "none") -> None:
        super().__init__(_Handler)
        self.fault, self.url = fault, self.address
        self.received: list[tuple[str, bytes]] = []


class _Handler(web.Handler):
    """Answers what wandb asks."""

    server: serving

    def do_GET(self) -> None:
        """Keep what came and answer, as the fault has it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.received.append((self.path, body))
        if self.server.fault == "silent":
            time.sleep(60)
        if self.server.fault == "dying" and self.path.endswith(
            "/file_stream"
        ):  # a run that was begun has points
            self.server.fault = "dead"
        if self.server.fault == "dead":
            self.close_connection = True
            return
        status = 401 if self.server.fault == "invalid key" else 200
        run: dict[str, Any] = {
            "id": "cnVu",
            "name": "n",
            "displayName": "n",
            "config": "{}",
            "historyLineCount": 0,
        }
        run["project"] = {
            "id": "cA==",
            "name": "hpml-bench",
            "entity": {"id": "ZQ==", "name": "someone"},
        }
        flags = {
            "id": "dg==",
            "username": "someone",
            "entity": "someone",
            "flags": "{}",
            "teams": {"edges": []},
        }
        answer: dict[str, Any] = {
            "data": {"viewer": {**flags, "email": "e@example.org"}, "serverInfo": {}}
        }
        if b"mutation UpsertBucket" in body:
            run["name"] = run["displayName"] = json.loads(body)["variables"]["name"]
            answer = {"data": {"upsertBucket": {"bucket": run, "inserted": True}}}
        elif b"mutation CreateRunFiles" in body:
            host, names = self.headers["Host"], json.loads(body)["variables"]["files"]
            files = [{"name": name, "uploadUrl": f"http://{host}/upload/{name}"} for name in names]
            answer = {
                "data": {"createRunFiles": {"runID": "n", "uploadHeaders": [], "files": files}}
            }
        elif self.path.endswith("/file_stream"):
            answer = {}
        self.reply(json.dumps(answer).encode(), status, Content_Type="application/json")

    do_PUT = do_POST = do_GET
