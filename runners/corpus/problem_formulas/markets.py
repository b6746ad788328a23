"""Bonds, bills, options, forwards and the prices that tie them together."""

from __future__ import annotations

import math

from runners.corpus.finance import bonds, options
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def bond_price(face: float, coupon: float, yield_: float, years: int) -> Figures:
    value = bonds.price(face, coupon, yield_, years)
    n, rate, half = years * 2, yield_ / 2, face * coupon / 2
    annuity = half * (1 - (1 + rate) ** -n) / rate
    return locals() | {
        "rate_factor": 1 + rate, "redemption_value": value - annuity, "price_percent": value / face * 100, "above_par": value > face,
        "current_yield": face * coupon / value,
    }


def bond_yield(face: float, coupon: float, price: float, years: int) -> Figures:
    ytm = bonds.yield_to_maturity(face, coupon, price, years)
    approx = (face * coupon + (face - price) / years) / ((face + price) / 2)
    return locals() | {
        "half_coupon": face * coupon / 2, "half_years": 2 * years, "effective_yield": (1 + ytm / 2) ** 2 - 1, "current_yield": face * coupon / price,
    }


def duration_convexity(coupon: float, yield_: float, years: int, shift: float) -> Figures:
    macaulay, modified = bonds.macaulay_duration(coupon, yield_, years), bonds.modified_duration(coupon, yield_, years)
    convexity = bonds.convexity(coupon, yield_, years)
    exact = bonds.price(100, coupon, yield_ + shift, years) / bonds.price(100, coupon, yield_, years) - 1
    return locals() | {"minus_modified_times_shift": -modified * shift, "price_change": bonds.price_change(modified, convexity, shift)}


def treasury_bill(face: float, discount: float, days: int) -> Figures:
    paid = bonds.bill_price(face, discount, days)
    return locals() | {"face_less_paid": face - paid, "bill_investment_rate": bonds.bill_investment_rate(face, paid, days)}


def black_scholes_call(spot: float, strike: float, months: int, rate: float, vol: float) -> Figures:
    years = months / 12
    d1, d2 = options.d_values(spot, strike, years, rate, vol)
    call = options.black_scholes(spot, strike, years, rate, vol)
    return locals() | {
        "cdf_d1": options.normal_cdf(d1), "cdf_d2": options.normal_cdf(d2), "exp": math.exp(-rate * years),
        "put_from_call": options.put_from_call(call, spot, strike, years, rate),
    }


def put_call_parity(call: float, put: float, spot: float, strike: float, months: int, rate: float) -> Figures:
    years = months / 12
    fair = options.put_from_call(call, spot, strike, years, rate)
    return locals() | {"strike_times_exp": strike * math.exp(-rate * years), "put_above_fair": put > fair, "size_of_put_less_fair": abs(put - fair)}


def covered_call(cost: float, strike: float, premium: float, shares: int) -> Figures:
    return {
        "cost_less_premium": cost - premium, "called_gain_per_share": strike - cost + premium,
        "called_gain": (strike - cost + premium) * shares, "called_return": (strike - cost + premium) / cost,
        "most_lost": (cost - premium) * shares,
    }


def bull_call_spread(low: float, high: float, paid: float, received: float) -> Figures:
    cost = paid - received
    return locals() | {
        "cost_times_100": cost * 100, "high_less_low": high - low, "high_less_low_less_cost": high - low - cost,
        "most_gained": (high - low - cost) * 100, "low_plus_cost": low + cost, "return_on_cost": (high - low - cost) / cost,
    }


def index_forward(spot: float, rate: float, income: float, months: int, quoted: float) -> Figures:
    years = months / 12
    fair = options.forward_price(spot, years, rate, income)
    return locals() | {"quoted_above_fair": quoted > fair, "size_of_quoted_less_fair": abs(quoted - fair)}


def currency_forward(spot: float, home: float, foreign: float, months: int, unit: str) -> Figures:
    years = months / 12
    forward = options.currency_forward(spot, home, foreign, years)
    return locals() | {
        "home_factor": 1 + home, "foreign_factor": 1 + foreign, "forward_above_spot": forward > spot, "size_of_premium": abs(forward / spot - 1),
        "foreign_below_home": foreign < home,
    }


def implied_forward_rate(short: float, short_years: int, long: float, long_years: int) -> Figures:
    rate = bonds.forward_rate(short, short_years, long, long_years)
    return locals() | {
        "forward_years": long_years - short_years, "long_factor": (1 + long) ** long_years, "short_factor": (1 + short) ** short_years,
        "factor_ratio": (1 + long) ** long_years / (1 + short) ** short_years,
    }


def accrued_interest(face: float, coupon: float, clean: float, days: int, period: int) -> Figures:
    accrued = bonds.accrued_interest(face, coupon, days, period)
    return locals() | {"half_coupon": face * coupon / 2, "face_times_clean_over_100": face * clean / 100, "dirty_price": face * clean / 100 + accrued}


def tips_principal(face: float, coupon: float, ratio: float) -> Figures:
    principal = bonds.inflation_adjusted_principal(face, ratio)
    return locals() | {"half_rate": coupon / 2, "half_coupon": principal * coupon / 2, "principal_less_face": principal - face}
