"""The project's own corpus, held to what it promises: enough pairs, all domains, every figure dated, nothing from the benchmark, nothing twice."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.corpus.build import build
from runners.corpus.pairs import DOMAINS
from runners.spec import Spec

ROOT = Path(__file__).parents[2]
#: First sentences of answers that decline: what is asked for is refused before anything else is said.
DECLINES = re.compile(r"(?:No[.,;]|No (?:adviser|lawful)|Do not|I (?:can't|won't)|Nobody|Hang up|Not by itself|Yes\. Wash|He cannot|It is not, on)")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("corpus") / "dataset"
    result = build(Spec(), ROOT, folder)
    rows = [json.loads(line) for line in (folder / "consolidated_training_data.jsonl").read_text().splitlines()]
    return result.statistics, rows


def test_at_least_1200_distinct_pairs_and_25_in_every_domain(dataset: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    _, rows = dataset
    counts = Counter(row["category"] for row in rows)
    assert len(rows) >= 1_200 and set(counts) == set(DOMAINS)
    assert min(counts.values()) >= 25, counts.most_common()[-3:]
    assert set(Counter(row["source"] for row in rows)) == {"questions", "guides", "problems", "catalogue"}


def test_nothing_is_rejected_repeated_leaked_or_found_wanting(dataset: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    facts, _ = dataset
    assert facts["rejected"]["rows"] == 0, facts["rejected"]["by_reason"]
    assert not any(facts["dropped"].values()), facts["dropped"]
    assert facts["leaks"]["checked"] and facts["leaks"]["cases"] >= 100 and facts["leaks"]["cases_leaked"] == 0
    assert not any(facts["kept"]["findings"].values()), facts["kept"]["findings"]


def test_what_people_wrote_says_its_ground_and_its_year(dataset: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    _, rows = dataset
    written = [row for row in rows if row["source"] in ("questions", "guides")]
    assert len(written) >= 750
    for row in written:
        assert row.get("reference") and 2024 <= row.get("as_of", 0) <= 2026, row["question"]
        assert 120 <= len(row["answer"]) <= 1_000 and row["answer"][-1] in '.?!)"', row["question"]


def test_each_section_of_a_guide_names_its_own_ground(dataset: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    """A list of sources that serves a whole guide lets no reader look up one answer."""
    _, rows = dataset
    named = Counter(row["reference"] for row in rows if row["source"] == "guides")
    assert not [reference for reference, pairs in named.items() if pairs > 1]


def test_conversations_and_refusals_are_among_them(dataset: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    _, rows = dataset
    conversations = [row for row in rows if row["history"]]
    declined = [row for row in rows if row["source"] == "questions" and DECLINES.match(row["answer"])]
    assert len(conversations) >= 20 and len({row["category"] for row in conversations}) >= 12
    assert len(declined) >= 30 and len({row["category"] for row in declined}) >= 15
    for row in conversations:
        assert [turn["role"] for turn in row["history"]] == ["user", "assistant"] * (len(row["history"]) // 2), row["question"]


def test_the_files_are_named_by_domain_and_hold_only_that_domain() -> None:
    for folder, ending in (("qa", "yaml"), ("guides", "md")):
        assert {path.stem for path in (ROOT / "data" / folder).glob(f"*.{ending}")} == set(DOMAINS)
    for path in (ROOT / "data" / "qa").glob("*.yaml"):
        assert {row["category"] for row in yaml.safe_load(path.read_text())} == {path.stem}


def test_the_catalogue_has_150_links_of_known_tier_and_subdomain() -> None:
    taxonomy = yaml.safe_load((ROOT / "data" / "taxonomy.yaml").read_text())["domains"]
    with (ROOT / "data" / "catalogue.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 150 and len({row["url"] for row in rows}) == len(rows)
    for row in rows:
        assert row["url"].startswith("https://") and row["url"] in row["answer"], row["title"]
        assert row["authority_tier"] in ("primary", "secondary", "reference"), row["title"]
        assert row["subdomain"] in taxonomy[row["domain"]]["words"], (row["title"], row["subdomain"])
        assert row["organization"] and row["question"].endswith("?") and len(row["notes"].split()) >= 8, row["title"]
