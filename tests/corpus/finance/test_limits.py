"""Two tables of the same amounts, written by different hands for different ends, must agree."""

from pathlib import Path

import pytest
import yaml

from runners.corpus.finance import limits

ROOT = Path(__file__).parents[3]
DATED = {entry["id"]: entry["values"] for entry in yaml.safe_load((ROOT / "data" / "dated_limits.yaml").read_text())["limits"]}
TABLES = {
    "401k_deferral": limits.DEFERRAL_401K,
    "401k_catch_up": limits.CATCH_UP_401K,
    "annual_additions": limits.ANNUAL_ADDITIONS,
    "ira_contribution": limits.IRA,
    "qualified_charitable_distribution": limits.QUALIFIED_CHARITABLE_DISTRIBUTION,
    "hsa_self": {year: amounts["self"] for year, amounts in limits.HSA.items()},
    "hsa_family": {year: amounts["family"] for year, amounts in limits.HSA.items()},
    "standard_deduction_single": {year: amounts["single"] for year, amounts in limits.STANDARD_DEDUCTION.items()},
    "standard_deduction_joint": {year: amounts["joint"] for year, amounts in limits.STANDARD_DEDUCTION.items()},
    "standard_deduction_head_of_household": {year: amounts["head"] for year, amounts in limits.STANDARD_DEDUCTION.items()},
    "gift_exclusion": limits.GIFT_EXCLUSION,
    "estate_exclusion": limits.ESTATE_EXCLUSION,
    "social_security_wage_base": limits.WAGE_BASE,
    "social_security_earnings_test": limits.EARNINGS_TEST,
}


@pytest.mark.parametrize("name", TABLES)
def test_agrees_with_the_corpus_checker(name):
    assert {year: DATED[name][year] for year in TABLES[name]} == TABLES[name]


def test_brackets_rise_and_joint_ones_are_double_at_the_bottom():
    for amounts in limits.BRACKETS.values():
        assert all(list(ends) == sorted(ends) and len(ends) == len(limits.RATES) - 1 for ends in amounts.values())
        assert [2 * end for end in amounts["single"][:5]] == list(amounts["joint"][:5])
