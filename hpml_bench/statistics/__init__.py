"""How sure one can be: intervals, paired tests, ranks, fronts and plans over seeds.

Seeds are paired: the same seed gives every method the same data order, so methods are compared by their differences
within a seed. Values travel as `{method: {seed: value}}` and may lack seeds; a pair is compared on those it shares.
docs/methodology.md explains each number with its source.
"""

from hpml_bench.statistics.intervals import ALPHA, BCA_FROM, Interval, binomial_interval, mean_interval
from hpml_bench.statistics.paired import holm, paired_sd, paired_t, sign_flip, sign_flip_floor
from hpml_bench.statistics.pairs import Better, Comparison, Values, adjust, compare_pairs, rank_intervals
from hpml_bench.statistics.pareto import front_probabilities, pareto_efficient
from hpml_bench.statistics.planning import POWER, detectable_difference, paired_t_power, sd_upper_bound, seeds_needed
from hpml_bench.statistics.rows import crossed_interval, mcnemar

__all__ = [
    "ALPHA",
    "BCA_FROM",
    "POWER",
    "Better",
    "Comparison",
    "Interval",
    "Values",
    "adjust",
    "binomial_interval",
    "compare_pairs",
    "crossed_interval",
    "detectable_difference",
    "front_probabilities",
    "holm",
    "mcnemar",
    "mean_interval",
    "paired_sd",
    "paired_t",
    "paired_t_power",
    "pareto_efficient",
    "rank_intervals",
    "sd_upper_bound",
    "seeds_needed",
    "sign_flip",
    "sign_flip_floor",
]
