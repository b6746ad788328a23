"""Sizing, risk and the cost of trades."""

from __future__ import annotations

import math

from runners.corpus.finance import portfolio, trading
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def kelly_stake(p: float, b: float, capital: float) -> Figures:
    full = trading.kelly(p, b)
    return locals() | {
        "loss_rate": 1 - p, "kelly_dollars": full * capital, "p_times_b_less_1_plus_p": p * b - 1 + p, "half_kelly": full / 2,
        "half_kelly_dollars": full * capital / 2,
    }


def parametric_var(value: float, vol: float, confidence: float, days: int) -> Figures:
    loss, tail = trading.parametric_var(value, vol, confidence, days), trading.expected_shortfall(value, vol, confidence)
    return locals() | {
        "trading_quantiles": trading.QUANTILES[confidence], "days_to_the_50pct": days ** 0.5, "tail_share": 1 - confidence, "one_day": days == 1,
    }


def position_size(capital: float, risk: float, entry: float, stop: float) -> Figures:
    shares = int(trading.position_size(capital, risk, entry, stop) + 1e-9)
    return locals() | {
        "capital_times_risk": capital * risk, "size_of_entry_less_stop": abs(entry - stop), "shares_times_entry": shares * entry,
        "capital_share": shares * entry / capital, "dollars_at_risk": shares * abs(entry - stop),
    }


def margin_call(shares: int, entry: float, initial: float, maintenance: float, now: float) -> Figures:
    loan, level = shares * entry * (1 - initial), trading.margin_call_price(entry, initial, maintenance)
    equity = shares * now - loan
    needed = maintenance * shares * now - equity
    return locals() | {
        "entry_times_1_less_initial": entry * (1 - initial), "shares_times_now": shares * now, "equity_share": equity / (shares * now),
        "minus_needed": -needed, "called": needed > 0,
    }


def implementation_shortfall(ordered: int, filled: int, decision: float, executed: float, final: float, fees: float) -> Figures:
    total = trading.implementation_shortfall(decision, executed, filled, ordered, final, fees)
    paper = ordered * decision
    return locals() | {
        "execution_cost": filled * (executed - decision), "slippage_bps": trading.slippage_bps(decision, executed, 1),
        "ordered_less_filled": ordered - filled, "missed_cost": (ordered - filled) * (final - decision), "total_bps": total / paper * 10000,
    }


def market_impact(vol: float, share: float, volume: float, price: float) -> Figures:
    quantity = share * volume
    impact = trading.square_root_impact(vol, quantity, volume)
    return locals() | {
        "impact_times_10000": impact * 10000, "price_times_impact": price * impact, "impact_dollars": quantity * price * impact,
        "quantity_times_price": quantity * price,
    }


def index_hedge(value: float, beta: float, level: float, multiplier: float, target: float) -> Figures:
    contract = level * multiplier
    count = trading.hedge_contracts(value, beta, contract, target)
    return locals() | {"selling": count < 0, "size_of_rounded_count": abs(round(count)), "beta_after": beta + round(count) * contract / value}


def trade_expectancy(p: float, win: float, loss: float, trades: int, cost: float) -> Figures:
    gross = trading.expectancy(p, win, loss)
    net = gross - cost
    return locals() | {
        "loss_rate": 1 - p, "net_times_trades": net * trades, "break_even_rate": (loss + cost) / (win + loss), "edge_survives": net > 0,
    }


def vwap_fill(p1: float, v1: float, p2: float, v2: float, p3: float, v3: float, fill: float) -> Figures:
    value = trading.vwap([p1, p2, p3], [v1, v2, v3])
    return locals() | {
        "v1_plus_v2_plus_v3": v1 + v2 + v3, "dollars_traded": p1 * v1 + p2 * v2 + p3 * v3,
        "size_of_slippage_bps": abs(trading.slippage_bps(value, fill, 1)), "fill_above_value": fill > value,
    }


def pairs_z_score(spread: float, mean: float, deviation: float, enter: float) -> Figures:
    z = trading.z_score(spread, mean, deviation)
    return locals() | {
        "spread_is_wide": z > 0, "size_of_z_below_enter": abs(z) < enter, "lower_entry": mean - enter * deviation,
        "upper_entry": mean + enter * deviation,
    }


def realized_volatility(a: float, b: float, c: float, d: float, e: float) -> Figures:
    returns = [a, b, c, d, e]
    mean, daily = sum(returns) / 5, portfolio.sample_volatility(returns)
    return locals() | {"squared_deviations": sum((r - mean) ** 2 for r in returns), "annual_volatility": trading.annual_volatility(daily)}


def ewma_update(sigma: float, move: float, decay: float) -> Figures:
    new = trading.ewma_volatility(sigma, move, decay)
    return locals() | {
        "old_variance": sigma ** 2, "weight_of_new": 1 - decay, "move_squared": move ** 2, "new_variance": new ** 2,
        "annual_volatility": trading.annual_volatility(new), "size_of_move_over_sigma": abs(move) / sigma, "new_above_sigma": new > sigma,
        "log_over_log": math.log(0.5) / math.log(decay),
    }
