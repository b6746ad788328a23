"""From counts to a verdict that says no more than the sample shows. Pure functions.

A rate is held against its bar by the 95 % Wilson score interval (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953):

- passed: the whole interval lies above the bar
- failed: the rate itself does not lie above the bar
- not shown: the rate lies above the bar, the interval does not; more cases could decide it

Of a group so small that even all cases right could not lift the interval above the bar (8 cases for 70 %), only the rate is held against the
bar, and the verdict says so. All bars must hold at once, so no correction for their number is needed (an intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Literal

from runners.fields import Strict

Z = NormalDist().inv_cdf(0.975)
Outcome = Literal["passed", "failed", "not shown"]


class Rate(Strict):
    """Cases passed of cases asked, the 95 % interval, and how it compares to a bar."""

    passed: int
    cases: int
    rate: float
    low: float
    high: float
    bar: float
    outcome: Outcome
    too_few: bool = False
    cases_that_would: int | None = None
    passed_that_would: int | None = None

    @property
    def sentence(self) -> str:
        """One line for people."""
        text = f"{self.passed} of {self.cases} ({self.rate:.1%}), 95 % interval {self.low:.1%} to {self.high:.1%}, bar {self.bar:.0%}: {self.outcome}"
        if self.too_few:
            return f"{text} by the rate alone; {self.cases_that_would} cases, all right, are the fewest that could show it"
        if self.outcome == "not shown":
            more = f"{self.cases_that_would} cases at this rate would show it" if self.cases_that_would else "no number of cases at this rate would show it"
            return f"{text}; {more}, or {self.passed_that_would} of {self.cases}"
        return text


class Mean(Strict):
    """A mean with its 95 % interval (Student's t), against an upper bar."""

    mean: float
    low: float
    high: float
    samples: int
    bar: float
    outcome: Outcome

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"mean {self.mean:,.0f} ms of {self.samples}, 95 % interval {self.low:,.0f} to {self.high:,.0f} ms, bar {self.bar:,.0f} ms: {self.outcome}"


class Comparison(Strict):
    """Two runs over the same cases: how many changed each way, and the exact McNemar p-value."""

    cases: int
    both: int
    only_this: int
    only_other: int
    neither: int
    p_value: float

    @property
    def sentence(self) -> str:
        """One line for people."""
        shown = "a real difference" if self.p_value < 0.05 else "no difference shown"
        return f"{self.only_this} gained, {self.only_other} lost of {self.cases} common cases; exact McNemar p = {self.p_value:.3g}: {shown}"


def wilson(passed: int, cases: int, z: float = Z) -> tuple[float, float]:
    """The Wilson score interval of a rate; (0, 1) for no cases."""
    if cases == 0:
        return 0.0, 1.0
    rate, square = passed / cases, z * z / cases
    middle = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / cases + square / (4 * cases)) / (1 + square)
    return (0.0 if passed == 0 else middle - half), (1.0 if passed == cases else middle + half)


def judge_rate(passed: int, cases: int, bar: float) -> Rate:
    """Hold a rate against a bar."""
    low, high = wilson(passed, cases)
    rate = passed / cases if cases else 0.0
    fewest = fewest_cases(bar)
    too_few = cases < fewest
    if rate <= bar:
        outcome: Outcome = "failed"
    elif too_few or low > bar:
        outcome = "passed"
    else:
        outcome = "not shown"
    would = passed_that_would(cases, bar)
    return Rate(
        passed=passed,
        cases=cases,
        rate=rate,
        low=low,
        high=high,
        bar=bar,
        outcome=outcome,
        too_few=too_few and outcome == "passed",
        cases_that_would=fewest if too_few else cases_that_would(rate, bar) if outcome == "not shown" else None,
        passed_that_would=would if outcome != "passed" else None,
    )


def fewest_cases(bar: float) -> int:
    """The smallest sample that can show a rate above the bar: all right, interval above it. n > z² bar / (1 - bar)."""
    return 10**9 if bar >= 1 else math.floor(Z * Z * bar / (1 - bar)) + 1


def cases_that_would(rate: float, bar: float, most: int = 10_000_000) -> int | None:
    """How many cases at this rate put the interval above the bar; None when the rate itself does not lie above it."""
    if rate <= bar:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if wilson(math.floor(rate * middle), middle)[0] > bar:
            high = middle
        else:
            low = middle + 1
    return low if wilson(math.floor(rate * low), low)[0] > bar else None


def passed_that_would(cases: int, bar: float) -> int | None:
    """How many of these cases must pass to put the interval above the bar; None when not even all would."""
    return next((passed for passed in range(cases + 1) if wilson(passed, cases)[0] > bar), None)


def judge_mean(values: Sequence[float], bar: float) -> Mean | None:
    """Hold a mean against an upper bar; None without values."""
    if not values:
        return None
    mean, count = fmean(values), len(values)
    half = student_t(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else math.inf
    outcome: Outcome = "failed" if mean >= bar else "passed" if mean + half < bar else "not shown"
    finite = half if math.isfinite(half) else 0.0
    if not math.isfinite(half) and outcome != "failed":
        outcome = "not shown"
    return Mean(mean=mean, low=max(0.0, mean - finite), high=mean + finite, samples=count, bar=bar, outcome=outcome)


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by Cornish and Fisher's expansion (Abramowitz & Stegun 26.7.5; within 2 % from 2 degrees, 0.1 % from 5)."""
    if freedom < 3:
        return {1: 12.706, 2: 4.303}.get(freedom, math.inf)
    z, n = Z, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / n**power for power, term in enumerate(terms, 1))


def compare(this: dict[str, bool], other: dict[str, bool]) -> Comparison:
    """Exact (binomial, two-sided) McNemar test over the cases both runs have (McNemar 1947, https://doi.org/10.1007/BF02295996)."""
    common = sorted(this.keys() & other.keys())
    gained = sum(this[case] and not other[case] for case in common)
    lost = sum(other[case] and not this[case] for case in common)
    both = sum(this[case] and other[case] for case in common)
    changed, fewer = gained + lost, min(gained, lost)
    tail = math.fsum(math.comb(changed, k) / 2**changed for k in range(fewer + 1)) if changed else 1.0
    neither = len(common) - both - changed
    return Comparison(cases=len(common), both=both, only_this=gained, only_other=lost, neither=neither, p_value=min(1.0, 2 * tail))


def net_loss(found: Comparison) -> tuple[float, float]:
    """95 % interval of the share of cases that the first run loses against the other, less those it gains.

    Wald's, with half a case more in each of the four cells (Agresti and Min 2005, https://doi.org/10.1002/sim.1781): no changes in a few cases show little.
    """
    cases, changed, net = found.cases + 2, found.only_this + found.only_other + 1, found.only_other - found.only_this
    half = Z * math.sqrt(changed - net * net / cases) / cases
    return max(-1.0, net / cases - half), min(1.0, net / cases + half)


def percentile(values: Sequence[float], fraction: float) -> float | None:
    """The value at a fraction of the sorted sample, linearly between neighbours; None for none."""
    if not values:
        return None
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
