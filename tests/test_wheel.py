"""What a stranger gets from the wheel: built, installed in a clean environment, run outside the
checkout.
"""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_a_run_needs(built_wheel: Path) -> None:
    """Templates, suites, references and the embedded model are in it, the model within 8 MB."""
    sizes = {item.filename: item.file_size for item in zipfile.ZipFile(built_wheel).infolist()}
    for name in (
        "templates/report.html.j2",
        "suites/quickstart.yaml",
        "reference/document.yaml",
        "py.typed",
    ):
        assert f"hpml_bench/{name}" in sizes
    assert sum(size for name, size in sizes.items() if "/assets/" in name) <= 8_000_000
    assert not [name for name in sizes if name.startswith(("tests/", "reports/", "benchmarks/"))]


@pytest.mark.wheel
def test_run_all_from_the_wheel(built_wheel: Path, tmp_path: Path) -> None:
    """Installed in a clean environment, run-all makes its report from an empty folder; so does
    report alone.
    """
    venv.create(tmp_path / "env", with_pip=True)
    binary = tmp_path / "env" / "bin"
    subprocess.run([binary / "pip", "install", "-q", str(built_wheel)], check=True, timeout=900)
    work = tmp_path / "work"
    work.mkdir()
    reduced = (
        "train_samples=64",
        "validation_samples=32",
        "test_samples=40",
        "steps=4",
        "latency_samples=2",
    )
    sets = [part for value in reduced for part in ("--set", value)]
    command = [
        binary / "hpml-bench",
        "run-all",
        "--seeds",
        "1",
        "--methods",
        "lora,head",
        "--wandb",
        "off",
        *sets,
    ]
    done = subprocess.run(
        command, cwd=work, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "reports" / "quickstart" / "report.html").stat().st_size > 10_000
    again = [binary / "hpml-bench", "report", "--out", "again", "--format", "html,md,csv,tex"]
    subprocess.run(again, cwd=work, check=True, timeout=60)
    assert (work / "again" / "report.md").exists()
