"""A second computation of what people choose: debt, household, retirement, tax. Month by month or from the definition."""

import math

import pytest


def level(principal, rate, months):
    """The payment that leaves nothing, by halving the interval in which it lies."""
    low, high = principal / months, principal * (1 + rate)
    for _ in range(200):
        middle = (low + high) / 2
        owed = principal
        for _ in range(months):
            owed = owed * (1 + rate / 12) - middle
        low, high = (middle, high) if owed > 0 else (low, middle)
    return middle


def walk(balance, rate, paid):
    """(months with a fraction, all that is paid), as n = -ln(1 - Br/p) / ln(1 + r) counts them."""
    months = -math.log(1 - balance * rate / 12 / paid) / math.log(1 + rate / 12)
    return months, months * paid


def grow(start, monthly, rate, months):
    for _ in range(months):
        start = start * (1 + rate / 12) + monthly
    return start


def yearly(start, added, rate, years):
    for _ in range(years):
        start = start * (1 + rate) + added
    return start


def schedule(principal, rate, months, extra=0.0):
    """(months, interest) until nothing is owed."""
    paid, owed, interest, n = level(principal, rate, months) + extra, principal, 0.0, 0
    while owed > 0.01:
        due = owed * rate / 12
        interest, owed, n = interest + due, owed + due - min(paid, owed + due), n + 1
    return n, interest


def lump(future, rate, years):
    return future / (1 + rate) ** years


def tax_2025(taxable, status):
    """The rate schedules as Rev. Proc. 2024-40, section 2.01, prints them."""
    tables = {
        "joint": [(0, 23_850, 0.10), (2_385, 96_950, 0.12), (11_157, 206_700, 0.22), (35_302, 394_600, 0.24), (80_398, 501_050, 0.32)],
        "single": [(0, 11_925, 0.10), (1_192.5, 48_475, 0.12), (5_578.5, 103_350, 0.22), (17_651, 197_300, 0.24), (40_199, 250_525, 0.32)],
    }
    bottom = 0
    for base, top, rate in tables[status]:
        if taxable <= top:
            return base + (taxable - bottom) * rate
        bottom = top
    raise AssertionError(taxable)


def share_of_care(bill, deductible, share, most):
    return min(most, bill if bill <= deductible else deductible + (bill - deductible) * share)


def consolidation(balance, rate, paid, fee, loan_rate, months):
    total, loan = walk(balance, rate, paid)[1], level(balance / (1 - fee), loan_rate, months) * months
    return {"card_total": total, "loan_total": loan, "cheaper": loan < total, "size": abs(total - loan)}


def transfer(balance, fee, promo, paid, later_rate, old_rate):
    left = balance + balance * fee - promo * paid
    later = walk(left, later_rate, paid)[1] - left if left > 0 else 0
    stay = walk(balance, old_rate, paid)[1] - balance
    return {"transfer_cost": balance * fee + later, "stay_cost": stay, "better": balance * fee + later < stay}


def biweekly(principal, rate, years, charge):
    payment = level(principal, rate, years * 12)
    plain, faster = schedule(principal, rate, years * 12), schedule(principal, rate, years * 12, payment / 12)
    return {"faster": faster[0], "saved": plain[1] - faster[1], "net": plain[1] - faster[1] - charge * faster[0]}


def recast(balance, rate, years, lump, charge):
    before, after = level(balance, rate, years * 12), level(balance - lump, rate, years * 12)
    months, total = walk(balance - lump, rate, before)
    old = before * years * 12
    return {"relief": before - after, "recast_saving": old - after * years * 12 - lump - charge, "shorter": months, "shorter_saving": old - lump - total}


def cash_out(balance, old, years, cash, new, second, second_years):
    one = level(balance + cash, new, years * 12) * years * 12
    two = level(balance, old, years * 12) * years * 12 + level(cash, second, second_years * 12) * second_years * 12
    return {"first_cost": one, "second_cost": two, "keep": two < one}


def fifteen(principal, short_rate, long_rate, growth):
    short, long = level(principal, short_rate, 180), level(principal, long_rate, 360)
    pot, owed = grow(0, short - long, growth, 180), grow(principal, -long, long_rate, 180)
    return {"pot": pot, "owed": owed, "invest": pot > owed}


def price_check(income, debts, limit, rate, down, carrying):
    """The price at which loan, carrying cost and debts are the limit, found by trial."""
    low, high, unit = down, 5e6, level(1, rate, 360)
    for _ in range(200):
        price = (low + high) / 2
        used = (price - down) * unit + price * carrying / 12 + debts
        low, high = (price, high) if used < income / 12 * limit else (low, price)
    return {"price": price, "loan": price - down, "insured": (price - down) / price > 0.8}


def rebate(price, rebate, bank_rate, dealer_rate, months):
    bank, dealer = level(price - rebate, bank_rate, months), level(price, dealer_rate, months)
    worth = sum(dealer / (1 + bank_rate / 12) ** k for k in range(1, months + 1))
    return {"bank": bank, "dealer": dealer, "take_rebate": bank < dealer, "break_even_rebate": price - worth}


