"""The quality gate of extraction: why a pair taken from a document is not kept. Pure; the reasons are written to ``rejects.jsonl``.

It knows what goes wrong mechanically: debris of pasted chats, of citations and of exports, sources and tables of contents taken for knowledge, headings that
say nothing, answers that say nothing or lean on text that is not there. Its wordings are in ``gate.yaml``. Left out: whether an answer is right, or well
written; ``--endpoint`` asks a model for that.
"""

from __future__ import annotations

import math
import re
from itertools import islice, pairwise
from pathlib import Path

import yaml

from runners.corpus import checks
from runners.corpus.chrome import MATH_OR_CODE

LEAST_WORDS = 9
#: More code than this is no answer in words.
_CODE_SHARE = 0.6
#: Begins where a word does (``_ASKED``: where a sentence does): a search from each of its letters would find the same, at ten times the price.
_URL = re.compile(r"(?<!\S)\S*(?:https?://|www\.|\w\.(?:com|org|net|gov|edu)/)\S*")
_SOURCE = re.compile(
    r"\b(?:accessed|retrieved|last visited)\s+(?:on\s+)?(?:\w+ \d|\d)|\bdoi[:.]|\bISBN\b|\bet al\.|\bpp?\.\s?\d+[-–]\d+|\bVol\.\s?\d", re.IGNORECASE
)
_TITLE_AND_AUTHOR = re.compile(r"[\"“][^\"”\n]{8,200}[\"”]\s*(?:\d[\d,\s]{0,8})?(?:\(|(?:and|by) [\"“A-Z]|[,.]? ?[A-Z][\w.’'&-]+.{0,60}(?:19|20)\d\d)")
_BY_AUTHOR = re.compile(r"[A-Z“\"][^.\n]{3,120}?\bby (?:[A-Z][\w.’'-]+,? ?(?:and |& )?){1,5}(?:[.(,]|$)")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TABLE = re.compile(r"^\s*\|.*$", re.MULTILINE)
#: Marks of code that prose seldom has.
_SIGNS = re.compile(r"[_{};=<>&|\\@#*[]|::|->")
_NO_SIGNS = re.compile(r"`[^`\n]*`|\*\*|^\s*[*#>]+ |\$[^$\n]+\$|\|[^\n]*\|", re.MULTILINE)
#: Questions in an answer are what somebody else asks: "What will it cost me?"
_ASKED = re.compile(r"(?<![^.!?\n])[^.!?\n]*\?")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_MARKUP = re.compile(r"\*\*|__|…|\.\.\.|https?:|www\.|[#|<>]")


#: The output or the prompt of a program that lost its marks: five figures in a row, or a console's sign.
_FIGURES = re.compile(r"(?<!\S)(?=[-+\d])(?:(?:(?<!\S)[-+]?\d[\d.,:/-]*\s+){5,}|(?:(?<!\S)[-+]?\d+\.\d+\s+){3,})")
_CONSOLE = re.compile(r"(?:^|\s)(?:R> |>>> |\$ [a-z]+ -|> \w+ ?(?:<-|\())|\w <- \w", re.MULTILINE)
_CONSOLE_SIGNS = (">", "<-", "$ ")
#: A word that is written twice at the beginning: a term above its text, as PDFs flatten lists of commands.
_TWICE = re.compile(r"\W*(\w{2,}) \1\b")
#: A longer line is a sentence.
_HEADING_WORDS = 6
#: An entry of a list that begins without a mark after the one before: "(C-y) Move the cursor".
_RUN_TOGETHER = re.compile(r"(?<=[a-z)\]\d] )([A-Z][a-z]+) (?:the|an?|to|all|each|any|this|whether)\b")
#: A question as the last sentence leads to the next section; after a colon it is what is to be asked.
_ENDS_ASKING = re.compile(r"(?:\A|\n)[^:\n]*\?\s*\Z")
_OPTION = re.compile(r"(?<!\S)--?[a-zA-Z][\w-]*")
#: A name and its arguments at the beginning, or a line that is nothing else: "zoo(x, order.by)".
_SIGNATURE = re.compile(r"\A[\w.]+\([^()]*[=,][^()]*\)|^[~\w.]+\([^()\n]*\)$|^[a-z_][a-z_\d]*(?:\.\w+)+$", re.MULTILINE)
#: Words that every English text is full of, and the least share of them in one of so many words.
_ENGLISH = re.compile(r"\b(?:the|an?|of|to|and|is|are|be|in|that|for|it|on|with|as|or|by|you|this|not|can)\b", re.IGNORECASE)
_ENGLISH_SHARE, _ENGLISH_WORDS, _BEGINNING = 0.1, 25, 600


def _compiled() -> list[tuple[str, str, re.Pattern[str]]]:
    """(reason, where it is looked for, pattern), in the order of the file."""
    found = []
    for entry in yaml.safe_load((Path(__file__).parent / "gate.yaml").read_text()):
        for place in ("opening", "anywhere", "question", "as_written"):
            if place in entry:
                joined = "|".join(entry[place])
                flags = re.MULTILINE if place == "as_written" else re.MULTILINE | re.IGNORECASE
                found.append((entry["reason"], place, re.compile(rf"(?<!\w)(?:{joined})" if place == "anywhere" else rf"(?:{joined})", flags)))
    return found


_WORDINGS = _compiled()


