"""A second computation of what investors and firms choose, from the definition."""

import pytest

from tests.corpus.finance.second_people import lump, yearly


def capacity(wealth, floor, fall, bond_fall, stock, bond, goal):
    share = ((wealth - floor) / wealth - bond_fall) / (fall - bond_fall)
    assert wealth - wealth * share * fall - wealth * (1 - share) * bond_fall == pytest.approx(floor)
    expected = share * stock + (1 - share) * bond
    return {"share": share, "expected": expected, "enough": expected >= goal}


def needed_return(goal, saved, yearly, years, stock, bond, volatility):
    low, high = 0.0, 0.5
    for _ in range(200):
        middle, have = (low + high) / 2, saved
        for _ in range(years):
            have = have * (1 + middle) + yearly
        low, high = (middle, high) if have < goal else (low, middle)
    return {"needed": middle, "share": (middle - bond) / (stock - bond), "volatility_of_mix": (middle - bond) / (stock - bond) * volatility}


def bond_price(face, coupon, yield_, years, end=None):
    return sum(face * coupon / 2 / (1 + yield_ / 2) ** k for k in range(1, 2 * years + 1)) + (end or face) / (1 + yield_ / 2) ** (2 * years)


def horizon(face, coupon, yield_, years, rise):
    now, later = bond_price(face, coupon, yield_, years), bond_price(face, coupon, yield_ + rise, years - 1)
    step = 1e-5
    duration = (
        (bond_price(1, coupon, yield_ - step, years - 1) - bond_price(1, coupon, yield_ + step, years - 1))
        / 2
        / step
        / bond_price(1, coupon, yield_, years - 1)
    )
    return {"now": now, "later": later, "total": (later + face * coupon) / now - 1, "duration": duration}


def put(shares, price, strike, premium, days, expected):
    end = price * (1 - expected)
    hedged = shares * (max(end, strike) - price - premium)
    return {
        "worst": -shares * (strike - price - premium),
        "helps": hedged > shares * (end - price),
        "size": abs(hedged - shares * (end - price)),
        "even": price + premium,
    }


def worst_yield(face, coupon, price, years, call_years, call_price, alternative):
    def solve(years, end):
        low, high = -0.2, 0.5
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if bond_price(face, coupon, middle, years, end) > price else (low, middle)
        return middle

    worst = min(solve(years, face), solve(call_years, call_price))
    return {"maturity": solve(years, face), "call": solve(call_years, call_price), "worst": worst, "take": worst > alternative}


def streak(p, trades, streak, risk, limit, capital):
    lost, left = 1.0, 1.0
    for _ in range(streak):
        lost, left = lost * (1 - p), left * (1 - risk)
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** streak > 1 - limit else (low, middle)
    return {"expected": lost * (trades - streak + 1), "drawdown": 1 - left, "recover": 1 / left - 1, "allowed": middle, "dollars": middle * capital}


def scaled(capital, first, second, third, shares, stop, target, limit):
    loss, gain = sum(shares * (x - stop) for x in (first, second, third)), sum(shares * (target - x) for x in (first, second, third))
    return {"loss": loss, "gain": gain, "ratio": gain / loss, "over": loss > limit * capital, "first_ratio": (target - first) / (first - stop)}


def carry(equity, borrowed, rate, dividend, tax_rate, days, move):
    def result(own, loan, change):
        value = (own + loan) * (1 + change)
        return value - loan * (1 + rate * days / 365) + (own + loan) * dividend * days / 365 * (1 - tax_rate) - own

    assert result(equity, borrowed, (borrowed * rate * days / 365) / (equity + borrowed) - dividend * days / 365 * (1 - tax_rate)) == pytest.approx(0, abs=1e-6)
    return {"net": result(equity, borrowed, move), "plain": result(equity, 0, move), "down": result(equity, borrowed, -move) / equity}


def employee(salary, benefits, overhead, weeks, hours, rate, needed):
    cost = salary * 1.0765 + benefits + overhead
    return {"cost": cost, "hourly": cost / weeks / hours, "even": cost / rate, "hire": cost < needed * rate, "size": abs(cost - needed * rate)}


def price_cut(price, cost, units, cut, expected):
    lower = price - price * cut
    needed = units * (price - cost) / (lower - cost)
    return {"needed": needed / units - 1, "after": units * (1 + expected) * (lower - cost), "better": units * (1 + expected) > needed}


def outside(sales, growth, assets, payables, margin, payout, line):
    def need(g):
        return sales * g * (assets - payables) - sales * (1 + g) * margin * (1 - payout)

    low, high = 0.0, 5.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if need(middle) < 0 else (low, middle)
    return {"needed": need(growth), "own": middle, "covered": need(growth) <= line}


def factoring(invoices, advance, fee, days, line_rate, bad, staff):
    line = invoices * advance * line_rate / 365 * days + invoices * bad + staff
    return {"apr": fee / advance / days * 365, "line_total": line, "factor": invoices * fee < line, "size": abs(invoices * fee - line)}


def refund(billed, excluded, rate, quarters, late):
    over, owed = excluded * rate / 4, 0.0
    for _ in range(quarters):
        owed = owed * (1 + late / 4) + over
    return {"over": over, "total": owed, "interest": owed - quarters * over}


def execution(orders, shares, quoted, effective, rebate, other):
    each = orders * shares / 2
    return {"cost": each * effective, "size": each * abs(effective - other), "improvement": each * quoted - each * effective, "received": 2 * each * rebate}


def split(units_before, price_before, units_after, price_after, cost_before, cost_after):
    change = units_after * price_after - units_before * price_before
    price, volume = units_before * price_after - units_before * price_before, units_after * price_before - units_before * price_before
    profit = units_after * (price_after - cost_after) / (units_before * (price_before - cost_before)) - 1
    return {"change": change, "price_effect": price, "volume_effect": volume, "both": change - price - volume, "profit_growth": profit}


def like(before, after, opened, closed, prices, calendar):
    ratio = (after - opened) / (before - closed)
    return {"like": ratio - 1, "adjusted": ratio / (1 + calendar) - 1, "real": ratio / (1 + calendar) / (1 + prices) - 1}


def cascade(requests, small, large, share, small_right, large_right, error_cost):
    kept, sent = requests * (1 - share), requests * share
    wrong = kept * (1 - small_right) + sent * (1 - large_right)
    one, two = requests * large + requests * (1 - large_right) * error_cost, requests * small + sent * large + wrong * error_cost
    even = (requests * large - requests * small - sent * large) / (wrong - requests * (1 - large_right))
    return {"first": one, "second": two, "two": two < one, "even": even}


def fraud(payments, base, recall, false_rate, loss, review, annoyed, margin):
    caught, stopped = payments * base * recall, payments * (1 - base) * false_rate
    net = caught * (loss - review) - stopped * (review + annoyed * margin)
    even = review + net / (caught + stopped)
    return {"net": net, "precision": caught / (caught + stopped), "even": even, "missed": payments * base * (1 - recall) * loss}


def removal(cost, growth, rate, years, price):
    future = yearly(cost, 0, growth, years)
    provision = lump(future, rate, years)
    unwound, now = 0.0, provision
    for _ in range(years):
        unwound, now = unwound + now * rate, now * (1 + rate)
    assert now == pytest.approx(future)
    return {"provision": provision, "charge": (price + provision) / years + provision * rate, "interest_in_all": unwound}
