"""Ratios and short formulas of companies, insurers, lenders and hedgers."""

from __future__ import annotations

from runners.corpus.finance import business, education, insurance, money, options, portfolio, trading
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def book_depreciation(cost: float, salvage: float, years: int) -> Figures:
    straight = business.straight_line(cost, salvage, years)
    first, second = business.double_declining(cost, years, 1), business.double_declining(cost, years, 2)
    return locals() | {"depreciation_rate": 2 / years}


def liquidity_ratios(cash: float, securities: float, receivables: float, inventory: float, owed: float) -> Figures:
    current = (cash + securities + receivables + inventory) / owed
    quick = business.quick_ratio(cash, securities, receivables, owed)
    return locals() | {
        "current_assets": cash + securities + receivables + inventory, "quick_assets": cash + securities + receivables,
        "current_ratio": cash + securities + receivables + inventory - owed, "covered": quick >= 1,
    }


def valuation_multiples(price: float, eps: float, shares: float, debt: float, cash: float, ebitda: float) -> Figures:
    cap = price * shares
    value = business.enterprise_value(cap, debt, cash)
    return locals() | {"price_over_eps": price / eps, "eps_over_price": eps / price, "ev_to_ebitda": value / ebitda}


def debt_service_coverage(income: float, payment: float, needed: float) -> Figures:
    service = payment * 12
    ratio = business.debt_service_coverage(income, service)
    return locals() | {
        "ratio_at_least_needed": ratio >= needed, "income_over_needed": income / needed, "income_over_needed_over_12": income / needed / 12,
        "room_to_fall": max(0, 1 - 1 / ratio),
    }


def startup_runway(cash: float, spending: float, revenue: float, cut: float) -> Figures:
    months, saved = business.burn_months(cash, spending, revenue), business.burn_months(cash, spending * (1 - cut), revenue)
    return locals() | {
        "spending_less_revenue": spending - revenue, "burn_after_cut": spending * (1 - cut) - revenue, "months_to_start_raising": max(0, months - 6),
    }


def sustainable_growth(roe: float, payout: float, sales: float) -> Figures:
    rate = business.sustainable_growth(roe, payout)
    return locals() | {"sales_times_1_plus_rate": sales * (1 + rate), "sales_in_five_years": sales * (1 + rate) ** 5, "rule_years": 72 / (rate * 100)}


def relevered_beta(beta: float, now: float, then: float, rate: float, rf: float, premium: float) -> Figures:
    bare = business.unlevered_beta(beta, now, rate)
    new = bare * (1 + (1 - rate) * then)
    return locals() | {"rf_plus_new_times_premium": rf + new * premium}


def cash_value_claim(cost: float, age: float, life: float, deductible: float) -> Figures:
    actual = insurance.actual_cash_value(cost, age, life)
    return locals() | {
        "share_worn": min(1, age / life), "cost_less_actual": cost - actual, "claim": max(0, actual - deductible),
        "cost_less_deductible": cost - deductible,
    }


def combined_ratio(losses: float, expenses: float, premiums: float, investment: float) -> Figures:
    ratio = insurance.combined_ratio(losses, expenses, premiums)
    result = premiums - losses - expenses
    return locals() | {
        "losses_over_premiums": losses / premiums, "expenses_over_premiums": expenses / premiums, "underwriting_loss": result < 0,
        "size_of_result": abs(result), "result_plus_investment": result + investment,
    }


def capitalized_interest(principal: float, rate: float, months: int, years: int) -> Figures:
    added = education.deferred_interest(principal, rate, months)
    before, after = money.payment(principal, rate / 12, years * 12), money.payment(principal + added, rate / 12, years * 12)
    return locals() | {
        "principal_plus_added": principal + added, "after_less_before": after - before, "gained_in_all": (after - before) * years * 12,
        "monthly_interest": principal * rate / 12,
    }


def effective_holdings(a: float, b: float, c: float, d: float, e: float) -> Figures:
    weights = [a, b, c, d, e]
    index = portfolio.herfindahl(weights)
    return locals() | {
        "squares": ' + '.join(f'{w:g}²' for w in weights), "squared_values": ' + '.join(f'{w * w:.4f}' for w in weights),
        "effective_number": 1 / index, "larger_of_weights": max(weights), "largest_share": max(weights) ** 2 / index,
    }


def delta_hedge(contracts: int, spot: float, strike: float, months: int, rate: float, vol: float) -> Figures:
    years = months / 12
    d1, _ = options.d_values(spot, strike, years, rate, vol)
    delta = options.delta(spot, strike, years, rate, vol)
    shares = contracts * 100 * delta
    return locals()


def minimum_variance_hedge(rho: float, asset: float, futures: float, units: float, size: float) -> Figures:
    ratio = trading.minimum_variance_hedge(rho, asset, futures)
    return locals() | {
        "exact_contracts": ratio * units / size, "contracts": round(ratio * units / size), "r_squared": rho ** 2,
        "hedged_volatility": asset * (1 - rho ** 2) ** 0.5,
    }
