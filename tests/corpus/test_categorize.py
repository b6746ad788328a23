"""Links and texts find their domain by whole words and hosts, say why, and leave the unsure to people."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import catalogue, categorize, validate
from runners.corpus.categorize import Categorizer
from runners.corpus.pairs import DOMAINS, pair_of
from runners.corpus.turns import Rejected
from runners.corpus.words import words
from runners.errors import UserError

FILE = Path(__file__).parents[2] / "data" / "taxonomy.yaml"
TAXONOMY = categorize.taxonomy(FILE)
RULES = Categorizer.of(TAXONOMY)


@pytest.mark.parametrize(
    ("title", "domain"),
    [
        ("Traditional and Roth IRAs compared", "retirement"),
        ("Required minimum distributions", "retirement"),
        ("How a revocable living trust avoids probate", "estate"),
        ("Last will and testament", "estate"),
        ("Tax brackets and the standard deduction", "tax"),
        ("What a credit score is made of", "credit"),
        ("529 plans and financial aid", "education"),
        ("Anti-money laundering and KYC", "compliance"),
        ("Series 7 exam prep", "credentials"),
        ("GAAP and IFRS", "standards"),
        ("High-frequency trading", "trading"),
        ("Succession planning for a family business", "business"),
        ("Machine learning and cybersecurity", "technology"),
        ("Budgeting with an emergency fund", "literacy"),
        ("The family office and generational wealth", "wealth"),
    ],
)
def test_words_speak_of_their_domain(title: str, domain: str) -> None:
    verdict = RULES.classify(title)
    assert (verdict.domain, verdict.unsure) == (domain, False)
    assert verdict.subdomain in TAXONOMY.domains[domain].words
    assert "“" in verdict.reason


@pytest.mark.parametrize(
    ("text", "not_domain"),
    [
        ("A letter from William to Miranda", "estate"),
        ("A letter from William to Miranda", "retirement"),
        ("The taxonomy of syntax", "tax"),
        ("Rates will rise, and it will rain", "estate"),
        ("Spiral and admiral", "retirement"),
        ("The secret of the secretary", "markets"),
        ("A trusty rust", "estate"),
        ("The Marine Bank of fish", "credentials"),
        ("Debit the habit", "credit"),
        ("Alone in the loanword dictionary", "credit"),
        ("Firmware for aerodynamics", "business"),
    ],
)
def test_no_part_of_a_word_counts(text: str, not_domain: str) -> None:
    assert RULES.classify(text).domain != not_domain


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["will", "william", "miranda", "syntax", "taxonomy", "secretly", "trustworthy", "loanword", "planet", "embankment"]),
        min_size=1,
        max_size=12,
    )
)
def test_words_that_hold_others_say_nothing_together_either(said: list[str]) -> None:
    assert RULES.classify(" ".join(said)).domain == categorize.OFF_TOPIC


def row(**values: str) -> dict[str, str]:
    return {"title": "", "organization": "", "url": "", "notes": ""} | values


def test_hosts_and_the_longer_rule() -> None:
    assert RULES.row(row(url="https://www.irs.gov/pub/irs-pdf/p17.pdf", title="Pub 17")).domain == "tax"
    assert RULES.row(row(url="https://www.irs.gov/tax-professionals/enrolled-agents", title="Enrolled agents")).domain == "credentials"
    assert RULES.row(row(url="irs.gov.evil.example/x", title="Pub 17")).domain != "tax"
    assert RULES.row(row(url="https://notirs.gov/", title="A page of nothing at all")).domain == categorize.OFF_TOPIC


@pytest.mark.parametrize(
    ("url", "tier"),
    [
        ("https://www.irs.gov/x", "primary"),
        ("https://www.cfp.net/", "secondary"),
        ("https://law.example.edu/x", "secondary"),
        ("https://www.investopedia.com/terms/p", "reference"),
        ("https://www.reddit.com/r/CFP", "other"),
        ("", "reference"),
    ],
)
def test_tiers(url: str, tier: str) -> None:
    assert RULES.row(row(url=url, title="Something about a pension")).tier == tier


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=60), st.text(max_size=80))
def test_every_row_gets_a_verdict(title: str, url: str, notes: str) -> None:
    verdict = RULES.row(row(title=title, url=url, notes=notes))
    assert verdict.domain in (*DOMAINS, categorize.OFF_TOPIC)
    assert 0 <= verdict.confidence <= 1
    assert verdict.reason


def test_what_people_write_in_the_review_file_stands() -> None:
    rows = [row(title="Inclusion", url="https://arxiv.org/abs/1"), row(title="Pension law", url="https://x.org")]
    first = categorize.verdicts(rows, TAXONOMY)
    assert [verdict.unsure for verdict in first] == [True, False]
    reviewed = [{"url": "https://arxiv.org/abs/1", "title": "INCLUSION", "domain": "Technology"}]
    again = categorize.verdicts(rows, TAXONOMY, reviewed)
    assert (again[0].domain, again[0].unsure, again[0].reason) == ("technology", False, "reviewed by a person")
    assert again[1] == first[1]
    with pytest.raises(UserError, match="names cooking"):
        categorize.verdicts(rows, TAXONOMY, [{**reviewed[0], "domain": "cooking"}])


def test_labels_of_other_rows_of_a_host_count_and_its_own_does_not() -> None:
    labelled = [row(title=f"Page {n}", url=f"https://unknown.example/{n}", domain="Insurance") for n in range(3)]
    measured = validate.accuracy(labelled, TAXONOMY)
    assert (measured["rows"], measured["accuracy"], measured["host_rules_alone"], measured["unseen_hosts"]) == (3, 1.0, 0.0, 0.0)
    alone = validate.accuracy(labelled[:1], TAXONOMY)
    assert alone["accuracy"] == 0.0


def test_a_taxonomy_that_is_wrong_is_explained(tmp_path: Path) -> None:
    text = FILE.read_text()
    for broken, message in [
        (text.replace("  tax:\n    definition", "  taxes:\n    definition", 1), "the domains must be these"),
        (text.replace("hosts: [morningstar.com", "hosts: [irs.gov, morningstar.com", 1), "hosts of two domains: irs.gov"),
        ("version: 1\ndomains: [", "while parsing"),
    ]:
        (tmp_path / "t.yaml").write_text(broken)
        with pytest.raises(UserError, match=message):
            categorize.taxonomy(tmp_path / "t.yaml")


def test_every_word_of_the_taxonomy_can_be_found() -> None:
    for domain in TAXONOMY.domains.values():
        for listed in domain.words.values():
            for entry in listed:
                plain = " ".join(words(entry))
                assert plain in RULES.phrases, entry
                assert len(plain.split()) <= 6, entry


def test_a_row_marked_as_no_pair_is_left_out(tmp_path: Path) -> None:
    row = "https://www.irs.gov/{},{},IRS,tax,What the law says about it and for whom"
    file = tmp_path / "links.csv"
    file.write_text(
        "url,title,organization,domain,notes,pair\n" + "".join(f"{row.format(n, f'Topic {n}')},{pair}\n" for n, pair in enumerate(("yes", "no", "")))
    )
    assert [raw.value["reference"][-1] for raw in catalogue.rows(file, "links.csv")] == ["0", "2"]


def test_a_title_that_is_a_question_is_asked_as_one() -> None:
    for number in range(12):
        row = {
            "url": f"https://www.sec.gov/{number}",
            "title": "What is a fiduciary?",
            "organization": "SEC",
            "notes": "Explains the duty of care and loyalty.",
        }
        pair = catalogue.pair(row)
        assert pair["question"] == 'Which page answers this question: "What is a fiduciary?"'
        assert pair["answer"].startswith('"What is a fiduciary?" is published by SEC.')


def test_catalogue_rows_become_pairs_or_say_why_not(tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["title", "organization", "url", "domain", "notes", "authority_tier", "jurisdiction"])
        writer.writeheader()
        writer.writerow({"title": "Publication 17", "organization": "IRS", "url": "https://www.irs.gov/p17", "domain": "tax", "authority_tier": "primary",
                         "jurisdiction": "US", "notes": "Explains the general rules for filing a federal income tax return"})  # fmt: skip
        writer.writerow({"title": "Publication 18", "url": "https://www.irs.gov/p18", "notes": "p930"})
        writer.writerow({"title": "A book", "notes": "Four words and more of notes"})
    good, short, homeless = list(catalogue.rows(file, "links.csv"))
    pair = pair_of(good.value, source="catalogue", category=None, categories={}, fields={})
    assert "Publication 17" in pair.question and pair.category == "tax"
    assert pair.answer == (
        "Publication 17 is published by IRS. Explains the general rules for filing a federal income tax return. "
        "It is a primary source for the United States. Online: https://www.irs.gov/p17"
    )
    assert "fewer than 4 words" in (short.error or "") and "has no url" in (homeless.error or "")


def test_a_link_without_a_domain_is_placed_by_its_host(tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    notes = "The forms and what is said on how to fill them in"
    file.write_text(
        f"title,organization,url,notes\nForms,IRS,https://www.irs.gov/forms-pubs,{notes}\nThings,Nobody,https://nobody.example/x,some words that mean nothing\n"
    )
    placed, unplaced = [raw.value for raw in catalogue.rows(file, "links.csv", RULES)]
    assert (placed["category"], placed["authority_tier"], placed["category_by"]) == ("tax", "primary", "host irs.gov, “irs”")
    assert unplaced["category"] == ""


def test_rejected_is_an_error_of_rows_only() -> None:
    assert issubclass(Rejected, Exception) and not issubclass(Rejected, UserError)


def test_labels_that_are_no_domain_are_set_aside_counted_or_mapped() -> None:
    rows = [row(title="Estate tax basics", domain="Wealth Stuff"), row(title="Bonds", domain="TAX"), row(title="Cakes", domain="Recipes")]
    read, strange = categorize.relabelled(rows, {})
    assert (dict(strange), [one["domain"] for one in read]) == ({"Wealth Stuff": 1, "Recipes": 1}, ["", "tax", ""])
    assert read[0]["label"] == "Wealth Stuff"
    verdicts = categorize.verdicts(read, TAXONOMY)
    assert verdicts[0].domain == "estate" and "labelled" not in verdicts[0].reason
    read, strange = categorize.relabelled(rows, {"wealth stuff": "wealth", "Recipes": "none"})
    assert not strange and [verdict.domain for verdict in categorize.verdicts(read, TAXONOMY)] == ["wealth", "tax", "none"]
    with pytest.raises(UserError, match="--map names cakes"):
        categorize.relabelled(rows, {"Recipes": "cakes"})


def test_a_label_nobody_knows_is_no_evidence_and_no_error() -> None:
    """Given straight to the rules, as a library: the host's strange label is passed over."""
    rows = [row(title="A", url="https://x.example/a", domain="Crypto"), row(title="B", url="https://x.example/b")]
    assert [verdict.domain for verdict in categorize.verdicts(rows, TAXONOMY)][1] == "none"
    assert validate.accuracy(rows, TAXONOMY)["rows"] == 0
