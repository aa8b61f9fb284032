"""Keys, tokens and passwords of the environment appear in nothing written: planted, and looked
for everywhere.
"""

import json
import os
import sys
from pathlib import Path

import pytest

from helpers import plugin_packages, tiny
from helpers.warm import WarmProcess
from hpml_bench.records.folder import ResultsFolder
from hpml_bench.records.jobs import ATTEMPTS, CLAIMS, OWNER, Job
from hpml_bench.system import redaction
from hpml_bench.training.worker import run_error

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_PlantedPlantedPlanted",
    "AWS_SECRET_ACCESS_KEY": "aws/Planted+Secret/Access=",
    "OPENAI_API_KEY": "sk-planted-planted-planted",
    "GITHUB_TOKEN": "ghp_plantedplantedplanted",
    "DATABASE_PASSWORD": "planted\npassword\nof lines",
    "SSH_PRIVATE_KEY": (
        "-----BEGIN PLANTED-----\r\n  cGxhbnRlZCBsaW5lIG9uZQ==\r\n  "
        "cGxhbnRlZCBsaW5lIHR3bw==\r\n-\r\n"
    ),
    "DB_PASS": "planted-database-pass",
    "MYSQL_PWD": "planted-mysql-pwd",
    "GITHUB_PAT": "github_pat_planted",
    "HF_TOKEN_2": "hf_SecondPlantedSecond",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED",
    "PIP_INDEX_URL": "https://someone:planted%2Fpass%40word@index.invalid/simple",
}
VALUES = [
    *(value for name, value in SECRETS.items() if name != "PIP_INDEX_URL"),
    *(
        "planted%2Fpass%40word",
        "planted/pass@word",
        "aws%2FPlanted%2BSecret%2FAccess%3D",
        "someone:",
    ),
]
LEAKY = """
import os, sys, warnings
from hpml_bench.system.errors import Unsupported
from hpml_bench.suite.base import Frozen
from hpml_bench.plugins.method import Method
class Leaky(Method):
    title, lr = "Leaky", 1e-3
    class Options(Frozen):
        quietly: bool = False
    def build(self, backbone):
        told = ", ".join(f"{name}={os.environ[name]}" for name in SECRETS)
        if self.options.quietly:
            raise Unsupported(told)
        print("on stdout", told)
        print("on stderr", told, file=sys.stderr)
        os.write(2, told.encode())
        warnings.warn(told)
        if os.environ["RANK"] == "1":
            # rank 0, which is the one shown, would be ended in the middle of its words
            import time; time.sleep(60)
        try:
            raise ConnectionError(f"the inner {told}")
        except ConnectionError as inner:
            raise RuntimeError("x" * 1990 + told) from inner
""".replace("SECRETS", repr(list(SECRETS)))


def leaks(*texts: bytes) -> list[str]:
    """Return the planted values in texts, also as JSON and YAML write them, and each line of
    those of several.
    """
    forms = {
        form
        for value in VALUES
        for form in (value, json.dumps(value)[1:-1], value.replace("\n", " "))
    }
    lines = {line.strip() for value in VALUES for line in value.splitlines()}
    forms |= {line for line in lines if len(line) >= redaction.SHORTEST}
    return [form for form in forms for text in texts if form.encode() in text]


