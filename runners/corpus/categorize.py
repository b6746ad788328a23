"""Which of the 18 domains a link or a text belongs to, how sure that is, and why.

Evidence adds up by domain: the host's rule, the words and phrases of ``data/taxonomy.yaml`` in title, organization, notes and path (whole words only), and
the labels that people gave to other rows of the same host. Confidence is the best domain's share of the evidence, less where there is little of it.
Rows below ``REVIEW_BELOW`` go to a review file; what people write there counts above everything when it is read back.

Left out: a trained model. With 99 labelled rows rules that can be read do as well, and each verdict says why.
"""

from __future__ import annotations

import csv
import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from runners.corpus.pairs import DOMAINS
from runners.corpus.words import words
from runners.errors import UserError
from runners.fields import Strict

#: Below this confidence a person should look.
REVIEW_BELOW = 0.2
#: What is about none of the domains; a verdict like the others.
OFF_TOPIC = "none"
_PHRASE, _WORD, _FAINT, _HOST, _PATH_RULE, _LABEL = 2.0, 1.4, 0.4, 3.0, 5.0, 1.0
#: How much a hit counts by where it is.
_FIELDS = {"title": 1.0, "organization": 0.6, "notes": 0.6, "path": 0.4}
#: What a title begins with is what it is about: its last word counts this much less than its first.
_LATER = 0.4
#: Evidence of this strength is half-sure by itself: one phrase in a title, or two words.
_HALF_SURE = 1.0
_LONGEST_PHRASE = 6
_LABELS_COUNTED = 3
Tier = Literal["primary", "secondary", "reference", "other"]


class Domain(Strict):
    """One domain of the taxonomy."""

    definition: str = Field(min_length=20)
    hosts: tuple[str, ...] = ()
    words: dict[str, tuple[str, ...]] = Field(min_length=1)


