"""The case format: what is accepted, and that a mistake is named with its case."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.errors import UserError
from runners.evaluation import cases
from runners.spec import ChatSpec

GOOD: dict[str, Any] = {
    "id": "tax-1",
    "category": "tax",
    "difficulty": "easy",
    "question": "What is it?",
    "checks": [{"number": 5, "unit": "percent"}],
    "source": "IRC 1",
    "as_of": 2025,
}
CHOICES = {"A": "one", "B": "two"}
BAD = [
    ({"category": "cooking"}, "category"),
    ({"difficulty": "brutal"}, "difficulty"),
    ({"checks": []}, "checks"),
    ({"checks": [{"number": 5, "unit": "euro"}]}, "unit"),
    ({"checks": [{"number": 5, "fact": "x", "accepted": ["xy"]}]}, "exactly one of the keys"),
    ({"checks": [{"numbr": 5}]}, "exactly one of the keys"),
    ({"checks": [{"fact": "x", "accepted": []}]}, "accepted"),
    ({"checks": [{"forbidden": "x", "wordings": ["buy now"]}]}, "an empty answer would pass"),
    ({"checks": [{"choice": "A"}]}, "multiple_choice"),
    ({"kind": "multiple_choice", "choices": CHOICES}, "one choice check"),
    ({"kind": "multiple_choice", "choices": CHOICES, "checks": [{"choice": "C"}]}, "one choice check"),
    ({"kind": "decline"}, "decline check"),
    ({"checks": [{"decline": "x"}]}, "kind decline"),
    ({"history": [{"role": "assistant", "content": "Hi"}]}, "alternates"),
    ({"history": [{"role": "user", "content": "Hi"}]}, "ends with the assistant"),
    ({"typo": 1}, "typo"),
    ({"passage": "short"}, "passage"),
    ({"computation": "Not a slug"}, "computation"),
    ({"source": None}, "source"),
]


def write(folder: Path, *rows: dict[str, Any], name: str = "cases.yaml") -> Path:
    file = folder / name
    file.write_text(yaml.safe_dump({"version": 1, "cases": list(rows)}))
    return file


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_bad_case_is_named_with_what_is_wrong(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        cases.load(write(tmp_path, GOOD | change))
    assert "case tax-1" in str(error.value) and said in str(error.value)


def test_all_bad_cases_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 problem\(s\)"):
        cases.load(write(tmp_path, GOOD | {"as_of": 1800}, GOOD | {"id": "tax-2", "difficulty": "no"}))


def test_ids_and_questions_are_unique_across_files(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD | {"question": "What is it, then?"}, GOOD | {"id": "tax-3", "question": "WHAT is it"}, name="more.yaml")
    with pytest.raises(UserError) as error:
        cases.load(tmp_path)
    assert "'tax-1' is used 2 times" in str(error.value) and "tax-3: the same question" in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "cases: []", "version: 2\ncases: []", "version: 1\ncases: []", "version: 1\ncases: [7]", "a: [", "version: 1\ncases: []\nmore: 1"]
)
def test_a_file_that_is_no_benchmark(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError):
        cases.load(tmp_path / "x.yaml")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark"):
        cases.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="no benchmark"):
        cases.load(tmp_path)


def test_the_old_form_is_sent_to_the_importer(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text('{"test_cases": []}')
    with pytest.raises(UserError, match="elson evaluate import"):
        cases.load(tmp_path / "old.yaml")


def test_messages_are_prompt_history_question_and_choices(tmp_path: Path) -> None:
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    file = write(tmp_path, GOOD | {"kind": "multiple_choice", "choices": CHOICES, "checks": [{"choice": "A"}], "history": history})
    sent = cases.messages(cases.load(file).cases[0], ChatSpec(system_prompt="Be right."))
    assert [turn["role"] for turn in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"] == "Be right." and "A) one\nB) two" in sent[-1]["content"]


def test_the_passage_is_sent_before_the_question(tmp_path: Path) -> None:
    table = "Fee schedule\n  wire   $25\n  check   $3\n"
    sent = cases.messages(cases.load(write(tmp_path, GOOD | {"passage": table})).cases[0], ChatSpec(system_prompt="Be right."))
    assert sent[-1]["content"] == f"{table.rstrip()}\n\nWhat is it?\n\n{cases.FINAL_LINE}"


def declare(folder: Path, text: str) -> None:
    for part in ("old", "new"):
        (folder / part).mkdir()
        write(folder / part, GOOD | {"id": f"tax-{part}", "question": f"What is {part}?"})
    (folder / "benchmark.yaml").write_text(text)


def test_a_declared_benchmark_is_its_parts_under_its_id(tmp_path: Path) -> None:
    declare(tmp_path, "id: mine-2026.11-v2\nparts: [new, old]")
    whole, part = cases.load(tmp_path), cases.load(tmp_path / "old")
    assert whole.id == "mine-2026.11-v2" and [case.id for case in whole.cases] == ["tax-new", "tax-old"]
    assert part.id == "" and [case.id for case in part.cases] == ["tax-old"]
    assert cases.sample(whole, 1).id == whole.id


def test_a_bad_case_of_a_part_is_named_with_the_part(tmp_path: Path) -> None:
    declare(tmp_path, "id: mine-2026.11-v2\nparts: [new, old]")
    write(tmp_path / "old", GOOD | {"difficulty": "brutal"})
    with pytest.raises(UserError, match=r"old/cases.yaml, case tax-1"):
        cases.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: mine\nparts: [new]", "id"),
        ("id: mine-2026.11-v2", "parts"),
        ("id: mine-2026.11-v2\nparts: ['../old']", "parts"),
        ("id: mine-2026.11-v2\nparts: [nowhere]", "no benchmark"),
        ("a: [", "benchmark.yaml"),
    ],
)
def test_a_bad_declaration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    declare(tmp_path, text)
    with pytest.raises(UserError, match=said):
        cases.load(tmp_path)


def test_the_digest_changes_with_what_decides_and_only_with_it(tmp_path: Path) -> None:
    def digest(**change: Any) -> str:
        return cases.load(write(tmp_path, GOOD | change)).digest

    assert digest() == digest(source="another source") == digest(sharpen=["later"]) == digest(computation="apy-comparison")
    changes = ({}, {"question": "Which?"}, {"checks": [{"number": 6, "unit": "percent"}]}, {"passage": "A table of many fees."})
    assert len({digest(**change) for change in changes}) == 4


def test_a_sample_takes_the_first_of_each_category(benchmark: cases.Benchmark) -> None:
    taken = cases.sample(benchmark, 2)
    assert [case.id for case in taken.cases] == [case.id for case in benchmark.cases[:8]]
    assert cases.sample(benchmark, None) is benchmark
