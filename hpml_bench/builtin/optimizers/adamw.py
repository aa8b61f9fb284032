"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.settings import Settings


class AdamW(Optimizer):
    """Torch's fused AdamW; `betas`, `eps` and `weight_decay` are settings."""

    title = "AdamW"
    shards = True

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        from hpml_bench.training.optimization import adamw

        return adamw(groups, settings)
