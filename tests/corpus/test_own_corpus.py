"""The project's own corpus, built as users build it: large and even enough, without findings, and apart from its benchmark."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from runners.corpus.build import BuildResult, build
from runners.corpus.pairs import DOMAINS
from runners.corpus.report import TARGET_PAIRS, TARGET_PER_DOMAIN
from runners.evaluation import cases
from runners.spec import Spec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    """Built without --drop-leaks: a leak would be refused."""
    return build(Spec(), ROOT, tmp_path_factory.mktemp("corpus") / "out")


def test_there_are_enough_distinct_pairs_in_every_domain(result: BuildResult) -> None:
    kept = result.statistics["kept"]
    assert kept["pairs"] == kept["distinct_questions"] >= TARGET_PAIRS
    assert set(kept["by_category"]) == set(DOMAINS)
    assert min(kept["by_category"].values()) >= TARGET_PER_DOMAIN


def test_all_four_kinds_of_source_are_in_it(result: BuildResult) -> None:
    sources = yaml.safe_load((ROOT / "data" / "sources.yaml").read_text())["sources"]
    assert {source["kind"] for source in sources} == {"qa", "documents", "problems", "catalogue"}
    pairs = result.statistics["kept"]["by_source"]
    assert all(pairs[source["name"]] >= 100 for source in sources if source["kind"] != "catalogue")
    assert 40 <= pairs["catalogue"] <= 50, "a link teaches little: few of them, and good ones"


def test_the_readme_counts_what_the_build_counts(result: BuildResult) -> None:
    table = (ROOT / "data" / "README.md").read_text().split("## The project's own corpus")[1].split("## ")[0]
    told = {path.split("/")[0].split(".")[0]: int(count.replace(",", "")) for path, count in re.findall(r"^\| `([^`]+)` \| ([\d,]+) \|", table, re.M)}
    names = {"qa": "questions", "guides": "guides", "problems": "problems", "catalogue": "catalogue"}
    assert {names[folder]: count for folder, count in told.items()} == result.statistics["kept"]["by_source"]


def test_at_least_2000_pairs_of_which_at_most_20_percent_are_computed(result: BuildResult) -> None:
    kept = result.statistics["kept"]
    assert kept["pairs"] >= 2_000 and kept["by_source"]["problems"] <= 0.20 * kept["pairs"]


def test_nothing_is_rejected_suspicious_repeated_or_leaked(result: BuildResult) -> None:
    facts = result.statistics
    assert facts["rejected"]["rows"] == 0, (result.folder / "rejects.jsonl").read_text()
    assert not any(facts["read"]["findings"].values()), facts["read"]["findings"]
    assert facts["duplicates"]["conflicts"] == 0
    assert facts["leaks"]["cases"] == len(cases.load(ROOT / "data" / "benchmark").cases) >= 300
    assert facts["leaks"]["cases_leaked"] == 0


def test_pairs_are_not_templates_of_each_other(result: BuildResult) -> None:
    """At the threshold by which 408 of the earlier version's 950 questions had a twin."""
    assert result.statistics["duplicates"]["by_question_words"]["pairs_with_a_twin"] <= 0.02 * result.statistics["read"]["pairs"]


def test_validation_has_every_domain(result: BuildResult) -> None:
    held = [json.loads(line) for line in (result.folder / "validation.jsonl").read_text().splitlines()]
    assert {row["category"] for row in held} == set(DOMAINS)


def test_the_catalogue_names_official_links() -> None:
    with (ROOT / "data" / "catalogue.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["url"] for row in rows}) == len(rows) >= 150
    assert all(row["url"].startswith("https://") for row in rows)
