"""Weights & Biases: each run's history in one group, and one comparison run with the report's own tables.

wandb runs in a helper process of its own (`python -m hpml_bench.tracking.wandb`). It may be slow, hang or die: the
helper is ended, one sentence says so, and nothing else notices. The helper gets a short list of environment variables,
so that other keys and tokens can't reach wandb; and since each attempt has its own helper, an online one that failed
doesn't spoil the offline one after it.
"""

from hpml_bench.tracking.wandb.follow import follow
from hpml_bench.tracking.wandb.mode import Mode, choose_mode
from hpml_bench.tracking.wandb.publish import publish, publish_results

__all__ = ["Mode", "choose_mode", "follow", "publish", "publish_results"]
