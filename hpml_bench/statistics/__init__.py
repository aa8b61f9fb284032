"""Statistics over seeds and rows: intervals, paired tests, ranks, fronts, plans.

Seeds are paired: the same seed gives every method the same data order, so methods are compared by
their differences within a seed. Values travel as `{method: {seed: value}}` and may lack seeds; a
pair is compared on those it shares. docs/methodology.md explains each number with its source.
Imports nothing of the package but itself.
"""

from hpml_bench.statistics.earlier import MOST_LENT, lend
from hpml_bench.statistics.evidence import (
    LEAST_SEEDS,
    POWER,
    Lent,
    OverSeeds,
    OverSeedsAndRows,
    cautious,
    detectable,
    effective_number,
    sd_upper_bound,
    seeds_to_find,
    seeds_to_show,
)
from hpml_bench.statistics.intervals import (
    ALPHA,
    Interval,
    clopper_pearson,
    holm,
    mean_interval,
    share_interval,
)
from hpml_bench.statistics.over_rows import (
    LEAST_ROWS,
    OverRows,
    compare_rows,
    compare_scores,
    compare_shares,
    crossed_evidence,
    crossed_interval,
    group_scores,
    mcnemar,
    mean_of_rows,
)
from hpml_bench.statistics.over_suites import OverSuites, RankPair, least_suites, over_suites
from hpml_bench.statistics.racing import Round, race
from hpml_bench.statistics.verdicts import (
    FOR_GUESSING,
    Better,
    Comparison,
    Membership,
    Values,
    compare_costs,
    compare_pairs,
    decide,
    decide_family,
    decide_in_one_step,
    last_level,
    levels,
    looks_skewed,
    pareto_membership,
    rank_intervals,
    spent_at,
)
