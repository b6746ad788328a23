"""Cover needed and what a claim pays.

Sources: "Principles of Risk Management and Insurance" (Rejda & McNamara), ch. 11, 15-16; healthcare.gov glossary for cost sharing;
ISO HO-3 loss settlement clause.
"""

from __future__ import annotations

from runners.corpus.finance import money


def life_needs(income_replaced: float, years: int, real_rate: float, debts: float = 0.0, goals: float = 0.0, assets: float = 0.0) -> float:
    """Needs approach: value of income from now (paid at year ends) plus debts and goals, less assets and cover in place."""
    return money.annuity_present_value(income_replaced, real_rate, years) + debts + goals - assets


def coinsurance_payment(loss: float, carried: float, value: float, required: float = 0.8, deductible: float = 0.0) -> float:
    """Property claim under a coinsurance clause: loss x carried/required, at most the loss and the limit, less the deductible."""
    share = min(1.0, carried / (required * value))
    return max(0.0, min(loss * share, carried) - deductible)


def patient_cost(bill: float, deductible: float, coinsurance: float, maximum: float) -> float:
    """In-network cost to the patient: deductible, then ``coinsurance`` of the rest, at most the out-of-pocket maximum."""
    return min(maximum, min(bill, deductible) + coinsurance * max(0.0, bill - deductible))


def actual_cash_value(replacement_cost: float, age_years: float, life_years: float) -> float:
    """Replacement cost less straight-line depreciation."""
    return replacement_cost * max(0.0, 1 - age_years / life_years)


def disability_gap(monthly_income: float, target: float, group_fraction: float, group_cap: float) -> float:
    """Monthly cover missing after group cover of ``group_fraction`` of pay up to ``group_cap``."""
    return max(0.0, monthly_income * target - min(monthly_income * group_fraction, group_cap))


def deductible_break_even_years(low_deductible: float, high_deductible: float, yearly_saving: float) -> float:
    """Claim-free years after which the higher deductible has paid for one claim."""
    return (high_deductible - low_deductible) / yearly_saving


def combined_ratio(losses: float, expenses: float, premiums: float) -> float:
    """An insurer's losses and expenses per premium earned; over 1: an underwriting loss."""
    return (losses + expenses) / premiums
