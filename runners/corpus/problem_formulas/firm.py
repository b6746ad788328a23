"""Small business and company finance, accounting standards, financial data and models."""

from __future__ import annotations

from runners.corpus.finance import business, classification, identifiers, limits, money, portfolio, tax
from runners.corpus.problem_text import Figures

# fmt: off
# The figures of a formula are read across.


def unit_break_even(fixed: float, price: float, variable: float, profit: float) -> Figures:
    margin = price - variable
    units, wanted = -(-business.break_even_units(fixed, price, variable) // 1), -(-business.units_for_profit(fixed, price, variable, profit) // 1)
    return locals() | {
        "margin_over_price": margin / price, "units_times_price": units * price, "margin_of_safety": business.margin_of_safety(wanted, units),
    }


def project_npv(outlay: float, yearly: float, years: int, salvage: float, rate: float) -> Figures:
    flows = [-outlay] + [yearly] * (years - 1) + [yearly + salvage]
    value, internal = money.npv(rate, flows), money.irr(flows)
    annuity = (1 - (1 + rate) ** -years) / rate
    return locals() | {
        "rate_factor": 1 + rate, "payback_years": money.payback_years(flows), "profitability_index": money.profitability_index(rate, flows),
        "accepted": value > 0,
    }


def company_wacc(equity: float, debt: float, cost: float, interest: float, rate: float) -> Figures:
    total = equity + debt
    value = business.wacc(equity, debt, cost, interest, rate)
    return locals() | {"equity_over_total": equity / total, "debt_over_total": debt / total, "interest_times_1_less_rate": interest * (1 - rate)}


def macrs_year(basis: float, life: int, year: int) -> Figures:
    table = business.MACRS[life]
    deduction, so_far = business.macrs_deduction(basis, life, year), sum(business.macrs_deduction(basis, life, y) for y in range(1, year + 1))
    return locals() | {"percentages": ', '.join(f'{p:.2f}%' for p in table), "percentage": table[year - 1], "basis_less_so_far": basis - so_far}


def s_corporation_saving(profit: float, salary: float, costs: float, year: int) -> Figures:
    alone, together = tax.self_employment_tax(profit, year), tax.s_corporation_payroll_tax(salary, year)
    return locals() | {
        "profit_times_92_35pct": profit * 0.9235, "wage_base": limits.WAGE_BASE[year], "tax_saving": alone - together,
        "net_saving": alone - together - costs,
    }


def dupont_analysis(income: float, sales: float, assets: float, equity: float) -> Figures:
    roe, margin, turnover, multiplier = business.dupont(income, sales, assets, equity)
    return locals() | {"margin_times_turnover": margin * turnover}


def cash_conversion(inventory: float, receivables: float, payables: float, sales: float, cogs: float) -> Figures:
    days = [business.turnover_days(inventory, cogs), business.turnover_days(receivables, sales), business.turnover_days(payables, cogs)]
    cycle = business.cash_conversion_days(*days)
    return locals() | {"inventory_days": days[0], "receivable_days": days[1], "payable_days": days[2], "sales_over_365": sales / 365}


def margin_and_markup(cost: float, margin: float, markup: float) -> Figures:
    price = business.price_for_margin(cost, margin)
    return locals() | {
        "markup_for_margin": business.markup_for_margin(margin), "markup_factor": 1 + markup, "cost_times_1_plus_markup": cost * (1 + markup),
        "markup_over_1_plus_markup": markup / (1 + markup), "unit_gap": abs(price - cost * (1 + markup)),
    }


def trade_discount(discount: float, days: int, net: int, invoice: float, borrow: float) -> Figures:
    yearly = business.trade_credit_cost(discount, days, net)
    cost = invoice * (1 - discount) * borrow * (net - days) / 365
    return locals() | {
        "discount_times_100": discount * 100, "discount_dollars": invoice * discount, "discounted_invoice": invoice * (1 - discount),
        "net_less_days": net - days, "price_share": 1 - discount, "net_gain": invoice * discount - cost,
    }


def funding_dilution(invest: float, pre: float, founder: float, pool: float) -> Figures:
    share = business.post_money_share(invest, pre)
    after = business.diluted_share(founder, [share + pool])
    return locals() | {
        "post_money": pre + invest, "kept_share": 1 - share - pool, "stake_value": after * (pre + invest),
        "effective_pre_money": (1 - share - pool) * (pre + invest),
    }


def revenue_allocation(price: float, first: float, second: float, months: int) -> Figures:
    shares = business.allocate(price, [first, second])
    return {
        "first_plus_second": first + second, "product_share": shares[0], "service_share": shares[1], "shares_1_over_months": shares[1] / months,
        "bundle_discount": first + second - price,
    }


def loss_allowance(exposure: float, pd: float, life_pd: float, lgd: float) -> Figures:
    year, life = classification.expected_credit_loss(pd, lgd, exposure), classification.expected_credit_loss(life_pd, lgd, exposure)
    return locals() | {"life_less_year": life - year}


def isin_check_digit(body: str) -> Figures:
    digits = identifiers.as_digits(body)
    total, check = identifiers.luhn_sum(digits), identifiers.isin_check_digit(body)
    return locals() | {"total_plus_check": total + check}


def iban_check_digits(country: str, account: str) -> Figures:
    check = identifiers.iban_check_digits(country, account)
    remainder = identifiers.mod97(account + country + "00")
    return locals()


def annualized_growth(growth: float, level: float) -> Figures:
    yearly = (1 + growth) ** 4 - 1
    return locals() | {
        "growth_factor": 1 + growth, "simple_rate": growth * 4, "level_times_1_plus_growth": level * (1 + growth),
        "level_times_1_plus_yearly": level * (1 + yearly),
    }


def index_escalation(amount: float, then: float, now: float, years: float) -> Figures:
    value, rate = money.at_index(amount, then, now), money.growth_rate(then, now, years)
    return locals() | {"index_ratio": now / then, "total_rise": now / then - 1}


def adjusted_price_return(before: float, after: float, ratio: float, dividend: float) -> Figures:
    total = portfolio.split_adjusted_return(before, after, ratio, dividend)
    factor = ratio
    return locals() | {"after_times_ratio": after * ratio, "raw_return": after / before - 1, "before_over_factor": before / factor}


def data_vintage(first: float, revised: float, previous: float) -> Figures:
    return {
        "first_growth": first / previous - 1, "revised_growth": revised / previous - 1,
        "revision_points": (revised - first) / previous * 100,
    }


def confusion_matrix(tp: int, fp: int, fn: int, tn: int) -> Figures:
    precision, recall = classification.precision_and_recall(tp, fp, fn)
    accuracy = (tp + tn) / (tp + fp + fn + tn)
    return locals() | {
        "tp_plus_fp": tp + fp, "tp_plus_fn": tp + fn, "f1": classification.f1(precision, recall), "lazy_accuracy": (tn + fp) / (tp + fp + fn + tn),
    }


def alert_base_rate(base: float, sensitivity: float, false_rate: float, volume: int) -> Figures:
    truly = classification.flagged_truly(base, sensitivity, false_rate)
    real, caught = base * volume, base * volume * sensitivity
    false = (volume - real) * false_rate
    return locals() | {"volume_less_real": volume - real, "false_over_caught": false / caught, "real_less_caught": real - caught}


def review_threshold(cost: float, loss: float, probability: float) -> Figures:
    level = classification.review_threshold(cost, loss)
    return locals() | {"probability_times_loss": probability * loss, "probability_above_level": probability > level}


def token_bill(requests: int, prompt: int, answer: int, price_in: float, price_out: float) -> Figures:
    monthly = requests * 30 * (prompt * price_in + answer * price_out) / 1e6
    one = (prompt * price_in + answer * price_out) / 1e6
    return locals() | {
        "cost_ratio": answer * price_out / (prompt * price_in + answer * price_out),
        "prompt_saving": requests * 30 * prompt / 2 * price_in / 1000000.0, "answer_saving": requests * 30 * answer / 2 * price_out / 1000000.0,
    }
