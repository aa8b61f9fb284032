"""Two versions side by side: what is installed for a revision and the working tree, and what
can't be.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from residents import git, gone

from hpml_bench.gate import sides
from hpml_bench.gate.sides import against_environment, against_revision
from hpml_bench.system.errors import UserError

TINY = frozenset({("methods", "tiny"), ("optimizers", "adamw")})
"""Plug-ins that a check runs: the project's method, and what comes with the harness."""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny-project"
version = "1"
[tool.setuptools]
py-modules = ["tiny_module"]
"""


def change(folder: Path, value: object) -> None:
    """Commit another value, so that nothing installed before is used."""
    (folder / "tiny_module.py").write_text(f"value = {value!r}\n")
    git(folder, "commit", "-qam", "changed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my: project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "tiny_module.py").write_text("value = 1\n")
    (folder / ".gitignore").write_text("ignored.py\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """Let installing be copying, with entry points of a plugin or others, and return what was
    installed.
    """
    labels: list[str] = []
    entry_points = getattr(request, "param", "[hpml_bench.methods]\ntiny = tiny_module\n")

    def copy(arguments: list[str], label: str) -> None:
        labels.append(label)
        shutil.copytree(arguments[-1], arguments[-2], symlinks=True)
        points = Path(arguments[-2]) / "tiny_project-1.dist-info" / "entry_points.txt"
        points.parent.mkdir()
        points.write_text(entry_points)

    monkeypatch.setattr(sides, "_pip", copy)
    return labels


def test_a_dirty_tree_is_measured_as_it_is_and_named(project: Path, unpacked: list[str]) -> None:
    """The commit on one side; changes and new files on the other, without what is ignored or
    deleted.
    """
    (project / "tiny_module.py").write_text("value = 2\n")
    (project / "new.py").touch()
    (project / "ignored.py").touch()
    (project / "away").symlink_to("/etc")
    found = against_revision("HEAD", project, TINY)
    reference, candidate = Path(found.reference.path or ""), Path(found.candidate.path or "")
    assert (reference / "tiny_module.py").read_text() == "value = 1\n"
    assert (candidate / "tiny_module.py").read_text() == "value = 2\n"
    assert (candidate / "new.py").exists()
    assert not (candidate / "ignored.py").exists()
    assert (candidate / "away").readlink() == Path("/etc"), (
        "a link out of the tree is what it is in git"
    )
    assert len(str(reference)) == len(str(candidate))
    assert [side.dirty for side in (found.reference, found.candidate)] == [False, True]
    assert found.reference.revision == git(project, "rev-parse", "HEAD")
    assert unpacked == ["HEAD", "working tree"]
    git(project, "add", "-A")
    git(project, "commit", "-qm", "two")
    clean = against_revision("HEAD", project / ".", TINY)
    assert not clean.candidate.dirty
    assert clean.reference.path == clean.candidate.path == candidate
    assert clean.reference == clean.candidate, "so that one prepares for both"
    assert unpacked == ["HEAD", "working tree"], (
        "the same files are the same installation, now and the next time"
    )


def test_a_missing_commit_is_told_with_what_to_do(project: Path, tmp_path: Path) -> None:
    """In a whole clone it is a wrong name, in a shallow one it may not have been fetched."""
    git(project, "commit", "-q", "--allow-empty", "-m", "two")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{project}", "shallow")
    for name, folder, sentence in (
        ("nowhere", project, r"--against nowhere: there is no such commit .*git log"),
        ("--help", project, r"--against --help: there is no such commit"),
        (
            "HEAD~1",
            tmp_path / "shallow",
            r"HEAD~1: there is no such commit .*shallow clone .*--unshallow",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            against_revision(name, folder, TINY)


@pytest.mark.parametrize(
    ("unpacked", "told"),
    [
        ("[console_scripts]\nhpml_bench.x = tiny_module\n", "of the project (no plug-in for it)"),
        (
            "[hpml_bench.methods]\nmine = tiny_module\nlora = tiny_module\n",
            "of the project (method lora, method mine)",
        ),
        ("[hpml_bench.probes]\ntiny = tiny_module\n", "runs nothing of the project (probe tiny)"),
    ],
    indirect=["unpacked"],
)
def test_a_project_that_no_check_would_run_is_refused(
    told: str, project: Path, unpacked: list[str]
) -> None:
    """Of which nothing is timed, every check would pass; a built-in's name is the built-in's."""
    change(project, told)
    timed = frozenset({("methods", "lora"), ("methods", "tiny")})
    with pytest.raises(UserError) as error:
        against_revision("HEAD", project, timed)
    assert str(error.value).startswith("HEAD: ")
    assert told in str(error.value)
    if "mine" in told:
        assert "--methods" in str(error.value)
        assert against_revision("HEAD", project, timed | {("methods", "mine")}).mode == "revision"


def test_no_repository_and_no_project_are_told(
    project: Path, tmp_path: Path, unpacked: list[str]
) -> None:
    """Outside a repository, in one that pip can't install, or with one without a commit inside,
    by its name.
    """
    with pytest.raises(UserError, match="not a git repository"):
        against_revision("HEAD", tmp_path, TINY)
    (tmp_path / "bare").mkdir()
    git(tmp_path / "bare", "init", "-q")
    git(tmp_path / "bare", "commit", "-q", "--allow-empty", "-m", "one")
    with pytest.raises(UserError, match=r"HEAD: there is no pyproject.toml"):
        against_revision("HEAD", tmp_path / "bare", TINY)
    (project / "inside").mkdir()
    git(project / "inside", "init", "-q")
    with pytest.raises(
        UserError, match=r"--against: .*project: 'inside/' does not have a commit checked out"
    ):
        against_revision("HEAD", project, TINY)
    assert unpacked == []


def test_an_installation_that_takes_too_long_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, pip ended; a project's slowness is no bug of the harness."""
    note = tmp_path / "pid"
    script = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    monkeypatch.setattr(sides, "INSTALL_SECONDS", 1)
    with pytest.raises(
        UserError, match=r"^HEAD: pip took over 1 s to install it; see what its build waits for$"
    ):
        sides._pip([sys.executable, "-c", script], "HEAD")
    assert gone(int(note.read_text()))