class Taxonomy(Strict):
    """The whole file; see its first lines for what the parts mean."""

    version: Literal[1]
    domains: dict[str, Domain]
    off_topic: tuple[str, ...] = ()
    tiers: dict[Tier, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_the_domains(self) -> Taxonomy:
        if list(self.domains) != list(DOMAINS):
            raise ValueError(f"the domains must be these, in this order: {', '.join(DOMAINS)}")
        hosts = Counter(host for domain in self.domains.values() for host in domain.hosts)
        if twice := [host for host, times in hosts.items() if times > 1]:
            raise ValueError(f"hosts of two domains: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Categorization:
    """Where something belongs. ``confidence`` is in [0, 1]; ``reason`` names the evidence."""

    domain: str
    subdomain: str
    tier: Tier
    confidence: float
    reason: str

    @property
    def unsure(self) -> bool:
        """Whether a person should look."""
        return self.confidence < REVIEW_BELOW


@dataclass(frozen=True)
class Categorizer:
    """A taxonomy, compiled; and the labels that people gave, by host.

    ``phrases``: phrase -> (domain, subdomain, points); ``hosts``: (host or host/path, domain), the longest first; ``labels``: host -> how often each domain.
    """

    phrases: Mapping[str, Sequence[tuple[str, str, float]]]
    hosts: Sequence[tuple[str, str]]
    tiers: Mapping[Tier, Sequence[str]]
    first_subdomain: Mapping[str, str]
    labels: Mapping[str, Counter[str]]

    @classmethod
    def of(cls, taxonomy: Taxonomy, labelled: Iterable[Mapping[str, str]] = ()) -> Categorizer:
        """Compile a taxonomy, with rows that people labelled."""
        hosts = sorted(((host, name) for name, domain in taxonomy.domains.items() for host in domain.hosts), key=lambda rule: -len(rule[0]))
        first = {name: next(iter(domain.words)) for name, domain in taxonomy.domains.items()}
        return cls(_compiled(taxonomy), hosts, taxonomy.tiers, first, labels_by_host(labelled))

    def row(self, row: Mapping[str, str]) -> Categorization:
        """The verdict on a row of a catalogue: title, organization, url, notes."""
        host, path = host_of(row.get("url", ""))
        score, reasons, subdomains = defaultdict[str, float](float), list[str](), defaultdict[tuple[str, str], float](float)
        if rule := self.host_rule(host, path):
            weight = _PATH_RULE if "/" in rule[0] else _HOST
            score[rule[1]] += weight
            reasons.append(f"host {rule[0]}")
        for domain, times in self.labels.get(host, Counter[str]()).items():
            score[domain] += _LABEL * min(times, _LABELS_COUNTED)
            reasons.append(f"{times} of this host labelled {domain}")
        organization = "" if row.get("organization", "").startswith("www.") else row.get("organization", "")
        fields = {"title": row.get("title", ""), "organization": organization, "notes": row.get("notes", ""), "path": path}
        best_words = self._words(fields, score, subdomains)
        return self._verdict(score, reasons + best_words, subdomains, self.tier(host, row), known=len(words(fields["title"])))

    def classify(self, title: str, text: str = "") -> Categorization:
        """The verdict on a text without a link: a heading or question, and the text below it."""
        score, subdomains = defaultdict[str, float](float), defaultdict[tuple[str, str], float](float)
        reasons = self._words({"title": title, "notes": text[:2_000]}, score, subdomains)
        return self._verdict(score, reasons, subdomains, "other", known=len(words(title)))

    def _words(self, fields: Mapping[str, str], score: dict[str, float], subdomains: dict[tuple[str, str], float]) -> list[str]:
        """Add the evidence of words; returns the phrases found, the strongest first. A phrase counts once, where it counts most."""
        found: dict[tuple[str, str, str], float] = {}
        for name, text in fields.items():
            said = words(text.replace("%20", " ").replace("_", " "))
            for place, phrase in _phrases(said, self.phrases):
                counts = _FIELDS[name] * (1 - _LATER * place / len(said) if name == "title" else 1)
                for domain, subdomain, weight in self.phrases[phrase]:
                    key = (phrase, domain, subdomain)
                    found[key] = max(found.get(key, 0.0), weight * counts)
        strongest: dict[str, float] = {}
        for (phrase, domain, subdomain), weight in found.items():
            score[domain] += weight
            subdomains[domain, subdomain] += weight
            strongest[phrase] = max(strongest.get(phrase, 0.0), weight)
        return [f"“{phrase}”" for phrase, _ in sorted(strongest.items(), key=lambda item: (-item[1], item[0]))[:5]]

    def _verdict(self, score: dict[str, float], reasons: Sequence[str], subdomains: dict[tuple[str, str], float], tier: Tier, known: int) -> Categorization:
        off = score.pop(OFF_TOPIC, 0.0)
        ranked = sorted(score.items(), key=lambda item: (-item[1], DOMAINS.index(item[0])))
        best, points = ranked[0] if ranked else ("", 0.0)
        if off >= max(points, _PHRASE * _FIELDS["notes"]) or (not ranked and known >= 4):
            reason = f"off topic: {', '.join(reasons)}" if off else "no word of any domain"
            return Categorization(OFF_TOPIC, "", tier, round(max(off / (off + points + _HALF_SURE), 0.5 if not ranked else 0.0), 3), reason)
        if not ranked:
            return Categorization(OFF_TOPIC, "", tier, 0.0, "nothing is known of it")
        share = points / (sum(score.values()) + off)
        second = ranked[1][1] if len(ranked) > 1 else 0.0
        # Sure when there is much evidence, most of it is for one domain, and the next domain is far.
        confidence = (points / (points + _HALF_SURE)) * (0.5 * share + 0.5 * (points - second) / points)
        inner = [(weight, name) for (domain, name), weight in subdomains.items() if domain == best and name != "faint"]
        subdomain = max(inner, key=lambda item: (item[0], item[1]))[1] if inner else self.first_subdomain[best]
        return Categorization(best, subdomain, tier, round(confidence, 3), ", ".join(reasons))

    def host_rule(self, host: str, path: str) -> tuple[str, str] | None:
        """The (rule, domain) that a host and path fall under, or None."""
        place = f"{host}{path}".lower()
        for rule, domain in self.hosts:
            name, _, start = rule.partition("/")
            if is_of(host, name) and (not start or place[len(host) :].startswith(f"/{start}")):
                return rule, domain
        return None

    def tier(self, host: str, row: Mapping[str, str]) -> Tier:
        """How far a source may be relied on, by its host; books are reference works."""
        if "book" in f"{row.get('resource_type', '')} {row.get('category', '')}".lower().split() or not host:
            return "reference"
        for tier, hosts in self.tiers.items():
            if any(is_of(host, name) for name in hosts):
                return tier
        return "other"


def is_of(host: str, name: str) -> bool:
    """Whether a host is the one of this name, or below it."""
    return host == name or host.endswith(f".{name}")


def labels_by_host(labelled: Iterable[Mapping[str, str]]) -> dict[str, Counter[str]]:
    """How often people gave each domain to links of each host."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in labelled:
        if (host := host_of(row.get("url", ""))[0]) and (label := label_of(row)):
            found[host][label] += 1
    return dict(found)


def label_of(row: Mapping[str, str]) -> str:
    """The domain that people gave a row, or an empty text: none, or a label that is no domain."""
    label = row.get("domain", "").strip().lower()
    return label if label in (*DOMAINS, OFF_TOPIC) else ""


def host_of(url: str) -> tuple[str, str]:
    """(host without ``www.``, path) of a link with or without its scheme; two empty texts for none."""
    try:
        parts = urlsplit(url.strip() if "//" in url else f"//{url.strip()}")
        return (parts.hostname or "").removeprefix("www."), parts.path
    except ValueError:
        return "", ""


def _compiled(taxonomy: Taxonomy) -> dict[str, list[tuple[str, str, float]]]:
    """Phrase -> (domain, subdomain, points), singular and plural."""
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    entries = [(name, sub, entry) for name, domain in taxonomy.domains.items() for sub, listed in domain.words.items() for entry in listed]
    for domain, subdomain, entry in [*entries, *((OFF_TOPIC, "", entry) for entry in taxonomy.off_topic)]:
        for form in _forms(entry):
            points = _FAINT if subdomain == "faint" else _PHRASE if " " in form else _WORD
            found[form][domain, subdomain] = points
    return {form: [(domain, subdomain, points) for (domain, subdomain), points in places.items()] for form, places in found.items()}


def _forms(entry: str) -> set[str]:
    """A phrase as words, with the plural of its last one."""
    base = " ".join(words(entry))
    if entry.startswith("=") or not base:
        return {base} - {""}
    plural = base[:-1] + "ies" if base.endswith("y") and base[-2:-1] not in "aeiou" else base + ("es" if base.endswith(("s", "x", "ch", "sh")) else "s")
    return {base, plural}


def _phrases(said: Sequence[str], known: Mapping[str, object]) -> list[tuple[int, str]]:
    """(place, phrase) of the known phrases in a text, longest first from each place; words of a longer phrase do not count again by themselves."""
    found, at = list[tuple[int, str]](), 0
    while at < len(said):
        for length in range(min(_LONGEST_PHRASE, len(said) - at), 0, -1):
            phrase = " ".join(said[at : at + length])
            if phrase in known:
                found.append((at, phrase))
                at += length - 1
                break
        at += 1
    return found


@functools.lru_cache(maxsize=4)
def load(file: Path) -> Categorizer:
    """Read a taxonomy. Raises UserError with what is wrong in it."""
    return Categorizer.of(taxonomy(file))


def taxonomy(file: Path) -> Taxonomy:
    """Read and validate the file alone."""
    return Taxonomy.from_yaml(file, "the form its first lines explain")


def read_catalogue(file: Path) -> list[dict[str, str]]:
    """Rows of a catalogue. Raises UserError when it has no header with ``url`` or ``title``."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            rows = [{key: value or "" for key, value in row.items() if key is not None and not isinstance(value, list)} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}", "a CSV file with a header", "fix the file") from None
    if not rows or not {"url", "title"} & set(rows[0]):
        raise UserError(f"{file} has no rows, or neither a url nor a title column", "a CSV file with a header", "fix the file")
    return rows


def relabelled(rows: Sequence[Mapping[str, str]], mapping: Mapping[str, str]) -> tuple[list[dict[str, str]], Counter[str]]:
    """Rows whose `domain` is one of the domains or empty, and how often each label was set aside: kept in the row as `label`, used for nothing.

    ``mapping`` is label -> domain, without regard to case. Raises UserError when it names something else.
    """
    if wrong := sorted({domain for domain in mapping.values() if domain.lower() not in (*DOMAINS, OFF_TOPIC)}):
        raise UserError(f"--map names {', '.join(wrong)}", f"one of {', '.join(DOMAINS)}, or {OFF_TOPIC}", "correct the option")
    known = {name: name for name in (*DOMAINS, OFF_TOPIC)} | {label.strip().lower(): domain.lower() for label, domain in mapping.items()}
    out, strange = list[dict[str, str]](), Counter[str]()
    for row in rows:
        label = row.get("domain", "").strip()
        domain = known.get(label.lower(), "")
        strange.update([label] if label and not domain else [])
        out.append({**row, "domain": domain} | ({"label": label} if label and label.lower() != domain else {}))
    return out, strange


def key_of(row: Mapping[str, str]) -> tuple[str, str]:
    """What a row of a review file is recognised by."""
    return row.get("url", "").strip(), " ".join(row.get("title", "").lower().split())


def verdicts(rows: Sequence[Mapping[str, str]], taxonomy: Taxonomy, reviewed: Iterable[Mapping[str, str]] = ()) -> list[Categorization]:
    """A verdict for each row: what people wrote in the row or in a review file is kept, the rest is categorized.

    Raises:
        UserError: a reviewed row names no domain of the taxonomy.
    """
    decided = {key_of(row): row.get("domain", "").strip().lower() for row in reviewed if row.get("domain", "").strip()}
    if wrong := sorted({domain for domain in decided.values() if domain not in (*DOMAINS, OFF_TOPIC)}):
        raise UserError(f"the review file names {', '.join(wrong)}", f"one of {', '.join(DOMAINS)}, or {OFF_TOPIC}", "edit the review file")
    labelled = [row for row in rows if label_of(row)]
    categorizer = Categorizer.of(taxonomy, labelled)
    out = []
    for row in rows:
        verdict = categorizer.row(row)
        if domain := decided.get(key_of(row)):
            verdict = _given(verdict, domain, "", "reviewed by a person")
        elif domain := label_of(row):
            verdict = _given(verdict, domain, row.get("subdomain", ""), "labelled in the catalogue")
        out.append(verdict)
    return out


def _given(verdict: Categorization, domain: str, subdomain: str, reason: str) -> Categorization:
    return Categorization(domain, subdomain or (verdict.subdomain if verdict.domain == domain else ""), verdict.tier, 1.0, reason)