def payday(amount, fee, rolls, union_rate, union_fee, months):
    fees = sum(fee for _ in range(rolls + 1))
    return {"fees": fees, "apr": fees / amount / (14 * (rolls + 1)) * 365, "union": level(amount, union_rate, months) * months - amount + union_fee}


def after_taxes(amount, savings, bill, federal, state):
    account, bills = amount * savings, amount * bill
    account, bills = account - account * federal - account * state, bills - bills * federal
    return {"size": abs(account - bills), "bill_wins": bills > account, "kept_bill": bills / amount, "kept_savings": account / amount}


def minimum(required, fee, checking, savings, kept):
    elsewhere, here = kept * checking + (required - kept) * savings, required * checking
    lost = elsewhere - here
    return {"lost": lost, "fees": fee * 12, "hold": lost < fee * 12}


def acceptance(sales, ticket, share, per_item, margin):
    payments = sales / ticket
    cost = payments * (ticket * share + per_item)
    small = per_item / (margin - share)
    assert small * margin == pytest.approx(small * share + per_item)
    return {"total": cost, "effective": cost / sales, "of_profit": cost / sales / margin, "minimum": small, "discount_room": cost / payments}


def plans(premium_ppo, premium_high, seed, bracket, put_in, low, high, share, deductible_ppo, max_ppo, deductible_high, max_high):
    def year(care):
        ppo = 12 * premium_ppo + share_of_care(care, deductible_ppo, share, max_ppo)
        return ppo - (12 * premium_high + share_of_care(care, deductible_high, share, max_high) - seed - put_in * (bracket + 0.0765))

    return {"good": year(low), "bad": year(high), "both_years": year(low) > 0 and year(high) > 0}


def warranty(price, chance, repair, years, fund):
    return {"loading": price - chance * repair, "even": price / repair, "worth": chance * repair >= price, "affordable": fund >= repair, "after": fund - repair}


def ladder(need, later, years, first, single, long_rung, short_rung):
    paid = sum(long_rung + (short_rung if month < 12 * first else 0) for month in range(12 * years))
    return {"ladder": paid, "saved": 12 * years * single - paid, "drop": need - later, "left": years - first}


def care(cost, growth, years, stay, set_aside, rate, premium):
    need = yearly(cost, 0, growth, years) * stay
    missing = need - yearly(set_aside, 0, rate, years)
    monthly = missing / grow(0, 1, rate, 12 * years)
    return {"need": need, "monthly": monthly, "pool": grow(0, premium, rate, 12 * years), "insure": premium < monthly}


def borrow(cost, growth, years, saved, earned, rate, salary):
    debt = sum(cost * (1 + growth) ** k for k in range(years)) - saved - earned * years
    fits = sum(salary / 120 / (1 + rate / 12) ** k for k in range(1, 121))
    return {"debt": debt, "payment": level(debt, rate, 120), "fits": fits, "over": debt > fits}


def college(monthly, rate, years, drag, gain_tax, deduction):
    free, gross = grow(0, monthly, rate, 12 * years), grow(0, monthly, rate - drag, 12 * years)
    net = gross - (gross - 12 * years * monthly) * gain_tax
    return {"free": free, "net": net, "all": free - net + 12 * years * monthly * deduction}


def estate(business, home, liquid, debts, costs, year):
    gross = business + home + liquid
    tax = 0.4 * max(0, gross * (1 - costs) - debts - {2025: 13_990_000}[year])
    return {"due": tax, "needed": debts + gross * costs + tax, "gap": abs(debts + gross * costs + tax - liquid), "short": debts + gross * costs + tax > liquid}


def gift(value, basis, growth, years, gain_tax):
    later = yearly(value, 0, growth, years)
    given = later - 0.4 * value - (later - basis) * gain_tax  # the gift uses exemption worth 40 % of today's value
    kept = later - 0.4 * later
    return {"give": given > kept, "size": abs(given - kept), "even": basis + (kept - given) / gain_tax}


def windfall(amount, tax, card, card_rate, essential, months, saved, growth):
    rest = amount - amount * tax - card - (essential * months - saved)
    return {"rest": rest, "later": yearly(rest, 0, growth, 10), "interest": card * card_rate}


def freedom(income, rate, real, withdrawal, start):
    def years(saving):
        have, n = start, 0
        target = (income - saving) / withdrawal
        while have * (1 + real) + saving < target:
            have, n = have * (1 + real) + saving, n + 1
        # The fraction of the last year at the same continuous rate.
        return n + math.log((target * real + saving) / (have * real + saving)) / math.log(1 + real)

    return {"years": years(income * rate), "faster": years(income * (rate + 0.05)), "target": income * (1 - rate) / withdrawal}


