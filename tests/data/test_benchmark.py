"""The project's own benchmark: every figure recomputed, every check failable, nothing given away, nothing in the corpus."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from runners.corpus import problems
from runners.corpus.finance import (
    banking,
    bonds,
    business,
    classification,
    education,
    identifiers,
    insurance,
    lending,
    limits,
    money,
    options,
    portfolio,
    retirement,
    tax,
    trading,
)
from runners.corpus.pairs import DOMAINS
from runners.evaluation import baselines, cases
from runners.evaluation.cases import ChoiceCheck, DeclineCheck, FactCheck, ForbiddenCheck, NumberCheck
from runners.evaluation.contamination import TrainingPair
from runners.evaluation.numbers import quantities
from runners.evaluation.roles import value_in
from runners.evaluation.scoring import score
from runners.evaluation.wording import Text
from tests.data.benchmark_figures import FIGURES

ROOT = Path(__file__).parents[2]
BENCHMARK = cases.load(ROOT / "data" / "benchmark")
FIRST = cases.load(ROOT / "data" / "benchmark" / "v1")
by_id = pytest.mark.parametrize("case", BENCHMARK.cases, ids=lambda case: case.id)

#: What the finance functions, or the dated limits, say each number of a case is, in the order of its number checks. Percent checks are in percent.
#: Version 1; those of version 2 are in benchmark_figures.py.
ANSWERS = {
    "retirement-delayed-first-rmd": [retirement.required_distribution(512_000, 73) + retirement.required_distribution(530_000, 74)],
    "retirement-catch-up-61": [retirement.saver_limit(2025, 61)],
    "retirement-claim-at-62": [2400 * retirement.claiming_factor(-60)],
    "retirement-roth-phase-out": [tax.roth_ira_limit(156_000, "single", 2025, age=38)],
    "retirement-missed-rmd": [retirement.missed_distribution_tax(8_400, False), retirement.missed_distribution_tax(8_400, True)],
    "tax-single-2025": [tax.income_tax(85_000, "single", 2025)],
    "tax-self-employment": [tax.self_employment_tax(30_000, 2025, wages=160_000)],
    "tax-gains-straddle": [tax.gains_tax(40_000, 20_000, "single", 2025)],
    "tax-niit-joint": [tax.net_investment_income_tax(72_000, 300_000, "joint")],
    "tax-loss-carryover": [*tax.after_loss_offset(4_000, 15_000)[1:]],
    "estate-gift-splitting": [2 * 6 * limits.GIFT_EXCLUSION[2025]],
    "estate-tax-2025-death": [tax.estate_tax(16_000_000, 2025)],
    "estate-stepped-up-basis": [97_000 - 90_000],
    "estate-ten-year-rule": [2021 + 10],
    "investing-real-return": [100 * money.real_rate(0.08, 0.03)],
    "investing-two-assets": [100 * portfolio.two_asset_volatility(0.6, 0.18, 0.06, 0.2)],
    "investing-duration-move": [-100 * bonds.price_change(7.2, 0, 0.0075)],
    "investing-up-and-down": [10_000 * 1.5 * 0.6, -100 * portfolio.geometric_mean([0.5, -0.4])],
    "investing-fee-drag": [money.future_value(100_000, 0.0695, 30) - money.future_value(100_000, 0.06, 30)],
    "markets-put-call-parity": [options.put_from_call(4.80, 52, 50, 0.5, 0.04)],
    "markets-black-scholes-call": [options.black_scholes(100, 105, 0.25, 0.05, 0.30)],
    "markets-bill-price": [bonds.bill_price(10_000, 0.042, 91)],
    "markets-forward-rate": [100 * bonds.forward_rate(0.04, 1, 0.046, 2)],
    "trading-kelly": [100 * trading.kelly(0.55, 1.2)],
    "trading-ten-day-var": [trading.parametric_var(2_500_000, 0.011, 0.99, 10)],
    "trading-margin-call": [trading.margin_call_price(60, 0.5, 0.30)],
    "trading-slippage": [trading.slippage_bps(80, 80.14, 1)],
    "trading-position-size": [trading.position_size(48_000, 0.01, 36.50, 34.90)],
    "banking-apy": [100 * money.effective_rate(0.051, 365)],
    "banking-joint-coverage": [banking.uninsured_deposits(630_000, (310_000, 0))],
    "banking-lost-card": [banking.unauthorized_transfer_liability(200, 310, told_in_two_days=False)],
    "banking-cd-penalty": [25_000 * 0.045 * 180 / 365],
    "credit-mortgage-payment": [lending.monthly_payment(375_000, 0.065, 360)],
    "credit-back-end-ratio": [100 * (2_100 + 450 + 300) / 7_500],
    "credit-card-months": [math.ceil(money.periods_to_repay(5_200, 0.02, 210))],
    "credit-pmi-threshold": [0.80 * 390_000, 0.78 * 390_000],
    "credit-negative-items": [2021 + limits.REPORT_YEARS["late payment"], 2019 + limits.REPORT_YEARS["bankruptcy"]],
    "insurance-coinsurance-clause": [insurance.coinsurance_payment(200_000, 600_000, 1_000_000, 0.8, 5_000)],
    "insurance-patient-share": [insurance.patient_cost(18_000, 1_500, 0.2, 6_000)],
    "insurance-life-needs": [insurance.life_needs(50_000, 18, 0.02, 210_000, 120_000, 160_000)],
    "education-opportunity-credit": [*education.american_opportunity_credit(3_200)],
    "education-future-cost": [money.future_value(28_000, 0.04, 12)],
    "education-over-the-election": [120_000 - education.superfunding_limit(2025)],
    "education-529-rollover": [education.rollover_to_roth(2025, compensation=5_200, contributed=1_000)],
    "education-monthly-saving": [education.monthly_saving(120_000, 10_000, 0.06, 15)],
    "business-break-even": [business.break_even_units(42_000, 24, 10)],
    "business-macrs-second-year": [business.macrs_deduction(60_000, 5, 2)],
    "business-wacc": [100 * business.wacc(700, 300, 0.11, 0.06, 0.25)],
    "business-s-corporation": [tax.self_employment_tax(120_000, 2025) - tax.s_corporation_payroll_tax(70_000, 2025)],
    "business-npv-machine": [money.npv(0.10, [-90_000] + [26_000] * 5)],
    "wealth-monthly-goal": [education.monthly_saving(750_000, 0, 0.06, 20)],
    "wealth-net-worth": [480_000 + 215_000 + 32_000 + 26_000 - 305_000 - 11_000 - 4_500],
    "wealth-withdrawal-target": [(96_000 - 36_000) / 0.04],
    "wealth-qcd": [limits.QUALIFIED_CHARITABLE_DISTRIBUTION[2025]],
    "compliance-cash-report": [limits.CTR_DAYS],
    "compliance-13f": [*limits.FORM_13F],
    "compliance-accredited-income": [limits.ACCREDITED_INCOME[0] - 187_500],
    "credentials-cfa-experience": [limits.CFA_EXPERIENCE[0] - 2_650, limits.CFA_EXPERIENCE[1] - 20],
    "credentials-cfp-experience": [hours - 3_100 for hours in limits.CFP_EXPERIENCE],
    "standards-bundle-half-year": [(lambda device, support: device + support * 6 / 24)(*business.allocate(1_000, [700, 500]))],
    "standards-iban-check": [int(identifiers.iban_check_digits("NL", "ABNA0417164300"))],
    "data-annualised-growth": [100 * money.effective_rate(4 * 0.008, 4)],
    "data-index-deflation": [money.at_index(52_000, 251.1, 305.7)],
    "data-split-return": [100 * portfolio.split_adjusted_return(180, 61.50, 3)],
    "technology-precision-recall": [100 * value for value in classification.precision_and_recall(40, 10, 20)],
    "literacy-rule-of-72": [72 / 4.5],
    "literacy-emergency-gap": [3_150 * 6 - 7_400],
    "literacy-budget-split": [0.20 * 5_240, 0.30 * 5_240],
} | FIGURES
#: The kinds of computation that a generator of training problems makes.
SEEN = frozenset(row["kind"] for row in problems.generate(ROOT / "data" / "problems"))
#: Stands in a number check's label when the figure has to be picked from several candidates of the passage, and so cannot but stand in it.
PICKED = "picked from"


def words(text):
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def asked(case):
    """All that the model is shown: earlier turns, passage and question, without the choices (one of them has to be the answer)."""
    return "\n".join([turn.content for turn in case.history] + [case.passage or "", case.question])


def masked(text):
    """The words of a text without its figures: what a template's questions have in common."""
    return frozenset(re.findall(r"[a-z']+", re.sub(r"\d[\d.,]*%?", " ", text.lower())))


