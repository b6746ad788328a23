"""Cost of college, credits and federal student loans.

Sources: IRC 25A for the credits, 529(c)(2)(B) for five-year gifts; 34 CFR 685.221 for income-based repayment; IRS Publication 970.
"""

from __future__ import annotations

from runners.corpus.finance import limits, money


def four_year_cost(cost_today: float, inflation: float, years_until: int, length: int = 4) -> float:
    """Sum of each year's cost, the first in ``years_until`` years, undiscounted."""
    return sum(money.future_value(cost_today, inflation, years_until + k) for k in range(length))


def monthly_saving(target: float, start: float, annual_rate: float, years: float) -> float:
    """End-of-month saving that reaches ``target`` at ``annual_rate`` / 12 a month."""
    return money.saving_needed(target, annual_rate / 12, round(years * 12), start)


def american_opportunity_credit(expenses: float) -> tuple[float, float]:
    """(credit, refundable part) below the phase-out: all of the first $2,000 and a quarter of the next $2,000; 40 % of it refundable."""
    credit = min(expenses, 2_000) + 0.25 * max(0.0, min(expenses, 4_000) - 2_000)
    return credit, 0.4 * credit


def lifetime_learning_credit(expenses: float) -> float:
    """20 % of up to $10,000 a return, below the phase-out; not refundable."""
    return 0.20 * min(expenses, 10_000)


def income_based_payment(agi: float, family: int, year: int, share: float = 0.10) -> float:
    """Monthly payment: ``share`` (10 % new borrowers from July 2014, else 15 %) of AGI over 150 % of the poverty guideline."""
    first, further = limits.POVERTY_GUIDELINE[year]
    return max(0.0, agi - 1.5 * (first + further * (family - 1))) * share / 12


def superfunding_limit(year: int, donors: int = 1) -> float:
    """529 gift that can be spread over five years without a taxable gift."""
    return 5 * limits.GIFT_EXCLUSION[year] * donors


def nonqualified_penalty(withdrawn: float, basis_fraction: float, tax_rate: float) -> tuple[float, float]:
    """(earnings withdrawn, tax with the 10 % addition) on a 529 distribution without qualified expenses."""
    earnings = withdrawn * (1 - basis_fraction)
    return earnings, earnings * (tax_rate + 0.10)


def deferred_interest(principal: float, annual_rate: float, months: int) -> float:
    """Simple interest that accrues on an unsubsidised loan before repayment."""
    return principal * annual_rate * months / 12


def rollover_to_roth(year: int, compensation: float, contributed: float, rolled_before: float = 0.0) -> float:
    """Most that can move from a 529 plan, open for 15 years, to the beneficiary's Roth IRA in ``year`` (IRC 529(c)(3)(E)).

    Within the year's IRA limit (under 50) and compensation, less IRA contributions made; $35,000 in a lifetime. No income phase-out applies.
    """
    room = min(limits.IRA[year], compensation) - contributed
    return max(0.0, min(room, limits.ROLLOVER_529_LIFETIME - rolled_before))
