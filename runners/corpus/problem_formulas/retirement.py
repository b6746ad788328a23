"""Saving for retirement, required distributions, Social Security, and what a portfolio can pay."""

from __future__ import annotations

from runners.corpus.finance import limits, money, retirement, tax
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def rmd(balance: float, age: int, year: int) -> Figures:
    period = retirement.UNIFORM_LIFETIME[age]
    due = retirement.required_distribution(balance, age)
    return locals() | {"due_over_balance": due / balance, "prior_year": year - 1}


def retirement_projection(start: float, yearly: float, rate: float, years: int) -> Figures:
    grown, added = money.future_value(start, rate, years), money.annuity_future_value(yearly, rate, years)
    total = grown + added
    return locals() | {"rate_factor": 1 + rate, "paid_in": start + yearly * years, "growth_dollars": total - start - yearly * years}


def employer_match(salary: float, deferral: float, rate: float, cap: float) -> Figures:
    got, most = retirement.employer_match(salary, deferral, rate, cap), retirement.employer_match(salary, 1, rate, cap)
    missed = most - got
    return locals() | {
        "salary_times_deferral": salary * deferral, "counted_rate": min(deferral, cap), "counted": salary * min(deferral, cap),
        "missed_above_0_5pct": missed > 0.005,
    }


def claiming_age(benefit: float, months: int) -> Figures:
    factor = retirement.claiming_factor(months)
    years, rest = divmod(abs(months), 12)
    early = -months
    return locals() | {
        "smaller_of_36_and_early": min(36, early), "first_reduction": min(36, early) * 5 / 900, "early_less_36": early - 36,
        "further_reduction": (early - 36) * 5 / 1200, "early_above_36": early > 36, "reduction": 1 - factor, "credit": factor - 1,
        "claimed_early": months < 0, "benefit_times_factor": benefit * factor,
    }


def claiming_break_even(early: float, late: float, delay: int) -> Figures:
    months = retirement.claiming_break_even_months(early, late, delay * 12)
    return locals() | {
        "delay_times_12": delay * 12, "early_times_delay_times_12": early * delay * 12, "late_less_early": late - early,
        "months_over_12": months / 12,
    }


def nest_egg(spending: float, other: float, rate: float) -> Figures:
    gap = spending - other
    return locals() | {"gap_over_rate": gap / rate, "multiple": 1 / rate, "gap_over_rate_less_0_5pct": gap / (rate - 0.005)}


def money_lasts(balance: float, rate: float, withdrawal: float) -> Figures:
    if withdrawal <= balance * rate:
        raise ValueError("the money never runs out")
    years = money.periods_to_repay(balance, rate, withdrawal)
    return locals() | {
        "balance_times_rate": balance * rate, "log_argument": 1 - balance * rate / withdrawal, "withdrawal_over_balance": withdrawal / balance,
    }


def roth_or_traditional(pretax: float, now: float, later: float, growth: float, years: int) -> Figures:
    roth, traditional = retirement.roth_against_traditional(pretax, now, later, growth, years)
    return locals() | {
        "growth_factor": 1 + growth, "compound_factor": (1 + growth) ** years, "roth_above_traditional": roth > traditional,
        "size_of_gap": abs(roth - traditional),
    }


def pro_rata_conversion(converted: float, basis: float, total: float) -> Figures:
    taxable = retirement.pro_rata_taxable(converted, basis, total)
    return locals() | {"basis_over_total": basis / total, "converted_less_taxable": converted - taxable, "basis_left": basis - converted + taxable}


def earnings_test(earnings: float, benefit: float, year: int) -> Figures:
    limit, held = limits.EARNINGS_TEST[year], retirement.earnings_test_withheld(earnings, year)
    held = min(held, benefit * 12)
    months = -(-held // benefit)
    return locals() | {"earnings_less_limit": earnings - limit, "benefit_times_12": benefit * 12, "benefit_times_12_less_held": benefit * 12 - held}


def benefit_formula(aime: float, year: int) -> Figures:
    first, second = limits.BEND_POINTS[year]
    pia = retirement.primary_insurance_amount(aime, year)
    parts = [0.9 * min(aime, first), 0.32 * max(0, min(aime, second) - first), 0.15 * max(0, aime - second)]
    return locals() | {
        "smaller_of_aime_and_first": min(aime, first), "first_part": parts[0], "second_band": max(0, min(aime, second) - first),
        "second_part": parts[1], "third_band": max(0, aime - second), "third_part": parts[2], "pia_over_aime": pia / aime,
    }


def roth_phase_out(magi: float, status: str, year: int, age: int) -> Figures:
    kind: limits.Status = "joint" if status == "joint" else "single"
    low, high = limits.ROTH_IRA_PHASE_OUT[year][kind]
    full = limits.IRA[year] + (limits.IRA_CATCH_UP[year] if age >= 50 else 0)
    allowed = tax.roth_ira_limit(magi, kind, year, age)
    raw = full * (high - magi) / (high - low)
    return locals() | {"high_less_low": high - low, "share_left": (high - magi) / (high - low)}
