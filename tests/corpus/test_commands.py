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
