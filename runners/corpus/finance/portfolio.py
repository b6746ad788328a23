"""Return, risk and their ratios.

Formulas: Markowitz (1952); Sharpe (1964, 1966); Bodie, Kane & Marcus, "Investments", ch. 5-9, 24; GIPS for time-weighted return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def two_asset_volatility(weight: float, first: float, second: float, correlation: float) -> float:
    """Standard deviation of ``weight`` in the first asset and the rest in the second."""
    a, b = weight * first, (1 - weight) * second
    return math.sqrt(a * a + b * b + 2 * a * b * correlation)


def minimum_variance_weight(first: float, second: float, correlation: float) -> float:
    """Weight of the first asset in the two-asset portfolio of least variance."""
    covariance = correlation * first * second
    return (second**2 - covariance) / (first**2 + second**2 - 2 * covariance)


def capm(risk_free: float, beta: float, market: float) -> float:
    """Required return: rf + beta (rm - rf)."""
    return risk_free + beta * (market - risk_free)


def beta(correlation: float, volatility: float, market_volatility: float) -> float:
    """Covariance with the market per market variance: rho s / sm."""
    return correlation * volatility / market_volatility


def sharpe(return_: float, risk_free: float, volatility: float) -> float:
    """Excess return per unit of total risk."""
    return (return_ - risk_free) / volatility


def alpha(return_: float, risk_free: float, beta_: float, market: float) -> float:
    """Jensen's alpha: return beyond what CAPM requires."""
    return return_ - capm(risk_free, beta_, market)


def information_ratio(return_: float, benchmark: float, tracking_error: float) -> float:
    """Active return per unit of active risk."""
    return (return_ - benchmark) / tracking_error


def geometric_mean(returns: Sequence[float]) -> float:
    """Constant yearly return with the same end: (prod(1 + r))^(1/n) - 1."""
    return math.prod(1 + r for r in returns) ** (1 / len(returns)) - 1


def time_weighted_return(values: Sequence[tuple[float, float]]) -> float:
    """Total return over sub-periods given as (value at start after flows, value at end before flows)."""
    return math.prod(end / start for start, end in values) - 1


def sample_volatility(returns: Sequence[float]) -> float:
    """Sample standard deviation (n - 1)."""
    mean = sum(returns) / len(returns)
    return math.sqrt(sum((r - mean) ** 2 for r in returns) / (len(returns) - 1))


def max_drawdown(values: Sequence[float]) -> float:
    """Largest fall from a peak, as a positive fraction."""
    peak, worst = values[0], 0.0
    for value in values:
        peak = max(peak, value)
        worst = max(worst, 1 - value / peak)
    return worst


def recovery_gain(drawdown: float) -> float:
    """Gain that undoes a loss: d / (1 - d)."""
    return drawdown / (1 - drawdown)


def average_cost(amounts: Sequence[float], prices: Sequence[float]) -> float:
    """Dollars per share over several purchases: total paid / total shares (a harmonic mean when amounts are equal)."""
    return sum(amounts) / sum(a / p for a, p in zip(amounts, prices, strict=True))


def value_after_fee(start: float, gross: float, fee: float, years: int) -> float:
    """Value when an annual ``fee`` is taken from the year's gross growth: V (1 + g)^t (1 - f)^t."""
    return start * ((1 + gross) * (1 - fee)) ** years


def herfindahl(weights: Sequence[float]) -> float:
    """Concentration: sum of squared weights; its inverse is the effective number of holdings."""
    return sum(w * w for w in weights)


def gordon_value(next_dividend: float, required: float, growth: float) -> float:
    """Constant-growth dividend value: D1 / (r - g) (Gordon & Shapiro 1956). Raises ValueError unless required exceeds growth."""
    if required <= growth:
        raise ValueError(f"the model needs a required return {required} above growth {growth}")
    return next_dividend / (required - growth)


def split_adjusted_return(before: float, after: float, new_per_old: float, dividend: float = 0.0) -> float:
    """Holder's return over a split: what an old share became, with any dividend per old share, over what it was."""
    return (after * new_per_old + dividend) / before - 1
