"""Questions that stand alone: what a document is about is part of them, or they are refused; every fault that the readings of extracted pairs found."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.corpus import documents, extract, markdown, phrasing, topic
from runners.corpus.sources import Source

BODY = "It sends each message to the queue that {name} keeps for its worker, and the worker takes the messages in the order in which they came to the queue."


def manual(name: str, *titles: str) -> str:
    """A document that speaks of ``name`` in the middle of a sentence of every section."""
    return f"# The {name} manual\n\n" + "\n\n".join(
        f"## {title}\n\nFor work that takes long, {name} starts a process. The process ends by itself. {BODY.format(name=name)}" for title in titles
    )


def kept(text: str) -> list[str]:
    return [one.question for one in extract.pairs(text)]


def name_of(text: str) -> str:
    return topic.name_of(markdown.sections(text))


def test_what_is_repeated_and_not_in_the_first_heading_is_not_the_subject() -> None:
    """A server's page of its workers says "WebSocket" more often than the server's name."""
    text = manual("WebSocket", "Root path", "Event loop", "Worker connections", "Startup failed").replace("# The WebSocket manual", "# ASGI workers")
    assert name_of(text) == ""
    assert not [question for question in kept(text) if "WebSocket" in question]


def test_a_heading_is_completed_by_the_name_that_the_document_repeats() -> None:
    text = manual("Celery", "Memory limits", "Cookies expiration", "Stopping a worker", "Why is the setup so complicated?")
    assert name_of(text) == "Celery"
    assert kept(text) == [
        "What should I know about Memory limits in Celery?",
        "What should I know about Cookies expiration in Celery?",
        "What is involved in stopping a worker in Celery?",
        "Why is the setup so complicated in Celery?",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", manual("Celery", "Memory limits", "Cookies expiration")),  # too few sections to tell
        ("", manual("Entry", "a", "b", "c", "d").replace("Entry keeps", "Entry.objects keeps")),  # a part of a program
        ("", manual("JavaScript", "a", "b", "c", "d").replace("The JavaScript manual", "Guide")),  # a language that the subject runs on
        ("winston", manual("winston", "a", "b", "c", "d").replace("The winston manual", "winston")),
        ("semantic-release", manual("semantic-release", "a", "b", "c", "d")),
        ("", manual("command-line", "a", "b", "c", "d").replace(" command-line", " the command-line")),
    ],
)
def test_what_counts_as_the_name_of_a_document(name: str, text: str) -> None:
    assert name_of(text) == name


def test_a_text_about_a_program_keeps_only_questions_that_name_it() -> None:
    run = "Run `make all` first, and then `make install` with the same options as before, so that the files are where the others look for them; then start it."
    term = "- **Interval**: The seconds between two lines of the log, each of which is written when it is full."
    titles = ["# Redaction", "## Path syntax of masks", "## How can I hide a field of the log?", "## Long intervals of time"]
    text = "\n\n".join([*(f"{title}\n\n{run}" for title in titles), term])
    assert topic.is_of_a_program(markdown.sections(text))
    assert kept(text) == ["How can I hide a field of the log?"]
    reasons = {one.refused for one in extract.judged(text)}
    assert {"a question about a program that does not name it", "a line of a program's reference"} <= reasons


@pytest.mark.parametrize(
    "title",
    [
        "hooks (Object)", ".hijack()", "logController", "fastify.FastifyError", "HTTP_TIMEOUT", "It's a zoo in here",
        "Invoked in posix mode", "sudo in a subprocess returns None", "Oh joi!", "NAs?", "forward localhost/ .", "Achim Zeileis, A. Knapp 7",
        "Petersen (2009)", "November 2002", "Abstract", "Introduction and overview", "Try it out", "A note on costs", "Upgrading to version 0.19.0",
        "time. There are two exceptions", "raw 0 0 0.0.0.0:6 0.0.0.0:7", "PENDING", "The Task API",
    ],
)  # fmt: skip
def test_headings_that_name_a_part_of_a_program_a_page_or_nothing_make_no_question(title: str) -> None:
    with pytest.raises(phrasing.Unclear):
        phrasing.asked(("Celery", title), "", f"Change the rights of the folder first. {BODY}")


@pytest.mark.parametrize(
    "question", ["Would you like to participate?", "Do you want more?", "How come?", "Ready?"],
)  # fmt: skip
def test_what_the_writer_asks_is_no_question_of_a_reader(question: str) -> None:
    with pytest.raises(phrasing.Unclear):
        phrasing.asked((question,), "", BODY)


@pytest.mark.parametrize(
    "answer",
    [
        "It is necessary to check that the loop is stable, and that its rate is high enough for the clock it follows.",
        "It is not mandatory, but we highly recommend that you use one in your plugin, since it finds many errors before you do.",
        "A server that receives a packet will respond with another, and the same server will wait for the next one until its time is over.",
        "A view shouldn't care about which system the developer uses, or whether one is used at all, and the same is true of each other part.",
        "An ordinary file normally consists of three sections: one for the log, one for access and one for the servers, which stand in the file in this order.",
        "Testing is one of the most important parts of any work on the queue, and it should be done before anything else is sent to those who wait for it.",
    ],
)
def test_a_definition_is_asked_for_only_where_the_text_gives_one(answer: str) -> None:
    try:
        asked = phrasing.asked(("Celery", "Loop dynamics"), "", f"{answer} {BODY}")
    except phrasing.Unclear:
        return
    assert asked.startswith("What should I know about ")


def test_an_introduction_names_its_subject_or_is_refused() -> None:
    assert phrasing.asked(("Hedge funds", "Introduction"), "", "Hedge funds are pools of money with few investors.") == "What are Hedge funds?"
    with pytest.raises(phrasing.Unclear, match="an introduction"):
        phrasing.asked(("Hedge funds", "Introduction"), "", "Many investors want what others have, and managers offer it.")


def test_a_term_that_says_when_to_use_it_is_asked_when_it_is_used() -> None:
    """ "Use this if …" answers no question for what something is; it does answer when to take it."""
    text = "# Orders\n\nOrders differ in what they fix.\n\n- **Limit order**: Use this if the price matters more than the time at which the order is filled.\n"
    assert kept(text) == ["When do you use Limit order?"]
    assert extract.judged(text.replace("Use this if the price", "Must be a number that"))[-1].refused == "the text is the rest of a sentence about its term"


def test_marks_of_html_quotations_labels_and_pointers_are_no_part_of_an_answer() -> None:
    text = (
        '# Bonds\n\n## What is a bond?\n\n<a id="bond"></a>\n\nA bond is a loan that pays <b>interest</b> until it is repaid by the one who took it.\n\n5.7\n\n'
        "> [!NOTE]\n> Rates move prices the other way.\n> - Long bonds move more.\n> - Short ones move less.\n\nWarning\n\nA price can fall below par.\n\n"
        "For more information, see the guide of the treasury.\n"
    )
    assert [one.answer for one in extract.pairs(text)] == [
        "A bond is a loan that pays interest until it is repaid by the one who took it.\n\nRates move prices the other way.\n- Long bonds move more.\n"
        "- Short ones move less.\n\nA price can fall below par."
    ]


def test_a_bold_question_that_is_an_entry_of_a_list_is_a_heading() -> None:
    item = "  * **2.9 How do I read a key from a file?**\n\n    Give the name of the file to the program, which reads the key from it and checks it."
    text = f"# FAQ\n\n## Setup\n\n{item}\n"
    assert [(one.question, one.answer.split()[0]) for one in extract.pairs(text)] == [("How do I read a key from a file?", "Give")]


def test_the_link_of_a_heading_to_the_contents_is_the_heading() -> None:
    page = '<body><div role="navigation"><h3>Navigation</h3></div><h2><a class="toc-backref" href="#i">Why is there no goto?</a></h2><p>None.</p></body>'
    assert [section.title for section in markdown.sections(documents.from_html(page))] == ["Why is there no goto?"]
    assert "Navigation" not in documents.from_html(page)


def test_the_head_of_every_page_is_no_heading() -> None:
    pages = "\n\n".join(
        f"## Robust estimators\n\nA bond that is number {n} is a loan that pays interest until it is repaid by the one who took it." for n in range(4)
    )
    assert {one.refused for one in extract.judged(f"# Paper\n\n{pages}\n")} == {"the head of a page"}


def test_a_pdf_that_lost_its_ligatures_or_is_full_of_formulas_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = "A dierent test is specied by the coecients, and the eects are signicant, so that the rst of them ts."
    assert topic.is_damaged(lost) and topic.is_damaged("the estimate βˆ of β is ≤ λ for all i ∈ S " * 3)
    assert not topic.is_damaged("An rst file of the first species offers an effect that is different and significant, for its specific definition. " * 9)
    text = f"# Tests\n\n## What is an F test?\n\nAn F test is a test of a change at a single point in the data. {lost}\n"
    monkeypatch.setattr(documents, "read", lambda _: (text, True))
    source = Source(name="x", kind="documents", path="x", licence="MIT")
    assert all(raw.error for raw in extract.rows(tmp_path / "x.pdf", "x.pdf", source))


@pytest.mark.parametrize("column", ["Description", "Meaning"])
def test_a_row_of_one_description_asks_what_its_term_is_and_a_parameter_is_refused(column: str) -> None:
    row = "a price at which a trade is made or not made at all by the broker."
    assert kept(f"# Orders\n\n| Order | {column} |\n|---|---|\n| Limit order | {row} |\n") == ["What is Limit order?"]
    assert kept(f"# Orders\n\n| Name | Type | {column} |\n|---|---|---|\n| Limit order | number | {row} |\n") == []


def test_titles_without_words_do_not_stop_a_document() -> None:
    assert extract.judged("# A\n\n## ~ (x)\n\nThe rate of the loan is what the bank asks for it in each year until it is paid back.\n")
