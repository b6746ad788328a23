"""The user's own files: what the earlier version made of them, and what it did not see. Skipped, and said so, where they are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from runners.corpus import categorize, checks, extract, markdown, phrasing, validate
from runners.corpus.build import BuildResult, build
from runners.errors import UserError
from runners.spec import DataSpec, Spec

TAXONOMY = Path(__file__).parents[2] / "data" / "taxonomy.yaml"
SOURCES = {"training_data_final": "training_data_final.json", "strategic_qa_pairs": "strategic_qa_pairs.json", "resource_catalog": "resource_catalog_qa.json"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, reference: Path) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    listed = [{"name": name, "kind": "qa", "path": str(reference / file), "licence": "MIT"} for name, file in SOURCES.items()]
    (folder / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "categories": "any", "sources": listed}))
    return folder


def spec(reference: Path, **changes: object) -> Spec:
    """Without the bound on citation marks, which 177 of the 950 answers have."""
    return Spec(
        data=DataSpec.model_validate({"sources": "sources.yaml", "refuse_beyond": {}, "benchmark": str(reference / "evaluation_benchmark.json")} | changes)
    )


@pytest.fixture(scope="module")
def result(project: Path, reference: Path) -> BuildResult:
    return build(spec(reference, drop_leaks=True), project, project / "out")


def test_four_sources_consolidate_to_the_950_of_the_plan(result: BuildResult, reference: Path) -> None:
    read, theirs = result.statistics["read"], json.loads((reference / "training_statistics.json").read_text())
    assert read["pairs"] == 950
    assert result.statistics["rejected"]["rows"] == 0
    assert sorted(read["by_source"].values()) == [101, 102, 104, 643]
    assert read["by_source"] == theirs["by_source"]
    assert read["by_category"] == theirs["by_category"]
    assert round(read["answer_characters"]["mean"]) == 614
    assert read["answer_characters"]["mean"] == pytest.approx(theirs["avg_output_length"], abs=1e-3)


def test_repeats_and_near_duplicates_are_all_found(result: BuildResult) -> None:
    found = result.statistics["duplicates"]
    assert found["repeated_questions"] == 10
    assert (found["by_question_words"]["pairs_with_a_twin"], found["by_question_words"]["clusters"]) == (408, 569)
    assert found["by_question_and_answer"]["pairs_with_a_twin"] == 51


def test_what_the_default_does_to_the_950(project: Path, reference: Path) -> None:
    """Dropping by question and answer takes 36 pairs, dropping by question words 361: those are other questions with other answers."""
    kept = {}
    for notion in ("pairs", "questions", "none"):
        facts = build(spec(reference, benchmark="", drop_near_duplicates=notion), project, project / notion).statistics
        kept[notion] = (facts["kept"]["pairs"], facts["dropped"]["repeated_question"], facts["dropped"]["near_duplicate"])
    assert kept["none"] == (940, 10, 0)
    assert kept["pairs"] == (914, 10, 26)
    assert kept["questions"] == (589, 10, 351)


def test_leaks_are_found_refused_and_dropped(result: BuildResult, project: Path, reference: Path) -> None:
    leaks = result.statistics["leaks"]
    assert (leaks["cases"], leaks["cases_verbatim"], leaks["cases_leaked_after"]) == (100, 61, 0)
    near = {row["case"] for row in json.loads((result.folder / "leaks.json").read_text()) if row["jaccard"] >= 0.7}
    assert len(near) == 73
    with pytest.raises(UserError, match="of 100 benchmark questions are in the training pairs"):
        build(spec(reference), project, project / "leaky")


def test_the_report_shows_them(result: BuildResult) -> None:
    page = (result.folder / "report.html").read_text()
    assert "61 cases stand word for word" in page
    assert "10 questions are exact repeats" in page
    assert all(str(number) in page for number in (408, 569, 51))


def plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def old_term(question: str) -> str:
    """What a question of the earlier extractor was about."""
    term = re.sub(r"^Explain (.*?):? in financial systems\.$", r"\1", question)
    term = re.sub(r"^What is #* ?\*\*(?:[\d.\\]+ )?(.*?)\*\*\?$", r"\1", term).replace("\\", "")
    return term.strip(": ")


def test_extraction_finds_every_term_the_earlier_one_found(reference: Path) -> None:
    old = json.loads((reference / "strategic_qa_pairs.json").read_text())
    total, terms = 0, set()
    for document in sorted(reference.glob("*.md")):
        rows = [row for row in old if row["source"] == document.name]
        if not rows:
            continue
        text = document.read_text()
        found = extract.judged(text)
        total += sum(not one.refused for one in found)
        terms |= {(document.name, plain(one.term)) for one in found}
        mine = [plain(f"{one.term} {one.question}") for one in found]
        # Left out: "##" and "---", which are no terms; lists of works, which are no answers; twelve questions that a person wrote.
        wanted = [old_term(row["instruction"]) for row in rows if re.match(r"Explain .* in financial systems\.|What is [#*-]", row["instruction"])]
        works = [
            plain(text[s.start : s.blocks[-1].end]) for s in markdown.sections(text) if s.blocks and "(The " in s.title and phrasing.SKIPPED.fullmatch(s.title)
        ]
        wanted = [term for term in wanted if plain(term) and "Works cited" not in term and not any(plain(term) in work for work in works)]
        missing = [term for term in wanted if not any(plain(term.split(": ")[0]) in one for one in mine)]
        assert not missing
        assert len(wanted) >= 75
    assert total >= 190
    assert len(terms) >= 205


def test_extracted_answers_are_whole_and_clean(reference: Path) -> None:
    for document in reference.glob("*.md"):
        text = document.read_text()
        for one in extract.pairs(text):
            assert not checks.is_truncated(one.answer), one
            assert not re.search(r"[a-z)”\"][.,;]\d{1,3}(?=\s|$)", one.answer), one
            assert "Works cited" not in one.answer and "accessed January" not in one.answer
            assert 0 <= one.start < one.end <= len(text)
            assert "\\" not in one.question and "**" not in one.question
            # The span is where the answer came from: its longest words stand there.
            span = plain(text[one.start : one.end] + (text if one.kind == "row" else ""))
            assert all(word in span for word in sorted(plain(one.answer).split(), key=len)[-5:]), one


def test_the_catalogue_is_categorized_as_people_did(reference: Path) -> None:
    rows, taxonomy = categorize.read_catalogue(reference / "resource_catalog.csv"), categorize.taxonomy(TAXONOMY)
    measured = validate.accuracy(rows, taxonomy)
    assert measured["rows"] == 99
    assert measured["accuracy"] >= 0.85
    assert measured["majority_class"] == pytest.approx(35 / 99)
    assert measured["accuracy"] > measured["host_rules_alone"] > measured["majority_class"]
    verdicts = categorize.verdicts(rows, taxonomy)
    assert len(verdicts) == 929
    assert all(verdict.domain and verdict.reason for verdict in verdicts)
    assert sum(verdict.unsure for verdict in verdicts) <= 0.05 * 929
