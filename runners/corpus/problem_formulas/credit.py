"""Loans, mortgages, cards and the ratios lenders read."""

from __future__ import annotations

from runners.corpus.finance import lending, money
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def loan_payment(principal: float, rate: float, months: float) -> Figures:
    paid = lending.monthly_payment(principal, rate, int(months))
    interest = paid * months - principal
    return locals() | {
        "monthly_percent": rate / 12 * 100, "monthly_rate": rate / 12, "monthly_factor": 1 + rate / 12, "total_paid": paid * months,
        "annuity_factor": principal / paid,
    }


def affordable_loan(payment: float, rate: float, years: float) -> Figures:
    principal = money.annuity_present_value(payment, rate / 12, int(years * 12))
    return locals() | {"monthly_rate": rate / 12, "month_count": years * 12, "annuity_factor": principal / payment}


def loan_balance(principal: float, rate: float, years: float, after: float) -> Figures:
    months, gone = int(years * 12), int(after * 12)
    paid = lending.monthly_payment(principal, rate, months)
    left = lending.balance_after(principal, rate, months, gone)
    return locals() | {
        "payments_left": months - gone, "monthly_rate": rate / 12, "paid_so_far": paid * gone, "principal_repaid": principal - left,
        "interest_paid": round(paid * gone) - round(principal - left),
    }


def first_payment_split(principal: float, rate: float, years: float) -> Figures:
    row = lending.amortization(principal, rate, int(years * 12))[0]
    return {
        "payment": row.interest + row.principal, "month_count": years * 12, "row_interest": row.interest, "row_principal": row.principal,
        "interest_share": row.interest / (row.interest + row.principal),
    }


def extra_payment(principal: float, rate: float, years: float, extra: float) -> Figures:
    plain, faster = lending.amortization(principal, rate, int(years * 12)), lending.amortization(principal, rate, int(years * 12), extra)
    saved = sum(row.interest for row in plain) - sum(row.interest for row in faster)
    sooner = len(plain) - len(faster)
    paid = plain[0].interest + plain[0].principal
    return locals() | {
        "raised_payment": paid + extra, "faster_months": len(faster), "scheduled_months": len(plain), "sooner_years": sooner / 12,
        "scheduled_interest": sum(row.interest for row in plain), "faster_interest": sum(row.interest for row in faster),
    }


def card_payoff(balance: float, rate: float, paid: float) -> Figures:
    months = money.periods_to_repay(balance, rate / 12, paid)
    interest = months * paid - balance
    return locals() | {
        "monthly_percent": rate / 12 * 100, "first_interest": balance * rate / 12, "monthly_factor": 1 + rate / 12, "payments": int(-(-months // 1)),
    }


def debt_to_income(housing: float, car: float, other: float, income: float) -> Figures:
    monthly = income / 12
    front, back = housing / monthly, sum([housing, car, other]) / monthly
    return locals() | {"all_debts": housing + car + other, "front_at_most_28pct": front <= 0.28, "back_at_most_36pct": back <= 0.36}


def loan_to_value(price: float, down: float) -> Figures:
    ratio = (price - down) / price
    return locals() | {
        "loan": price - down, "insured": ratio > 0.8, "twenty_percent": 0.2 * price, "missing_down": 0.2 * price - down,
        "spare_down": down - 0.2 * price,
    }


def pmi_end(price: float, down: float, rate: float, years: float) -> Figures:
    loan, months = price - down, int(years * 12)
    ask_month = lending.month_at_loan_to_value(loan, rate, months, price, 0.80)
    ends = lending.month_at_loan_to_value(loan, rate, months, price, 0.78)
    return locals() | {"balance_at_80": 0.8 * price, "balance_at_78": 0.78 * price, "ask_month_over_12": ask_month / 12, "ends_over_12": ends / 12}


def refinance_break_even(balance: float, old: float, new: float, years: float, costs: float) -> Figures:
    n = int(years * 12)
    before, after = lending.monthly_payment(balance, old, n), lending.monthly_payment(balance, new, n)
    months = lending.refinance_break_even_months(before, after, costs)
    return locals() | {
        "monthly_saving": before - after, "rounded_months": round(months), "months_over_12": months / 12, "payments_saved": (before - after) * n,
        "net_saving": (before - after) * n - costs,
    }


def apr_with_fee(principal: float, fees: float, rate: float, months: float) -> Figures:
    paid, apr = lending.monthly_payment(principal, rate, int(months)), lending.annual_percentage_rate(principal, fees, rate, int(months))
    return locals() | {"received": principal - fees, "apr_over_12_times_100": apr / 12 * 100, "points_above_note": (apr - rate) * 100}


def avalanche_snowball(first: float, first_rate: float, second: float, second_rate: float, third: float, third_rate: float, budget: float) -> Figures:
    debts = [
        lending.Debt("A", first, first_rate, max(25, 0.02 * first)),
        lending.Debt("B", second, second_rate, max(25, 0.02 * second)),
        lending.Debt("C", third, third_rate, max(25, 0.02 * third)),
    ]
    avalanche, snowball = lending.pay_off(debts, budget, "avalanche"), lending.pay_off(debts, budget, "snowball")
    saved = snowball.interest - avalanche.interest
    return locals() | {
        "avalanche_order": ', '.join(avalanche.cleared), "avalanche_months": avalanche.months, "avalanche_interest": avalanche.interest,
        "snowball_order": ', '.join(snowball.cleared), "snowball_months": snowball.months, "snowball_interest": snowball.interest,
        "differ": saved > 0.5,
    }


def credit_utilization(first: float, first_limit: float, second: float, second_limit: float, third: float, third_limit: float) -> Figures:
    used, limit = first + second + third, first_limit + second_limit + third_limit
    ratio, target = used / limit, 0.10
    worst = max((first / first_limit, "first"), (second / second_limit, "second"), (third / third_limit, "third"))
    return locals() | {
        "first_over_first_limit": first / first_limit, "second_over_second_limit": second / second_limit,
        "third_over_third_limit": third / third_limit, "heaviest": worst[1], "target_times_limit": target * limit,
        "to_pay": max(0, used - target * limit),
    }


def discount_points(loan: float, rate: float, lower: float, points: float, years: float) -> Figures:
    n = int(years * 12)
    before, after, cost = lending.monthly_payment(loan, rate, n), lending.monthly_payment(loan, lower, n), loan * points / 100
    return locals() | {
        "monthly_saving": before - after, "break_even_months": cost / (before - after), "break_even_years": cost / (before - after) / 12,
    }


def auto_lease(cost: float, residual: float, factor: float, months: float) -> Figures:
    depreciation, rent = (cost - residual) / months, (cost + residual) * factor
    return locals() | {"payment": depreciation + rent, "yearly_percent": factor * 2400}
