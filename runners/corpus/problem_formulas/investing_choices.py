"""Decisions about investments and trades: several computations in a row, and a choice at the end."""

from __future__ import annotations

from runners.corpus.finance import bonds, money, portfolio
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def switch_fund_tax(value: float, basis: float, old_fee: float, new_fee: float, gross: float, tax_rate: float, years: int) -> Figures:
    tax_now = (value - basis) * tax_rate
    start = value - tax_now
    stay, move = value * (1 + gross - old_fee) ** years, start * (1 + gross - new_fee) ** years
    stay_net, move_net = stay - (stay - basis) * tax_rate, move - (move - start) * tax_rate
    return locals() | {
        "gain": value - basis, "switch": move_net > stay_net, "size": abs(move_net - stay_net), "first_year": value * (old_fee - new_fee),
        "stay_factor": 1 + gross - old_fee, "move_factor": 1 + gross - new_fee,
    }


def yield_or_growth(amount: float, total: float, yield_: float, dividend_tax: float, gain_tax: float, years: int) -> Figures:
    kept = yield_ * (1 - dividend_tax)
    rate_income = total - yield_ + kept
    income = amount * (1 + rate_income) ** years
    basis, value = amount, amount
    for _ in range(years):
        basis += value * kept
        value *= 1 + rate_income
    income_net = income - (income - basis) * gain_tax
    growth = amount * (1 + total) ** years
    growth_net = growth - (growth - amount) * gain_tax
    return locals() | {
        "ahead": growth_net - income_net, "growth_factor": 1 + total, "income_factor": 1 + rate_income,
        "yearly": money.growth_rate(amount, growth_net, years) - money.growth_rate(amount, income_net, years),
    }


def loss_capacity_mix(wealth: float, floor: float, fall: float, bond_fall: float, stock: float, bond: float, goal: float) -> Figures:
    loss = wealth - floor
    share = min(1.0, max(0.0, (loss / wealth - bond_fall) / (fall - bond_fall)))
    expected = share * stock + (1 - share) * bond
    return locals() | {
        "loss_share": loss / wealth, "rest": 1 - share, "enough": expected >= goal, "needed": (goal - bond) / (stock - bond),
        "needed_loss": wealth * ((goal - bond) / (stock - bond) * fall + (1 - (goal - bond) / (stock - bond)) * bond_fall),
        "gap": abs(expected - goal) * 100,
    }


def required_return_mix(goal: float, saved: float, yearly: float, years: int, stock: float, bond: float, volatility: float) -> Figures:
    needed = money.solve(lambda rate: money.future_value(saved, rate, years) + money.annuity_future_value(yearly, rate, years) - goal, 1e-6, 0.5)
    share = (needed - bond) / (stock - bond)
    bonds_only = money.future_value(saved, bond, years) + money.annuity_future_value(yearly, bond, years)
    return locals() | {
        "possible": share <= 1, "volatility_of_mix": max(0.0, share) * volatility, "bad_year": needed - 2 * max(0.0, share) * volatility,
        "paid": saved + yearly * years, "bonds_gap": goal - bonds_only, "needed_factor": 1 + needed,
    }


def bond_horizon_return(face: float, coupon: float, yield_: float, years: int, rise: float) -> Figures:
    now, later = bonds.price(face, coupon, yield_, years), bonds.price(face, coupon, yield_ + rise, years - 1)
    income = face * coupon
    duration = bonds.modified_duration(coupon, yield_, years - 1)
    return locals() | {
        "new_yield": yield_ + rise, "left": years - 1, "size": abs(later - now), "lost": later < now, "total": (later - now + income) / now,
        "cushion": yield_ / duration, "positive": later - now + income > 0,
    }


def protective_put(shares: int, price: float, strike: float, premium: float, days: int, expected: float) -> Figures:
    cost = shares * premium
    worst = shares * (price + premium - strike)
    return locals() | {
        "position": shares * price, "share": premium / price, "yearly": premium / price * 365 / days, "floor": shares * strike,
        "worst_share": (price + premium - strike) / price, "even": price + premium, "unhedged": shares * price * expected,
        "helps": shares * price * expected > worst, "crash": price * (1 - expected), "size": abs(shares * price * expected - worst),
    }


def yield_to_worst(face: float, coupon: float, price: float, years: int, call_years: int, call_price: float, alternative: float) -> Figures:
    maturity, call = bonds.yield_to_maturity(face, coupon, price, years), bonds.yield_to_call(face, coupon, price, call_years, call_price)
    worst = min(maturity, call)
    return locals() | {
        "current": bonds.current_yield(face, coupon, price), "is_call": call < maturity, "take": worst > alternative,
        "spread": abs(worst - alternative) * 10_000, "premium": price - call_price, "income": face * coupon,
    }


def losing_streak_size(p: float, trades: int, streak: int, risk: float, limit: float, capital: float) -> Figures:
    lost = (1 - p) ** streak
    starts = trades - streak + 1
    expected = starts * lost
    left = (1 - risk) ** streak
    allowed = 1 - (1 - limit) ** (1 / streak)
    return locals() | {
        "loss_rate": 1 - p, "drawdown": 1 - left, "recover": portfolio.recovery_gain(1 - left), "too_big": risk > allowed,
        "dollars": allowed * capital, "now_dollars": risk * capital, "ruin": capital * left, "odds": 1 / lost, "risk_factor": 1 - risk,
    }


def scaled_entry_risk(capital: float, first: float, second: float, third: float, shares: int, stop: float, target: float, limit: float) -> Figures:
    average = (first + second + third) / 3
    total = 3 * shares
    loss = total * (average - stop)
    gain = total * (target - average)
    fit = int(limit * capital / (3 * (average - stop)))
    return locals() | {
        "share": loss / capital, "ratio": gain / loss, "allowed": limit * capital, "over": loss > limit * capital,
        "first_loss": shares * (first - stop), "first_ratio": (target - first) / (first - stop), "rate": loss / (loss + gain),
        "per_share": average - stop, "up": target - average,
    }


def margin_carry(equity: float, borrowed: float, rate: float, dividend: float, tax_rate: float, days: int, move: float) -> Figures:
    position = equity + borrowed
    interest = borrowed * rate * days / 365
    received = position * dividend * days / 365 * (1 - tax_rate)
    even = (interest - received) / position
    net = position * move - interest + received
    plain = equity * move + equity * dividend * days / 365 * (1 - tax_rate)
    return locals() | {
        "yearly": even * 365 / days, "return_": net / equity, "plain_return": plain / equity, "leverage": position / equity,
        "down": (-position * move - interest + received) / equity, "worth": net > plain, "size": abs(net - plain),
    }
