"""Resident: one side of a comparison, a process that trains on request and returns how long it took.

It is a newly started interpreter (`python -m hpml_bench.gate.resident`), never a fork. Requests and answers are JSON, a
line each. Output of libraries goes to standard error. It ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from functools import cache
from typing import TYPE_CHECKING, Any

from hpml_bench.gate.records import PROTOCOL
from hpml_bench.system.child import die_with_parent
from hpml_bench.system.errors import Unsupported, UserError

if TYPE_CHECKING:
    from hpml_bench.gate.workload import Workload


def main() -> None:
    """Greet, then answer until the input ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group; the parent decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        print(json.dumps({"protocol": PROTOCOL}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(**json.loads(line))), file=answers, flush=True)


@cache
def _workload() -> Workload:
    from hpml_bench.gate.workload import Workload  # heavy: not before the greeting

    return Workload()


def _answer(do: str, **arguments: Any) -> dict[str, Any]:
    """Return the result of a request `{"do": NAME, ...arguments}`, or the error in words."""
    try:
        return {"result": getattr(_workload(), do)(**arguments)}
    except (UserError, Unsupported) as error:
        return {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "bug": True}


if __name__ == "__main__":
    main()
