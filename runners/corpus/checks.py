"""What may be wrong with a pair, found one pair at a time.

Each check names a finding; ``spec.data.refuse`` says which findings keep a pair out of the dataset, ``spec.data.refuse_beyond`` which refuse the build when
too many pairs have them; all are counted and shown. Left out: whether an answer is right, which no rule can tell.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from runners.corpus.dated_limits import Limit, LimitIndex
from runners.corpus.finance.identifiers import luhn_check_digit
from runners.corpus.pairs import Pair
from runners.corpus.words import plain

#: Finding -> what it means. The order is the order of the bits in which findings are stored.
FINDINGS = {
    "too_long": "longer than the context the model is trained with",
    "encoding": "characters damaged by a wrong encoding",
    "personal_data": "an e-mail address, a telephone, social security or card number",
    "control_tokens": "a chat template's own marks, such as <|im_end|>, which would end the turn",
    "wrong_limit": "a limit is given with a year whose limit is another",
    "stale": "the limit of an earlier year, without its year",
    "truncated": "ends in mid-sentence",
    "repeats_question": "the answer says no more than the question",
    "boilerplate": "an assistant's phrase that answers nothing",
    "citation": "a citation mark left from a document",
    "short": "an answer of fewer characters than data.short_answer_characters",
    "long": "an answer of more characters than data.long_answer_characters",
}
_MOJIBAKE = re.compile(
    "\ufffd|\u00c3[\u0080-\u00bf\u0192\u201a]|\u00e2\u20ac|\u00c2[\u00a0\u00a3\u00a9\u00ae\u00bd\u00b0]|\u00ef\u00bb\u00bf|[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[a-zA-Z]{2,}")
_SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
#: Toll-free numbers belong to institutions.
_TELEPHONE = re.compile(r"(?<![\d$.,-])(?:\+?1[ .-])?\(?(?!8(?:00|33|44|55|66|77|88)\b)[2-9]\d{2}\)?[ .-][2-9]\d{2}[.-]\d{4}(?![\d-])")
#: What all three have, found quickly: three digits, at most two marks, two digits.
_LONG_NUMBER = re.compile(r"\d\d\d[ .)-]{0,2}\d\d")
#: American Express has 15 digits; Visa, Mastercard and Discover have 16.
_CARD_BEGINS = re.compile(r"(?:3[47]\d{13}|(?:4\d|5[1-5]|2[2-7]|6[045])\d{14})$")
_CARD = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d.,-])")
_CONTROL = re.compile(
    r"<\|[a-z0-9_ -]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|</?think>|</?tool_call>", re.IGNORECASE
)
#: Looked for in lower case, as they stand: a search for a dozen words costs less than one regular expression.
_BOILERPLATE = (
    *("as an ai ", "as a large language model", "as an ai,", "as a language model", "i'm an ai", "i am an ai", "i'm just an ai", "an ai language model"),
    *("i'm sorry, but i can", "i am sorry, but i can", "i hope this helps", "let me know if you have", "great question", "click here", "lorem ipsum"),
    *("subscribe to our", "all rights reserved", "skip to main content", "skip to content"),
)
_MARKED_CITATION = re.compile(r"\[\d{1,3}\](?!\()|\[\^[\w-]+\]|【[^】]*】|\[citation needed\]|\[cite[:_]", re.IGNORECASE)
_GLUED_CITATION = re.compile(r"[.,;]\d{1,3}(?=\s|$)")
_LIST_ITEM = re.compile(r"\s*(?:[-*•+]|\d+[.)]|[a-zA-Z][.)])\s")
_OPEN_END = re.compile(r"(?:[,;:(–—-]|\b(?:and|or|the|a|an|of|to|in|for|with|by|from|that|which|is|are|as|at|on|than|but|because|if|when))$", re.IGNORECASE)


@dataclass(frozen=True)
class Checker:
    """The checks with their bounds. ``context_tokens`` is in tokens as ``tokens`` estimates them."""

    context_tokens: int
    short_answer_characters: int
    long_answer_characters: int
    limits: tuple[Limit, ...] = ()

    @functools.cached_property
    def _dated(self) -> LimitIndex:
        return LimitIndex(self.limits)

    def __call__(self, pair: Pair, tokens: int) -> tuple[str, ...]:
        """Names of the findings of a pair whose whole conversation is about ``tokens`` long, in the order of FINDINGS."""
        text = f"{pair.question}\n{pair.answer}"
        lowered = pair.answer.lower()
        found = {
            "too_long": tokens > self.context_tokens,
            "encoding": is_damaged(text),
            "personal_data": has_personal_data(text),
            "control_tokens": has_control_tokens(text) or any(has_control_tokens(content) for _, content in pair.history),
            "truncated": is_truncated(pair.answer),
            "repeats_question": repeats_question(pair.question, pair.answer),
            "boilerplate": any(phrase in lowered for phrase in _BOILERPLATE),
            "citation": has_citation(pair.answer),
            "short": len(pair.answer) < self.short_answer_characters,
            "long": len(pair.answer) > self.long_answer_characters,
            **self._dated.findings(pair),
        }
        return tuple(name for name in FINDINGS if found.get(name))


def is_damaged(text: str) -> bool:
    """Whether a text shows the marks of a wrong encoding, or control characters."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        return False
    return bool(_MOJIBAKE.search(text))


