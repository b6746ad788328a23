"""Decisions of a household about cash, insurance, education, estates and plans: several computations in a row, and a choice at the end."""

from __future__ import annotations

import math

from runners.corpus.finance import education, insurance, lending, limits, money
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def cash_after_both_taxes(amount: float, savings: float, bill: float, federal: float, state: float) -> Figures:
    kept_savings, kept_bill = savings * (1 - federal - state), bill * (1 - federal)
    return locals() | {
        "bill_wins": kept_bill > kept_savings, "size": amount * abs(kept_bill - kept_savings),
        "even": savings * (1 - federal - state) / (1 - federal), "spread": abs(kept_bill - kept_savings) * 100,
    }


def minimum_balance_cost(required: float, fee: float, checking: float, savings: float, kept: float) -> Figures:
    lost = (required - kept) * (savings - checking)
    return locals() | {
        "idle": required - kept, "spread": savings - checking, "fees": 12 * fee, "size": abs(12 * fee - lost), "hold": lost < 12 * fee,
        "implied": 12 * fee / (required - kept),
    }


def card_acceptance_cost(sales: float, ticket: float, share: float, per_item: float, margin: float) -> Figures:
    count = sales / ticket
    variable, fixed = sales * share, count * per_item
    return locals() | {
        "total": variable + fixed, "effective": (variable + fixed) / sales, "profit": sales * margin,
        "of_profit": (variable + fixed) / (sales * margin), "minimum": per_item / (margin - share),
        "discount_room": (variable + fixed) / sales * ticket,
    }


def high_deductible_plan(premium_ppo: float, premium_high: float, seed: float, bracket: float, put_in: float, low: float, high: float, share: float,
                         deductible_ppo: float, max_ppo: float, deductible_high: float, max_high: float) -> Figures:
    gap = 12 * (premium_ppo - premium_high)
    tax = put_in * (bracket + 0.0765)
    low_ppo, low_high = insurance.patient_cost(low, deductible_ppo, share, max_ppo), insurance.patient_cost(low, deductible_high, share, max_high)
    bad_ppo, bad_high = insurance.patient_cost(high, deductible_ppo, share, max_ppo), insurance.patient_cost(high, deductible_high, share, max_high)
    good = gap + seed + tax - (low_high - low_ppo)
    bad = gap + seed + tax - (bad_high - bad_ppo)
    return locals() | {
        "sure": gap + seed + tax, "size_good": abs(good), "good_ahead": good > 0, "size_bad": abs(bad), "bad_ahead": bad > 0,
        "both_years": good > 0 and bad > 0, "neither": good <= 0 and bad <= 0,
    }


def extended_warranty(price: float, chance: float, repair: float, years: int, fund: float) -> Figures:
    expected = chance * repair
    return locals() | {
        "loading": price - expected, "share": expected / price, "even": price / repair, "affordable": fund >= repair, "worth": expected >= price,
        "after": fund - repair, "short": max(0.0, repair - fund),
    }


def term_ladder(need: float, later: float, years: int, first: int, single: float, long_rung: float, short_rung: float) -> Figures:
    one, ladder = 12 * years * single, 12 * (years * long_rung + first * short_rung)
    return locals() | {
        "drop": need - later, "long_total": 12 * years * long_rung, "short_total": 12 * first * short_rung, "saved": one - ladder,
        "share": (one - ladder) / one, "early": long_rung + short_rung, "left": years - first,
    }


def care_cost_fund(cost: float, growth: float, years: int, stay: float, set_aside: float, rate: float, premium: float) -> Figures:
    future = cost * (1 + growth) ** years
    need = future * stay
    grown = set_aside * (1 + rate) ** years
    missing = max(0.0, need - grown)
    monthly = money.saving_needed(missing, rate / 12, years * 12, 0.0)
    return locals() | {
        "growth_factor": 1 + growth, "rate_factor": 1 + rate, "size": abs(monthly - premium), "insure": premium < monthly,
        "pool": money.annuity_future_value(premium, rate / 12, years * 12),
    }


