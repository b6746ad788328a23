"""Decisions of firms, supervisors and those who build systems: several computations in a row, and a choice at the end."""

from __future__ import annotations

from runners.corpus.finance import classification
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def employee_or_contractor(salary: float, benefits: float, overhead: float, weeks: int, hours: float, rate: float, needed: float) -> Figures:
    payroll = salary * 0.0765
    cost = salary + payroll + benefits + overhead
    available = weeks * hours
    contractor = needed * rate
    return locals() | {
        "hourly": cost / available, "even": cost / rate, "hire": cost < contractor, "size": abs(cost - contractor), "use": needed / available,
        "load": cost / salary,
    }


def price_cut_volume(price: float, cost: float, units: float, cut: float, expected: float) -> Figures:
    new_price = price * (1 - cut)
    old_unit, new_unit = price - cost, new_price - cost
    needed = old_unit / new_unit - 1
    before, after = units * old_unit, units * (1 + expected) * new_unit
    return locals() | {
        "needed_units": units * (1 + needed), "expected_units": units * (1 + expected), "size": abs(after - before), "better": after > before,
        "elasticity": expected / cut, "needed_elasticity": needed / cut,
    }


def external_funds_needed(sales: float, growth: float, assets: float, payables: float, margin: float, payout: float, line: float) -> Figures:
    more = sales * growth
    new_assets, new_payables = more * assets, more * payables
    profit = sales * (1 + growth) * margin
    retained = profit * (1 - payout)
    needed = new_assets - new_payables - retained
    own = margin * (1 - payout) / (assets - payables - margin * (1 - payout))
    return locals() | {
        "size": abs(needed), "short": needed > 0, "covered": needed <= line, "next_sales": sales * (1 + growth), "line_gap": abs(line - needed),
        "keep": 1 - payout,
    }


def factoring_or_credit_line(invoices: float, advance: float, fee: float, days: int, line_rate: float, bad: float, staff: float) -> Figures:
    cash = invoices * advance
    cost = invoices * fee
    apr = cost / cash * 365 / days
    line = cash * line_rate * days / 365
    losses = invoices * bad
    return locals() | {
        "line_total": line + losses + staff, "size": abs(cost - line - losses - staff), "factor": cost < line + losses + staff, "gap": cost - line,
        "services": losses + staff,
    }


def fee_billing_refund(billed: float, excluded: float, rate: float, quarters: int, late: float) -> Figures:
    charged, right = billed * rate / 4, (billed - excluded) * rate / 4
    over = charged - right
    interest = sum(over * ((1 + late / 4) ** (quarters - k) - 1) for k in range(1, quarters + 1))
    return locals() | {"base": billed - excluded, "refund": over * quarters, "total": over * quarters + interest, "share": over / right}


def execution_quality(orders: int, shares: float, quoted: float, effective: float, rebate: float, other: float) -> Figures:
    total = orders * shares
    cost, other_cost = total * effective / 2, total * other / 2
    received = total * rebate
    return locals() | {
        "ratio": effective / quoted, "other_ratio": other / quoted, "improvement": total * (quoted - effective) / 2, "size": abs(cost - other_cost),
        "worse": cost > other_cost, "size_per_hundred": abs(effective - other) / 2 * 100,
    }


def price_volume_split(units_before: float, price_before: float, units_after: float, price_after: float, cost_before: float, cost_after: float) -> Figures:
    before, after = units_before * price_before, units_after * price_after
    price_effect = (price_after - price_before) * units_before
    volume_effect = (units_after - units_before) * price_before
    both = (price_after - price_before) * (units_after - units_before)
    profit_before, profit_after = units_before * (price_before - cost_before), units_after * (price_after - cost_after)
    return locals() | {
        "change": after - before, "growth": after / before - 1, "price_rise": price_after - price_before, "units_rise": units_after - units_before,
        "price_share": price_effect / (after - before), "profit_growth": profit_after / profit_before - 1,
        "better": profit_after / profit_before > after / before, "by_price": price_effect > volume_effect,
    }


def like_for_like_growth(before: float, after: float, opened: float, closed: float, prices: float, calendar: float) -> Figures:
    base, same = before - closed, after - opened
    like = same / base - 1
    adjusted = (1 + like) / (1 + calendar) - 1
    real = (1 + adjusted) / (1 + prices) - 1
    return locals() | {
        "total": after / before - 1, "size_real": abs(real), "growing": real > 0, "from_new": opened / before, "calendar_factor": 1 + calendar,
        "price_factor": 1 + prices, "like_factor": 1 + like, "adjusted_factor": 1 + adjusted,
    }


def two_tier_model_cost(requests: float, small: float, large: float, share: float, small_right: float, large_right: float, error_cost: float) -> Figures:
    only_large, cascade = requests * large, requests * (small + share * large)
    right = (1 - share) * small_right + share * large_right
    errors_large, errors_cascade = requests * (1 - large_right) * error_cost, requests * (1 - right) * error_cost
    first, second = only_large + errors_large, cascade + errors_cascade
    return locals() | {
        "kept": 1 - share, "size": abs(first - second), "two": second < first, "saved": only_large - cascade,
        "even": (only_large - cascade) / (requests * (large_right - right)),
    }


def fraud_rule_benefit(payments: float, base: float, recall: float, false_rate: float, loss: float, review: float, annoyed: float, margin: float) -> Figures:
    fraud = payments * base
    caught = fraud * recall
    alarms = (payments - fraud) * false_rate
    precision, _ = classification.precision_and_recall(caught, alarms, fraud - caught)
    saved, work, angry = caught * loss, (caught + alarms) * review, alarms * annoyed * margin
    net = saved - work - angry
    return locals() | {
        "size": abs(net), "keep": net > 0, "missed": (fraud - caught) * loss, "flags": caught + alarms, "even": (saved - angry) / (caught + alarms),
        "clean": payments - fraud,
    }


def decommissioning_provision(cost: float, growth: float, rate: float, years: int, price: float) -> Figures:
    future = cost * (1 + growth) ** years
    provision = future / (1 + rate) ** years
    asset = price + provision
    depreciation, unwinding = asset / years, provision * rate
    return locals() | {
        "growth_factor": 1 + growth, "rate_factor": 1 + rate, "charge": depreciation + unwinding, "plain": price / years,
        "more": depreciation + unwinding - price / years, "end": provision + unwinding, "interest_in_all": future - provision,
    }