def has_citation(text: str) -> bool:
    """Whether a citation mark was left: [12], [^a], or a bare number behind a closing mark ("the index.12")."""
    if ("[" in text or "【" in text) and _MARKED_CITATION.search(text):
        return True
    return any(match.start() and (text[match.start() - 1].islower() or text[match.start() - 1] in ')"”') for match in _GLUED_CITATION.finditer(text))


def has_control_tokens(text: str) -> bool:
    """Whether a text holds a mark that chat templates use: with <|im_end|> in an answer, a model learns to stop there."""
    return ("<" in text or "[" in text) and bool(_CONTROL.search(text))


def has_personal_data(text: str) -> bool:
    """Whether a text holds an e-mail address, a telephone, social security or (by its check digit) card number of a person."""
    if "@" in text and _EMAIL.search(text):
        return True
    if not _LONG_NUMBER.search(text):
        return False
    return bool(_SOCIAL_SECURITY.search(text) or _TELEPHONE.search(text)) or any(_is_card(match.group()) for match in _CARD.finditer(text))


def _is_card(text: str) -> bool:
    """Luhn's check digit: https://www.iso.org/standard/70484.html (ISO/IEC 7812-1, annex B)."""
    number = re.sub(r"\D", "", text)
    if not _CARD_BEGINS.match(number) or len(set(number)) < 2:
        return False
    return luhn_check_digit(number[:-1]) == int(number[-1])


def is_truncated(answer: str) -> bool:
    """Whether an answer ends in mid-sentence: in a comma, colon or joining word, or in prose without a full stop."""
    last = answer.rstrip().rsplit("\n", 1)[-1].strip()
    if answer.count("```") % 2:
        return True
    if last.startswith(("|", "```")):
        return False
    bare = last.rstrip("*_`\"'”’) ")
    if not bare:
        return False
    if _OPEN_END.search(bare[-16:]) and not bare.endswith(("http:", "https:")):
        # A letter by itself is an item ("option A"); a word set in bold or code is a label.
        return not (len(bare) == 1 or (last.endswith(("*", "`")) and not bare.endswith((",", ":"))))
    if bare[-1] in ".!?…%$©®™)]}\"'”’=" or "://" in bare.rsplit(" ", 1)[-1]:
        return False
    # A list's items, a figure or a short label need no full stop.
    return not (_LIST_ITEM.match(last) or bare[-1].isdigit() or len(bare.split()) <= 8)


def repeats_question(question: str, answer: str) -> bool:
    """Whether an answer is the question again, with at most three words more."""
    if len(answer) > 3 * len(question) + 40:
        return False
    asked, said = plain(question).split(), plain(answer).split()
    new = set(said) - set(asked)
    return bool(asked) and len(new) <= min(3, len(asked) // 3) and not any(word.isdigit() for word in new)
