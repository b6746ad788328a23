"""Time value of money: the base of everything else in this package.

Formulas: Brealey, Myers & Allen, "Principles of Corporate Finance", ch. 2; CFA Institute, "The Time Value of Money".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def future_value(present: float, rate: float, years: float, per_year: int = 1) -> float:
    """Value of ``present`` after ``years`` at nominal annual ``rate``: PV (1 + r/m)^(m t)."""
    return float(present * (1 + rate / per_year) ** (per_year * years))


def annuity_future_value(payment: float, rate: float, periods: int, due: bool = False) -> float:
    """Value at the end of ``periods`` equal payments at ``rate`` per period; ``due``: each at the start of its period."""
    value = payment * periods if rate == 0 else payment * ((1 + rate) ** periods - 1) / rate
    return value * (1 + rate) if due else value


def annuity_present_value(payment: float, rate: float, periods: int, due: bool = False) -> float:
    """Value today of ``periods`` equal payments at ``rate`` per period; ``due``: the first one now."""
    value = payment * periods if rate == 0 else payment * (1 - (1 + rate) ** -periods) / rate
    return value * (1 + rate) if due else value


def payment(principal: float, rate: float, periods: int) -> float:
    """Level payment that repays ``principal`` over ``periods`` at ``rate`` per period: P r / (1 - (1+r)^-n)."""
    return principal / annuity_present_value(1.0, rate, periods)


def saving_needed(target: float, rate: float, periods: int, start: float = 0.0) -> float:
    """Level payment at each period's end that grows, with ``start`` in hand today, to ``target`` (the sinking fund)."""
    return (target - start * (1 + rate) ** periods) / annuity_future_value(1.0, rate, periods)


def periods_to_repay(balance: float, rate: float, paid: float) -> float:
    """Periods until level payments clear ``balance``: -ln(1 - B r / p) / ln(1 + r). Raises ValueError if interest eats the payment."""
    if paid <= balance * rate:
        raise ValueError(f"a payment of {paid} does not cover the interest of {balance * rate:.2f}")
    return balance / paid if rate == 0 else -math.log(1 - balance * rate / paid) / math.log(1 + rate)


def effective_rate(nominal: float, per_year: int) -> float:
    """APY of a nominal rate: (1 + r/m)^m - 1 (Truth in Savings, Regulation DD, Appendix A)."""
    return (1 + nominal / per_year) ** per_year - 1


def real_rate(nominal: float, inflation: float) -> float:
    """Fisher: (1 + n) / (1 + i) - 1."""
    return (1 + nominal) / (1 + inflation) - 1


def growth_rate(start: float, end: float, years: float) -> float:
    """Compound annual growth rate: (end/start)^(1/t) - 1."""
    return float((end / start) ** (1 / years) - 1)


def doubling_years(rate: float) -> float:
    """Exact years to double: ln 2 / ln(1 + r); the rule of 72 approximates it by 72 / (100 r)."""
    return math.log(2) / math.log(1 + rate)


def npv(rate: float, flows: Sequence[float]) -> float:
    """Net present value of flows at times 0, 1, 2, ... ."""
    return sum(flow / (1 + rate) ** t for t, flow in enumerate(flows))


def irr(flows: Sequence[float]) -> float:
    """Rate at which ``npv`` is zero, for flows that change sign once (more changes may have more roots: Descartes)."""
    return solve(lambda rate: npv(rate, flows), -0.99, 10.0)


def payback_years(flows: Sequence[float]) -> float:
    """Years until undiscounted flows have returned the outlay, even within a year. Raises ValueError if they never do."""
    total = flows[0]
    for year, flow in enumerate(flows[1:], start=1):
        if total + flow >= 0:
            return year - 1 + -total / flow
        total += flow
    raise ValueError("the outlay is never returned")


def profitability_index(rate: float, flows: Sequence[float]) -> float:
    """Present value of the inflows per dollar of outlay: 1 + NPV / outlay."""
    return 1 + npv(rate, flows) / -flows[0]


def solve(function: Callable[[float], float], low: float, high: float) -> float:
    """Root of a function that changes sign between ``low`` and ``high``, by bisection to 1e-12 of the span. Raises ValueError if it does not."""
    at_low = function(low)
    if at_low * function(high) > 0:
        raise ValueError(f"no change of sign between {low} and {high}")
    for _ in range(200):
        middle = (low + high) / 2
        if at_low * function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def at_index(amount: float, index_then: float, index_now: float) -> float:
    """Amount of equal buying power at another level of a price index (BLS, CPI escalation)."""
    return amount * index_now / index_then
