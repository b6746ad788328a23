"""Sizing, risk and cost of trades.

Sources: Kelly (1956), Thorp (2006) for the continuous form; J. P. Morgan RiskMetrics (1996) for VaR and EWMA; Almgren et al. (2005) and Grinold & Kahn
for the square-root law of impact; Regulation T (12 CFR 220) and FINRA Rule 4210 for margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runners.corpus.finance.options import normal_pdf

#: One-sided standard normal quantiles as desks quote them.
QUANTILES = {0.90: 1.2816, 0.95: 1.6449, 0.975: 1.9600, 0.99: 2.3263}


def kelly(win_probability: float, win_per_loss: float) -> float:
    """Fraction of capital that maximises log growth for a bet paying ``win_per_loss`` to 1: p - (1 - p)/b; under 0: do not bet."""
    return win_probability - (1 - win_probability) / win_per_loss


def expectancy(win_probability: float, win: float, loss: float) -> float:
    """Mean result of a trade, in the unit of ``win`` and ``loss`` (both positive)."""
    return win_probability * win - (1 - win_probability) * loss


def parametric_var(value: float, volatility: float, confidence: float, days: float = 1, mean: float = 0.0) -> float:
    """Normal VaR in dollars from a *daily* volatility and mean: V (z s sqrt(t) - m t)."""
    return value * (QUANTILES[confidence] * volatility * math.sqrt(days) - mean * days)


def expected_shortfall(value: float, volatility: float, confidence: float) -> float:
    """Mean loss beyond the normal VaR, zero mean: V s phi(z) / (1 - c)."""
    return value * volatility * normal_pdf(QUANTILES[confidence]) / (1 - confidence)


def annual_volatility(period_volatility: float, periods: int = 252) -> float:
    """Square root of time, for uncorrelated returns."""
    return period_volatility * math.sqrt(periods)


def ewma_volatility(previous: float, return_: float, decay: float = 0.94) -> float:
    """RiskMetrics update: sqrt(l s^2 + (1 - l) r^2)."""
    return math.sqrt(decay * previous**2 + (1 - decay) * return_**2)


def slippage_bps(decision: float, executed: float, side: int) -> float:
    """Cost against the decision price in basis points; ``side`` +1 bought, -1 sold; positive is a cost."""
    return side * (executed - decision) / decision * 10_000


def implementation_shortfall(decision: float, executed: float, filled: float, ordered: float, final: float, fees: float = 0.0) -> float:
    """Perold (1988) for a buy, in dollars: price paid above decision on what filled, opportunity on what did not, and fees."""
    return filled * (executed - decision) + (ordered - filled) * (final - decision) + fees


def square_root_impact(volatility: float, quantity: float, daily_volume: float, coefficient: float = 1.0) -> float:
    """Expected impact as a fraction of price: Y s sqrt(Q / V), daily volatility, Y about 1."""
    return coefficient * volatility * math.sqrt(quantity / daily_volume)


def vwap(prices: Sequence[float], volumes: Sequence[float]) -> float:
    """Volume-weighted average price."""
    return sum(p * v for p, v in zip(prices, volumes, strict=True)) / sum(volumes)


def position_size(capital: float, risk: float, entry: float, stop: float) -> float:
    """Shares so that the stop loses ``risk`` of capital."""
    return capital * risk / abs(entry - stop)


def margin_call_price(entry: float, initial: float = 0.5, maintenance: float = 0.25) -> float:
    """Price of a long position at which equity equals maintenance: P (1 - initial) / (1 - maintenance)."""
    return entry * (1 - initial) / (1 - maintenance)


def short_margin_call_price(entry: float, initial: float = 0.5, maintenance: float = 0.30) -> float:
    """Price at which a short's equity equals maintenance: P (1 + initial) / (1 + maintenance)."""
    return entry * (1 + initial) / (1 + maintenance)


def hedge_contracts(value: float, beta: float, contract_value: float, target_beta: float = 0.0) -> float:
    """Index futures to move a portfolio's beta: (target - beta) V / F; negative is short (Hull, ch. 3)."""
    return (target_beta - beta) * value / contract_value


def minimum_variance_hedge(correlation: float, asset: float, futures: float) -> float:
    """Hedge ratio rho s_asset / s_futures (Hull, ch. 3)."""
    return correlation * asset / futures


def z_score(value: float, mean: float, deviation: float) -> float:
    """Standard deviations from the mean."""
    return (value - mean) / deviation
