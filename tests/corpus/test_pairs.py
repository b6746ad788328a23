"""Rows in every form become one form; whatever else is thrown at the reader is rejected with a reason, and nothing else is raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.corpus import formats, sources
from runners.corpus.pairs import Pair, pair_of
from runners.corpus.turns import Rejected
from runners.errors import UserError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["question", "answer", "instruction", "output", "input", "messages", "history", "role", "content", "category", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def made(raw: Any, **options: Any) -> Pair:
    return pair_of(raw, **({"source": "s", "category": None, "categories": {}, "fields": {}} | options))


@pytest.mark.parametrize(
    "raw",
    [
        {"question": "Q?", "answer": "A."},
        {"instruction": "Q?", "input": "", "output": "A."},
        {"prompt": " Q? ", "completion": "A.\n"},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]},
    ],
)
def test_all_forms_of_a_pair_are_one(raw: dict[str, Any]) -> None:
    pair = made(raw)
    assert (pair.question, pair.answer, pair.category, pair.history) == ("Q?", "A.", "uncategorized", ())
    assert pair.id == made({"question": "Q?", "answer": "A."}).id


def test_turns_before_the_last_are_history() -> None:
    turns = [{"role": role, "content": text} for role, text in [("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]]
    pair = made({"messages": turns, "category": "Tax"})
    assert pair.history == (("user", "1"), ("assistant", "2"))
    assert (pair.question, pair.answer, pair.category, pair.asked) == ("3", "4", "tax", "1\n3")
    assert pair.row()["history"] == turns[:2]


def test_input_follows_the_instruction() -> None:
    assert made({"instruction": "Sum up.", "input": "The text.", "output": "A."}).question == "Sum up.\n\nThe text."


def test_categories_and_fields_are_mapped() -> None:
    pair = made({"Frage": "Q?", "answer": "A.", "category": "estate_planning"}, categories={"estate_planning": "estate"}, fields={"Frage": "question"})
    assert (pair.question, pair.category) == ("Q?", "estate")
    assert made({"question": "Q?", "answer": "A.", "category": "tax"}, category="banking").category == "banking"


def test_further_keys_are_carried_unless_they_would_not_survive() -> None:
    pair = made({"question": "Q?", "answer": "A.", "as_of": 2025, "tags": ["a"], "none": None, "nan": float("nan"), "id": "mine"})
    assert pair.row() == {
        "id": pair.id,
        "question": "Q?",
        "answer": "A.",
        "category": "uncategorized",
        "source": "s",
        "history": [],
        "as_of": 2025,
        "tags": ["a"],
    }


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "a row must be an object, found NoneType"),
        ("Q?", "a row must be an object, found str"),
        ({"question": "Q?"}, "there is no answer: none of answer, output, response, completion among question"),
        ({"question": "", "answer": "A."}, "the question is empty"),
        ({"question": "Q?", "answer": " \n "}, "the answer is empty"),
        ({"question": ["Q?"], "answer": "A."}, "question must be a text, found list"),
        ({"question": "Q?", "answer": True}, "answer must be a text, found bool"),
        ({"question": "Q\ud800", "answer": "A."}, "lone surrogate"),
        ({"question": "Q?", "answer": "A\x00"}, "NUL"),
        ({"question": "Q?", "answer": "A.", "x": ["\udc00"]}, "lone surrogate"),
        ({"question": "Q?", "answer": "A.", "history": [{"role": "user", "content": "x"}]}, "history must end with an assistant turn"),
        ({"messages": []}, "messages must end with a user turn and an assistant turn"),
        ({"messages": "hello"}, "messages must be a list of turns, found str"),
        ({"messages": [{"role": "assistant", "content": "A."}, {"role": "user", "content": "Q?"}]}, "must go user, assistant"),
        ({"messages": [{"role": "user"}]}, "must have a role and a content"),
    ],
)
def test_bad_rows_say_what_is_wrong(raw: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason.replace("(", r"\(")):
        made(raw)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_nothing_but_a_pair_or_a_reason_comes_out(raw: Any) -> None:
    try:
        pair = made(raw)
    except Rejected as reason:
        assert str(reason)
    else:
        assert pair.question and pair.answer
        assert json.loads(json.dumps(pair.row(), ensure_ascii=False).encode().decode()) == pair.row()


ROWS = [
    {"question": "What is an IRA?", "answer": "An account, with “rules”.", "category": "retirement"},
    {"question": "And a 401(k)?", "answer": "A plan.\nTwo lines."},
]


def written(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(ROWS)),
        ("b.json", json.dumps({"version": 1, "pairs": ROWS})),
        ("c.jsonl", "\n".join(json.dumps(row) for row in ROWS) + "\n\n"),
        ("d.csv", '﻿question,answer,category\nWhat is an IRA?,"An account, with “rules”.",retirement\nAnd a 401(k)?,"A plan.\nTwo lines.",\n'),
        (
            "e.yaml",
            "- question: What is an IRA?\n  answer: An account, with “rules”.\n  category: retirement\n"
            "- question: And a 401(k)?\n  answer: |\n    A plan.\n    Two lines.\n",
        ),
    ],
)
def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    rows = list(formats.rows(file, name))
    pairs = [made(json.loads(raw.value) if isinstance(raw.value, bytes) else raw.value) for raw in rows]
    assert [(pair.question, pair.answer, pair.category) for pair in pairs] == [
        ("What is an IRA?", "An account, with “rules”.", "retirement"),
        ("And a 401(k)?", "A plan.\nTwo lines.", "uncategorized"),
    ]


def test_rows_know_their_line(tmp_path: Path) -> None:
    assert [raw.line for raw in formats.rows(written(tmp_path, "a.jsonl", '{"a": 1}\n\n{"a": 2}\n'), "a.jsonl")] == [1, 3]
    assert [raw.line for raw in formats.rows(written(tmp_path, "a.yaml", "# x\n- question: a\n  answer: b\n\n- question: c\n"), "a.yaml")] == [2, 5]
    assert [raw.line for raw in formats.rows(written(tmp_path, "a.csv", 'question,answer\na,"b\nb"\nc,d\n'), "a.csv")] == [3, 4]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{", "the file cannot be read: JSONDecodeError"),
        ("b.json", "[" * 100_000, "the file cannot be read: RecursionError"),
        ("c.json", '{"a": [1], "b": [2]}', "an object with one list of rows is wanted, found 2 lists"),
        ("d.json", '"text"', "a list of rows is wanted, found str"),
        ("e.json", b"\xff[]", "the file cannot be read: UnicodeDecodeError: not utf-8 at byte 0"),
        ("f.yaml", "a: [", "the file cannot be read"),
        ("g.yaml", "- !!python/object/apply:os.system [true]", "the file cannot be read: ConstructorError"),
        ("h.csv", "question,answer\na,b,c\n", "more fields than the header's 2"),
        ("i.csv", "question,answer\na\n", "fewer fields than the header's 2"),
        ("j.csv", 'question,answer\n"a,b\n', "the file cannot be read: Error"),
    ],
)
def test_broken_files_are_one_reject_each(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    rows = list(formats.rows(written(tmp_path, name, text), name))
    assert [reason in (raw.error or "") for raw in rows] == [True], rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.yaml"]))
def test_garbage_never_stops_a_reader(tmp_path: Path, data: bytes, name: str) -> None:
    for raw in formats.rows(written(tmp_path, name, data), name):
        assert raw.error is None or raw.error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\nsources: []", "version"),
        ("version: 1\nsources: [{name: a, kind: qa, path: x, licence: MIT, nonsense: 1}]", "nonsense"),
        ("version: 1\nsources: [{name: a, kind: qa, licence: MIT}]", "path: Field required"),
        ("version: 1\nsources: [{name: a, kind: qa, path: x, licence: MIT, category: taxes}]", "taxes: not one of the 18 domains"),
        ("version: 1\nsources: [{name: a, kind: problems, path: x, licence: M}, {name: a, kind: problems, path: y, licence: M}]", "two sources have one name"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_sources_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.load(written(tmp_path, "sources.yaml", text))


def test_a_source_that_is_not_there_is_explained(tmp_path: Path) -> None:
    source = sources.Source(name="a", kind="qa", path="nowhere", licence="MIT")
    with pytest.raises(UserError, match="nowhere is not there"):
        sources.files(source, tmp_path)
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(UserError, match=r"no file in .* ends in \.json"):
        sources.files(source, tmp_path)