def corpus():
    """(place, question) of everything a model may be trained on."""
    rows = [(f"problems {row['id']}", row["question"]) for row in problems.generate(ROOT / "data" / "problems")]
    for file in sorted((ROOT / "data" / "qa").glob("**/*.yaml")):
        loaded = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        listed = loaded if isinstance(loaded, list) else next((v for v in loaded.values() if isinstance(v, list)), [])
        rows += [(file.name, row["question"]) for row in listed]
    for file in sorted((ROOT / "data" / "guides").glob("**/*.md")):
        rows += [(file.name, line.lstrip("# ").strip()) for line in file.read_text().splitlines() if line.startswith("#")]
    return rows


def test_size_spread_and_kinds():
    every = BENCHMARK.cases
    categories = Counter(case.category for case in every)
    assert set(categories) == set(DOMAINS)
    assert len(every) >= 300 and min(categories.values()) >= 15
    difficulties, kinds = Counter(c.difficulty for c in every), Counter(c.kind for c in every)
    assert difficulties["hard"] >= 0.4 * len(every) and difficulties["easy"] >= 30 and kinds["decline"] >= 18 and kinds["multiple_choice"] >= 30
    assert sum(bool(case.history) for case in every) >= 30
    assert sum(bool(case.passage) for case in every) >= 40
    letters = Counter(check.choice for case in every for check in case.checks if isinstance(check, ChoiceCheck))
    assert max(letters.values()) <= 0.4 * letters.total(), "always choosing one letter must not pay"