def test_pip_is_the_interpreter_s_own_wherever_the_check_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pip nor a harness that lies there is run in its place; its first error is told."""
    for package in ("pip", "hpml_bench"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "raise SystemExit('ERROR: the one that lay there')"
        )
    monkeypatch.chdir(tmp_path)
    places = "--target", str(tmp_path / "target"), str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"HEAD: pip can't install it: ERROR: .*nowhere"):
        sides._pip(sides.child.pip_command("install", *sides.PIP_OPTIONS, *places), "HEAD")


def test_another_interpreter_is_the_reference(tmp_path: Path) -> None:
    """By path or name, its links kept; one that isn't there is told."""
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    found = against_environment(str(link))
    assert found.reference.python == str(link)
    assert found.candidate.python == sys.executable
    with pytest.raises(UserError, match="there is no such interpreter"):
        against_environment(str(tmp_path / "none"))


@pytest.mark.wheel
def test_a_commit_that_only_comments_passes(tmp_path: Path) -> None:
    """The whole way: this project in a repository, a comment added, both sides installed by pip
    and counted.
    """
    project, root = tmp_path / "project", Path(__file__).parents[2]
    for name in (
        "hpml_bench",
        "templates",
        *(f"benchmarks/{part}" for part in ("suites", "reference", "tuning")),
    ):
        shutil.copytree(root / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, project)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "one")
    with (project / "hpml_bench" / "training" / "trainer.py").open("a") as file:
        file.write("# a remark\n")
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "hpml_bench",
        "check",
        "--against",
        "HEAD",
        "--counts-only",
        "--methods",
        "lora",
    ]
    done = subprocess.run(
        [*command, "--json", str(report)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with changes that are in no commit" in done.stdout
    text = report.read_text()
    assert '"status": "PASS"' in text
    assert '"status": "FAIL"' not in text
