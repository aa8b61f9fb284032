"""Bursts of work on one core, as a neighbour would make: for trials of the gate under a competing load.

    python benchmarks/competing_load.py [--minutes 60] [--busy 0.2] [--core N]

Bursts last 0.1 to 2 s; pauses are such that the core is busy for the given share of the time.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time


def main() -> int:
    """Work in bursts until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--busy", type=float, default=0.2, help="share of the time")
    parser.add_argument("--core", type=int, help="the core to disturb; any if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0 < options.busy < 1:
        parser.error("--busy must be between 0 and 1")
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    generator = random.Random(options.seed)  # noqa: S311 - lengths
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        burst = generator.uniform(0.1, 2.0)
        until = min(end, time.monotonic() + burst)
        while time.monotonic() < until:
            pass
        pause = burst * (1 - options.busy) / options.busy * generator.uniform(0.5, 1.5)
        time.sleep(max(0.0, min(pause, end - time.monotonic())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
