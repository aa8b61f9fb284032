"""By hand: the plan is written, and any scheduler may call `hpml-bench work` for each unit
(docs/clusters.md).
"""

import shlex
from collections.abc import Sequence

from hpml_bench.plugins.engine import Engine, EngineJob, JobBatch
from hpml_bench.records.jobs import JobPlan


class Manual(Engine):
    """No engine: another scheduler starts the jobs, and alone knows their states."""

    title = "any scheduler"
    starts = False

    def script(self, batch: JobBatch) -> str:
        words = [self.command(batch, unit) for unit in batch.units or (-1,)]
        return "".join(
            f"{shlex.join(['hpml-bench', *own[own.index('hpml_bench') + 1 :]])}\n" for own in words
        )

    def submit(self, batch: JobBatch) -> str:
        return ""

    def live(self, plan: JobPlan) -> tuple[EngineJob, ...]:
        return ()

    def stop(self, plan: JobPlan, names: Sequence[str] = ()) -> int:
        return 0
