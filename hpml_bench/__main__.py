"""Start of the command: `hpml-bench`, `python -m hpml_bench` and `torchrun -m hpml_bench`."""

import sys
from collections import namedtuple

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it with status 130 from its first import on."""
    try:
        from hpml_bench.cli import main as command_line

        command_line(prog_name="hpml-bench")
    except KeyboardInterrupt:
        print("hpml-bench: interrupted", file=sys.stderr)
        namedtuple("Forget", ())  # as in cli/exit_status.py: else SIGINT may be what ends us
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
