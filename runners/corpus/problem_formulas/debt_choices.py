"""Decisions about debt: several computations in a row, and a choice at the end."""

from __future__ import annotations

from runners.corpus.finance import lending, money
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def consolidation_with_fee(balance: float, rate: float, paid: float, fee: float, loan_rate: float, months: int) -> Figures:
    card_months = money.periods_to_repay(balance, rate / 12, paid)
    card_total = card_months * paid
    loan = balance / (1 - fee)
    payment = lending.monthly_payment(loan, loan_rate, months)
    return locals() | {
        "fee_dollars": loan - balance, "loan_total": payment * months, "size": abs(card_total - payment * months),
        "cheaper": payment * months < card_total, "more_each_month": payment > paid, "payment_gap": abs(payment - paid),
    }


def balance_transfer_deadline(balance: float, fee: float, promo: int, paid: float, later_rate: float, old_rate: float) -> Figures:
    moved = balance * (1 + fee)
    left = max(0.0, moved - promo * paid)
    later_months = money.periods_to_repay(left, later_rate / 12, paid) if left else 0.0
    transfer_cost = moved - balance + (later_months * paid - left)
    stay_months = money.periods_to_repay(balance, old_rate / 12, paid)
    stay_cost = stay_months * paid - balance
    return locals() | {
        "fee_dollars": moved - balance, "promo_paid": promo * paid, "later_interest": later_months * paid - left,
        "size": abs(stay_cost - transfer_cost), "better": transfer_cost < stay_cost, "clearing": moved / promo, "something_left": left > 0,
    }


def biweekly_mortgage(principal: float, rate: float, years: int, charge: float) -> Figures:
    months = years * 12
    payment = lending.monthly_payment(principal, rate, months)
    plain, faster = lending.amortization(principal, rate, months), lending.amortization(principal, rate, months, payment / 12)
    saved = sum(row.interest for row in plain) - sum(row.interest for row in faster)
    return locals() | {
        "half": payment / 2, "yearly": 26 * payment / 2, "twelve": 12 * payment, "extra": payment / 12, "faster": len(faster),
        "sooner_years": (months - len(faster)) / 12, "charges": charge * len(faster), "net": saved - charge * len(faster),
    }


def mortgage_recast(balance: float, rate: float, years: int, lump: float, charge: float) -> Figures:
    n = years * 12
    before = lending.monthly_payment(balance, rate, n)
    after = lending.monthly_payment(balance - lump, rate, n)
    shorter = money.periods_to_repay(balance - lump, rate / 12, before)
    return locals() | {
        "left": balance - lump, "relief": before - after, "recast_saving": (before - after) * n - lump - charge, "sooner": n - shorter,
        "shorter_saving": before * n - lump - before * shorter,
        "gap": (before * n - lump - before * shorter) - ((before - after) * n - lump - charge),
    }


def cash_out_or_second_loan(balance: float, old: float, years: int, cash: float, new: float, second: float, second_years: int) -> Figures:
    whole_loan = balance + cash
    refinance = lending.monthly_payment(whole_loan, new, years * 12)
    kept, added = lending.monthly_payment(balance, old, years * 12), lending.monthly_payment(cash, second, second_years * 12)
    first_cost, second_cost = refinance * years * 12, kept * years * 12 + added * second_years * 12
    return locals() | {
        "both": kept + added, "blended": (balance * old + cash * second) / whole_loan, "size": abs(first_cost - second_cost),
        "keep": second_cost < first_cost, "n": years * 12, "second_n": second_years * 12,
    }


def fifteen_or_thirty(principal: float, short_rate: float, long_rate: float, growth: float) -> Figures:
    short, long = lending.monthly_payment(principal, short_rate, 180), lending.monthly_payment(principal, long_rate, 360)
    pot = money.annuity_future_value(short - long, growth / 12, 180)
    owed = lending.balance_after(principal, long_rate, 360, 180)
    return locals() | {"difference": short - long, "size": abs(pot - owed), "invest": pot > owed}


def price_from_income(income: float, debts: float, limit: float, rate: float, down: float, carrying: float) -> Figures:
    room = income / 12 * limit - debts
    per_dollar = lending.monthly_payment(1, rate, 360)
    price = (room + down * per_dollar) / (per_dollar + carrying / 12)
    loan = price - down
    return locals() | {
        "monthly": income / 12, "allowed": income / 12 * limit, "interest_part": loan * per_dollar, "carrying_part": price * carrying / 12,
        "loan_to_value": loan / price, "insured": loan / price > 0.8, "payment_per_dollar": per_dollar, "carrying_per_dollar": carrying / 12,
    }


def rebate_or_low_rate(price: float, rebate: float, bank_rate: float, dealer_rate: float, months: int) -> Figures:
    bank, dealer = lending.monthly_payment(price - rebate, bank_rate, months), lending.monthly_payment(price, dealer_rate, months)
    even = money.annuity_present_value(dealer, bank_rate / 12, months)
    return locals() | {
        "financed": price - rebate, "size": abs(bank - dealer), "total": abs(bank - dealer) * months, "take_rebate": bank < dealer, "worth": even,
        "break_even_rebate": price - even,
    }


def rolled_payday_loan(amount: float, fee: float, rolls: int, union_rate: float, union_fee: float, months: int) -> Figures:
    fees = fee * (rolls + 1)
    days = 14 * (rolls + 1)
    payment = lending.monthly_payment(amount, union_rate, months)
    union = payment * months - amount + union_fee
    return locals() | {
        "times": rolls + 1, "share": fees / amount, "apr": fees / amount * 365 / days, "union_interest": payment * months - amount,
        "saved": fees - union,
    }
