"""The chained problems of ``data/problems/*_choices.yaml``, computed a second time: month by month or from the definition, without the finance functions."""

from pathlib import Path

import pytest
import yaml

from runners.corpus import problems
from tests.corpus.finance.second_markets import (
    capacity,
    carry,
    cascade,
    employee,
    execution,
    factoring,
    fraud,
    horizon,
    like,
    needed_return,
    outside,
    price_cut,
    put,
    refund,
    removal,
    scaled,
    split,
    streak,
    worst_yield,
)
from tests.corpus.finance.second_people import (
    acceptance,
    after_taxes,
    another_year,
    biweekly,
    borrow,
    bridge,
    care,
    cash_out,
    college,
    consolidation,
    conversion,
    deferral,
    estate,
    fifteen,
    freedom,
    gap,
    gift,
    harvest,
    ladder,
    minimum,
    payday,
    payout,
    pension,
    plans,
    price_check,
    rebate,
    recast,
    rental,
    second_earner,
    side_job,
    study,
    switch,
    transfer,
    warranty,
    windfall,
    withholding,
)

FOLDER = Path(__file__).parents[3] / "data" / "problems"
KINDS = {
    kind["kind"]: problems.Kind.model_validate(kind)
    for file in sorted(FOLDER.glob("*_choices.yaml"))
    for kind in yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
}


BY_HAND = {
    "consolidation-with-fee": consolidation,
    "balance-transfer-deadline": transfer,
    "biweekly-mortgage": biweekly,
    "mortgage-recast": recast,
    "cash-out-or-second-loan": cash_out,
    "fifteen-or-thirty": fifteen,
    "price-from-income": price_check,
    "rebate-or-low-rate": rebate,
    "rolled-payday-loan": payday,
    "cash-after-both-taxes": after_taxes,
    "minimum-balance-cost": minimum,
    "card-acceptance-cost": acceptance,
    "high-deductible-plan": plans,
    "extended-warranty": warranty,
    "term-ladder": ladder,
    "care-cost-fund": care,
    "borrowing-against-salary": borrow,
    "college-fund-tax": college,
    "estate-cash-shortfall": estate,
    "gift-or-bequest": gift,
    "windfall-plan": windfall,
    "savings-rate-years": freedom,
    "study-hours-by-weight": study,
    "early-retirement-bridge": bridge,
    "conversion-tax-cost": conversion,
    "retirement-gap": gap,
    "pension-maximization": pension,
    "one-more-year": another_year,
    "side-job-take-home": side_job,
    "second-earner-net": second_earner,
    "loss-harvest-deferral": harvest,
    "rental-cash-and-tax": rental,
    "withholding-catch-up": withholding,
    "deferral-take-home": deferral,
    "switch-fund-tax": switch,
    "yield-or-growth": payout,
    "loss-capacity-mix": capacity,
    "required-return-mix": needed_return,
    "bond-horizon-return": horizon,
    "protective-put": put,
    "yield-to-worst": worst_yield,
    "losing-streak-size": streak,
    "scaled-entry-risk": scaled,
    "margin-carry": carry,
    "employee-or-contractor": employee,
    "price-cut-volume": price_cut,
    "external-funds-needed": outside,
    "factoring-or-credit-line": factoring,
    "fee-billing-refund": refund,
    "execution-quality": execution,
    "price-volume-split": split,
    "like-for-like-growth": like,
    "two-tier-model-cost": cascade,
    "fraud-rule-benefit": fraud,
    "decommissioning-provision": removal,
}


def test_every_chained_problem_is_computed_twice():
    assert set(BY_HAND) == set(KINDS) and len(KINDS) >= 50


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_the_figures_are_those_of_the_second_computation(name, seed):
    kind = KINDS[name]
    for index in range(len(kind.asks)):
        values = kind.values(index, seed)
        figures = problems.FORMULAS[kind.computation](**values)
        expected = BY_HAND[name](**values)
        assert len(expected) >= 2
        for label, value in expected.items():
            assert figures[label] == pytest.approx(value, rel=1e-5, abs=1e-7), (name, label, values)
