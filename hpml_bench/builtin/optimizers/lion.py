"""Lion: steps by the sign of an interpolated momentum (Chen et al. 2023, arXiv:2302.06675)."""

from hpml_bench.plugins.optimizer import Groups, Optimizer, TorchOptimizer
from hpml_bench.suite.base import Frozen
from hpml_bench.suite.settings import Beta, Settings


class Lion(Optimizer):
    """Needs rates 3 to 10 times below AdamW's, and weight decay as many times above (section 5
    of the paper).
    """

    title = "Lion"
    shards = True

    class Options(Frozen):
        """The paper's betas, which differ from AdamW's."""

        betas: tuple[Beta, Beta] = (0.9, 0.99)
        """Weight of the momentum in a step, and the momentum's decay rate."""

    def make(self, groups: Groups, settings: Settings) -> TorchOptimizer:
        from hpml_bench.training.optimization import LionSteps

        return LionSteps(groups, betas=self.options.betas, weight_decay=settings.weight_decay)
