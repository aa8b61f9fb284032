"""Types, and what was found to disagree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Json = dict[str, Any]


@dataclass
class Audit:
    """Number of figures that were checked, and a line for each that disagrees."""

    checked: int = 0
    problems: list[str] = field(default_factory=list)
