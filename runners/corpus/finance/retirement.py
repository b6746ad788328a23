"""Accumulation, withdrawal, required distributions and Social Security.

Sources: IRS Publication 590-B, Appendix B, Table III (Uniform Lifetime, from 2022); SSA Handbook and 20 CFR 404.409-404.313; Bengen (1994) for the 4 % rule.
"""

from __future__ import annotations

from runners.corpus.finance import limits

_PERIODS = (
    "27.4 26.5 25.5 24.6 23.7 22.9 22.0 21.1 20.2 19.4 18.5 17.7 16.8 16.0 15.2 14.4 13.7 12.9 12.2 11.5 10.8 10.1 9.5 8.9 8.4 "
    "7.8 7.3 6.8 6.4 6.0 5.6 5.2 4.9 4.6 4.3 4.1 3.9 3.7 3.5 3.4 3.3 3.1 3.0 2.9 2.8 2.7 2.5 2.3 2.0"
)
#: Distribution period in years by age, 72 to 120 and over.
UNIFORM_LIFETIME = {age: float(period) for age, period in zip(range(72, 121), _PERIODS.split(), strict=True)}


def required_distribution(prior_year_end_balance: float, age: int) -> float:
    """RMD of an owner whose spouse is not both sole beneficiary and more than ten years younger: balance / distribution period."""
    return prior_year_end_balance / UNIFORM_LIFETIME[min(age, 120)]


def missed_distribution_tax(missed: float, corrected_in_time: bool) -> float:
    """Excise tax on a shortfall: 25 %, 10 % if corrected in the correction window (IRC 4974 as amended by SECURE 2.0, s. 302)."""
    return missed * (0.10 if corrected_in_time else 0.25)


def employer_match(salary: float, deferral_fraction: float, match_rate: float, match_up_to: float) -> float:
    """Match of ``match_rate`` on deferrals up to ``match_up_to`` of pay."""
    return salary * match_rate * min(deferral_fraction, match_up_to)


def primary_insurance_amount(indexed_monthly_earnings: float, year_62: int) -> float:
    """Monthly benefit at full retirement age: 90/32/15 % of AIME between the bend points, down to the next dime (42 USC 415)."""
    first, second = limits.BEND_POINTS[year_62]
    aime = indexed_monthly_earnings
    amount = 0.90 * min(aime, first) + 0.32 * max(0.0, min(aime, second) - first) + 0.15 * max(0.0, aime - second)
    return int(amount * 10 + 1e-6) / 10


def claiming_factor(months_from_full_age: int) -> float:
    """Share of the full benefit when claimed early (negative) or late, for births from 1943.

    Early: 5/9 % a month for 36 months, 5/12 % beyond; late: 2/3 % a month up to age 70 (20 CFR 404.410, 404.313).
    """
    if months_from_full_age >= 0:
        return 1 + months_from_full_age * (2 / 3) / 100
    early = -months_from_full_age
    return 1 - (min(early, 36) * (5 / 9) + max(0, early - 36) * (5 / 12)) / 100


def spousal_factor(months_early: int) -> float:
    """Spouse's share of the worker's full benefit: 50 %, less 25/36 % a month for 36 months and 5/12 % beyond (20 CFR 404.410)."""
    return 0.5 * (1 - (min(months_early, 36) * (25 / 36) + max(0, months_early - 36) * (5 / 12)) / 100)


def claiming_break_even_months(early_benefit: float, late_benefit: float, months_delayed: int) -> float:
    """Months after the later start until the total received is equal, without growth: early x delay / (late - early)."""
    return early_benefit * months_delayed / (late_benefit - early_benefit)


def earnings_test_withheld(earnings: float, year: int) -> float:
    """Benefits withheld for a year wholly before full retirement age: $1 of each $2 over the limit (20 CFR 404.415)."""
    return max(0.0, earnings - limits.EARNINGS_TEST[year]) / 2


def roth_against_traditional(pretax: float, rate_now: float, rate_later: float, growth: float, years: int) -> tuple[float, float]:
    """(Roth, traditional) spendable after ``years`` from the same ``pretax`` dollars."""
    factor = (1 + growth) ** years
    return pretax * (1 - rate_now) * factor, pretax * factor * (1 - rate_later)


def pro_rata_taxable(converted: float, basis: float, total_ira: float) -> float:
    """Taxable part of a Roth conversion when all IRAs hold ``basis`` of after-tax money (Form 8606; IRC 408(d)(2))."""
    return converted * (1 - basis / total_ira)


def saver_limit(year: int, age: int) -> float:
    """Employee's 401(k) limit with catch-up (IRC 402(g), 414(v)); ages 60 to 63 have the larger one from 2025."""
    limit = limits.DEFERRAL_401K[year]
    if 60 <= age <= 63 and year in limits.CATCH_UP_401K_60_TO_63:
        return limit + limits.CATCH_UP_401K_60_TO_63[year]
    return limit + (limits.CATCH_UP_401K[year] if age >= 50 else 0)