def borrowing_against_salary(cost: float, growth: float, years: int, saved: float, earned: float, rate: float, salary: float) -> Figures:
    total = education.four_year_cost(cost, growth, 0, years)
    debt = max(0.0, total - saved - earned * years)
    payment = lending.monthly_payment(debt, rate, 120)
    capacity = 0.10 * salary / 12
    fits = money.annuity_present_value(capacity, rate / 12, 120)
    return locals() | {
        "worked": earned * years, "monthly": salary / 12, "share": payment / (salary / 12), "over": debt > fits, "size": abs(debt - fits),
        "debt_to_salary": debt / salary,
    }


def college_fund_tax(monthly: float, rate: float, years: int, drag: float, gain_tax: float, deduction: float) -> Figures:
    free = money.annuity_future_value(monthly, rate / 12, 12 * years)
    gross = money.annuity_future_value(monthly, (rate - drag) / 12, 12 * years)
    paid = monthly * 12 * years
    tax = (gross - paid) * gain_tax
    yearly = monthly * 12 * deduction
    return locals() | {
        "n": 12 * years, "after_drag": rate - drag, "gain": gross - paid, "net": gross - tax, "state": yearly * years, "ahead": free - gross + tax,
        "all": free - gross + tax + yearly * years, "unused": (free - paid) * 0.10,
    }


def estate_cash_shortfall(business: float, home: float, liquid: float, debts: float, costs: float, year: int) -> Figures:
    gross = business + home + liquid
    taxable = gross - debts - costs * gross
    due = max(0.0, taxable - limits.ESTATE_EXCLUSION[year]) * limits.ESTATE_RATE
    needed = debts + costs * gross + due
    return locals() | {
        "cost_dollars": costs * gross, "exclusion": limits.ESTATE_EXCLUSION[year], "gap": abs(needed - liquid), "short": needed > liquid,
        "liquid_share": liquid / gross, "excess": max(0.0, taxable - limits.ESTATE_EXCLUSION[year]),
    }


def gift_or_bequest(value: float, basis: float, growth: float, years: int, gain_tax: float) -> Figures:
    later = value * (1 + growth) ** years
    removed = later - value
    saved = limits.ESTATE_RATE * removed
    lost = (later - basis) * gain_tax
    return locals() | {
        "growth_factor": 1 + growth, "gain": later - basis, "size": abs(saved - lost), "give": saved > lost,
        "even": later - limits.ESTATE_RATE * removed / gain_tax,
    }


def windfall_plan(amount: float, tax: float, card: float, card_rate: float, essential: float, months: int, saved: float, growth: float) -> Figures:
    net = amount * (1 - tax)
    after_card = net - card
    fund = max(0.0, essential * months - saved)
    rest = after_card - fund
    return locals() | {
        "tax_dollars": amount * tax, "interest": card * card_rate, "target": essential * months, "growth_factor": 1 + growth,
        "later": rest * (1 + growth) ** 10,
    }


def savings_rate_years(income: float, rate: float, real: float, withdrawal: float, start: float) -> Figures:
    spending, saving = income * (1 - rate), income * rate
    target = spending / withdrawal
    years = math.log((target * real + saving) / (start * real + saving)) / math.log(1 + real)
    more = income * (rate + 0.05)
    target_more = (income - more) / withdrawal
    faster = math.log((target_more * real + more) / (start * real + more)) / math.log(1 + real)
    return locals() | {"sooner": years - faster}


def study_hours_by_weight(
    hours: float, weeks: int, heavy: float, light: float, scored_heavy: float, scored_light: float, goal: float, review: float
) -> Figures:
    lessons = hours * (1 - review)
    gap_heavy, gap_light = heavy * (goal - scored_heavy), light * (goal - scored_light)
    share = gap_heavy / (gap_heavy + gap_light)
    return locals() | {
        "review_hours": hours * review, "weekly": hours / weeks, "heavy_hours": lessons * share, "light_hours": lessons * (1 - share),
        "heavy_first": gap_heavy > gap_light, "gaps": gap_heavy + gap_light,
    }
