"""The command line: statuses, sentences and lists."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel, model_serializer

import hpml_bench
from helpers import made_records
from helpers.commands import called
from hpml_bench.cli.exit_status import Sentences
from hpml_bench.cli.reporting import write
from hpml_bench.suite import registry, suite
from hpml_bench.system import gpus

CONTENT = """
seeds: 2
settings:
  {backbone: "path:model", dataset: {name: text_files, options: {train: "path:rows.csv"}},
   steps: 2, global_batch: 8,
   device: cpu, world_size: 2}
methods: {lora: {lr: 1e-2}, head: {}}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A suite file whose model and rows aren't there: what is wrong must be told before they are
    missed.
    """
    path = tmp_path / "small.yaml"
    path.write_text(CONTENT)
    return str(path)


def sentence(*words: object) -> str:
    """Return the one sentence that a mistake ends with, after checking that it is one, with no
    traceback.
    """
    result = called(*words, status=2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("hpml-bench: ")
    return line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "lorra"], ["lorra", "lora", "head", "peft:TYPE"]),
        (["--methods", "peft:NONESUCH"], ["NONESUCH"]),
        (["--set", "max_length=long"], ["settings.max_length", "'long'", "whole number"]),
        (["--nproc", "3"], ["global_batch 8", "3 ranks", "--nproc"]),
        (["--device", "cuda", "--set", "world_size=null"], ["--device cpu"]),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    options: list[str],
    words: list[str],
    small: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What, where and what is allowed, also where there is no GPU; nothing was started and no
    folder made.
    """
    monkeypatch.setattr(gpus, "visible_gpus", lambda: ())
    line = sentence("run-all", small, "--out", tmp_path / "out", "--wandb", "off", *options)
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("steps", "said"), [(None, None), (7, "1 run is set apart and not compared")]
)
def test_runs_that_are_not_in_the_table_are_counted(
    steps: int | None, said: str | None, tmp_path: Path
) -> None:
    """The table is of most runs: a line says how many others there are, such as those of other
    settings.
    """
    records = made_records.sweep(("lora", "full"), 2)
    if steps:
        settings = made_records.SETTINGS.model_copy(update={"steps": steps})
        records += made_records.sweep(("lora",), 1, settings=settings)
    made_records.write(tmp_path, records)
    done = called("report", tmp_path, "--format", "md")
    assert ("set apart" in done.output) == bool(said), done.output
    assert (said or "") in done.output


def test_folders_that_are_of_no_use_are_told(small: str, tmp_path: Path) -> None:
    """A file where results should go; to report no such folder, a folder without runs, a format
    that is none.
    """
    line = sentence("run-all", small, "--out", small, "--wandb", "off")
    assert line.startswith(f"hpml-bench: {small}")
    assert line.endswith("--out")
    assert "no such folder" in sentence("report", tmp_path / "nowhere")
    assert "run-all" in sentence("report", tmp_path)
    assert "html, md, csv, tex" in sentence("report", tmp_path, "--format", "html,docx")


@pytest.mark.parametrize("kind", ["methods", "probes", "tasks", "datasets", "suites"])
def test_a_list_has_a_line_for_each_with_what_it_is(kind: registry.Kind) -> None:
    """Every registered name, and the first line of its file; of a suite its description."""
    lines = called("list", kind).stdout.splitlines()
    names = suite.packaged_suites() if kind == "suites" else registry.names(kind)
    assert [line.split()[0] for line in lines] == list(names)
    assert all(len(line.split()) > 3 for line in lines)


def test_recorded_runs_are_listed(tmp_path: Path) -> None:
    """A line a run with status and accuracy; one that failed has none."""
    made = [made_records.record("lora", 0), made_records.failed("full", 0, "failed", "why")]
    made_records.write(tmp_path / "s", made)
    failed, well = sorted(called("list", "runs", tmp_path).stdout.splitlines())
    assert all(word in failed for word in ("full-s0", "failed"))
    assert all(word in well for word in ("lora-s0", "accuracy"))


def test_ctrl_c_within_a_library_is_one() -> None:
    """Where it ends a method that pydantic calls to write a value, pydantic raises an error of
    its own.
    """

    class Slow(BaseModel):
        @model_serializer
        def _written(self) -> str:
            raise KeyboardInterrupt

    for dump in (Slow().model_dump, Slow().model_dump_json):
        group = Sentences(commands=[click.Command("work", callback=dump)])
        assert CliRunner().invoke(group, ["work"]).exit_code == 130


def test_a_sweep_of_which_no_run_is_compared_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a folder has more runs of other settings its answer is theirs, and not that of those
    just made.
    """
    fewer = made_records.sweep(
        ["lora"], 1, settings=made_records.SETTINGS.model_copy(update={"steps": 50})
    )
    made_records.write(tmp_path, [*made_records.sweep(["lora", "head"], 3), *fewer])
    for made, steps in (
        (fewer, "steps 50 instead of 100"),
        (made_records.sweep(["lora"], 1), None),
    ):
        write(tmp_path, None, ["md"], made=made)
        said = capsys.readouterr().out
        assert ("None of these runs is compared: " in said) == (steps is not None)
        assert steps is None or steps in said.replace("\n", " ")


@pytest.mark.parametrize("caught", [True, False])
def test_an_interrupted_exec_leaves_the_status_as_it_is(caught: bool, tmp_path: Path) -> None:
    """Ctrl-C while a library makes a dataclass by exec(): status 130 under `python -m`, not an
    end by SIGINT.
    """
    (tmp_path / "interrupted.py").write_text(
        f"""
import contextlib, sys, click
from hpml_bench.cli.exit_status import INTERRUPTED, Sentences
@click.group(cls=Sentences)
def main(): pass
@main.command()
def work():
    with contextlib.suppress(KeyboardInterrupt) if {caught} else contextlib.nullcontext():
        exec("raise KeyboardInterrupt")
    sys.exit(INTERRUPTED)
main(["work"])
"""
    )
    ended = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, check=False)
    assert ended.returncode == 130


SCRIPT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
    "scripts"
]["hpml-bench"]


@pytest.mark.parametrize("module", ["click", "hpml_bench_extra"])
@pytest.mark.parametrize(
    "start",
    [
        ("-m", "hpml_bench"),
        ("-c", "import pkgutil; pkgutil.resolve_name(" + repr(SCRIPT) + ")()"),
    ],
)
def test_an_interrupted_import_ends_without_a_traceback(
    start: tuple[str, str], module: str, tmp_path: Path
) -> None:
    """Ctrl-C while the command line, or a command for its help, is imported: one line, status
    130.
    """
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    package = tmp_path / "hpml_bench_extra-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hpml_bench_extra\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[hpml_bench.commands]\nextra = hpml_bench_extra:command\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(hpml_bench.__file__).parents[1])])
    ended = subprocess.run(
        [sys.executable, *start, "--help"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (130, "hpml-bench: interrupted\n")
