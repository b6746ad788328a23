"""Fixed income on coupon dates.

Formulas: Fabozzi, "Bond Markets, Analysis, and Strategies", ch. 2-4; Bodie, Kane & Marcus, "Investments", ch. 14-16. Examples from both are in the tests.
"""

from __future__ import annotations

from runners.corpus.finance import money


def price(face: float, coupon: float, yield_: float, years: float, per_year: int = 2) -> float:
    """Price of a bond with annual ``coupon`` rate at nominal annual yield ``yield_``, ``years`` a whole number of periods."""
    periods = round(years * per_year)
    rate = yield_ / per_year
    return money.annuity_present_value(face * coupon / per_year, rate, periods) + face / (1 + rate) ** periods


def yield_to_maturity(face: float, coupon: float, market_price: float, years: float, per_year: int = 2) -> float:
    """Nominal annual yield at which ``price`` is ``market_price``."""
    return money.solve(lambda rate: price(face, coupon, rate, years, per_year) - market_price, -0.5, 2.0)


def yield_to_call(face: float, coupon: float, market_price: float, years: float, call_price: float, per_year: int = 2) -> float:
    """Nominal annual yield if the bond is called at ``call_price`` after ``years``."""
    periods, payment = round(years * per_year), face * coupon / per_year
    return money.solve(
        lambda rate: money.annuity_present_value(payment, rate / per_year, periods) + call_price / (1 + rate / per_year) ** periods - market_price, -0.5, 2.0
    )


def macaulay_duration(coupon: float, yield_: float, years: float, per_year: int = 2) -> float:
    """Years until the average present dollar arrives."""
    return sum(t * flow for t, flow in _discounted(coupon, yield_, years, per_year)) / per_year / price(1, coupon, yield_, years, per_year)


def modified_duration(coupon: float, yield_: float, years: float, per_year: int = 2) -> float:
    """Fractional fall in price per unit rise in yield: D / (1 + y/m)."""
    return macaulay_duration(coupon, yield_, years, per_year) / (1 + yield_ / per_year)


def convexity(coupon: float, yield_: float, years: float, per_year: int = 2) -> float:
    """In years squared: sum of t (t+1) PV(t) / [P (1 + y/m)^2 m^2]."""
    total = sum(t * (t + 1) * flow for t, flow in _discounted(coupon, yield_, years, per_year))
    return total / (price(1, coupon, yield_, years, per_year) * (1 + yield_ / per_year) ** 2 * per_year**2)


def price_change(duration: float, convexity_: float, shift: float) -> float:
    """Fractional change in price for a parallel shift in yield: -D dy + C dy^2 / 2, D modified."""
    return -duration * shift + convexity_ * shift**2 / 2


def current_yield(face: float, coupon: float, market_price: float) -> float:
    """Annual coupon per price paid."""
    return face * coupon / market_price


def accrued_interest(face: float, coupon: float, days_since: int, days_in_period: int, per_year: int = 2) -> float:
    """Share of the coupon that belongs to the seller."""
    return face * coupon / per_year * days_since / days_in_period


def bill_price(face: float, discount: float, days: int) -> float:
    """US Treasury bill at a bank discount rate: F (1 - d days/360) (31 CFR 356, App. B)."""
    return face * (1 - discount * days / 360)


def bill_investment_rate(face: float, paid: float, days: int, year_days: int = 365) -> float:
    """Coupon-equivalent yield of a bill of half a year or less: (F - P)/P x 365/days (31 CFR 356, App. B)."""
    return (face - paid) / paid * year_days / days


def forward_rate(short_rate: float, short_years: float, long_rate: float, long_years: float) -> float:
    """Annual rate between two dates implied by two annually compounded spot rates."""
    growth = (1 + long_rate) ** long_years / (1 + short_rate) ** short_years
    return float(growth ** (1 / (long_years - short_years)) - 1)


def inflation_adjusted_principal(face: float, index_ratio: float) -> float:
    """TIPS principal: face x index ratio; at maturity never below face (TreasuryDirect)."""
    return face * index_ratio


def _discounted(coupon: float, yield_: float, years: float, per_year: int) -> list[tuple[int, float]]:
    """(period, present value) of each flow of a bond with face 1."""
    periods, rate = round(years * per_year), yield_ / per_year
    return [(t, (coupon / per_year + (1 if t == periods else 0)) / (1 + rate) ** t) for t in range(1, periods + 1)]
