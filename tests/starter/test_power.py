"""What a page can show by its test rows, before anything ran."""

import numpy as np
import pytest

from hpml_bench import statistics
from hpml_bench.starter.power import DIFFER, first_level, least_difference, rows_needed


def test_the_level_is_that_of_a_pages_first_look() -> None:
    """Two thirds of 5 % for the look, 80 % of them for differences, 60 % of those for the score,
    an equal part for each pair; of two methods also the 15 % of equivalences.
    """
    assert first_level(3) == pytest.approx(0.05 * 2 / 3 * 0.8 * 0.6 / 3)
    assert first_level(6) == pytest.approx(0.05 * 2 / 3 * 0.8 * 0.6 / 15)
    assert first_level(2) == pytest.approx(0.05 * 2 / 3 * 0.95 * 0.6)


@pytest.mark.parametrize(("rows", "methods"), [(144, 3), (144, 6), (500, 2), (60, 2)])
def test_the_least_difference_is_found_in_four_cases_of_five(rows: int, methods: int) -> None:
    """Of simulated rows by the test over rows at the page's level; half of that difference in less
    than half of the cases.
    """
    least = least_difference(rows, methods)
    assert least is not None
    found = [_found(rows, methods, difference) for difference in (least, least / 2)]
    assert found[0] == pytest.approx(0.8, abs=0.05)
    assert found[1] < 0.5


def _found(rows: int, methods: int, difference: float) -> float:
    random = np.random.default_rng(rows + methods)
    differ = max(DIFFER, difference)
    shares = [(differ - difference) / 2, 1 - differ, (differ + difference) / 2]
    level, count = first_level(methods), 1000
    tables = random.choice([-1.0, 0.0, 1.0], size=(count, rows), p=shares)
    evidence = [statistics.OverRows.of(table) for table in tables]
    return sum(one is not None and one.p() < level for one in evidence) / count


def test_few_rows_find_nothing_and_many_find_little() -> None:
    """More rows find smaller differences, fewer methods too; the rows that a difference needs are
    the fewest that find it.
    """
    assert least_difference(2, 2) is None
    assert least_difference(3, 3) is None
    leasts = [least_difference(rows, 3) or 1 for rows in (20, 60, 144, 500, 2000)]
    assert leasts == sorted(leasts, reverse=True)
    assert (least_difference(144, 2) or 1) < (least_difference(144, 6) or 0)
    needed = rows_needed(0.05, 3)
    assert (least_difference(needed, 3) or 1) <= 0.05 < (least_difference(needed - 10, 3) or 0)
