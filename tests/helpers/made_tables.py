"""Makes tables of scores, for tests of `compare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


def right_and_wrong(
    systems: Mapping[str, float],
    rows: int = 200,
    seeds: Sequence[Any] = (None,),
    seed: int = 0,
    **more: Any,
) -> list[Row]:
    """Return lines of systems whose rows are right in about these shares, on shared rows; `more`
    are cells of each.
    """
    random = np.random.default_rng(seed)
    ease, made = random.random(rows), []
    for system, share in systems.items():
        for run in seeds:
            right = 0.8 * ease + 0.2 * random.random(rows) < share
            for at in range(rows):
                line = {"system": system, "row": f"q{at}", "score": int(right[at])}
                made.append(line | ({} if run is None else {"seed": run}) | more)
    return made


def write_csv(path: Path, lines: Sequence[Row]) -> Path:
    """Write lines as csv, a column for each key of the first."""
    names = list(lines[0])
    text = "\n".join(
        [",".join(names), *(",".join(str(line.get(name, "")) for name in names) for line in lines)]
    )
    path.write_text(text + "\n", encoding="utf-8")
    return path