def study(hours, weeks, heavy, light, scored_heavy, scored_light, goal, review):
    points = [heavy * (goal - scored_heavy), light * (goal - scored_light)]
    each = hours * (1 - review) / sum(points)
    return {"heavy_hours": each * points[0], "light_hours": each * points[1], "weekly": hours / weeks, "heavy_first": points[0] > points[1]}


def bridge(portfolio, spending, benefit, years, real):
    left = yearly(portfolio, -spending, real, years)
    return {"left": left, "rate": (spending - benefit) / left, "safe": (spending - benefit) / left <= 0.04}


def conversion(taxable, converted, status, year, later, growth, years):
    assert year == 2025
    cost = tax_2025(taxable + converted, status) - tax_2025(taxable, status)
    roth = yearly(converted, 0, growth, years)  # the tax comes from a side account that would have grown alike
    return {"cost": cost, "convert": cost / converted < later, "size": abs((roth - yearly(cost, 0, growth, years)) - roth * (1 - later))}


def gap(spending, benefit, inflation, years, rate, saved, monthly, withdrawal):
    target = yearly(spending - benefit, 0, inflation, years) / withdrawal
    pot = grow(saved, monthly, rate, years * 12)
    extra = max(0, target - pot) / grow(0, 1, rate, years * 12)
    assert grow(saved, monthly + extra, rate, years * 12) == pytest.approx(max(target, pot))
    return {"target": target, "pot": pot, "extra": extra, "short": target > pot}


def pension(single, survivor, tax_rate, premium, rate, years):
    cover = sum(survivor * (1 - tax_rate) / (1 + rate / 12) ** k for k in range(1, 12 * years + 1))
    return {"cover": cover, "size": abs((single - survivor) * (1 - tax_rate) - premium), "reduction": (single - survivor) / single}


def another_year(portfolio, saving, spending, growth, years):
    def spread(pot, n):
        return pot / sum(1 / (1 + growth) ** k for k in range(1, n + 1))

    now, then = spread(portfolio, years), spread(portfolio * (1 + growth) + saving, years - 1)
    return {"now": now, "then": then, "more": then - now, "enough_now": now >= spending, "enough_then": then >= spending}


def side_job(profit, wages, bracket, hours, year):
    assert year == 2025
    base = profit * 0.9235
    se = 0.124 * min(base, max(0, 176_100 - wages)) + 0.029 * base
    income = 0.8 * (profit - se / 2) * bracket
    return {"se": se, "income": income, "net": profit - se - income, "hourly": (profit - se - income) / hours}


def second_earner(pay, bracket, state, care, commute, credit, match, hours):
    left = pay - pay * bracket - pay * 0.0765 - pay * state - care - commute + credit
    return {"net": left, "hourly": left / hours, "worth": left + pay * match, "positive": left > 0}


def harvest(loss, gains, rate, ordinary, growth, years):
    against = min(loss, gains)
    other = min(loss - against, 3_000)
    now = against * rate + other * ordinary
    return {"now": now, "size": yearly(now, 0, growth, years) - (against + other) * rate, "carried": loss - against - other}


def rental(rent, vacancy, expenses, interest, principal, building, bracket, cash):
    operating = 12 * rent - 12 * rent * vacancy - expenses
    after = operating - interest - principal - bracket * (operating - interest - building / 27.5)
    return {"after": after, "yield_": after / cash, "with_principal": (after + principal) / cash}


def withholding(gross, status, year, withheld, per_check, checks):
    assert year == 2025
    due = tax_2025(gross - {"joint": 31_500, "single": 15_750}[status], status)
    gap = due - withheld - per_check * checks
    return {"due": due, "gap": abs(gap), "owing": gap > 0, "harbor": withheld + per_check * checks >= 0.9 * due}


def deferral(salary, now, then, rate, cap, federal, state, years, growth):
    more = salary * then - salary * now
    match = rate * (min(then, cap) - min(now, cap)) * salary
    return {"cost": more - more * federal - more * state, "into": more + match, "later": yearly(0, more + match, growth, years), "full": then >= cap}


def switch(value, basis, old_fee, new_fee, gross, tax_rate, years):
    start = value - (value - basis) * tax_rate
    stay, move = yearly(value, 0, gross - old_fee, years), yearly(start, 0, gross - new_fee, years)
    stay, move = stay * (1 - tax_rate) + basis * tax_rate, move * (1 - tax_rate) + start * tax_rate
    return {"stay_net": stay, "move_net": move, "switch": move > stay}


def payout(amount, total, yield_, dividend_tax, gain_tax, years):
    value = basis = amount
    for _ in range(years):
        dividend = value * yield_ * (1 - dividend_tax)
        value, basis = value * (1 + total - yield_) + dividend, basis + dividend
    growth = yearly(amount, 0, total, years)
    income_net, growth_net = value - (value - basis) * gain_tax, growth - (growth - amount) * gain_tax
    return {"income_net": income_net, "growth_net": growth_net, "ahead": growth_net - income_net}
