"""Which choice an answer settles on: the letter of its final line; without one, the letter its last statement arrives at, or the choice it repeats."""

from __future__ import annotations

import re

from runners.evaluation.conclusion import concludes, corrects, final_lines, guesses, taken_back
from runners.evaluation.lists import any_of
from runners.evaluation.wording import Text, stem

_ARRIVES = re.compile(
    r"\b(?:so|therefore|thus|hence|it(?:'s| is)|(?:it )?leaves?|leaving|choose|pick|select|answer is|option is|choice is|take)\b[^.;]{0,40}?$|:\s*$",
    re.IGNORECASE,
)
_REFUSED = r"\b(?:not|isn't|than|unlike|nor|neither|excludes?|rules? out)\s+(?:option\s+|choice\s+|answer\s+|statement\s+)?\(?{}\b"
_REFUSED_AFTER = rf"\b{{}}\)?,?\s+(?:\w+\s+)?{any_of('refused_after')}"


def chosen(answer: str, choices: dict[str, str]) -> set[str]:
    """The letters an answer settles on; one is a choice, more or none are not."""
    text = Text(answer)
    found: set[str] = set()
    if taken_back(text, 0) and not final_lines(text):
        return set()
    for line in final_lines(text):
        said = re.split(r"\b(?:because|since|as|while|whereas)\b", line.said)[0]
        first = re.match(
            rf"\W*(?:option |choice )?\(?([{''.join(choices)}])\b(?!\s*,?\s*(?:/|\b(?:or|and)\b)|\s*,\s*\(?[{''.join(choices)}]\b)(?=\W|$)(?! [a-z])", said
        )
        settled = {first[1]} if first and not guesses(said) else _letters(said, choices) - _refused(said, choices) or _repeated(said, choices)
        found |= settled
    if final_lines(text):
        after = text.plain[final_lines(text)[-1].end :]
        found |= _arrived(after, choices) if concludes(after) or corrects(after) else set()
        return found if settled else set()  # the last line has to settle on one itself
    return _without_line(text, choices)


def named_beside(answer: str, letter: str, choices: dict[str, str]) -> str:
    """The other choice whose words follow the chosen letter ("B) Credit card", where that is A), if there is one."""
    beside = [_squeeze(match) for match in re.findall(rf"\b{letter}[).:]+\s+([^\n]+)", Text(answer).plain)]
    own = _squeeze(choices.get(letter, ""))
    others = {other: _squeeze(text) for other, text in choices.items() if other != letter and not own.startswith(_squeeze(text))}
    return next((other for text in beside for other, words in others.items() if text.startswith(words) and not text.startswith(own)), "")


def _without_line(text: Text, choices: dict[str, str]) -> set[str]:
    plain = text.plain.strip()
    sentences = [sentence for sentence in re.split(r"(?<=[.!?;])\s+|\n+", plain) if sentence.strip()]
    labels = re.findall(rf"(?:^|[\s(])([{''.join(choices)}])[).:]", plain)
    with_letter = [sentence for sentence in sentences if _letters(sentence, choices)]
    if not with_letter:
        return _repeated(sentences[0], choices) or _repeated(plain, choices) if sentences else set()
    arrived = _arrived(with_letter[-1], choices)
    if set(labels) == set(choices) and not _ARRIVES.search(with_letter[-1].split(next(iter(arrived)), 1)[0] if arrived else ""):
        return set()  # all choices listed again: no choice
    lead = re.match(
        rf"\W*(?:it(?:'s| is) |i(?:'d| would) (?:say|pick|choose) |option |choice )?\(?([{''.join(choices)}])\b"
        r"(?=\s*(?:[).:,;]|$|\n| -| \(|(?:is|comes|fits|applies|holds|describes|names|must)\b))",
        plain,
        re.IGNORECASE if not plain[:1].islower() else 0,
    )
    if lead and len(with_letter) == 1 and not guesses(with_letter[0]) and not re.search(r"\b(?:or|and)\s+\(?[A-H]\b", with_letter[0]):
        return {lead[1]}
    if lead and len(with_letter) > 1 and not (concludes(with_letter[-1]) or corrects(with_letter[-1]) or guesses(with_letter[-1])):
        return {lead[1]}
    label = lead and not re.match(r"\s+\w", plain[lead.end() :])
    return arrived | ({lead[1]} if lead and label and with_letter[-1] != with_letter[0] else set())