def reason(question: str, answer: str) -> str:
    """Why a pair is not kept, or an empty text."""
    plain = MATH_OR_CODE.sub(" ", answer)
    count = len(re.findall(r"\S*\w\S*", plain)) + min(1, answer.count("$"))
    if count < LEAST_WORDS:
        return f"the answer has {count} words, fewer than {LEAST_WORDS}"
    return _of_question(question) or _of_wording(question, plain) or _of_form(question, answer, plain)


def _of_question(question: str) -> str:
    if len(_LETTERS.findall(question)) < 3:
        return "the question is no question"
    unbalanced = any(question.count(left) != question.count(right) for left, right in ("()", "[]", "{}", "“”"))
    if unbalanced or question.count('"') % 2 or question.count('"') > 4 or question.count(",") > 4 or _MARKUP.search(question):
        return "the heading is cut or damaged"
    return "a backslash of an export is left" if "\\" in MATH_OR_CODE.sub(" ", question) else ""


def _of_wording(question: str, plain: str) -> str:
    opening = re.sub(r"^[\s>*_#-]+", "", plain)
    texts = {"opening": opening, "anywhere": plain, "as_written": _ASKED.sub(" ", plain), "question": question}
    return next((why for why, place, pattern in _WORDINGS if (pattern.search if place in ("anywhere", "as_written") else pattern.match)(texts[place])), "")


def _of_form(question: str, answer: str, plain: str) -> str:
    tests = (
        ("\\" in plain, "a backslash of an export is left"),
        (_is_source(answer), "a source is named and nothing said: an entry of a bibliography"),
        (_share(_URL.findall(answer), answer) > 0.3, "mostly links"),
        (_share(_CODE.findall(answer), answer) > _CODE_SHARE or _has_signs(_CODE.sub(" ", answer)), "mostly code"),
        (_share(_TABLE.findall(answer), answer) > 0.6, "a table without the text around it"),
        (checks.has_citation(answer), "a citation mark is left"),
        (checks.is_truncated(answer) or answer.rstrip().endswith((":", ",", ";")), "the answer ends in mid-sentence"),
        (checks.repeats_question(question, answer), "the answer says no more than the question"),
        (len(_OPTION.findall(plain)) >= 4, "a list of a command's options"),
        (len(set(_RUN_TOGETHER.findall(plain))) >= 2, "the lines of a list run together"),
        (_is_output(_TABLE.sub(" ", plain)), "the answer holds a program's output or its prompt"),
        (bool(_TWICE.match(plain)), "the answer begins with a heading that is no part of it"),
        (_begins_small(question, plain), "the answer begins in mid-sentence"),
        (bool(_SIGNATURE.search(plain)), "a program's reference: names with their arguments"),
        (_is_foreign(plain[:_BEGINNING]), "the text is not in English"),
        (_is_broken(answer), "a paragraph ends or begins in mid-sentence"),
        (bool(_ENDS_ASKING.search(answer)), "the answer ends in a question"),
        (_is_title_case(plain), "the answer is a list of names or titles"),
    )
    return next((text for wrong, text in tests if wrong), "")


def _is_source(answer: str) -> bool:
    """An entry of a bibliography: where to read, not what is written there."""
    text = re.sub(r"[*_`]", "", answer).strip()
    return len(text.split()) <= 40 and bool(_TITLE_AND_AUTHOR.match(text) or _BY_AUTHOR.match(text) or _SOURCE.search(text))


def _is_output(text: str) -> bool:
    """Whether a program's output or its prompt is in the text."""
    return bool(_FIGURES.search(text) or (any(sign in text for sign in _CONSOLE_SIGNS) and _CONSOLE.search(text)))


def _is_foreign(beginning: str) -> bool:
    """Whether a text lacks the small words of English."""
    words = len(beginning.split())
    enough = math.ceil(_ENGLISH_SHARE * words)
    return words > _ENGLISH_WORDS and sum(1 for _ in islice(_ENGLISH.finditer(beginning), enough)) < enough


def _begins_small(question: str, plain: str) -> bool:
    """Whether the first word is small and no name that the question has: the rest of a sentence."""
    first = re.match(r"([a-z]+)[ ,]", plain.lstrip())
    return first is not None and first[1] not in question.lower()


def _is_broken(answer: str) -> bool:
    """Whether a page's end or a lost line cuts a paragraph: it ends without a mark, or the next one begins with a small letter."""
    parts = _CODE.sub("```", answer).split("\n\n")
    for before, after in pairwise(parts):
        prose = not re.match(r"\s*(?:[-*|>$]|\d+[.)]|```)", before) and len(before.split()) > _HEADING_WORDS
        if prose and re.search(r"[a-z,]\Z|[^.!?:][\"”]\Z", before.rstrip()) and not after.startswith(("```", "$", "|")):
            return True
        if prose and re.search(r"[^:$`]\Z", before.rstrip()) and re.match(r"(?:- )?[a-z]+[,.;]? [a-z]", after) and not re.match(r"- (?:.+\n- )", after):
            return True
    return False


def _has_signs(answer: str) -> bool:
    """Whether marks that prose does not have are frequent: code, signatures of functions."""
    text = _NO_SIGNS.sub(" ", answer)
    return len(_SIGNS.findall(text)) > 0.015 * len(text)


def _is_title_case(plain: str) -> bool:
    """Whether nearly every longer word of a short text has a capital: names and titles, no sentence."""
    words = [word for word in re.findall(r"[^\W\d_]+", plain) if len(word) > 3]
    return 3 <= len(words) <= 30 and sum(word[0].isupper() for word in words) > 0.7 * len(words)


def _share(parts: list[str], text: str) -> float:
    return sum(map(len, parts)) / max(1, len(text))
