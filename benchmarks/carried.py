"""Wheels carried to a machine without network: installed for one command, before it imports anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def install(wheels: Path, folder: Path) -> None:
    """Install all wheels of a folder into another, which this process and its children then import from.

    What the machine has stays in use where no wheel replaces it.
    """
    found = sorted(map(str, wheels.glob("*.whl")))
    if not found:
        sys.exit(
            f"{wheels}: there is no wheel in this folder; pip download --only-binary :all: --dest {wheels} PACKAGE"
        )
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(folder), *found]
    subprocess.run(command, check=True)
    checkout = Path(__file__).resolve().parents[1]
    paths = [str(folder), str(checkout)]
    sys.path[:0] = paths
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
