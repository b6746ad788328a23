"""US federal income, payroll, gains and transfer taxes, as exact schedules (the printed tax tables round to $50 steps).

Sources: IRC 1, 1401-1402, 1411, 2001, 3101; Schedule SE; limits.py for the amounts of each year. Left out: AMT, states, phase-outs not named.
"""

from __future__ import annotations

from runners.corpus.finance import limits
from runners.corpus.finance.limits import Status


def income_tax(taxable: float, status: Status, year: int) -> float:
    """Regular tax on ordinary taxable income, in dollars."""
    return sum(amount * rate for amount, rate in by_bracket(taxable, status, year))


def by_bracket(taxable: float, status: Status, year: int) -> list[tuple[float, float]]:
    """(dollars, rate) in each bracket that taxable income reaches."""
    tops = (*limits.BRACKETS[year][status], float("inf"))
    bottoms = (0.0, *limits.BRACKETS[year][status])
    return [(min(taxable, top) - bottom, rate) for bottom, top, rate in zip(bottoms, tops, limits.RATES, strict=True) if taxable > bottom]


def marginal_rate(taxable: float, status: Status, year: int) -> float:
    """Rate on the last dollar."""
    return by_bracket(max(taxable, 1), status, year)[-1][1]


def taxable_income(gross: float, status: Status, year: int, deductions: float = 0.0) -> float:
    """Gross less the larger of the standard deduction and ``deductions``, not under zero."""
    return max(0.0, gross - max(deductions, limits.STANDARD_DEDUCTION[year][status]))


def gains_tax(ordinary_taxable: float, gains: float, status: Status, year: int) -> float:
    """Tax on long-term gains and qualified dividends stacked on top of ordinary taxable income (Qualified Dividends worksheet, Form 1040)."""
    _, at_fifteen, at_twenty = gains_by_rate(ordinary_taxable, gains, status, year)
    return 0.15 * at_fifteen + 0.20 * at_twenty


def gains_by_rate(ordinary_taxable: float, gains: float, status: Status, year: int) -> tuple[float, float, float]:
    """Dollars of gains that are taxed at 0, 15 and 20 %."""
    zero_top, fifteen_top = limits.GAIN_BRACKETS[year][status]
    at_zero = min(gains, max(0.0, zero_top - ordinary_taxable))
    at_fifteen = min(gains - at_zero, max(0.0, fifteen_top - ordinary_taxable - at_zero))
    return at_zero, at_fifteen, gains - at_zero - at_fifteen


def net_investment_income_tax(investment_income: float, modified_agi: float, status: Status) -> float:
    """3.8 % of the lesser of net investment income and MAGI over the threshold (IRC 1411)."""
    return 0.038 * min(investment_income, max(0.0, modified_agi - limits.NIIT_THRESHOLD[status]))


def fica(wages: float, year: int) -> float:
    """Employee's Social Security and Medicare tax, without the additional 0.9 % (IRC 3101)."""
    return limits.SOCIAL_SECURITY_RATE * min(wages, limits.WAGE_BASE[year]) + limits.MEDICARE_RATE * wages


def additional_medicare(wages: float, status: Status) -> float:
    """0.9 % of wages over $200,000, or $250,000 for a joint return (IRC 3101(b)(2))."""
    return limits.ADDITIONAL_MEDICARE_RATE * max(0.0, wages - limits.NIIT_THRESHOLD[status])


def self_employment_tax(profit: float, year: int, wages: float = 0.0) -> float:
    """Schedule SE: 92.35 % of profit, 12.4 % up to what wages leave of the base, 2.9 % on all of it."""
    earnings = profit * 0.9235
    room = max(0.0, limits.WAGE_BASE[year] - wages)
    return 2 * limits.SOCIAL_SECURITY_RATE * min(earnings, room) + 2 * limits.MEDICARE_RATE * earnings


def s_corporation_payroll_tax(salary: float, year: int) -> float:
    """Employer's and employee's FICA on a shareholder's salary; distributions carry none (IRS Fact Sheet 2008-25)."""
    return 2 * fica(salary, year)


