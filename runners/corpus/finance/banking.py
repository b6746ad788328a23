"""What consumers bear and what deposit insurance covers.

Sources: Regulation E, 12 CFR 1005.6(b); 12 CFR 330.6 and 330.9.
"""

from __future__ import annotations

from runners.corpus.finance import limits


def unauthorized_transfer_liability(first_two_days: float, later: float, told_in_two_days: bool) -> float:
    """Most that a consumer bears for a lost card reported within 60 days of the statement.

    Told within two business days of learning of the loss: up to $50. Later: up to $50 of the first two business days' transfers and what
    came after them until notice, at most $500 in all.
    """
    first, most = limits.REGULATION_E_TIERS
    if told_in_two_days:
        return min(first, first_two_days + later)
    return min(most, min(first, first_two_days) + later)


def uninsured_deposits(joint: float, singles: tuple[float, ...], owners: int = 2) -> float:
    """Dollars over the limit: each owner's equal share of joint accounts, and each person's single accounts, apart."""
    over = owners * max(0.0, joint / owners - limits.FDIC_LIMIT)
    return over + sum(max(0.0, single - limits.FDIC_LIMIT) for single in singles)