def test_nothing_written_holds_a_secret(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither records, logs, reports, wandb's files, the cache nor the terminal; what failed
    stays readable.
    """
    place = tmp_path_factory.mktemp("sweep")  # a short one: sockets are made in it
    plugin, out = plugin_packages.write(place, "methods", leaky=LEAKY), place / "out"
    for folder in (place / "suite", out):
        folder.mkdir()
    suite = tiny.local_suite(place / "suite")
    settings = {
        "methods.loud": "{method: leaky}",
        "methods.quiet": "{method: leaky, options: {quietly: true}}",
    }
    settings |= {"steps": "1", "latency_samples": "0"}
    command = [
        sys.executable,
        "-m",
        "hpml_bench",
        "run-all",
        str(suite),
        "--out",
        str(out / "reports"),
    ]
    command += ["--seeds", "1", "--methods", "lora,loud,quiet", "--wandb", "offline", "--verbose"]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    folders = {"HPML_BENCH_CACHE": str(out / "cache"), "HOME": str(out), "TMPDIR": str(out)}
    folders["PYTHONPATH"] = plugin_packages.on_path(plugin)
    sweep = WarmProcess(command, {**os.environ, **SECRETS, **folders}, folder=out)
    said, _ = sweep.communicate(300)
    assert sweep.returncode == 1, said[-3000:]
    printed = said.encode()
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"report.html", "report.md", "run.json", "rank0.log", "rank1.log", "suite.json"} <= names
    assert any(path.suffix == ".wandb" for path in files)
    assert {str(path): found for path in files if (found := leaks(path.read_bytes()))} == {}
    assert b"rank 0: on stdout" in printed
    assert leaks(printed, printed.replace(b"\n", b"")) == []  # a terminal wraps lines
    records = [json.loads(path.read_text()) for path in out.glob("reports/*/*/run.json")]
    assert {record["status"] for record in records} == {"ok", "failed", "unsupported"}
    error = next(record["error"] for record in records if record["status"] == "failed")
    assert error["kind"] == "RuntimeError"
    assert "ConnectionError: the inner WANDB_API_KEY=[redacted]" in error["traceback"]
    assert "https://index.invalid/simple" in error["traceback"]
    log = next(out.glob(f"reports/*/loud*/rank{error['rank']}.log")).read_text()
    assert "on stdout WANDB_API_KEY=[redacted], HF_TOKEN=[redacted]" in log
    assert "https://index.invalid/simple" in log


def test_what_a_secret_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables named like keys and logins in addresses are; short values, and other variables',
    are not.
    """
    for name in list(os.environ):
        monkeypatch.delenv(name)
    others = {"SOME_KEY": "short", "OTHER": "not-a-secret-at-all", "GIT_URL": "ssh://git@host"}
    for name, value in (SECRETS | others).items():
        monkeypatch.setenv(name, value)
    assert set(redaction.secrets()) >= {*VALUES} - {"someone:"}
    assert (
        redaction.redacted("short not-a-secret-at-all ssh://git@host")
        == "short not-a-secret-at-all ssh://host"
    )
    nested = redaction.redacted({"sk-planted-planted-planted": ["a hf_PlantedPlantedPlanted"]})
    assert nested == {"[redacted]": ["a [redacted]"]}


@pytest.mark.parametrize(
    ("names", "secret"),
    [
        (
            "DB_PASS MYSQL_PWD GITHUB_PAT HF_TOKEN_2 HF_TOKEN2 AWS_ACCESS_KEY_ID PGPASSWORD PASS "
            "api_keys SECRET_OF_MINE GOOGLE_CREDENTIALS SSH_KEY_PASSPHRASE TOKEN",
            True,
        ),
        (
            "PWD OLDPWD PATH PYTHONPATH LD_LIBRARY_PATH TOKENIZERS_PARALLELISM KEYBOARD "
            "SSH_ASKPASS PATTERN_MAP COMPASS PATCH_LEVEL",
            False,
        ),
    ],
)
def test_a_word_of_a_name_makes_a_secret(names: str, secret: bool) -> None:
    """Wherever it stands between underscores, numbered or not; folders would be taken out of
    every message.
    """
    found = {name: bool(redaction.SECRET_VARIABLE.match(name)) for name in names.split()}
    assert found == dict.fromkeys(names.split(), secret)


def test_an_error_holds_no_half_of_a_secret_and_no_home_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Secrets go before a message is cut; of home folders in a traceback the rest of the path is
    kept.
    """
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    told = run_error(ValueError("x" * 1990 + SECRETS["HF_TOKEN"]), 0)
    assert "hf_" not in told.message
    assert "hf_" not in (told.traceback or "")
    monkeypatch.setenv("HOME", "/mnt/people/alice")
    paths = (
        "/mnt/people/alice/a.py",
        "/home/" + "bob/.venv/b.py",
        "/root" + "/c.py",
        "/mnt/people/alices/d.py",
    )
    error = run_error(FileNotFoundError(f"no file: {', '.join(paths)}"), rank=0)
    assert error.message == "no file: ~/a.py, ~/.venv/b.py, ~/c.py, /mnt/people/alices/d.py"
    assert "bob" not in error.traceback
    assert "~/.venv/b.py" in error.traceback


def test_files_are_mended_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets and homes go out of a log of any size; one without any is not rewritten, and no
    link is followed.
    """
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    secret = SECRETS["HF_TOKEN"].encode()
    log, clean, outside, link, empty = (
        tmp_path / name for name in ("a.log", "b.log", "c.txt", "c.log", "d.log")
    )
    log.write_bytes(
        b"\xff\x00" + b"-" * 2**20 + secret + b" https://u:p@host/ /home/" + b"bob/x.py " + secret
    )
    clean.write_bytes(b"mail me@example.org")
    outside.write_bytes(secret)
    link.symlink_to(outside)
    empty.write_bytes(b"")
    before = clean.stat().st_ino
    redaction.redact_files(log, clean, link, empty, tmp_path / "missing.log")
    assert (
        log.read_bytes()
        == b"\xff\x00" + b"-" * 2**20 + b"[redacted] https://host/ ~/x.py [redacted]"
    )
    assert clean.stat().st_ino == before
    assert outside.read_bytes() == secret


def test_what_a_killed_sweep_left_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start redacts logs of runs without record and of lost jobs' attempts; no living
    job's, and no link's.
    """
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    folder, outside = tmp_path / "sweep", tmp_path / "outside"
    gone, works = (folder / ATTEMPTS / f"lora-0-abc.{job}.0" for job in ("12_0", "12_1"))
    logs = [
        run / f"rank{rank}.log"
        for run in (folder / "killed", folder / "done", outside, gone, works)
        for rank in range(2)
    ]
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"token {SECRETS['HF_TOKEN']}\n")
    (folder / "done" / "run.json").write_text(
        "{}"
    )  # a run with a record was redacted before it: not read again
    (folder / "linked").symlink_to(outside)
    owner = Job(
        engine="slurm",
        job="12_1",
        restart=0,
        unit=1,
        host="n1",
        pid=7,
        began="2026-01-02T03:04:05+00:00",
    )
    (folder / CLAIMS / "1").mkdir(parents=True)
    (folder / CLAIMS / "1" / OWNER).write_text(owner.model_dump_json())
    with ResultsFolder.open(folder):
        pass
    mended = {log.parent for log in logs if log.read_text() == "token [redacted]\n"}
    assert mended == {folder / "killed", gone}
    assert all("hf_" in log.read_text() for log in logs if log.parent not in mended)