def _arrived(sentence: str, choices: dict[str, str]) -> set[str]:
    """The letters of one sentence, those it refuses left out; where it arrives at one ("so B"), that one alone."""
    left = _letters(sentence, choices) - _refused(sentence, choices)
    if len(left) < 2:
        return left
    places = [(match.start(), match[1]) for match in re.finditer(rf"(?<![\w'])\(?([{''.join(choices)}])\b", sentence) if match[1] in left]
    arrived = {letter for place, letter in places if _ARRIVES.search(sentence[:place]) and not re.match(r"\W*\w\W+or\b", sentence[place:])}
    return arrived if len(arrived) == 1 and not guesses(sentence) else left


def _letters(said: str, choices: dict[str, str]) -> set[str]:
    """Letters that stand alone. "A" before a small letter is an article, unless it is called an option or judged like one."""
    letters = "".join(choices)
    found = set()
    for match in re.finditer(rf"(?<![\w'.&-])\(?([{letters}])\b(?!['&]|\.\w|-\w)", said):
        after, before = said[match.end() : match.end() + 14], said[max(0, match.start() - 12) : match.start()]
        judged = re.match(
            r"\)|\s+(?:is|would|was|might|may|could|can|cannot|looks?|fits?|fails?|describes?|confuses?|and|or|forgets?|has|also|most|both|seems)\b", after
        )
        called = re.search(
            r"(?:option|choice|answer|statement|letter|pick|choose|select|take|hence|so|therefore|either|and|or|not|than)\s*:?\s*\(?$", before, re.IGNORECASE
        )
        if match[1] in "AI" and re.match(r"\s+[a-z$\d]", after) and not judged and not called:
            continue
        if match[1] == "A" and re.match(r"\s+[A-Z]", after) and not called:
            continue
        if re.match(r"\.\s?[A-Z]\.", after):
            continue  # initials
        found.add(match[1])
    if re.fullmatch(rf"\W*[{letters.lower()}]\W*", said):
        found.add(re.sub(r"\W", "", said).upper())
    return found


def _refused(said: str, choices: dict[str, str]) -> set[str]:
    refused = {letter for letter in choices if re.search(_REFUSED.format(letter), said) or re.search(_REFUSED_AFTER.format(letter), said)}
    for pair in re.findall(rf"\b([{''.join(choices)}]) and ([{''.join(choices)}]) (?:say nothing|are (?:wrong|out|not))", said):
        refused |= set(pair)
    return refused


def _repeated(said: str, choices: dict[str, str]) -> set[str]:
    """The one choice whose words are repeated, or clearly more of them than of any other."""
    normalised = _squeeze(said)
    exact = {letter for letter, choice in choices.items() if re.search(rf"(?<!\w){re.escape(_squeeze(choice))}(?!\w)", normalised)}
    if exact:
        return exact if len(exact) == 1 else set()
    stems = {stem(word) for word in normalised.split()}
    shares = sorted(((_share(choice, stems), letter) for letter, choice in choices.items()), reverse=True)
    clear = shares[0][0] >= 0.75 and (len(shares) < 2 or shares[0][0] - shares[1][0] >= 0.25)
    return {shares[0][1]} if clear and not re.search(r"\b(?:not|no|never)\b|n't", said) else set()


def _share(choice: str, stems: set[str]) -> float:
    wanted = {stem(word) for word in _squeeze(choice).split() if len(word) > 2 or word.isdigit()}
    return len(wanted & stems) / len(wanted) if len(wanted) > 1 or (wanted and next(iter(wanted)).isdigit()) else 0.0


def _squeeze(value: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[^\w%$.]", " ", value.lower())).strip(" .")
