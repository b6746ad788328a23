"""Small-business and company finance.

Sources: Horngren, "Cost Accounting" (break-even); IRS Publication 946, Table A-1 (MACRS, half-year convention); Modigliani & Miller, Brealey & Myers (WACC);
Penman, "Financial Statement Analysis" (ratios).
"""

from __future__ import annotations

from collections.abc import Sequence

#: Percentages of basis by class of property, 200 % declining balance (150 % for 15 and 20 years), half-year convention.
MACRS = {
    3: (33.33, 44.45, 14.81, 7.41),
    5: (20.00, 32.00, 19.20, 11.52, 11.52, 5.76),
    7: (14.29, 24.49, 17.49, 12.49, 8.93, 8.92, 8.93, 4.46),
}


def break_even_units(fixed: float, price: float, variable: float) -> float:
    """Units at which contribution covers fixed cost. Raises ValueError when a unit contributes nothing."""
    if price <= variable:
        raise ValueError(f"a price of {price} does not cover the variable cost of {variable}")
    return fixed / (price - variable)


def units_for_profit(fixed: float, price: float, variable: float, profit: float) -> float:
    """Units for a profit before tax."""
    return break_even_units(fixed + profit, price, variable)


def margin_of_safety(sales: float, break_even_sales: float) -> float:
    """Fraction by which sales may fall before a loss."""
    return (sales - break_even_sales) / sales


def price_for_margin(cost: float, margin: float) -> float:
    """Price whose gross margin (of price) is ``margin``."""
    return cost / (1 - margin)


def markup_for_margin(margin: float) -> float:
    """Markup on cost equal to a margin of price: m / (1 - m)."""
    return margin / (1 - margin)


def wacc(equity: float, debt: float, cost_of_equity: float, cost_of_debt: float, tax_rate: float) -> float:
    """Weighted average cost of capital, interest deductible: E/V re + D/V rd (1 - t)."""
    total = equity + debt
    return equity / total * cost_of_equity + debt / total * cost_of_debt * (1 - tax_rate)


def unlevered_beta(levered: float, debt_to_equity: float, tax_rate: float) -> float:
    """Hamada (1972): b / (1 + (1 - t) D/E)."""
    return levered / (1 + (1 - tax_rate) * debt_to_equity)


def macrs_deduction(basis: float, life: int, year: int) -> float:
    """Depreciation in ``year`` (1 is the first) of property of ``life`` 3, 5 or 7 years, without section 179 or bonus."""
    return basis * MACRS[life][year - 1] / 100


def straight_line(cost: float, salvage: float, years: float) -> float:
    """Book depreciation a year."""
    return (cost - salvage) / years


def double_declining(cost: float, years: int, year: int) -> float:
    """Book depreciation of ``year`` at twice the straight-line rate, salvage not reached."""
    rate = 2 / years
    return cost * (1 - rate) ** (year - 1) * rate


def cash_conversion_days(inventory_days: float, receivable_days: float, payable_days: float) -> float:
    """Days from paying suppliers to being paid."""
    return inventory_days + receivable_days - payable_days


def turnover_days(balance: float, yearly_flow: float, year_days: int = 365) -> float:
    """Days of sales (or of cost of sales) that a balance equals."""
    return balance / yearly_flow * year_days


def dupont(net_income: float, sales: float, assets: float, equity: float) -> tuple[float, float, float, float]:
    """(return on equity, net margin, asset turnover, equity multiplier)."""
    margin, turnover, multiplier = net_income / sales, sales / assets, assets / equity
    return margin * turnover * multiplier, margin, turnover, multiplier


def quick_ratio(cash: float, securities: float, receivables: float, current_liabilities: float) -> float:
    """Acid test: liquid assets without inventory per current liabilities."""
    return (cash + securities + receivables) / current_liabilities


def enterprise_value(market_cap: float, debt: float, cash: float, preferred: float = 0.0) -> float:
    """What an acquirer of everything pays: equity + debt + preferred - cash."""
    return market_cap + debt + preferred - cash


def sustainable_growth(return_on_equity: float, payout: float) -> float:
    """Growth without new equity: ROE x retained share."""
    return return_on_equity * (1 - payout)


def trade_credit_cost(discount: float, discount_days: int, net_days: int) -> float:
    """Effective annual cost of passing over terms such as 2/10 net 30: (1 + d/(1-d))^(365/(net - days)) - 1."""
    return float((1 + discount / (1 - discount)) ** (365 / (net_days - discount_days)) - 1)


def order_quantity(yearly_demand: float, cost_per_order: float, holding_cost: float) -> float:
    """Economic order quantity (Harris 1913): sqrt(2 D S / H)."""
    return float((2 * yearly_demand * cost_per_order / holding_cost) ** 0.5)


def burn_months(cash: float, monthly_spending: float, monthly_revenue: float) -> float:
    """Runway at constant net burn."""
    return cash / (monthly_spending - monthly_revenue)


def post_money_share(invested: float, pre_money: float) -> float:
    """Investor's share of a priced round: I / (pre + I)."""
    return invested / (pre_money + invested)


def diluted_share(share: float, new_shares_fraction: Sequence[float]) -> float:
    """A holder's share after rounds that each sell a fraction of the company."""
    for sold in new_shares_fraction:
        share *= 1 - sold
    return share


def debt_service_coverage(operating_income: float, debt_service: float) -> float:
    """Net operating income per principal and interest due in the year."""
    return operating_income / debt_service


def allocate(price: float, standalone: Sequence[float]) -> list[float]:
    """Transaction price over performance obligations by relative stand-alone price (ASC 606-10-32-31; IFRS 15.76)."""
    return [price * part / sum(standalone) for part in standalone]
