"""Other people's benchmarks, form by form, as plain questions: FinQA, TAT-QA, FinanceBench, MMLU-style choices, keyword lists, CSV with a column mapping.

Each reader gives rows of one shape and skips nothing silently: what cannot become a case comes back with its number and the reason. ``importer`` makes the
cases of them.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError

_KEYWORDS = ("expected_keywords", "expected_elements", "keywords", "must_include")
_PROHIBITED = ("prohibited_elements", "prohibited_keywords", "forbidden", "must_not_include")
_QUESTION = ("question", "query", "prompt", "input", "Question")
_ANSWER = ("answer", "answers", "gold", "target", "expected_answer", "reference_answer", "exe_ans", "output", "label", "Answer")
_LISTS = ("test_cases", "questions", "cases", "data", "items", "examples", "samples", "rows")


@dataclass(frozen=True)
class ImportedQuestion:
    """One question as its file has it."""

    name: str
    question: str
    keywords: tuple[str, ...] = ()
    prohibited: tuple[str, ...] = ()
    answer: str = ""
    scale: str = ""
    choices: tuple[str, ...] = ()
    letter: str = ""
    passage: str = ""
    category: str = ""
    difficulty: str = ""
    note: str = ""


class _CannotImport(Exception):
    """Why one row is no question."""


def read(file: Path, columns: dict[str, str] | None = None) -> tuple[list[ImportedQuestion], list[str], dict[str, Any]]:
    """(questions, what was left out and why, the file's metadata). Raises UserError for a file that has no form known here."""
    rows, about = _rows(file)
    found: list[ImportedQuestion] = []
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            found += list(_reader(row)({columns.get(key, key): value for key, value in row.items()} if columns else row, str(number)))
        except _CannotImport as error:
            problems.append(f"row {number}: {error}")
        except outside.WRONG_SHAPE as error:
            problems.append(f"row {number}: has a value of another form ({error})")
    if not found:
        keys = sorted({str(key) for row in rows[:20] if isinstance(row, dict) for key in row if key})
        raise UserError(
            f"{file} cannot be imported: {problems[0] if problems else 'it has no rows'}; its rows have {', '.join(keys)[:200] or 'no keys'}",
            "rows with a question and an answer, keywords or choices: test_cases, FinQA, TAT-QA, FinanceBench, MMLU, CSV",
            "name the columns: --map question=COLUMN --map answer=COLUMN",
        )
    return found, problems, about


def _rows(file: Path) -> tuple[list[Any], dict[str, Any]]:
    """The rows of JSON, JSON lines or CSV, and the metadata beside them."""
    text = outside.text(file, "JSON, JSON lines or CSV")
    if file.suffix.lower() in (".csv", ".tsv"):
        try:
            return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if file.suffix.lower() == ".tsv" else ",")), {}
        except csv.Error as error:
            raise UserError(f"{file} cannot be imported: {error}", "CSV with a header", "pass another file") from None
    try:
        value = outside.parsed_json(text, str(file))
    except UserError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not lines[0].lstrip().startswith("{"):
            raise
        value = [outside.parsed_json(line, f"line {number} of {file}") for number, line in enumerate(lines, 1)]
    if isinstance(value, list):
        return value, {}
    if isinstance(value, dict):
        for key in _LISTS:
            about = value.get("metadata")
            if isinstance(value.get(key), list):
                return list(value[key]), dict(about) if isinstance(about, dict) else {}
        if any(key in value for key in _QUESTION):
            return [value], {}
    found = f"the keys {', '.join(map(str, value))[:200]}" if isinstance(value, dict) else type(value).__name__
    raise UserError(f"{file} cannot be imported: it holds {found}", f"a list of questions, or one under {', '.join(_LISTS)}", "pass another file")


def _reader(row: Any) -> Callable[[dict[str, Any], str], Iterator[ImportedQuestion]]:
    if not isinstance(row, dict):
        raise _CannotImport(f"is {type(row).__name__}, not a row with a question")
    if isinstance(row.get("qa"), dict) or isinstance(row.get("annotation"), dict):
        return _finqa
    if isinstance(row.get("questions"), list):
        return _tatqa
    return _plain


def _finqa(row: dict[str, Any], number: str) -> Iterator[ImportedQuestion]:
    """FinQA (Chen et al. 2021): text, a table, text, and one question with a figure as its answer; ConvFinQA has it under ``annotation``."""
    asked = row.get("qa") or row["annotation"]
    passage = "\n".join([*_texts(row.get("pre_text")), _table(row.get("table") or row.get("table_ori")), *_texts(row.get("post_text"))])
    answer = _first(asked, ("answer", "exe_ans", "ans"))
    yield _checked(number, asked, row, passage=passage, answer=str(answer if answer not in (None, "") else asked.get("exe_ans", "")))


