"""``elson data`` as people call it: data on stdout, what happened on stderr, an exit code that scripts can trust."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from runners.artifacts import registry
from runners.commands.data import data
from runners.commands.places import Place

ROWS = [
    {"question": "What is a bond?", "answer": "A bond is a loan to a government or a company that pays interest.", "category": "investing"},
    {"question": "Who pays estate tax?", "answer": "The estate pays it before the heirs receive what is left of the property.", "category": "estate"},
    {"question": "How is a mortgage repaid?", "answer": "In level payments, of which the first ones are mostly interest on the balance.", "category": "credit"},
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data" / "benchmark").mkdir(parents=True)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    source = {"name": "mine", "kind": "qa", "path": "pairs.jsonl", "licence": "MIT"}
    (tmp_path / "data" / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": [source]}))
    (tmp_path / "data" / "benchmark" / "a.yaml").write_text(
        yaml.safe_dump({"version": 1, "cases": [{"id": "x", "question": "What is a stock split of two for one?"}]})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(data, list(arguments), standalone_mode=False)


def test_build_says_the_id_and_stats_say_the_rest(project: Path) -> None:
    built = run("build", "--json")
    assert built.exception is None, built.exception
    told = json.loads(built.stdout)
    assert told["id"].startswith("data-") and told["statistics"]["kept"]["pairs"] == 3
    shown = json.loads(run("stats", "--json").stdout)
    assert shown == told["statistics"]
    assert "kept          3 pairs" in run("stats").stdout


def test_files_are_read_without_a_sources_file_and_the_last_lines_are_loud(project: Path) -> None:
    (project / "faq.csv").write_text("Frage;Reply;Topic\n" + "".join(f"{row['question']};{row['answer']};{row['category']}\n" for row in ROWS))
    (project / "more.jsonl").write_text('{"Frage": "Was ist das?", "Reply": "nan"}\n{"Frage": "A?", "Reply": "nan"}\n{"no": 1}\n')
    named = ["--field", "Frage=question", "--field", "Reply=answer", "--field", "Topic=category"]
    built = run("build", "faq.csv", "more.jsonl", *named)
    assert built.exception is None, built.exception
    assert "read 3 pairs" in built.stderr
    assert json.loads(built.stderr.splitlines()[-1])["message"].startswith(
        "rejected 3 rows: 2 × the answer is 'nan', what a program writes for a missing value, 1 × there is no "
    )
    record = json.loads((project / ".elson" / "dataset" / "record.json").read_text())
    assert [source["path"] for source in record["spec"]["given"]["sources"]] == ["faq.csv", "more.jsonl"]
    assert "the answer is 'nan'" in run("check", "more.jsonl", *named).stdout
    for arguments, message in (
        (["build", "faq.csv", "--field", "Frage"], "--field 'Frage'"),
        (["build", "--category", "tax"], "--category without PATHS"),
        (["build", "faq.csv", "--encoding", "cp99"], "'cp99' is no encoding"),
        (["build", "faq.csv", "--category", "cakes"], "not one of the 18 domains"),
    ):
        assert message in str(run(*arguments).exception), arguments


def test_junk_is_dropped_when_asked(project: Path) -> None:
    with (project / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"question": "What is a swap?", "answer": "An exchange of one stream of payments for", "category": "markets"}) + "\n")
    assert "1 of 4 pairs (25.0 %) are truncated" in str(run("build").exception)
    assert json.loads(run("build", "--drop-junk").stderr.splitlines()[-1])["message"] == "rejected 1 row: 1 × truncated (ends in mid-sentence)"


def test_categorize_sets_labels_aside_that_it_does_not_know(project: Path) -> None:
    (project / "links.csv").write_text("title,url,domain\nPension law,https://x.example/1,Old age\nStocks,https://x.example/2,Recipes\n")
    taxonomy = str(Path(__file__).parents[2] / "data" / "taxonomy.yaml")
    done = run("categorize", "links.csv", "--taxonomy", taxonomy)
    assert done.exception is None
    assert "2 rows have labels that are no domain, set aside: 1 × Old age, 1 × Recipes" in json.loads(done.stderr.splitlines()[0])["message"]
    mapped = run("categorize", "links.csv", "--taxonomy", taxonomy, "--map", "old age=retirement", "--map", "Recipes=none")
    assert [row["domain"] for row in csv.DictReader(mapped.stdout.splitlines())] == ["retirement", "none"]
    assert run("categorize", "links.csv", "--taxonomy", taxonomy, "--validate").exception is None


def test_publish_puts_it_under_its_name(project: Path) -> None:
    built = run("build", "--publish", "--local", "--name", "my-corpus", "--json")
    assert built.exception is None, built.exception
    told: dict[str, Any] = json.loads(built.stdout)
    with Place(project / ".elson").open() as buckets:
        entry = registry.usable(buckets, "my-corpus")
        assert (entry.id, entry.kind) == (told["id"], "dataset")


def test_check_is_silent_when_all_is_well_and_fails_when_not(project: Path) -> None:
    assert run("check").exception is None
    with (project / "pairs.jsonl").open("a") as file:
        file.write('{"question": "What is a stock split of two for one?", "answer": "One share becomes two, each worth half of what the first was."}\n')
        file.write("not json\n")
    found = run("check", "--json")
    assert [(row["line"], row["kind"]) for row in json.loads(found.stdout)] == [(4, "rejected"), (5, "rejected")]
    assert getattr(found.exception, "exit_code", None) == 1 or found.exit_code == 1 or found.return_value == 1


def test_extract_and_categorize(project: Path) -> None:
    (project / "guide.md").write_text("## What is a deductible?\nIt is the part of a loss that the insured pays before the insurer pays anything at all.\n")
    rows = [json.loads(line) for line in run("extract", "guide.md").stdout.splitlines()]
    assert [row["question"] for row in rows] == ["What is a deductible?"]
    assert run("extract", "guide.md", "--out", "out/pairs.jsonl").stdout == ""
    assert json.loads((project / "out" / "pairs.jsonl").read_text()) == rows[0]
    (project / "links.csv").write_text("title,url\nPension law,https://x.example\nInclusion,https://arxiv.org/abs/1\n")
    taxonomy = str(Path(__file__).parents[2] / "data" / "taxonomy.yaml")
    run("categorize", "links.csv", "--taxonomy", taxonomy, "--out", "out.csv", "--review", "review.csv")
    with (project / "review.csv").open() as file:
        review = list(csv.DictReader(file))
    assert [row["title"] for row in review] == ["Inclusion"]
    (project / "review.csv").write_text("url,title,domain\nhttps://arxiv.org/abs/1,Inclusion,technology\n")
    run("categorize", "links.csv", "--taxonomy", taxonomy, "--out", "out.csv", "--review", "review.csv")
    with (project / "out.csv").open() as file:
        assert [(row["domain"], row["reason"] == "reviewed by a person") for row in csv.DictReader(file)] == [("retirement", False), ("technology", True)]
    assert "technology" in (project / "review.csv").read_text()
