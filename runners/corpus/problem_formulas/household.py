"""Banking, insurance, education, estates, plans and the basics of a household's money."""

from __future__ import annotations

from runners.corpus.finance import education, insurance, limits, money, tax
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def apy_comparison(deposit: float, first: float, times: int, second: float) -> Figures:
    apy = money.effective_rate(first, times)
    return locals() | {
        "deposit_times_apy": deposit * apy, "deposit_times_second": deposit * second, "apy_above_second": apy > second,
        "interest_gap": deposit * abs(apy - second),
    }


def deposit_insurance(joint: float, single_a: float, single_b: float) -> Figures:
    share = joint / 2
    joint_out = 2 * max(0.0, share - limits.FDIC_LIMIT)
    out_a, out_b = max(0.0, single_a - limits.FDIC_LIMIT), max(0.0, single_b - limits.FDIC_LIMIT)
    total = joint + single_a + single_b
    out = joint_out + out_a + out_b
    return locals() | {"total_less_out": total - out}


def breaking_a_cd(deposit: float, rate: float, months: int, penalty_days: int, new: float) -> Figures:
    years = months / 12
    keep, cost = money.future_value(deposit, rate, years), deposit * rate * penalty_days / 365
    switch = money.future_value(deposit - cost, new, years)
    return locals() | {
        "rate_factor": 1 + rate, "new_factor": 1 + new, "switch_above_keep": switch > keep, "size_of_switch_less_keep": abs(switch - keep),
    }


def overdraft_as_apr(advance: float, fee: float, days: int) -> Figures:
    rate = fee / advance * 365 / days
    return locals() | {"fee_over_advance": fee / advance, "card_interest": advance * 0.24 * days / 365}


def medical_cost_share(bill: float, deductible: float, share: float, maximum: float) -> Figures:
    cost = insurance.patient_cost(bill, deductible, share, maximum)
    uncapped = min(bill, deductible) + share * max(0, bill - deductible)
    return locals() | {
        "deductible_paid": min(bill, deductible), "coinsurance": share * max(0, bill - deductible), "uncapped_above_maximum": uncapped > maximum,
        "bill_less_cost": bill - cost,
    }


def coinsurance_penalty(loss: float, carried: float, value: float, required: float, deductible: float) -> Figures:
    paid = insurance.coinsurance_payment(loss, carried, value, required, deductible)
    ratio = min(1.0, carried / (required * value))
    return locals() | {
        "required_times_value": required * value, "loss_times_ratio": loss * ratio, "loss_less_paid": loss - paid, "penalized": ratio < 1,
    }


def life_insurance_need(income: float, years: int, rate: float, debts: float, goals: float, assets: float) -> Figures:
    value = money.annuity_present_value(income, rate, years)
    need = insurance.life_needs(income, years, rate, debts, goals, assets)
    return locals() | {"rate_factor": 1 + rate, "rounded_need": round(need, -4)}


def deductible_choice(low: float, low_premium: float, high: float, high_premium: float) -> Figures:
    saving = low_premium - high_premium
    years = insurance.deductible_break_even_years(low, high, saving)
    return locals() | {"high_less_low": high - low}


def disability_gap(salary: float, target: float, group: float, cap: float) -> Figures:
    monthly = salary / 12
    gap = insurance.disability_gap(monthly, target, group, cap)
    return locals() | {
        "monthly_times_target": monthly * target, "monthly_times_group": monthly * group, "group_pays": min(monthly * group, cap),
        "gap_times_12": gap * 12,
    }


def hsa_saving(amount: float, kind: str, age: int, bracket: float, year: int) -> Figures:
    limit = limits.HSA[year]["family" if kind == "family" else "self"] + (limits.HSA_CATCH_UP if age >= 55 else 0)
    allowed = min(amount, limit)
    return locals() | {
        "hsa_value": limits.HSA[year]['family' if kind == 'family' else 'self'], "age_at_least_55": age >= 55,
        "allowed_times_bracket": allowed * bracket, "allowed_times_7_65pct": allowed * 0.0765, "tax_saved": allowed * (bracket + 0.0765),
        "amount_less_limit": amount - limit, "limit_less_amount": limit - amount, "amount_above_limit": amount > limit,
    }


def college_saving(cost: float, growth: float, years: int, start: float, rate: float) -> Figures:
    total = education.four_year_cost(cost, growth, years)
    monthly = education.monthly_saving(total, start, rate, years)
    first = money.future_value(cost, growth, years)
    return locals() | {"growth_factor": 1 + growth, "month_count": 12 * years, "start_grown": start * (1 + rate / 12) ** (12 * years)}


def education_credits(expenses: float) -> Figures:
    aotc, refundable = education.american_opportunity_credit(expenses)
    lifetime = education.lifetime_learning_credit(expenses)
    return locals() | {
        "aotc_is_lifetime": aotc == lifetime, "aotc_above_lifetime": aotc > lifetime, "size_of_aotc_less_lifetime": abs(aotc - lifetime),
        "aotc_is_not_lifetime": aotc != lifetime,
    }


def income_based_repayment(agi: float, family: int, share: float, balance: float, rate: float, year: int) -> Figures:
    first, further = limits.POVERTY_GUIDELINE[year]
    line = first + further * (family - 1)
    payment, interest = education.income_based_payment(agi, family, year, share), balance * rate / 12
    return locals() | {
        "further_members": family - 1, "line_and_half": 1.5 * line, "discretionary": max(0, agi - 1.5 * line),
        "payment_above_interest": payment > interest,
    }


