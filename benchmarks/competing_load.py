"""Competing load: bursts of work on one core while a command runs, for trials of the gate under
load.

    python benchmarks/competing_load.py [--busy 0.2] [--core N] COMMAND...

Bursts last 0.1 to 2 s; pauses are such that the core is busy for the given share of the time. Ends
with the command's exit status.
"""

import argparse
import os
import random
import subprocess
import sys
import time

from hpml_bench.gate.machine import shared_core


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=float, default=0.2, help="share of the time")
    parser.add_argument(
        "--core", type=int, default=shared_core(), help="by default the one that a check times on"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not 0 < options.busy < 1 or not options.command:
        parser.error("give a command, and --busy between 0 and 1")
    with subprocess.Popen(options.command) as command:
        if options.core is not None:
            os.sched_setaffinity(0, {options.core})  # of this process alone: the command has begun
        while command.poll() is None:
            burst = random.uniform(0.1, 2.0)  # noqa: S311 - a length
            until = time.monotonic() + burst
            while time.monotonic() < until:
                pass
            time.sleep(burst * (1 - options.busy) / options.busy * random.uniform(0.5, 1.5))  # noqa: S311
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
