"""Pairs from running text by a served model, with every answer held against the text it is said to come from.

The model is shown one section at a time and must return, for each pair, the sentences it relies on, word for word. A pair is taken only if its quote is in
the section, every figure of the answer is in the quote's section, and most of the answer's words do: checked here, not trusted. What fails is refused with
the reason.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.corpus import citations, documents, markdown
from runners.corpus.words import words
from runners.errors import UserError

#: Least share of an answer's content words that must stand in the section.
SUPPORTED = 0.8
_SECTION_WORDS, _SECTION_CHARACTERS, _LEAST_ANSWER_WORDS, _LEAST_QUOTE_WORDS = 25, 6_000, 5, 4
_PROMPT = """Read the section below and write the question-answer pairs it supports, at most {most}. Rules:
- each question can be understood without the section; each answer is complete and uses only what the section says, figures exactly as written;
- "quote" is one or more whole sentences copied word for word from the section that the answer rests on.
Return only a JSON list: [{{"question": "...", "answer": "...", "quote": "..."}}]. Return [] when the section supports none.

Document: {document}
Section: {heading}

{text}"""
_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")
#: Words that carry no claim, so they need no support.
_EMPTY = frozenset(
    words(
        "a an the and or but of to in on at by for from with as is are was were be been it its this that these those which who what when where how if then than"
        " so not no can may will would should must have has had do does did also more most such each their there they you your"
    )
)


@dataclass
class Answered:
    """What a model made of a document: rows that passed, and reasons for those that did not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def pairs(file: Path, endpoint: str, model: str, api_key: str = "", most: int = 4, timeout_s: float = 120.0) -> Answered:
    """Ask a model for pairs of a document.

    Args:
        file: a document of any kind that extraction reads.
        endpoint: OpenAI-compatible base URL, ending in ``/v1``.
        model: name of the model there.
        api_key: its key; an open server takes none.
        most: pairs asked for per section.
        timeout_s: of one request.

    Raises:
        UserError: the endpoint does not answer, or the document cannot be read.
    """
    from openai import OpenAI, OpenAIError

    try:
        text, converted = documents.read(file)
    except documents.Unreadable as error:
        raise UserError(f"{file} cannot be read: {error}", "a document", "leave it out") from None
    _, begin = markdown.front_matter(text)
    largest, out = citations.largest_citation(text), Answered()
    with OpenAI(base_url=endpoint, api_key=api_key or "none", timeout=timeout_s, max_retries=2) as client:
        for section in markdown.sections(text, begin):
            if not section.blocks:
                continue
            start, end = section.blocks[0].start, section.blocks[-1].end
            clean = citations.without(markdown.inline(text[start:end]), largest)[:_SECTION_CHARACTERS]
            if len(clean.split()) < _SECTION_WORDS:
                continue
            prompt = _PROMPT.format(most=most, document=file.stem, heading=" > ".join(section.path), text=clean)
            try:
                reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=2_000)
            except OpenAIError as error:
                raise UserError(
                    f"{endpoint} does not answer: {str(error)[:200]}", "an OpenAI-compatible endpoint", "fix --endpoint, --model or the key"
                ) from None
            origin = {"file": file.name, "heading": list(section.path), "span": [start, end], "model": model} | ({"converted": True} if converted else {})
            _take(reply.choices[0].message.content or "", clean, origin, out)
    return out


def _take(reply: str, section: str, origin: dict[str, Any], out: Answered) -> None:
    """Sort a reply's pairs into those the section supports and those it does not."""
    where = " > ".join(origin["heading"]) or origin["file"]
    try:
        listed = json.loads(reply[reply.index("[") : reply.rindex("]") + 1])
    except ValueError:
        out.refused.append(f"{where}: the reply is no JSON list")
        return
    for one in listed:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) and one[key].strip() for key in ("question", "answer", "quote")):
            out.refused.append(f"{where}: a pair without question, answer or quote")
        elif reason := unsupported(one["answer"], one["quote"], section):
            out.refused.append(f"{where}: {reason}: {one['question'].strip()[:100]}")
        else:
            out.rows.append({"question": one["question"].strip(), "answer": one["answer"].strip(), "origin": origin | {"quote": one["quote"].strip()}})


def unsupported(answer: str, quote: str, section: str) -> str:
    """Why an answer is not supported by the section it quotes, or an empty text."""
    said, quoted, standing = words(answer), words(quote), words(section)
    if len(said) < _LEAST_ANSWER_WORDS:
        return "the answer says nothing"
    if len(quoted) < _LEAST_QUOTE_WORDS or f" {' '.join(quoted)} " not in f" {' '.join(standing)} ":
        return "the quote does not stand in the section"
    known = {figure.replace(",", "") for figure in _FIGURE.findall(section)}
    if invented := [figure for figure in _FIGURE.findall(answer) if figure.replace(",", "") not in known]:
        return f"the figure {invented[0]} does not stand in the section"
    content = [word for word in said if word not in _EMPTY]
    share = sum(word in set(standing) for word in content) / max(1, len(content))
    if share < SUPPORTED:
        return f"only {100 * share:.0f} % of the answer's words stand in the section"
    if not set(content) & set(quoted):
        return "the quote has nothing to do with the answer"
    return ""