def test_at_least_a_third_is_worded_or_has_several_figures():
    figures = [sum(isinstance(check, NumberCheck) for check in case.checks) for case in BENCHMARK.cases]
    worded = [any(isinstance(check, FactCheck | ChoiceCheck | DeclineCheck) for check in case.checks) for case in BENCHMARK.cases]
    assert sum(many > 1 or words_count for many, words_count in zip(figures, worded, strict=True)) >= len(BENCHMARK.cases) / 3


def test_at_least_half_is_of_kinds_no_generator_makes():
    assert all(case.computation for case in BENCHMARK.cases)
    unseen = [case for case in BENCHMARK.cases if case.computation not in SEEN]
    assert len(unseen) >= 0.5 * len(BENCHMARK.cases) and len(unseen) >= 150
    assert {case.category for case in unseen} == set(DOMAINS), "every domain can be judged on unseen kinds"


def test_no_case_of_an_unseen_kind_reads_like_a_template():
    """With the figures masked, the question of an unseen kind is far from every generated question, so it is none of them with other numbers."""
    templates = [(row["id"], masked(row["question"])) for row in problems.generate(ROOT / "data" / "problems")]
    for case in BENCHMARK.cases:
        mine = masked(case.question)
        close = [name for name, other in templates if len(mine & other) >= 0.45 * len(mine | other)]
        assert case.computation in SEEN or not close, (case.id, close)


def test_the_first_version_is_whole_and_unchanged():
    """Results on version 1 stay comparable: its digest is that of the day on which version 2 was added."""
    assert len(FIRST.cases) == 100 and {case.digest for case in FIRST.cases} <= {case.digest for case in BENCHMARK.cases}
    assert FIRST.digest == "bench-4a952794490036a0"
    assert BENCHMARK.id == "elson-finance-2026.11-v2"


@by_id
def test_numbers_are_what_the_code_computes(case):
    checks = [check for check in case.checks if isinstance(check, NumberCheck)]
    assert len(checks) == len(ANSWERS.get(case.id, [])), "every number check has a computed answer"
    for check, computed in zip(checks, ANSWERS.get(case.id, []), strict=True):
        assert computed == pytest.approx(check.number, abs=max(check.margin, 1e-6)), check.name
        assert abs(computed - check.number) <= max(check.margin / 2, 0.005), "the stated number is off centre"


