"""The process in which a version of the harness is called, which `net.py` starts.

    python benchmarks/net_cases/driver.py CASES.json

One process makes all calls of a part, since each process imports the package's libraries anew.
What each call prints, and its status, is written to `terminal.txt` in the folder of its case.

Of the harness it takes the command line alone, so that other names may change; but for pages of
`check`, which no command makes from a record: `write_check_pages` has the names that these need.
"""

import gzip
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

CHECK_PAGES = "check-pages"
"""Word of a call that writes the pages of a recorded check: `check-pages FILE.jsonl.gz`."""


@contextmanager
def streams_in(folder: Path) -> Iterator[None]:
    """Send both streams of the process, also those of C libraries, into files of a folder."""
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            with (folder / name).open("wb") as file:
                os.dup2(file.fileno(), number)
        yield
    finally:
        for stream, number, former in ((sys.stdout, 1, kept[0]), (sys.stderr, 2, kept[1])):
            stream.flush()
            os.dup2(former, number)
            os.close(former)


def write_check_pages(packed: str) -> None:
    """Write the pages of the first trial in a packed file, and print its tables."""
    trial = json.loads(gzip.decompress(Path(packed).read_bytes()).splitlines()[0])
    gate = {name: import_module(f"hpml_bench.gate.{name}") for name in ("records", "outputs")}
    command = import_module("hpml_bench.cli.commands.check")
    terminal = import_module("hpml_bench.page.terminal").terminal
    report = gate["records"].CheckTrial.model_validate(trial).report
    command.print_report(report, terminal())
    names = {
        "json": "check.json",
        "junit": "check.xml",
        "markdown": "check.md",
        "html": "check.html",
    }
    gate["outputs"].write(report, **{kind: Path(name) for kind, name in names.items()})


def status_of(call: Callable[[], Any]) -> str:
    """Return the exit status of a call, or the error that it let through."""
    try:
        call()
    except SystemExit as ended:
        return str(ended.code or 0)
    except BaseException as error:  # which users see as a traceback
        return "".join(traceback.format_exception_only(error)).strip()
    return "0"


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def transcript(words: Sequence[str], streams: Path) -> str:
    """Make one call in the current folder; return what a user sees of it."""
    main = import_module("hpml_bench.cli").main
    environment = dict(os.environ)
    with streams_in(streams):
        if words[:1] == [CHECK_PAGES]:
            status = status_of(lambda: write_check_pages(words[1]))
        else:
            status = status_of(lambda: main([*words], prog_name="hpml-bench"))
    os.environ.clear()
    os.environ.update(environment)
    printed, complained = (read(streams / name) for name in ("stdout", "stderr"))
    head = f"$ hpml-bench {shlex.join(words)}\n"
    return f"{head}{printed}--- stderr\n{complained}--- status {status}\n\n"


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    streams = Path(sys.argv[1]).parent
    for case in cases:
        folder = Path(case["folder"])
        os.chdir(folder)
        said = [transcript(shlex.split(call), streams) for call in case["calls"]]
        (folder / "terminal.txt").write_text("".join(said), encoding="utf-8")


if __name__ == "__main__":
    main()