def _tatqa(row: dict[str, Any], number: str) -> Iterator[ImportedQuestion]:
    """TAT-QA (Zhu et al. 2021): a table and paragraphs with several questions; ``scale`` is thousand, million or percent."""
    table = row.get("table")
    paragraphs = [part.get("text", "") for part in row.get("paragraphs") or () if isinstance(part, dict)]
    passage = "\n".join([_table(table.get("table") if isinstance(table, dict) else table), *paragraphs])
    for place, asked in enumerate(row["questions"], 1):
        if isinstance(asked, dict):
            answer = asked.get("answer")
            several = [str(part) for part in answer] if isinstance(answer, list) else []
            one = {"answer": several[0]} if len(several) == 1 else {"keywords": tuple(several)} if several else {"answer": str(_given(answer))}
            yield _checked(f"{number}-{place}", asked, asked, passage=passage, scale=str(asked.get("scale") or ""), **one)


def _plain(row: dict[str, Any], number: str) -> Iterator[ImportedQuestion]:
    """One question a row: keyword lists, choices, or an answer; FinanceBench has its evidence beside it."""
    evidence = row.get("evidence") or row.get("context") or row.get("passage") or ""
    parts = evidence if isinstance(evidence, list) else [evidence]
    passage = "\n".join(str(part.get("evidence_text", "") if isinstance(part, dict) else part) for part in parts)
    choices = _choices(row)
    answer = _first(row, _ANSWER)
    if choices:
        letter = _letter(answer, choices)
        if not letter:
            raise _CannotImport(f"the answer {answer!r} is none of its {len(choices)} choices")
        yield _checked(number, row, row, passage=passage, choices=tuple(choices), letter=letter)
        return
    keywords = _first(row, _KEYWORDS)
    yield _checked(
        number,
        row,
        row,
        passage=passage,
        keywords=tuple(_texts(keywords)),
        prohibited=tuple(_texts(_first(row, _PROHIBITED))),
        answer="" if keywords else str(_given(answer)),
    )


def _checked(number: str, asked: dict[str, Any], about: dict[str, Any], **parts: Any) -> ImportedQuestion:
    question = str(_first(asked, _QUESTION) or "").strip()
    if len(question) < 3:
        raise _CannotImport(f"has no question under {', '.join(_QUESTION)}")
    if not any(parts.get(key) for key in ("answer", "keywords", "letter")):
        raise _CannotImport("has no answer, keywords or choices")
    name = next((str(about[key]) for key in ("id", "uid", "qid", "financebench_id", "question_id") if about.get(key) not in (None, "")), number)
    category = str(about.get("category") or about.get("subject") or about.get("domain") or "")
    note = "the answer is free text: say what of it must be claimed" if about.get("justification") else ""
    return ImportedQuestion(name, question, category=category, difficulty=str(about.get("difficulty") or ""), note=note, **parts)


def _choices(row: dict[str, Any]) -> list[str]:
    listed = row.get("choices") or row.get("options")
    if isinstance(listed, dict):
        listed = listed.get("text") if isinstance(listed.get("text"), list) else list(listed.values())
    if isinstance(listed, str) and listed.strip().startswith("["):
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError):
            listed = None
    if not isinstance(listed, list):
        listed = [row[key] for key in ("A", "B", "C", "D", "E", "F", "G", "H") if row.get(key) not in (None, "")]
    return [str(choice) for choice in listed] if 2 <= len(listed) <= 8 else []


def _letter(answer: Any, choices: list[str]) -> str:
    """The letter of an answer that is an index, a letter or the text of a choice."""
    letters = "ABCDEFGH"[: len(choices)]
    said = str(_given(answer)).strip()
    if said.isdigit() and said not in choices and int(said) < len(choices):
        return letters[int(said)]
    if said.upper().strip("().") in letters and said:
        return said.upper().strip("().")
    return letters[choices.index(said)] if said in choices else ""


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) not in (None, "", [])), None)


def _given(answer: Any) -> Any:
    if isinstance(answer, list):
        return answer[0] if answer else ""
    return "" if answer is None else answer


def _texts(value: Any) -> list[str]:
    """A list of texts, whatever they are written as; a text is cut at semicolons or bars."""
    if value is None:
        return []
    if isinstance(value, str):
        parts: list[Any] = value.replace("|", ";").split(";")
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else list(value.values()) if isinstance(value, dict) else [value]
    return [str(part).strip() for part in parts if str(part).strip()]


def _table(table: Any) -> str:
    """A table as lines of cells with bars between."""
    if not isinstance(table, list):
        return ""
    return "\n".join(" | ".join(str(cell) for cell in row) for row in table if isinstance(row, list))
