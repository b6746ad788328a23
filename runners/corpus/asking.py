"""Pairs from documents, written and judged by a served model, with every sentence held against the text it quotes.

The model is shown one section at a time, with the pairs that the section's structure gave, and returns pairs whose every sentence names the words it rests on.
A pair is taken only if each quote is in the section, and the sentence has no figure, no negation and few words that its quote lacks: checked here, not
trusted. Then the model judges the pair without the section, as its reader sees it. What fails is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.corpus import citations, documents, extract, gate, markdown
from runners.corpus.words import FIGURE, words
from runners.errors import UserError

#: Least share of a sentence's content words that must be in the text it quotes.
SUPPORTED = 0.7
_SECTION_WORDS, _SECTION_CHARACTERS, _LEAST_ANSWER_WORDS, _LEAST_QUOTE_WORDS = 25, 6_000, 5, 4
_WRITE = """Read the section below and write the question-answer pairs it supports, at most {most}. Rules:
- each question can be understood without the section; each answer is complete and uses only what the section says, figures exactly as written;
- an answer is a list of sentences; the "quote" of a sentence is the words of the section that it rests on, copied word for word;
- drafts were made by a program from headings: rewrite those that a reader would ask, leave the others out.
Return only a JSON list: [{{"question": "...", "sentences": [{{"text": "...", "quote": "..."}}]}}]. Return [] when the section supports none.

Document: {document}
Section: {heading}
Drafts: {drafts}

{text}"""
_JUDGE = """Would a person who knows the field keep this question and answer for teaching? The reader sees nothing else.
good: a question that people ask, and a complete, correct answer. usable: clear, but awkward. junk: anything else.
Return only JSON: {{"verdict": "good" | "usable" | "junk", "why": "..."}}

Question: {question}
Answer: {answer}"""
_NEGATION = frozenset([*words("not no never none nor neither cannot without"), "t"])
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
    """Ask a model for pairs of a document; those that its structure gives are drafts, kept only as far as the model rewrites them.

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
    drafts = extract.pairs(text, begin)
    largest, out = citations.largest_citation(text), Answered()
    with OpenAI(base_url=endpoint, api_key=api_key or "none", timeout=timeout_s, max_retries=2) as client:

        def ask(prompt: str) -> str:
            try:
                reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=2_000)
            except OpenAIError as error:
                raise UserError(
                    f"{endpoint} does not answer: {str(error)[:200]}", "an OpenAI-compatible endpoint", "fix --endpoint, --model or the key"
                ) from None
            return reply.choices[0].message.content or ""

        for section in markdown.sections(text, begin):
            if not section.blocks:
                continue
            start, end = section.blocks[0].start, section.blocks[-1].end
            clean = citations.without(markdown.inline(text[start:end]), largest)[:_SECTION_CHARACTERS]
            if len(clean.split()) < _SECTION_WORDS:
                continue
            mine = [{"question": one.question, "answer": one.answer} for one in drafts if one.path == section.path]
            heading = " > ".join(section.path)
            prompt = _WRITE.format(most=most, document=file.stem, heading=heading, drafts=json.dumps(mine, ensure_ascii=False), text=clean)
            origin = {"file": file.name, "heading": list(section.path), "span": [start, end], "model": model} | ({"converted": True} if converted else {})
            _take(ask(prompt), clean, origin, ask, out)
    return out


def _take(reply: str, section: str, origin: dict[str, Any], ask: Callable[[str], str], out: Answered) -> None:
    """Sort a reply's pairs into those that the section supports and the judge keeps, and the others."""
    where = " > ".join(origin["heading"]) or origin["file"]
    listed = _json(reply, "[", "]")
    if not isinstance(listed, list):
        out.refused.append(f"{where}: the reply is no JSON list")
        return
    for one in listed:
        if not _has_form(one):
            out.refused.append(f"{where}: a pair without question, or a sentence without text and quote")
            continue
        question, sentences = one["question"].strip(), one["sentences"]
        answer = " ".join(sentence["text"].strip() for sentence in sentences)
        unsure = (unsupported(sentence["text"], sentence["quote"], section) for sentence in sentences)
        if why := next(filter(None, unsure), "") or gate.reason(question, answer) or _judged(ask(_JUDGE.format(question=question, answer=answer))):
            out.refused.append(f"{where}: {why}: {question[:100]}")
        else:
            quotes = [sentence["quote"].strip() for sentence in sentences]
            out.rows.append({"question": question, "answer": answer, "origin": origin | {"quotes": quotes}})


def _has_form(one: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("question"), str) or not one["question"].strip():
        return False
    sentences = one.get("sentences")
    return isinstance(sentences, list) and bool(sentences) and all(map(_is_sentence, sentences))


def _is_sentence(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("text"), str) and isinstance(one.get("quote"), str)


def _judged(reply: str) -> str:
    """Why the judge does not keep a pair, or an empty text."""
    verdict = _json(reply, "{", "}")
    if not isinstance(verdict, dict) or verdict.get("verdict") not in ("good", "usable", "junk"):
        return "the judge gave no verdict"
    return "" if verdict["verdict"] != "junk" else f"the judge calls it junk ({str(verdict.get('why', ''))[:100]})"


def _json(reply: str, first: str, last: str) -> Any:
    try:
        return json.loads(reply[reply.index(first) : reply.rindex(last) + 1])
    except (ValueError, RecursionError):
        return None


def unsupported(sentence: str, quote: str, section: str) -> str:
    """Why a sentence is not supported by what it quotes of a section, or an empty text."""
    said, quoted = words(sentence), words(quote)
    if len(said) < _LEAST_ANSWER_WORDS:
        return "a sentence says nothing"
    if len(quoted) < _LEAST_QUOTE_WORDS or f" {' '.join(quoted)} " not in f" {' '.join(words(section))} ":
        return "a quote is not in the section"
    known = {figure.replace(",", "") for figure in FIGURE.findall(quote)}
    if invented := [figure for figure in FIGURE.findall(sentence) if figure.replace(",", "") not in known]:
        return f"the figure {invented[0]} is not in the text it quotes"
    if bool(_NEGATION & set(said)) != bool(_NEGATION & set(quoted)):
        return "a sentence and its quote differ in a negation"
    content = [word for word in said if word not in _EMPTY]
    share = sum(word in set(quoted) for word in content) / max(1, len(content))
    return f"only {100 * share:.0f} % of a sentence's words are in the text it quotes" if share < SUPPORTED else ""
