"""US federal income, payroll and gains taxes."""

from __future__ import annotations

from runners.corpus.finance import limits, tax
from runners.corpus.problem_text import Figures, pct, usd, whole

# fmt: off
# The figures of a formula are read across.


def income_tax(gross: float, status: str, year: int) -> Figures:
    kind = limits.STATUSES[status]
    standard = limits.STANDARD_DEDUCTION[year][kind]
    taxable = tax.taxable_income(gross, kind, year)
    parts = tax.by_bracket(taxable, kind, year)
    due = tax.income_tax(taxable, kind, year)
    lines = "; ".join(f"{pct(rate)} × {whole(amount)} = {usd(amount * rate)}" for amount, rate in parts)
    return locals() | {"marginal_rate": parts[-1][1], "average_rate": due / gross}


def self_employment_tax(profit: float, wages: float, year: int) -> Figures:
    earnings, room = profit * 0.9235, max(0.0, limits.WAGE_BASE[year] - wages)
    covered, due = min(earnings, room), tax.self_employment_tax(profit, year, wages)
    return locals() | {"wage_base": limits.WAGE_BASE[year], "social_security": covered * 0.124, "medicare": earnings * 0.029, "half_tax": due / 2}


def stacked_gains(ordinary: float, gain: float, status: str, year: int) -> Figures:
    kind = limits.STATUSES[status]
    zero_top, fifteen_top = limits.GAIN_BRACKETS[year][kind]
    at_zero, at_fifteen, at_twenty = tax.gains_by_rate(ordinary, gain, kind, year)
    due = tax.gains_tax(ordinary, gain, kind, year)
    return locals() | {"due_over_gain": due / gain}


def net_investment_income_tax(magi: float, investment: float, status: str) -> Figures:
    kind = limits.STATUSES[status]
    threshold = limits.NIIT_THRESHOLD[kind]
    due = tax.net_investment_income_tax(investment, magi, kind)
    return locals() | {
        "magi_less_threshold": magi - threshold, "magi_above_threshold": magi > threshold, "lesser": min(investment, max(0, magi - threshold)),
    }


def fica_withholding(wages: float, year: int) -> Figures:
    base, due = limits.WAGE_BASE[year], tax.fica(wages, year)
    extra = tax.additional_medicare(wages, "single")
    return locals() | {
        "smaller_of_wages_and_base": min(wages, base), "social_security": 0.062 * min(wages, base), "medicare": 0.0145 * wages,
        "due_over_wages": due / wages,
    }


def capital_loss_carryover(gains: float, losses: float) -> Figures:
    _, deducted, carried = tax.after_loss_offset(gains, losses)
    needed = -(-carried // 3_000)
    return locals() | {"gains_less_losses": gains - losses}


def home_sale_exclusion(price: float, costs: float, bought: float, improved: float, exclusion: float) -> Figures:
    basis = bought + improved
    gain, taxable = tax.home_sale_gain(price, costs, basis, exclusion)
    return locals() | {"price_less_costs": price - costs, "exclusion_is_500000": exclusion == 500000}


def taxable_benefits(benefits: float, other: float, status: str) -> Figures:
    kind = limits.STATUSES[status]
    first, second = limits.BENEFIT_BASES[kind]
    combined, taxable = other + benefits / 2, tax.taxable_social_security(benefits, other, kind)
    return locals() | {
        "half_benefits": benefits / 2, "between": max(0, min(combined, second) - first),
        "lower_part": min(0.5 * max(0, min(combined, second) - first), benefits / 2), "above_second": max(0, combined - second),
        "upper_part": 0.85 * max(0, combined - second), "cap": 0.85 * benefits, "taxable_over_benefits": taxable / benefits,
    }


def itemize_or_not(mortgage: float, taxes: float, gifts: float, status: str, rate: float) -> Figures:
    kind = limits.STATUSES[status]
    allowed, standard = min(taxes, 10_000), limits.STANDARD_DEDUCTION[2024][kind]
    itemized = mortgage + allowed + gifts
    better = max(itemized, standard)
    return locals() | {
        "itemized_above_standard": itemized > standard, "advantage": abs(itemized - standard), "tax_saved": abs(itemized - standard) * rate,
    }


def estimated_tax_safe_harbor(last: float, this: float, agi: float) -> Figures:
    factor = 1.1 if agi > 150_000 else 1.0
    needed = tax.underpayment_safe_harbor(last, this, agi)
    return locals() | {"ninety_percent": 0.9 * this, "factor_times_last": factor * last, "each_quarter": needed / 4}


def charitable_bunching(gift: float, other: float, status: str) -> Figures:
    kind, year = limits.STATUSES[status], 2024
    standard = limits.STANDARD_DEDUCTION[year][kind]
    evenly, bunched = tax.charitable_bunching(gift, other, kind, year)
    return locals() | {
        "other_plus_gift": other + gift, "two_gifts": 2 * gift, "bunched_year": max(standard, other + 2 * gift), "other_year": max(standard, other),
        "bunched_less_evenly": bunched - evenly,
    }


def business_income_deduction(income: float, taxable: float, gains: float) -> Figures:
    by_income, by_taxable = 0.2 * income, 0.2 * (taxable - gains)
    deduction = tax.qualified_business_deduction(income, taxable, gains)
    return locals() | {"income_binds": by_income <= by_taxable}


def child_credit_phase_out(children: int, magi: float, status: str, year: int) -> Figures:
    kind, each = limits.STATUSES[status], limits.CHILD_CREDIT[year]
    threshold = limits.CHILD_CREDIT_THRESHOLD[kind]
    credit = tax.child_tax_credit(children, magi, kind, each)
    steps = -(-max(0, magi - threshold) // 1000)
    return locals() | {"children_times_each": children * each, "over_threshold": max(0, magi - threshold), "fee_cut": 50 * steps}


def installment_sale(price: float, basis: float, down: float, yearly: float) -> Figures:
    ratio = (price - basis) / price
    return locals() | {
        "price_less_basis": price - basis, "installment_gain": tax.installment_gain(price, basis, down),
        "later_gain": tax.installment_gain(price, basis, yearly),
    }


def business_mileage(miles: float, year: int, rate: float) -> Figures:
    deduction = miles * limits.MILEAGE[year]
    return locals() | {"per_hundred_miles": 100 * limits.MILEAGE[year], "mileage": limits.MILEAGE[year], "deduction_times_rate": deduction * rate}
