"""Stands in for srun on one machine: COUNT processes, each with its number; when one fails, the
others are ended.
"""

import os
import sys
import time

from helpers.warm import WarmProcess

WAIT_SECONDS = 2.0


def main(count: int, command: list[str]) -> int:
    nodes = [
        WarmProcess(command, os.environ | {"HPML_BENCH_NODE": str(k)}, output=1)
        for k in range(count)
    ]
    while any(node.poll() is None for node in nodes) and not any(node.poll() for node in nodes):
        time.sleep(0.02)
    bad = next((node.returncode for node in nodes if node.poll()), 0)
    if bad:
        print(f"on_each_node: a node ended with {bad}", flush=True)
    for node in nodes:
        if node.poll() is None:
            node.terminate()
    deadline = time.monotonic() + WAIT_SECONDS
    while any(node.poll() is None for node in nodes) and time.monotonic() < deadline:
        time.sleep(0.02)
    for node in nodes:
        node.kill()
        node.wait()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
