"""Short formulas, against figures worked by hand or printed where the docstring points."""

import math

import pytest

from runners.corpus.finance import bonds, business, education, insurance, lending, money, options, portfolio, retirement, tax, trading


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (bonds.current_yield(1_000, 0.06, 960), 0.0625),
        (bonds.accrued_interest(1_000, 0.06, 90, 180), 15),
        (bonds.bill_investment_rate(1_000, 990, 91), 10 / 990 * 365 / 91),
        (bonds.inflation_adjusted_principal(1_000, 1.05), 1_050),
        (business.units_for_profit(50_000, 25, 15, 10_000), 6_000),
        (business.margin_of_safety(100, 80), 0.2),
        (business.price_for_margin(60, 0.4), 100),
        (business.unlevered_beta(1.5, 1, 0.5), 1),
        (business.straight_line(10_000, 1_000, 9), 1_000),
        (business.double_declining(10_000, 5, 2), 2_400),
        (business.cash_conversion_days(50, 40, 30), 60),
        (business.turnover_days(100, 730), 50),
        (business.quick_ratio(10, 20, 30, 40), 1.5),
        (business.enterprise_value(100, 50, 30, 5), 125),
        (business.sustainable_growth(0.15, 0.4), 0.09),
        (business.burn_months(120, 30, 10), 6),
        (business.post_money_share(2, 8), 0.2),
        (business.diluted_share(0.5, [0.2, 0.5]), 0.2),
        (business.debt_service_coverage(125, 100), 1.25),
        (education.four_year_cost(100, 0.10, 1), 110 + 121 + 133.1 + 146.41),
        (education.nonqualified_penalty(1_000, 0.6, 0.22)[1], 400 * 0.32),
        (education.deferred_interest(10_000, 0.06, 18), 900),
        (insurance.actual_cash_value(20_000, 5, 20), 15_000),
        (insurance.actual_cash_value(20_000, 25, 20), 0),
        (insurance.disability_gap(10_000, 0.7, 0.6, 5_000), 2_000),
        (insurance.deductible_break_even_years(500, 1_000, 100), 5),
        (insurance.combined_ratio(70, 35, 100), 1.05),
        (lending.refinance_break_even_months(1_500, 1_400, 3_000), 30),
        (money.growth_rate(100, 121, 2), 0.10),
        (money.profitability_index(0.10, [-100, 121]), 1.1),
        (options.delta(42, 40, 0.5, 0.10, 0.20), 0.7791),
        (options.delta(42, 40, 0.5, 0.10, 0.20, "put"), -0.2209),
        (options.forward_price(40, 0.25, 0.05), 40.503),
        (options.currency_forward(1.0, 0.05, 0.05, 3), 1.0),
        (options.payoff(90, 100, "put"), 10),
        (portfolio.beta(0.5, 0.30, 0.15), 1),
        (portfolio.sharpe(0.12, 0.04, 0.16), 0.5),
        (portfolio.information_ratio(0.11, 0.09, 0.04), 0.5),
        (portfolio.sample_volatility([0.01, 0.03]), 0.01 * math.sqrt(2)),
        (portfolio.recovery_gain(0.5), 1),
        (portfolio.value_after_fee(100, 0.0, 0.5, 2), 25),
        (portfolio.herfindahl([0.5, 0.5]), 0.5),
        (portfolio.gordon_value(2, 0.08, 0.04), 50),
        (retirement.employer_match(100_000, 0.03, 0.5, 0.06), 1_500),
        (retirement.claiming_break_even_months(1_400, 2_000, 60), 140),
        (retirement.pro_rata_taxable(10_000, 20_000, 100_000), 8_000),
        (tax.taxable_income(20_000, "single", 2025), 4_250),
        (tax.taxable_income(60_000, "single", 2025, deductions=20_000), 40_000),
        (tax.qualified_business_deduction(50_000, 40_000), 8_000),
        (tax.underpayment_safe_harbor(10_000, 20_000, 200_000), 11_000),
        (tax.underpayment_safe_harbor(10_000, 20_000, 100_000), 10_000),
        (tax.installment_gain(100, 40, 50), 30),
        (trading.expectancy(0.4, 300, 100), 60),
        (trading.annual_volatility(0.01), 0.15875),
        (trading.ewma_volatility(0.01, 0.01), 0.01),
        (trading.square_root_impact(0.02, 1, 4), 0.01),
        (trading.vwap([10, 20], [3, 1]), 12.5),
        (trading.minimum_variance_hedge(0.928, 0.0263, 0.0313), 0.78),
        (trading.z_score(3, 1, 2), 1),
    ],
)
def test_value(computed, expected):
    assert computed == pytest.approx(expected, rel=1e-3)


def test_both_branches_of_bunching():
    assert tax.charitable_bunching(10_000, 10_000, "single", 2024) == (40_000, 44_600)
    assert tax.charitable_bunching(1_000, 1_000, "single", 2024) == (29_200, 29_200)


def test_a_loan_that_can_be_paid_is_the_one_lent():
    assert money.annuity_present_value(lending.monthly_payment(200_000, 0.06, 360), 0.06 / 12, 360) == pytest.approx(200_000)


def test_a_pension_pot_without_growth_lasts_as_long_as_division_says():
    assert money.periods_to_repay(100, 0.0, 10) == 10


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: business.break_even_units(1, 1, 2),
        lambda: portfolio.gordon_value(1, 0.02, 0.03),
        lambda: money.periods_to_repay(1_000, 0.02, 20),
        lambda: money.solve(lambda x: x + 10, 0, 1),
    ],
)
def test_what_has_no_answer_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
