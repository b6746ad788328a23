"""Decisions about retirement and tax: several computations in a row, and a choice at the end."""

from __future__ import annotations

from runners.corpus.finance import limits, money, retirement, tax
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def early_retirement_bridge(portfolio: float, spending: float, benefit: float, years: int, real: float) -> Figures:
    growth = (1 + real) ** years
    drawn = money.annuity_future_value(spending, real, years)
    left = portfolio * growth - drawn
    gap = spending - benefit
    rate = gap / left
    return locals() | {
        "grown": portfolio * growth, "safe": rate <= 0.04, "first_rate": spending / portfolio, "needed": (gap / 0.04 + drawn) / growth,
        "size": abs(portfolio - (gap / 0.04 + drawn) / growth),
    }


def conversion_tax_cost(taxable: float, converted: float, status: str, year: int, later: float, growth: float, years: int) -> Figures:
    kind = limits.STATUSES[status]
    before, after = tax.income_tax(taxable, kind, year), tax.income_tax(taxable + converted, kind, year)
    cost = after - before
    factor = (1 + growth) ** years
    return locals() | {
        "together": taxable + converted, "average": cost / converted, "top": tax.marginal_rate(taxable + converted, kind, year),
        "grown": converted * factor, "later_tax": converted * factor * later, "convert": cost / converted < later, "paid_now": cost * factor,
        "size": abs(converted * factor * later - cost * factor), "growth_factor": 1 + growth,
    }


def retirement_gap(spending: float, benefit: float, inflation: float, years: int, rate: float, saved: float, monthly: float, withdrawal: float) -> Figures:
    need = (spending - benefit) * (1 + inflation) ** years
    target = need / withdrawal
    pot = money.future_value(saved, rate / 12, years * 12) + money.annuity_future_value(monthly, rate / 12, years * 12)
    extra = money.saving_needed(max(0.0, target - pot), rate / 12, years * 12, 0.0)
    return locals() | {
        "today": spending - benefit, "inflation_factor": 1 + inflation, "gap": abs(target - pot), "short": target > pot, "total": monthly + extra,
        "covered": pot / target,
    }


def pension_maximization(single: float, survivor: float, tax_rate: float, premium: float, rate: float, years: int) -> Figures:
    more = (single - survivor) * (1 - tax_rate)
    replaced = survivor * (1 - tax_rate)
    cover = money.annuity_present_value(replaced, rate / 12, years * 12)
    return locals() | {
        "given_up": single - survivor, "n": years * 12, "size": abs(more - premium), "buys": more > premium, "reduction": 1 - survivor / single,
        "affordable_per_hundred": more / cover * 100_000,
    }


def one_more_year(portfolio: float, saving: float, spending: float, growth: float, years: int) -> Figures:
    now = money.payment(portfolio, growth, years)
    pot = portfolio * (1 + growth) + saving
    then = money.payment(pot, growth, years - 1)
    return locals() | {
        "more": then - now, "raise_": then / now - 1, "growth_factor": 1 + growth, "fewer": years - 1, "enough_now": now >= spending,
        "enough_then": then >= spending, "gap_now": abs(now - spending), "gap_then": abs(then - spending),
    }


def deferral_take_home(salary: float, now: float, then: float, rate: float, cap: float, federal: float, state: float, years: int, growth: float) -> Figures:
    added = salary * (then - now)
    cost = added * (1 - federal - state)
    match_now, match_then = retirement.employer_match(salary, now, rate, cap), retirement.employer_match(salary, then, rate, cap)
    into = added + match_then - match_now
    return locals() | {
        "both": federal + state, "monthly": cost / 12, "ratio": into / cost, "later": money.annuity_future_value(into, growth, years),
        "full": then >= cap,
    }


def side_job_take_home(profit: float, wages: float, bracket: float, hours: float, year: int) -> Figures:
    se = tax.self_employment_tax(profit, year, wages)
    base = profit - se / 2
    qbi = 0.2 * base
    income = (base - qbi) * bracket
    net = profit - se - income
    return locals() | {
        "earnings": profit * 0.9235, "half": se / 2, "taxed": base - qbi, "share": net / profit, "hourly": net / hours,
        "gross_hourly": profit / hours, "quarter": (se + income) / 4,
    }


def second_earner_net(pay: float, bracket: float, state: float, care: float, commute: float, credit: float, match: float, hours: float) -> Figures:
    taxes = pay * (bracket + 0.0765 + state)
    costs = care + commute - credit
    net = pay - taxes - costs
    worth = net + pay * match
    return locals() | {
        "rate": bracket + 0.0765 + state, "share": net / pay, "hourly": net / hours, "match_dollars": pay * match, "positive": net > 0,
        "size": abs(net), "kept": pay - taxes,
    }


def loss_harvest_deferral(loss: float, gains: float, rate: float, ordinary: float, growth: float, years: int) -> Figures:
    against = min(loss, gains)
    deducted = min(3_000.0, loss - against)
    now = against * rate + deducted * ordinary
    later = (against + deducted) * rate
    grown = now * (1 + growth) ** years
    return locals() | {
        "carried": loss - against - deducted, "against_tax": against * rate, "deducted_tax": deducted * ordinary, "used": against + deducted,
        "growth_factor": 1 + growth, "size": grown - later, "at_death": grown, "any_carried": loss - against - deducted > 0.5,
    }


def rental_cash_and_tax(
    rent: float, vacancy: float, expenses: float, interest: float, principal: float, building: float, bracket: float, cash: float
) -> Figures:
    received = rent * 12 * (1 - vacancy)
    operating = received - expenses
    flow = operating - interest - principal
    depreciation = building / 27.5
    taxable = operating - interest - depreciation
    after = flow - taxable * bracket
    return locals() | {
        "size_taxable": abs(taxable), "profit": taxable > 0, "tax": abs(taxable * bracket), "yield_": after / cash,
        "with_principal": (after + principal) / cash, "yearly": rent * 12,
    }


def withholding_catch_up(gross: float, status: str, year: int, withheld: float, per_check: float, checks: int) -> Figures:
    kind = limits.STATUSES[status]
    taxable = tax.taxable_income(gross, kind, year)
    due = tax.income_tax(taxable, kind, year)
    coming = per_check * checks
    gap = due - withheld - coming
    needed = max(0.0, 0.9 * due - withheld - coming)
    return locals() | {
        "standard": limits.STANDARD_DEDUCTION[year][kind], "total": withheld + coming, "gap": abs(gap), "owing": gap > 0,
        "extra": max(0.0, gap) / checks, "ninety": 0.9 * due, "needed_check": needed / checks, "harbor": needed == 0,
    }
