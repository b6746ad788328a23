"""Loans: schedules, mortgages, ratios, pay-off orders.

Sources: Regulation Z (12 CFR 1026) Appendix J for the APR; Homeowners Protection Act, 12 USC 4901, for PMI; CFPB consumer guides for the ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from runners.corpus.finance import money


@dataclass(frozen=True)
class Installment:
    """One month of a schedule, in dollars."""

    month: int
    interest: float
    principal: float
    balance: float


@dataclass(frozen=True)
class Debt:
    """A revolving debt: balance in dollars, nominal annual rate, minimum payment a month."""

    name: str
    balance: float
    rate: float
    minimum: float


@dataclass(frozen=True)
class PayoffPlan:
    """What an order of payment costs: months until free, interest in dollars, names in the order they were cleared."""

    months: int
    interest: float
    cleared: tuple[str, ...]


def monthly_payment(principal: float, annual_rate: float, months: int) -> float:
    """Level monthly payment of a fully amortising loan."""
    return money.payment(principal, annual_rate / 12, months)


def amortization(principal: float, annual_rate: float, months: int, extra: float = 0.0) -> list[Installment]:
    """The schedule, unrounded, with ``extra`` to principal each month; ends when the balance does."""
    paid, rows, balance = monthly_payment(principal, annual_rate, months) + extra, [], principal
    for month in range(1, months + 1):
        interest = balance * annual_rate / 12
        part = min(balance, paid - interest)
        balance -= part
        rows.append(Installment(month, interest, part, balance))
        if balance < 0.005:
            break
    return rows


def balance_after(principal: float, annual_rate: float, months: int, paid_months: int) -> float:
    """Balance after ``paid_months`` payments: the value of those that remain."""
    return money.annuity_present_value(monthly_payment(principal, annual_rate, months), annual_rate / 12, months - paid_months)


def annual_percentage_rate(principal: float, fees: float, annual_rate: float, months: int) -> float:
    """APR when ``fees`` are withheld from the proceeds: the rate that equates the payments to what the borrower received (Reg. Z, App. J)."""
    paid = monthly_payment(principal, annual_rate, months)
    return money.solve(lambda rate: money.annuity_present_value(paid, rate / 12, months) - (principal - fees), 1e-9, 5.0)


def month_at_loan_to_value(principal: float, annual_rate: float, months: int, value: float, ratio: float) -> int:
    """First month whose scheduled balance is at or under ``ratio`` of the original value (80 %: PMI on request; 78 %: automatic)."""
    return next(row.month for row in amortization(principal, annual_rate, months) if row.balance <= ratio * value + 1e-9)


def refinance_break_even_months(old_payment: float, new_payment: float, costs: float) -> float:
    """Months of saved payments that return the closing costs."""
    return costs / (old_payment - new_payment)


def pay_off(debts: Sequence[Debt], budget: float, order: Literal["avalanche", "snowball"]) -> PayoffPlan:
    """Pay minimums, all that is left to one debt: the dearest first (avalanche) or the smallest first (snowball).

    Interest accrues monthly before payment. Raises ValueError when the budget does not cover the minimums.
    """
    if budget < sum(debt.minimum for debt in debts):
        raise ValueError(f"a budget of {budget} does not cover the minimums")
    balances = {debt.name: debt.balance for debt in debts}
    ranked = sorted(debts, key=lambda d: (-d.rate, d.balance) if order == "avalanche" else (d.balance, -d.rate))
    month, interest, cleared = 0, 0.0, []
    while any(balance > 0.005 for balance in balances.values()):
        month += 1
        if month > 1200:
            raise ValueError("the debts are never repaid")
        left = budget
        for debt in ranked:
            accrued = balances[debt.name] * debt.rate / 12
            interest += accrued
            balances[debt.name] += accrued
            paid = min(debt.minimum, balances[debt.name])
            balances[debt.name] -= paid
            left -= paid
        for debt in ranked:
            paid = min(left, balances[debt.name])
            balances[debt.name] -= paid
            left -= paid
            if balances[debt.name] <= 0.005 and debt.name not in cleared:
                cleared.append(debt.name)
    return PayoffPlan(month, interest, tuple(cleared))