@by_id
def test_the_question_gives_nothing_away(case):
    text = Text(asked(case))
    for check in case.checks:
        if isinstance(check, NumberCheck):
            given = [
                quantity
                for quantity in quantities(asked(case))
                if (value := value_in(check, quantity)) is not None and abs(value - check.number) <= check.margin
            ]
            assert case.passage if PICKED in check.name else not given, f"{check.name} stands in the question"
        elif isinstance(check, FactCheck | DeclineCheck):
            assert not [wording for wording in check.accepted if text.mentions(wording)], f"{check.name}: an accepted wording stands in the question"


@by_id
def test_a_case_is_more_than_one_lucky_word(case):
    kinds = {type(check) for check in case.checks}
    assert kinds & {NumberCheck, ChoiceCheck} or len(case.checks) >= 2


@by_id
def test_all_its_wordings_at_once_do_not_pass(case):
    """Stuffing what is accepted and what is forbidden into one answer must fail wherever words alone decide."""
    if any(isinstance(check, NumberCheck | ChoiceCheck) for check in case.checks):
        return
    said = [w for c in case.checks for w in (c.wordings if isinstance(c, ForbiddenCheck) else getattr(c, "accepted", ()))]
    assert not score(case, ". ".join(said) + ".").passed


def test_no_case_is_close_to_the_corpus():
    rows = [(place, words(question)) for place, question in corpus()]
    for case in BENCHMARK.cases:
        mine = words(case.question)
        close = [place for place, other in rows if len(mine & other) >= 0.7 * len(mine | other)]
        assert not close, (case.id, close)


def test_answers_that_need_no_model_pass_nothing():
    for baseline in baselines.run(BENCHMARK.cases, [], 0.8):
        assert baseline.result.rate <= 0.02, (baseline.name, baseline.passed_cases)


WORDED = yaml.safe_load((Path(__file__).parent / "benchmark_answers.yaml").read_text())


@by_id
def test_a_right_answer_passes_and_a_wrong_one_does_not(case):
    for answer in (WORDED[case.id]["right"], *WORDED[case.id].get("also", ())):
        right = score(case, answer)
        assert right.passed, (answer, [(check.name, check.reason) for check in right.checks if not check.passed])
    assert not score(case, WORDED[case.id]["wrong"]).passed


@by_id
def test_one_wrong_digit_fails(case):
    """The right answer with each figure that decides moved by a tenth, wherever it stands."""
    answer = WORDED[case.id]["right"]
    wanted = [check for check in case.checks if isinstance(check, NumberCheck)]
    for check in wanted:
        moved = answer
        for quantity in sorted(quantities(answer), key=lambda quantity: -quantity.start):
            value = value_in(check, quantity)
            if value is not None and abs(value - check.number) <= check.margin:
                moved = f"{moved[: quantity.start]} {round(quantity.written * 1.1 + 1, 2)} {moved[quantity.end :]}"
        assert moved != answer and not score(case, moved).passed, check.name


def test_every_case_has_worded_answers_and_no_more():
    assert set(WORDED) == {case.id for case in BENCHMARK.cases}


def test_the_corpus_does_not_answer_for_the_model():
    """The nearest question's answer and stuffed words of the written pairs and the problems; `elson evaluate` repeats it with the whole dataset."""
    rows = list(problems.generate(ROOT / "data" / "problems"))
    for file in sorted((ROOT / "data" / "qa").glob("**/*.yaml")):
        loaded = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        rows += loaded if isinstance(loaded, list) else next((v for v in loaded.values() if isinstance(v, list)), [])
    pairs = [TrainingPair(id=str(n), category=r.get("category", ""), question=r["question"], answer=r["answer"]) for n, r in enumerate(rows)]
    for baseline in baselines.run(BENCHMARK.cases, pairs, 0.8):
        assert baseline.result.rate <= 0.15, (baseline.name, baseline.passed_cases)