def nonqualified_529(withdrawn: float, basis: float, value: float, rate: float) -> Figures:
    earnings, due = education.nonqualified_penalty(withdrawn, basis / value, rate)
    return locals() | {
        "earnings_share": 1 - basis / value, "withdrawn_less_earnings": withdrawn - earnings, "earnings_times_rate": earnings * rate,
        "earnings_times_10pct": earnings * 0.1, "due_over_withdrawn": due / withdrawn,
    }


def annual_gifts(gift: float, people: int, donors: int, year: int) -> Figures:
    each = limits.GIFT_EXCLUSION[year]
    taxable = tax.taxable_gift(gift, year, donors)
    return locals() | {
        "both_exclusions": 2 * each, "gifts_split": donors == 2, "donors_times_each": donors * each, "taxable_times_people": taxable * people,
        "estate_exclusion": limits.ESTATE_EXCLUSION[year], "tax_free": (gift - taxable) * people,
    }


def estate_tax(gross: float, debts: float, charity: float, ported: float, year: int) -> Figures:
    taxable = gross - debts - charity
    due = tax.estate_tax(taxable, year, ported=ported)
    return locals() | {
        "estate_exclusion": limits.ESTATE_EXCLUSION[year], "shelter": limits.ESTATE_EXCLUSION[year] + ported,
        "excess": max(0, taxable - limits.ESTATE_EXCLUSION[year] - ported),
    }


def step_up(paid: float, at_death: float, sold: float, rate: float) -> Figures:
    gain, alternative = sold - at_death, sold - paid
    return locals() | {
        "gain_tax": max(0, gain) * rate, "alternative_times_rate": alternative * rate, "step_up_saving": (alternative - max(0, gain)) * rate,
    }


def real_goal(target: float, years: int, rate: float, start: float, inflation: float) -> Figures:
    nominal = target * (1 + inflation) ** years
    monthly = money.saving_needed(nominal, rate / 12, years * 12, start)
    return locals() | {
        "inflation_factor": 1 + inflation, "month_count": 12 * years, "start_grown": start * (1 + rate / 12) ** (12 * years),
        "missing": nominal - start * (1 + rate / 12) ** (12 * years),
    }


def net_worth_check(house: float, mortgage: float, savings: float, retirement: float, debts: float, monthly: float) -> Figures:
    worth = house + savings + retirement - mortgage - debts
    return locals() | {
        "assets": house + savings + retirement, "mortgage_plus_debts": mortgage + debts,
        "debt_ratio": (mortgage + debts) / (house + savings + retirement), "savings_over_monthly": savings / monthly,
        "reserve_low": savings / monthly < 3,
    }


def concentrated_position(shares: float, price: float, basis: float, other: float, rate: float, drop: float) -> Figures:
    value = shares * price
    total = value + other
    sell = max(0.0, value - 0.10 * total)
    cost = sell * (1 - basis / price) * rate
    return locals() | {
        "position_share": value / total, "dollar_fall": value * drop, "fall_of_all": value * drop / total, "gain_on_sale": sell * (1 - basis / price),
        "cost_over_sell": cost / sell,
    }


def inflation_effect(amount: float, rate: float, years: int) -> Figures:
    later, worth = amount * (1 + rate) ** years, amount / (1 + rate) ** years
    return locals() | {"compound_factor": (1 + rate) ** years, "power_lost": 1 - worth / amount, "rule_years": 72 / (rate * 100)}


def budget_split(gross: float, withheld: float, needs: float) -> Figures:
    net = gross * (1 - withheld) / 12
    return locals() | {
        "net_times_50pct": net * 0.5, "net_times_30pct": net * 0.3, "net_times_20pct": net * 0.2, "needs_over_net": needs / net,
        "needs_too_high": needs > net / 2, "needs_gap": abs(needs - net / 2),
    }


def reserve_plan(rent: float, food: float, utilities: float, insurance_: float, minimums: float, months: int, saved: float, monthly: float) -> Figures:
    essential = rent + food + utilities + insurance_ + minimums
    target = essential * months
    gap = max(0, target - saved)
    return locals() | {"months_needed": -(-gap // monthly)}


def early_start(yearly: float, rate: float, early_years: int, gap: int, late_years: int) -> Figures:
    total = early_years + gap
    early = money.annuity_future_value(yearly, rate, early_years) * (1 + rate) ** gap
    late = money.annuity_future_value(yearly, rate, late_years)
    return locals() | {
        "annuity_future_value": money.annuity_future_value(yearly, rate, early_years), "gap_factor": (1 + rate) ** gap,
        "yearly_times_early_years": yearly * early_years, "yearly_times_late_years": yearly * late_years, "early_above_late": early > late,
        "size_of_early_less_late": abs(early - late),
    }


def rule_of_72(rate: float, amount: float, years: int) -> Figures:
    exact = money.doubling_years(rate)
    return locals() | {
        "rate_times_100": rate * 100, "rule_years": 72 / (rate * 100), "years_over_exact": years / exact,
        "future_value": money.future_value(amount, rate, years), "rate_factor": 1 + rate,
    }


def real_raise(salary: float, raise_: float, inflation: float) -> Figures:
    new, real = salary * (1 + raise_), money.real_rate(raise_, inflation)
    return locals() | {
        "raise_factor": 1 + raise_, "inflation_factor": 1 + inflation, "pay_to_keep_up": salary * (1 + inflation),
        "size_of_gap": abs(new - salary * (1 + inflation)), "raise_is_real": real > 0,
    }
