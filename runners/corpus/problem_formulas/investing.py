"""Portfolios, funds and the arithmetic of returns."""

from __future__ import annotations

import math

from runners.corpus.finance import money, portfolio
from runners.corpus.problem_text import Figures, num, usd, whole

# fmt: off
# The figures of a formula are read across.


def two_asset_risk(weight: float, first: float, second: float, rho: float) -> Figures:
    a, b = weight * first, (1 - weight) * second
    cross = 2 * a * b * rho
    volatility = portfolio.two_asset_volatility(weight, first, second, rho)
    return locals() | {
        "other_weight": 1 - weight, "a_times_a": a * a, "b_times_b": b * b, "variance": volatility ** 2, "a_plus_b": a + b,
        "saved_points": (a + b - volatility) * 100,
    }


def minimum_variance(first: float, second: float, rho: float) -> Figures:
    weight = portfolio.minimum_variance_weight(first, second, rho)
    cov = rho * first * second
    return locals() | {
        "second_variance": second ** 2, "second_to_the_2_less_cov": second ** 2 - cov, "first_variance": first ** 2, "twice_covariance": 2 * cov,
        "denominator": first ** 2 + second ** 2 - 2 * cov, "other_weight": 1 - weight,
        "two_asset_volatility": portfolio.two_asset_volatility(weight, first, second, rho),
    }


def capm_alpha(rf: float, beta: float, market: float, actual: float) -> Figures:
    required, alpha = portfolio.capm(rf, beta, market), portfolio.alpha(actual, rf, beta, market)
    return locals() | {"better_than_expected": alpha > 0}


def sharpe_comparison(first: float, first_vol: float, second: float, second_vol: float, rf: float) -> Figures:
    a, b = portfolio.sharpe(first, rf, first_vol), portfolio.sharpe(second, rf, second_vol)
    return locals() | {"a_above_b": a > b, "first_above_second": first > second}


def compound_return(first: float, second: float, third: float, amount: float) -> Figures:
    returns = [first, second, third]
    mean, geometric = sum(returns) / 3, portfolio.geometric_mean(returns)
    end = amount * math.prod(1 + r for r in returns)
    return locals() | {"first_factor": 1 + first, "second_factor": 1 + second, "third_factor": 1 + third, "end_over_amount": end / amount}


def fee_drag(amount: float, gross: float, low: float, high: float, years: int) -> Figures:
    cheap, dear = portfolio.value_after_fee(amount, gross, low, years), portfolio.value_after_fee(amount, gross, high, years)
    return locals() | {"cheap_less_dear": cheap - dear, "fall": 1 - dear / cheap, "high_less_low": high - low}


def dollar_cost_averaging(amount: float, p1: float, p2: float, p3: float, p4: float) -> Figures:
    prices = [p1, p2, p3, p4]
    shares = [amount / p for p in prices]
    average = portfolio.average_cost([amount] * 4, prices)
    return locals() | {
        "purchases": ', '.join((f'{whole(amount)} ÷ {usd(p)} = {num(s, 3)}' for p, s in zip(prices, shares, strict=True))), "sum": sum(shares),
        "amount_by_four": 4 * amount, "sum_over_4": sum(prices) / 4, "sum_times_p4": sum(shares) * p4,
    }


def rebalancing(stocks: float, bonds: float, target: float) -> Figures:
    total = stocks + bonds
    trade = target * total - stocks
    return locals() | {
        "stocks_over_total": stocks / total, "target_times_total": target * total, "buying_stocks": trade > 0, "size_of_trade": abs(trade),
        "bond_target": (1 - target) * total, "drift_points": abs(stocks / total - target) * 100,
    }


def dividend_growth_value(dividend: float, growth: float, required: float, price: float) -> Figures:
    coming = dividend * (1 + growth)
    value = portfolio.gordon_value(coming, required, growth)
    return locals() | {
        "growth_factor": 1 + growth, "undervalued": value > price, "size_of_mispricing": abs(value / price - 1),
        "implied_return": coming / price + growth,
    }


def municipal_or_taxable(muni: float, taxable: float, rate: float) -> Figures:
    equivalent = muni / (1 - rate)
    return locals() | {
        "taxable_times_1_less_rate": taxable * (1 - rate), "equivalent_above_taxable": equivalent > taxable,
        "gap_points": abs(equivalent - taxable) * 100, "break_even_bracket": 1 - muni / taxable,
    }


def drawdown_recovery(peak: float, low: float, years: float) -> Figures:
    loss = 1 - low / peak
    gain = portfolio.recovery_gain(loss)
    rate = money.growth_rate(low, peak, years)
    return locals()


def real_after_tax(nominal: float, inflation: float, tax_rate: float) -> Figures:
    after_tax = nominal * (1 - tax_rate)
    before, real = money.real_rate(nominal, inflation), money.real_rate(after_tax, inflation)
    return locals() | {"nominal_factor": 1 + nominal, "inflation_factor": 1 + inflation, "after_tax_less_inflation": after_tax - inflation}


def time_weighted_return(start: float, middle: float, flow: float, end: float) -> Figures:
    rate = portfolio.time_weighted_return([(start, middle), (middle + flow, end)])
    return locals() | {
        "first_return": middle / start - 1, "middle_plus_flow": middle + flow, "second_return": end / (middle + flow) - 1,
        "middle_over_start": middle / start, "end_over_middle_plus_flow": end / (middle + flow), "end_less_start_less_flow": end - start - flow,
    }
