"""Benchmarks as other people write them: each form becomes cases that validate, and nothing is lost without a word."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from runners.commands.evaluate import import_
from runners.errors import UserError
from runners.evaluation.cases import Case
from runners.evaluation.importer import convert
from runners.evaluation.scoring import score

TABLE = [["", "2023", "2024"], ["Revenue", "$1,200", "$1,500"]]
FINQA = {
    "pre_text": ["In millions of dollars."],
    "table": TABLE,
    "post_text": ["Fiscal years end in June."],
    "id": "AAL/2014/page_18.pdf-1",
    "qa": {"question": "What was the growth of revenue?", "answer": "25%", "exe_ans": 0.25, "program": "subtract(1500, 1200), divide(#0, 1200)"},
}
TATQA = {
    "table": {"uid": "t", "table": TABLE},
    "paragraphs": [{"text": "Revenue grew in both segments."}],
    "questions": [
        {"uid": "q1", "question": "What is the increase of revenue?", "answer": 300, "scale": "million", "answer_type": "arithmetic"},
        {"uid": "q2", "question": "Which years are shown?", "answer": ["2023", "2024"], "scale": "", "answer_type": "multi-span"},
        {"uid": "q3", "question": "By how much did it grow?", "answer": "25.0", "scale": "percent"},
    ],
}
FINANCEBENCH = {
    "financebench_id": "financebench_id_03029",
    "question": "What is the capital expenditure of 3M in 2018?",
    "answer": "$1577.00",
    "justification": "The metric is in the cash flow statement.",
    "evidence": [{"evidence_text": "Purchases of property, plant and equipment (1,577)"}],
}
MMLU = {"question": "Which is a liability?", "subject": "tax", "choices": ["Cash", "A loan taken", "Land", "Goodwill"], "answer": 1}
KEYWORDS = {"id": "q-1", "question": "What is a stop order?", "expected_elements": ["market order", "trigger"], "prohibited_elements": ["guaranteed price"]}
CSV = "Prompt,Gold,Topic\nWhat does 5% of $200 make?,$10,banking\nWho pays?,,banking\n"


def written(folder: Path, value: Any, name: str = "their.json") -> Path:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder / name


FORMS = [
    ([FINQA], 1, "What was the growth of revenue?"),
    ([TATQA], 3, "What is the increase of revenue?"),
    (json.dumps(FINANCEBENCH) + "\n" + json.dumps(FINANCEBENCH | {"financebench_id": "two"}), 2, FINANCEBENCH["question"]),
    ([MMLU], 1, "Which is a liability?"),
    ({"questions": [KEYWORDS]}, 1, "What is a stop order?"),
    ({"test_cases": [{"question": "What is it?", "expected_keywords": ["$23,000"]}]}, 1, "What is it?"),
]


@pytest.mark.parametrize(("value", "count", "question"), FORMS)
def test_each_form_becomes_cases(tmp_path: Path, value: Any, count: int, question: str) -> None:
    made = convert(written(tmp_path, value))
    assert len(made.cases) == count and made.cases[0]["question"] == question and not made.problems
    assert all(case["sharpen"] for case in made.cases) and made.marked == count
    for case in made.cases:
        Case.model_validate(case)


def case_of(folder: Path, value: Any, place: int = 0) -> Case:
    return Case.model_validate(convert(written(folder, value)).cases[place])


def test_tables_and_texts_become_the_passage_and_scales_are_applied(tmp_path: Path) -> None:
    finqa = case_of(tmp_path, [FINQA])
    assert finqa.passage == "In millions of dollars.\n | 2023 | 2024\nRevenue | $1,200 | $1,500\nFiscal years end in June."
    assert score(finqa, "Answer: 25%").passed and not score(finqa, "Answer: 20%").passed
    assert finqa.id == "imported-aal-2014-page_18.pdf-1"
    million, years, percent = (case_of(tmp_path, [TATQA], place) for place in range(3))
    assert score(million, "Answer: $300 million").passed and not score(million, "Answer: $300").passed
    assert len(years.checks) == 2 and score(percent, "Answer: 25%").passed


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "(B)", "A loan taken"])
def test_choices_by_index_letter_or_text(tmp_path: Path, answer: Any) -> None:
    assert score(case_of(tmp_path, [MMLU | {"answer": answer}]), "Answer: B").passed


@pytest.mark.parametrize(
    "choices", ["['Cash', 'A loan taken', 'Land']", {"label": ["A", "B"], "text": ["Cash", "A loan taken"]}, {"A": "Cash", "B": "A loan taken"}]
)
def test_choices_as_people_write_them(tmp_path: Path, choices: Any) -> None:
    assert case_of(tmp_path, [MMLU | {"choices": choices, "answer": "B"}]).choices is not None


def test_prohibited_elements_become_forbidden_claims(tmp_path: Path) -> None:
    case = case_of(tmp_path, [KEYWORDS])
    right = "A stop order becomes a market order once the trigger price is reached."
    assert score(case, right).passed and not score(case, f"{right} It gives a guaranteed price.").passed


def test_csv_with_columns_of_their_own(tmp_path: Path) -> None:
    made = convert(written(tmp_path, CSV, "their.csv"), {"Prompt": "question", "Gold": "answer", "Topic": "category"})
    assert len(made.cases) == 1 and made.cases[0]["category"] == "banking" and made.problems == ["row 2: has no answer, keywords or choices"]
    with pytest.raises(UserError, match="its rows have Gold, Prompt, Topic") as refused:
        convert(tmp_path / "their.csv")
    assert "--map question=COLUMN" in refused.value.fix
    done = CliRunner().invoke(import_, [str(tmp_path / "their.csv"), "--map", "question=Prompt", "--map", "answer=Gold", "--map", "category=Topic"])
    assert done.exit_code == 0 and "What does 5% of $200 make?" in done.output


def test_line_breaks_inside_a_value_are_kept(tmp_path: Path) -> None:
    """A cell of several lines; and the line separators of Unicode, which end no row and which JSON may hold as they are."""
    columns = {"Prompt": "question", "Gold": "answer"}
    made = convert(written(tmp_path, 'Prompt,Gold\n"Look:\nwhat does 5% of $200\u2028make?",$10\nLonger,$1,than,the header\n', "their.csv"), columns)
    assert [case["question"] for case in made.cases] == ["Look:\nwhat does 5% of $200\u2028make?", "Longer"]
    lines = "".join(json.dumps(FINANCEBENCH | {"question": f"What is\u2028{n}?"}, ensure_ascii=False) + "\n" for n in range(2))
    assert len(convert(written(tmp_path, lines)).cases) == 2
    with pytest.raises(UserError, match="its rows have Gold, Prompt"):
        convert(tmp_path / "their.csv")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["question", "answer", "choices", "qa", "table", "questions", "test_cases", "evidence", "paragraphs", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_becomes_cases_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    try:
        made = convert(written(tmp_path_factory.mktemp("any"), value))
    except UserError as error:
        assert "cannot be imported" in error.found or "is not JSON" in error.found
    else:
        assert all(Case.model_validate(case) for case in made.cases)
