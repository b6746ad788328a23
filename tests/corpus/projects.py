"""A small project with sources, and its dataset."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from runners.corpus.build import BuildResult, build
from runners.corpus.pairs import DOMAINS
from runners.spec import DataSpec, Spec

WORDS = [
    "bond",
    "yield",
    "tax",
    "trust",
    "loan",
    "rate",
    "fund",
    "plan",
    "risk",
    "cost",
    "basis",
    "ladder",
    "credit",
    "score",
    "gift",
    "heir",
    "audit",
    "index",
    "spread",
    "swap",
]


def topic(number: int) -> str:
    """Words of their own for a question, so that different questions are not near each other."""
    draw = random.Random(number)
    return " ".join(f"{draw.choice(WORDS)}{draw.randrange(10_000)}" for _ in range(8))


def rows(count: int, **extra: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"What is {topic(n)}?", "answer": f"It is {topic(n + 10**6)} and also {topic(n + 2 * 10**6)}.", "category": DOMAINS[n % 18], **extra}
        for n in range(count)
    ]


def project(folder: Path, *sources: list[Any], cases: tuple[str, ...] = ("What is nothing that anybody trains on?",), categories: str = "domains") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, content in enumerate(sources):
        (folder / f"s{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        listed.append({"name": f"source-{number}", "kind": "qa", "path": f"s{number}.jsonl", "licence": "MIT"})
    (folder / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "categories": categories, "sources": listed}))
    (folder / "cases.yaml").write_text(yaml.safe_dump({"version": 1, "cases": [{"id": f"case-{n}", "question": text} for n, text in enumerate(cases)]}))
    return folder


def spec(**changes: Any) -> Spec:
    return Spec(data=DataSpec(**({"sources": "sources.yaml", "benchmark": "cases.yaml"} | changes)))


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def made(
    tmp_path: Path, *sources: list[Any], out: str = "out", cases: tuple[str, ...] = ("What is nothing that anybody trains on?",), **changes: Any
) -> BuildResult:
    return build(spec(**changes), project(tmp_path / "in", *sources, cases=cases), tmp_path / out)
