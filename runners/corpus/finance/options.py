"""European options and forwards.

Formulas: Black & Scholes (1973); Merton (1973) for the dividend yield; Hull, "Options, Futures, and Other Derivatives", ch. 5, 11, 13, 15, 19.
"""

from __future__ import annotations

import math
from typing import Literal

Kind = Literal["call", "put"]


def black_scholes(spot: float, strike: float, years: float, rate: float, volatility: float, kind: Kind = "call", dividend: float = 0.0) -> float:
    """Price of a European option; ``rate``, ``dividend`` continuously compounded, ``volatility`` annual."""
    d1, d2 = d_values(spot, strike, years, rate, volatility, dividend)
    sign = 1 if kind == "call" else -1
    return sign * (spot * math.exp(-dividend * years) * normal_cdf(sign * d1) - strike * math.exp(-rate * years) * normal_cdf(sign * d2))


def d_values(spot: float, strike: float, years: float, rate: float, volatility: float, dividend: float = 0.0) -> tuple[float, float]:
    """d1 and d2 of Black-Scholes-Merton."""
    d1 = (math.log(spot / strike) + (rate - dividend + volatility**2 / 2) * years) / (volatility * math.sqrt(years))
    return d1, d1 - volatility * math.sqrt(years)


def delta(spot: float, strike: float, years: float, rate: float, volatility: float, kind: Kind = "call") -> float:
    """Change of price per dollar of spot: N(d1) for a call, N(d1) - 1 for a put; no dividend."""
    d1, _ = d_values(spot, strike, years, rate, volatility)
    return normal_cdf(d1) - (0 if kind == "call" else 1)


def put_from_call(call: float, spot: float, strike: float, years: float, rate: float) -> float:
    """Put-call parity without dividends: P = C - S + K e^(-rT) (Stoll 1969)."""
    return call - spot + strike * math.exp(-rate * years)


def payoff(spot: float, strike: float, kind: Kind) -> float:
    """Value at expiry."""
    return max(0.0, spot - strike) if kind == "call" else max(0.0, strike - spot)


def forward_price(spot: float, years: float, rate: float, dividend: float = 0.0) -> float:
    """No-arbitrage forward on an asset with a continuous yield: S e^((r - q) T)."""
    return spot * math.exp((rate - dividend) * years)


def currency_forward(spot: float, home_rate: float, foreign_rate: float, years: float) -> float:
    """Covered interest parity, annual compounding: home per foreign unit, S ((1 + rh)/(1 + rf))^T."""
    return float(spot * ((1 + home_rate) / (1 + foreign_rate)) ** years)


def normal_cdf(x: float) -> float:
    """Standard normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def normal_pdf(x: float) -> float:
    """Standard normal density."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
