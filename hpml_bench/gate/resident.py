"""Resident: one side of a comparison, a process that trains on request and returns how long it
took.

It is a newly started interpreter (`python -m hpml_bench.gate.resident`), never a fork. Requests and
answers are JSON, a line each. Output of libraries goes to standard error. It ends with its parent.
"""

import json
import os
import signal
import sys
import traceback
from typing import Any

from hpml_bench.gate.records import PROTOCOL
from hpml_bench.system.child import die_with_parent
from hpml_bench.system.errors import Unsupported, UserError


def main() -> None:
    """Greet, then answer until the input ends."""
    die_with_parent()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole terminal group; the parent decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        print(json.dumps({"protocol": PROTOCOL}), file=answers, flush=True)
        from hpml_bench.gate.workload import Workload  # heavy: not before the greeting

        workload = Workload()
        for line in sys.stdin:
            print(json.dumps(_answer(workload, **json.loads(line))), file=answers, flush=True)


def _answer(workload: object, do: str, **arguments: Any) -> dict[str, Any]:
    """Return the result of a request `{"do": NAME, ...arguments}`, or the error in words."""
    try:
        return {"result": getattr(workload, do)(**arguments)}
    except (UserError, Unsupported) as error:
        return {"error": str(error)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "bug": True}


if __name__ == "__main__":
    main()