def qualified_business_deduction(income: float, taxable_before: float, net_gains: float = 0.0) -> float:
    """Section 199A below the income threshold: lesser of 20 % of business income and 20 % of taxable income less net gains."""
    return 0.20 * min(income, taxable_before - net_gains)


def estate_tax(taxable_estate: float, year: int, adjusted_gifts: float = 0.0, ported: float = 0.0) -> float:
    """40 % of what exceeds the basic exclusion and a ported one (exact above $1 million, where the credit equals the exclusion; IRC 2001, 2010)."""
    return limits.ESTATE_RATE * max(0.0, taxable_estate + adjusted_gifts - limits.ESTATE_EXCLUSION[year] - ported)


def taxable_gift(gift: float, year: int, donors: int = 1) -> float:
    """Part of one recipient's gift over the annual exclusion of one donor, or of spouses who split (IRC 2503(b), 2513)."""
    return max(0.0, gift - donors * limits.GIFT_EXCLUSION[year])


def after_loss_offset(gains: float, losses: float) -> tuple[float, float, float]:
    """(net gain taxed, loss deducted from ordinary income, loss carried forward); the deduction stops at $3,000 (IRC 1211(b))."""
    net = gains - losses
    deducted = min(3_000.0, max(0.0, -net))
    return max(0.0, net), deducted, max(0.0, -net - deducted)


def home_sale_gain(price: float, costs: float, basis: float, exclusion: float) -> tuple[float, float]:
    """(gain, taxable gain) on a main home; exclusion $250,000, or $500,000 on a joint return (IRC 121)."""
    gain = price - costs - basis
    return gain, max(0.0, gain - exclusion)


def roth_ira_limit(modified_agi: float, status: Status, year: int, age: int = 40) -> float:
    """Roth IRA contribution after the phase-out: reduced limit up to the next $10, at least $200 while any is left (IRC 408A(c)(3))."""
    full = limits.IRA[year] + (limits.IRA_CATCH_UP[year] if age >= 50 else 0)
    low, high = limits.ROTH_IRA_PHASE_OUT[year][status]
    if modified_agi <= low:
        return full
    if modified_agi >= high:
        return 0.0
    left = full * (high - modified_agi) / (high - low)
    return max(200.0, -(-round(left, 6) // 10) * 10)


def taxable_social_security(benefits: float, other_income: float, status: Status, tax_exempt_interest: float = 0.0) -> float:
    """Taxable part of benefits (IRC 86; Pub. 915 worksheet 1): bases 25,000/34,000, or 32,000/44,000 on a joint return."""
    first, second = limits.BENEFIT_BASES[status]
    combined = other_income + tax_exempt_interest + benefits / 2
    if combined <= first:
        return 0.0
    lower = min(0.5 * (min(combined, second) - first), 0.5 * benefits)
    return min(0.85 * benefits, lower + 0.85 * max(0.0, combined - second))


def underpayment_safe_harbor(last_year_tax: float, this_year_tax: float, last_year_agi: float) -> float:
    """Payments that avoid the penalty: the lesser of 90 % of this year's and 100 % of last year's tax, 110 % above $150,000 of AGI (IRC 6654)."""
    return min(0.9 * this_year_tax, last_year_tax * (1.1 if last_year_agi > 150_000 else 1.0))


def child_tax_credit(children: int, modified_agi: float, status: Status, per_child: float) -> float:
    """$50 less per $1,000, or part of it, over $200,000 ($400,000 joint) (IRC 24(b))."""
    over = max(0.0, modified_agi - limits.CHILD_CREDIT_THRESHOLD[status])
    return max(0.0, children * per_child - 50 * -(-over // 1_000))


def charitable_bunching(yearly_gift: float, other_itemized: float, status: Status, year: int) -> tuple[float, float]:
    """(deductions over two years giving each year, deductions giving both years' gifts in one), the year's standard deduction used for both."""
    standard = limits.STANDARD_DEDUCTION[year][status]
    evenly = 2 * max(standard, other_itemized + yearly_gift)
    return evenly, max(standard, other_itemized + 2 * yearly_gift) + max(standard, other_itemized)


def installment_gain(price: float, basis: float, received: float) -> float:
    """Gain recognised on a payment of an installment sale: payment x gross profit ratio (IRC 453; Pub. 537)."""
    return received * (price - basis) / price
