"""Formulas against examples that somebody else published, and against identities that must hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.corpus.finance import (
    banking,
    bonds,
    business,
    classification,
    education,
    identifiers,
    insurance,
    lending,
    money,
    options,
    portfolio,
    retirement,
    tax,
    trading,
)

RATES = st.floats(0.001, 0.25)


def test_mortgage_payment_as_the_cfpb_and_every_table_print_it():
    assert lending.monthly_payment(100_000, 0.06, 360) == pytest.approx(599.55, abs=0.005)
    assert lending.monthly_payment(200_000, 0.065, 360) == pytest.approx(1264.14, abs=0.005)


def test_amortization_ends_at_zero_and_agrees_with_the_closed_form():
    rows = lending.amortization(250_000, 0.0625, 360)
    assert rows[-1].balance == pytest.approx(0, abs=0.01) and len(rows) == 360
    assert rows[119].balance == pytest.approx(lending.balance_after(250_000, 0.0625, 360, 120), abs=0.01)


def test_extra_payments_shorten_the_loan():
    assert len(lending.amortization(250_000, 0.0625, 360, extra=200)) < 360


@given(RATES, st.integers(1, 480))
def test_payment_and_present_value_are_inverse(rate, periods):
    assert money.annuity_present_value(money.payment(1000, rate, periods), rate, periods) == pytest.approx(1000)


@given(RATES, st.integers(1, 60), st.floats(0, 5000))
def test_saving_needed_reaches_the_target(rate, periods, start):
    saved = money.saving_needed(10_000, rate, periods, start)
    assert money.future_value(start, rate, periods) + money.annuity_future_value(saved, rate, periods) == pytest.approx(10_000)


def test_growth_annuities_and_rates():
    assert money.effective_rate(0.18, 12) == pytest.approx(0.195618, abs=1e-6)
    assert money.annuity_future_value(1, 0.05, 10) == pytest.approx(12.5779, abs=5e-5)
    assert money.annuity_present_value(1, 0.05, 10, due=True) == pytest.approx(8.1078, abs=5e-5)
    assert money.doubling_years(0.08) == pytest.approx(9.006, abs=5e-4)


def test_projects():
    flows = [-1000, 500, 400, 300, 100]  # Brigham & Houston's project S at 10 %: NPV 78.82, IRR 14.49 %, payback 2.33 years
    assert money.npv(0.10, flows) == pytest.approx(78.82, abs=0.005)
    assert money.irr(flows) == pytest.approx(0.1449, abs=5e-5)
    assert money.payback_years(flows) == pytest.approx(2 + 1 / 3)
    with pytest.raises(ValueError, match="never"):
        money.payback_years([-10, 1, 1])


def test_black_scholes_examples_of_hull():
    assert options.black_scholes(42, 40, 0.5, 0.10, 0.20) == pytest.approx(4.76, abs=0.005)
    assert options.black_scholes(42, 40, 0.5, 0.10, 0.20, "put") == pytest.approx(0.81, abs=0.005)
    assert options.black_scholes(930, 900, 2 / 12, 0.08, 0.20, dividend=0.03) == pytest.approx(51.83, abs=0.005)


@given(st.floats(20, 200), st.floats(20, 200), st.floats(0.05, 3), st.floats(0, 0.15), st.floats(0.05, 0.8))
def test_put_call_parity_holds(spot, strike, years, rate, volatility):
    call = options.black_scholes(spot, strike, years, rate, volatility)
    put = options.black_scholes(spot, strike, years, rate, volatility, "put")
    assert options.put_from_call(call, spot, strike, years, rate) == pytest.approx(put, abs=1e-8)


def test_bonds_of_bodie_kane_and_marcus():
    assert bonds.price(1000, 0.08, 0.10, 30) == pytest.approx(810.71, abs=0.005)
    assert bonds.macaulay_duration(0.08, 0.10, 2) == pytest.approx(1.8852, abs=5e-4)
    assert bonds.modified_duration(0.08, 0.08, 30, 1) == pytest.approx(11.26, abs=0.005)
    assert bonds.convexity(0.08, 0.08, 30, 1) == pytest.approx(212.4, abs=0.05)
    assert bonds.yield_to_maturity(1000, 0.08, 1276.76, 30) == pytest.approx(0.06, abs=5e-6)
    assert bonds.yield_to_call(1000, 0.08, 1150, 10, 1100) == pytest.approx(0.0664, abs=5e-5)


@given(st.floats(0, 0.12), st.floats(0.005, 0.15), st.integers(1, 30))
def test_duration_and_convexity_predict_a_small_move(coupon, yield_, years):
    shift = 1e-4
    predicted = bonds.price_change(bonds.modified_duration(coupon, yield_, years), bonds.convexity(coupon, yield_, years), shift)
    moved = bonds.price(1, coupon, yield_ + shift, years) / bonds.price(1, coupon, yield_, years) - 1
    assert moved == pytest.approx(predicted, rel=1e-4)


def test_treasury_bills_and_forward_rates():
    assert bonds.bill_price(1000, 0.0425, 182) == pytest.approx(978.51, abs=0.005)
    assert bonds.forward_rate(0.04, 1, 0.05, 2) == pytest.approx(0.06010, abs=5e-6)


@pytest.mark.parametrize(
    ("taxable", "status", "year", "expected"),
    [  # base amounts of the IRS's tax rate schedules: Form 1040-ES for 2024 and 2025
        (47_150, "single", 2024, 5_426),
        (100_525, "single", 2024, 17_168.50),
        (609_350, "single", 2024, 183_647.25),
        (201_050, "joint", 2024, 34_337),
        (48_475, "single", 2025, 5_578.50),
        (103_350, "single", 2025, 17_651),
        (197_300, "single", 2025, 40_199),
        (626_350, "single", 2025, 188_769.75),
        (96_950, "joint", 2025, 11_157),
        (206_700, "joint", 2025, 35_302),
        (751_600, "joint", 2025, 202_154.50),
        (64_850, "head", 2025, 7_442),
    ],
)
def test_income_tax_equals_the_schedules(taxable, status, year, expected):
    assert tax.income_tax(taxable, status, year) == pytest.approx(expected)


@given(st.floats(1, 2_000_000))
def test_tax_grows_by_the_marginal_rate(taxable):
    step = 0.001
    rates = {tax.marginal_rate(taxable, "single", 2025), tax.marginal_rate(taxable + step, "single", 2025)}
    grown = (tax.income_tax(taxable + step, "single", 2025) - tax.income_tax(taxable, "single", 2025)) / step
    assert min(rates) - 1e-3 <= grown <= max(rates) + 1e-3


def test_payroll_taxes():
    assert tax.fica(168_600, 2024) == pytest.approx(10_453.20 + 2_444.70)
    assert tax.fica(200_000, 2025) == pytest.approx(10_918.20 + 2_900)
    assert tax.self_employment_tax(100_000, 2025) == pytest.approx(14_129.55)
    assert tax.self_employment_tax(50_000, 2025, wages=176_100) == pytest.approx(46_175 * 0.029)
    assert tax.additional_medicare(260_000, "joint") == pytest.approx(90)


def test_gains_and_surtax():
    assert tax.gains_tax(40_000, 20_000, "single", 2025) == pytest.approx(0.15 * (60_000 - 48_350))
    assert tax.gains_tax(0, 700_000, "single", 2025) == pytest.approx(0.15 * (533_400 - 48_350) + 0.20 * (700_000 - 533_400))
    assert tax.net_investment_income_tax(20_000, 210_000, "single") == pytest.approx(380)
    assert tax.after_loss_offset(5_000, 12_000) == (0, 3_000, 4_000)
    assert tax.home_sale_gain(800_000, 40_000, 300_000, 250_000) == (460_000, 210_000)


def test_roth_phase_out_as_publication_590a_rounds_it():
    assert tax.roth_ira_limit(150_000, "single", 2025) == 7_000
    assert tax.roth_ira_limit(157_500, "single", 2025) == 3_500
    assert tax.roth_ira_limit(164_900, "single", 2025) == 200
    assert tax.roth_ira_limit(165_000, "single", 2025) == 0
    assert tax.roth_ira_limit(156_000, "single", 2024, age=55) == 2_670


def test_taxable_benefits_of_publication_915():
    # Pub. 915's first example: single, benefits 5,980, other income 28,990 -> 2,990 taxable.
    assert tax.taxable_social_security(5_980, 28_990, "single") == pytest.approx(2_990)
    assert tax.taxable_social_security(10_000, 40_500, "joint") == pytest.approx(6_275)
    assert tax.taxable_social_security(12_000, 10_000, "single") == 0


def test_estate_and_gifts():
    assert tax.estate_tax(15_000_000, 2025) == pytest.approx(404_000)
    assert tax.estate_tax(12_000_000, 2025) == 0
    assert tax.taxable_gift(50_000, 2025, donors=2) == 12_000
    assert tax.child_tax_credit(2, 210_500, "single", 2_000) == 4_000 - 550


def test_required_distributions():
    assert retirement.required_distribution(100_000, 75) == pytest.approx(4_065.04, abs=0.005)
    assert len(retirement.UNIFORM_LIFETIME) == 49 and retirement.UNIFORM_LIFETIME[120] == 2.0 and retirement.UNIFORM_LIFETIME[96] == 8.4
    assert list(retirement.UNIFORM_LIFETIME.values()) == sorted(retirement.UNIFORM_LIFETIME.values(), reverse=True)


def test_social_security_factors_as_ssa_prints_them():
    assert retirement.claiming_factor(-60) == pytest.approx(0.70)
    assert retirement.claiming_factor(-36) == pytest.approx(0.80)
    assert retirement.claiming_factor(36) == pytest.approx(1.24)
    assert retirement.spousal_factor(60) == pytest.approx(0.325)
    assert retirement.primary_insurance_amount(1_226, 2025) == 1_103.4
    assert retirement.earnings_test_withheld(33_400, 2025) == 5_000
    assert retirement.saver_limit(2025, 62) == 34_750 and retirement.saver_limit(2025, 64) == 31_000 and retirement.saver_limit(2024, 49) == 23_000


def test_roth_equals_traditional_when_rates_do():
    roth, traditional = retirement.roth_against_traditional(7_000, 0.22, 0.22, 0.07, 25)
    assert roth == pytest.approx(traditional)


def test_portfolio():
    assert portfolio.two_asset_volatility(0.4, 0.12, 0.20, 0.3) == pytest.approx(0.142, abs=5e-4)  # BKM, 40 % bonds, correlation 0.30
    assert portfolio.minimum_variance_weight(0.12, 0.20, 0.3) == pytest.approx(0.82, abs=5e-3)
    assert portfolio.capm(0.03, 1.2, 0.09) == pytest.approx(0.102)
    assert portfolio.geometric_mean([0.5, -0.5]) == pytest.approx(-0.13397, abs=5e-6)
    assert portfolio.max_drawdown([100, 120, 90, 130]) == pytest.approx(0.25)
    assert portfolio.average_cost([100, 100], [10, 20]) == pytest.approx(40 / 3)
    assert portfolio.time_weighted_return([(100, 110), (210, 199.5)]) == pytest.approx(1.1 * 0.95 - 1)
    assert portfolio.alpha(0.12, 0.03, 1.2, 0.09) == pytest.approx(0.018)


@given(st.floats(0.05, 0.5), st.floats(0.05, 0.5), st.floats(-0.9, 0.9), st.floats(0, 1))
def test_no_weight_beats_the_minimum_variance(first, second, correlation, weight):
    best = portfolio.two_asset_volatility(portfolio.minimum_variance_weight(first, second, correlation), first, second, correlation)
    assert portfolio.two_asset_volatility(weight, first, second, correlation) >= best - 1e-9


def test_trading():
    assert trading.kelly(0.6, 1) == pytest.approx(0.2)
    assert trading.parametric_var(1_000_000, 0.01, 0.99, 10) == pytest.approx(73_564, abs=1)
    assert trading.expected_shortfall(1, 1, 0.99) == pytest.approx(2.665, abs=1e-3)
    assert trading.margin_call_price(100) == pytest.approx(66.667, abs=5e-4)
    assert trading.short_margin_call_price(50) == pytest.approx(57.692, abs=5e-4)
    assert trading.slippage_bps(50, 50.05, 1) == pytest.approx(10)
    assert trading.implementation_shortfall(50, 50.1, 800, 1000, 51) == pytest.approx(280)
    assert trading.hedge_contracts(5_000_000, 1.2, 250_000) == pytest.approx(-24)


def test_debt_orders():
    debts = [lending.Debt("card", 4_000, 0.24, 100), lending.Debt("loan", 1_500, 0.09, 50), lending.Debt("store", 2_500, 0.18, 60)]
    avalanche, snowball = lending.pay_off(debts, 500, "avalanche"), lending.pay_off(debts, 500, "snowball")
    assert avalanche.interest < snowball.interest
    assert snowball.cleared[0] == "loan" and avalanche.cleared[0] == "card"
    with pytest.raises(ValueError, match="minimums"):
        lending.pay_off(debts, 100, "snowball")


def test_apr_exceeds_the_rate_when_there_are_fees():
    assert lending.annual_percentage_rate(10_000, 0, 0.08, 36) == pytest.approx(0.08)
    assert lending.annual_percentage_rate(5_000, 0, 0.0715, 24) < lending.annual_percentage_rate(5_000, 75, 0.0715, 24)


def test_mortgage_insurance_ends():
    month = lending.month_at_loan_to_value(285_000, 0.065, 360, 300_000, 0.80)
    assert lending.balance_after(285_000, 0.065, 360, month) <= 240_000 < lending.balance_after(285_000, 0.065, 360, month - 1)


def test_business():
    assert business.break_even_units(50_000, 25, 15) == 5_000
    assert business.wacc(600, 400, 0.12, 0.06, 0.25) == pytest.approx(0.09)
    assert all(sum(table) == pytest.approx(100) for table in business.MACRS.values())
    assert business.macrs_deduction(10_000, 5, 2) == 3_200
    assert business.trade_credit_cost(0.02, 10, 30) == pytest.approx(0.4459, abs=5e-5)
    assert business.dupont(50, 1000, 500, 250)[0] == pytest.approx(0.2)
    assert business.order_quantity(1_000, 10, 0.5) == pytest.approx(200)
    assert business.markup_for_margin(0.5) == 1


def test_insurance_and_education():
    assert insurance.coinsurance_payment(100_000, 300_000, 500_000) == pytest.approx(75_000)
    assert insurance.coinsurance_payment(100_000, 400_000, 500_000) == pytest.approx(100_000)
    assert insurance.patient_cost(10_000, 2_000, 0.2, 5_000) == pytest.approx(3_600)
    assert insurance.patient_cost(50_000, 2_000, 0.2, 5_000) == 5_000
    assert education.american_opportunity_credit(4_000) == (2_500, 1_000)
    assert education.american_opportunity_credit(1_000) == (1_000, 400)
    assert education.lifetime_learning_credit(12_000) == 2_000
    assert education.income_based_payment(60_000, 1, 2025) == pytest.approx((60_000 - 23_475) * 0.1 / 12)
    assert education.superfunding_limit(2025) == 95_000


def test_check_digits_of_published_identifiers():
    assert identifiers.luhn_check_digit("7992739871") == 3
    assert identifiers.isin_check_digit("US037833100") == 5  # Apple
    assert identifiers.iban_check_digits("GB", "WEST12345698765432") == "82"
    assert identifiers.mod97("WEST12345698765432GB82") == 1
    assert identifiers.routing_checksum("011000015") % 10 == 0  # Federal Reserve Bank of Boston


def test_liability_and_deposit_insurance_follow_the_regulations():
    # By hand from the rule: $50 of the first $100, and the later $600, but never more than $500.
    assert banking.unauthorized_transfer_liability(100, 600, told_in_two_days=False) == 500
    assert banking.unauthorized_transfer_liability(25, 0, told_in_two_days=True) == 25
    assert banking.uninsured_deposits(600_000, (260_000, 100_000)) == 110_000
    assert education.rollover_to_roth(2025, 50_000, 2_000, rolled_before=32_000) == 3_000


def test_classification():
    precision, recall = classification.precision_and_recall(8, 2, 8)
    assert (precision, recall) == (0.8, 0.5) and classification.f1(precision, recall) == pytest.approx(8 / 13)
    assert classification.flagged_truly(0.01, 0.99, 0.01) == pytest.approx(0.5)
    assert classification.expected_credit_loss(0.02, 0.45, 1_000_000) == pytest.approx(9_000)
    assert classification.review_threshold(10, 1_000) == 0.01


def test_revenue_splits_and_identifiers_of_prices():
    assert business.allocate(1_000, [700, 500]) == pytest.approx([583.33, 416.67], abs=0.005)
    assert portfolio.split_adjusted_return(100, 52, 2) == pytest.approx(0.04)
    assert money.at_index(100, 200, 250) == 125
