"""The statistics against scipy and published values, and the words the verdict chooses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runners.evaluation import statistics


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_is_scipys(cases: int, share: float) -> None:
    passed = round(share * cases)
    expected = stats.binomtest(passed, cases).proportion_ci(method="wilson")
    assert statistics.wilson(passed, cases) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_by_hand() -> None:
    low, high = statistics.wilson(81, 100)
    assert (round(low, 4), round(high, 4)) == (0.7222, 0.8749)
    assert statistics.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 30, 99, 1000])
def test_students_t_is_scipys(freedom: int) -> None:
    assert statistics.student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.02 if freedom < 5 else 0.001)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    names = range(gained + lost + 3)
    this = {str(n): n < gained for n in names}
    other = {str(n): gained <= n < gained + lost for n in names}
    found = statistics.compare(this, other)
    assert (found.only_this, found.only_other, found.both, found.neither) == (gained, lost, 0, 3)
    assert found.p_value == pytest.approx(stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
def test_the_interval_of_a_net_loss_is_walds_over_the_table_with_half_a_case_more_a_cell(gained: int, lost: int, same: int) -> None:
    """By hand: each case is +1 (lost), -1 (gained) or 0; the mean and its standard error over the cases, half a case more in each cell."""
    found = statistics.Comparison(cases=gained + lost + same, both=same, only_this=gained, only_other=lost, neither=0, p_value=1.0)
    low, high = statistics.net_loss(found)
    weights = {1: lost + 0.5, -1: gained + 0.5, 0: same + 1.0}
    count = sum(weights.values())
    mean = sum(value * weight for value, weight in weights.items()) / count
    variance = sum((value - mean) ** 2 * weight for value, weight in weights.items()) / count
    half = 1.959964 * (variance / count) ** 0.5
    assert low == pytest.approx(max(-1.0, mean - half), abs=1e-6) and high == pytest.approx(min(1.0, mean + half), abs=1e-6)


def test_a_net_loss_by_hand() -> None:
    """Nothing changed in 100 cases: z / 102. In no cases at all nothing is known."""
    table = {"both": 100, "only_this": 0, "only_other": 0, "neither": 0, "p_value": 1.0}
    assert statistics.net_loss(statistics.Comparison(cases=100, **table))[1] == pytest.approx(0.0192, abs=1e-4)
    assert statistics.net_loss(statistics.Comparison(cases=0, **table | {"both": 0})) == pytest.approx((-0.98, 0.98), abs=1e-2)


def test_81_of_100_does_not_show_more_than_80_percent() -> None:
    rate = statistics.judge_rate(81, 100, 0.8)
    assert rate.outcome == "not shown" and rate.passed_that_would == 88 and rate.cases_that_would == 6256
    assert "not shown; 6256 cases at this rate would show it, or 88 of 100" in rate.sentence
    assert statistics.judge_rate(88, 100, 0.8).outcome == "passed"
    assert statistics.judge_rate(87, 100, 0.8).outcome == "not shown"
    assert statistics.judge_rate(80, 100, 0.8).outcome == "failed"


def test_a_group_too_small_to_show_anything_is_held_by_its_rate_and_says_so() -> None:
    assert statistics.fewest_cases(0.7) == 9 and statistics.fewest_cases(0.8) == 16
    small = statistics.judge_rate(5, 5, 0.7)
    assert small.outcome == "passed" and small.too_few and "9 cases" in small.sentence
    assert statistics.judge_rate(3, 5, 0.7).outcome == "failed"
    assert not statistics.judge_rate(9, 9, 0.7).too_few
    assert statistics.judge_rate(0, 0, 0.7).outcome == "failed"


@given(st.integers(1, 400), st.integers(0, 400), st.sampled_from([0.5, 0.7, 0.8, 0.95]))
def test_how_many_would_is_the_fewest_that_do(cases: int, passed: int, bar: float) -> None:
    passed = min(passed, cases)
    rate = statistics.judge_rate(passed, cases, bar)
    assert rate.low <= rate.rate <= rate.high
    if rate.outcome == "not shown":
        assert rate.cases_that_would is not None and rate.cases_that_would > 0
        would = rate.cases_that_would
        assert statistics.wilson(math.floor(rate.rate * would), would)[0] > bar
        if rate.passed_that_would is not None:
            assert rate.passed < rate.passed_that_would
            assert statistics.wilson(rate.passed_that_would, cases)[0] > bar >= statistics.wilson(rate.passed_that_would - 1, cases)[0]


def test_a_mean_is_held_with_its_interval() -> None:
    assert statistics.judge_mean([], 2000) is None
    clear = statistics.judge_mean([900.0, 1000.0, 1100.0] * 10, 2000)
    assert clear and clear.outcome == "passed" and clear.low < 1000 < clear.high
    close = statistics.judge_mean([500.0, 3400.0] * 5, 2000)
    assert close and close.mean == 1950 and close.outcome == "not shown"
    slow = statistics.judge_mean([2000.0] * 5, 2000)
    assert slow and slow.outcome == "failed"
    single = statistics.judge_mean([10.0], 2000)
    assert single and single.outcome == "not shown"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], fraction: float) -> None:
    import numpy as np

    assert statistics.percentile(values, fraction) == pytest.approx(float(np.quantile(values, fraction)), rel=1e-9, abs=1e-9)
