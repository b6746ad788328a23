"""What extraction must not keep: every mechanical fault that was seen in documents nobody had tuned for, and what it must not be mistaken for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import chrome, extract, gate, phrasing

LONG = (
    "Change the permissions of the folder, and every member of the group can read it; those who are in no group ask its owner, who may let them in for a day."
)
GOOD = "An index fund holds all the shares of an index at low cost, and follows it without choosing among them."


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "Pools of auto loans, credit card receivables or student loans that are sold to investors as bonds.",
        "The Kelly criterion sizes a bet as $f^* = \\mu / \\sigma^2$, which maximises the growth of capital over time.",
        "A company reports income by segment. Apple, Microsoft and Nvidia are the largest in the index, as they were last year.",
        "Also known as arrival price algorithms, they keep the difference between decision and execution small.",
        "This fund follows an index, and these bonds pay interest twice a year until they mature in 2031.",
        "- Payment: the buyer pays within 30 days of the invoice.\n- Delivery: the seller ships within a week of the order.",
        "Section 1031 lets an owner exchange one property for another, and chapter 7 discharges most unsecured debts.",
        "A client should ask: How are you paid? What will it cost me and my heirs in dollars in this year?",
        "Use this if the fund is small: buy its shares once a year, and leave them alone for the rest of it.",
        "To select a fund, compare what each one costs in a year, and take the cheapest of those that hold the same index.",
        "For help with bills, an agent under a power of attorney is safer than a joint owner of the account.",
        "iShares funds hold the shares of an index. Django the horse and Django the film have no index fund.",
        "I bonds pay a fixed rate and a rate that follows inflation, and can be cashed after one year.",
    ],
)
def test_what_a_reader_would_keep_is_kept(answer: str) -> None:
    assert gate.reason("What is an index fund?", answer) == ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Pools of residential or commercial mortgages.", "the answer has 6 words, fewer than 9"),
        ("The \\Trust Protector\\ may remove a trustee and change where the trust is administered.", "a backslash of an export is left"),
        ("“Iceberg Orders Explained”, Trading Journal, accessed March 3, 2024, on how large orders are hidden.", "a source is named and nothing said"),
        ('"Optimal Execution of Portfolio Transactions" (Almgren and Chriss, 2000), on trading large positions.', "a source is named and nothing said"),
        ("Options, Futures, and Other Derivatives by John Hull, the book that most courses on derivatives use.", "a source is named and nothing said"),
        ("Smith, J. et al. Journal of Finance, Vol. 12, pp. 30-41, on the pricing of options.", "a source is named and nothing said"),
        ("Sure! Here is the list of the funds that you asked for, with their costs and their yields.", "a chat assistant speaks"),
        (f"{GOOD} Would you like me to compare two of them?", "a chat assistant speaks"),
        (f"{GOOD}\nUser: and what does it cost?", "a chat assistant speaks"),
        ("Act as a financial adviser and write a plan for a family with two children and a mortgage.", "a prompt to a chat assistant"),
        ("Please summarize the following article about bonds in five short points for a beginner.", "a prompt to a chat assistant"),
        ("Bonds . . . . . . 12 and shares . . . . . . 19 and funds of both kinds.", "a line of a table of contents"),
        ("This chapter describes the bonds that a company may issue and how they are repaid.", "the answer speaks of the document"),
        ("The following table lists the bonds that a company may issue and how they are repaid.", "the answer speaks of the document"),
        ("See also the section on bonds, where the ways to repay them are listed one by one.", "the answer speaks of the document"),
        ("A bond is repaid as shown in Figure 3, with interest twice a year until it matures.", "the answer points to a figure"),
        ("A bond is repaid in the way described above, with interest twice a year until it matures.", "the answer points to a figure"),
        ("However, the bond is repaid earlier when the company calls it at a price agreed before.", "the answer leans on a sentence before it"),
        ("They also pay interest twice a year until they mature, when the last payment is made.", "the answer leans on a sentence before it"),
        ("This button is used where interest is charged at an interval that the other button sets.", "the answer describes a control"),
        ("If checked, each invoice will be opened in a window of its own at the top.", "the answer describes a control"),
        ("| Range | a date |\n|---|---|\n| From | the first day of the report |\n| To | the last day of it |", "a table without the text around it"),
        ("`fast` and `slow` are `kinds` of `payment` that `banks` make for `you`.", "the answer has 6 words, fewer than 9"),
        ("When I bought my first bond, I was told that it would pay interest twice a year.", "the writer speaks of himself"),
        ("See https://www.example.org/a/very/long/address/of/a/page/about/bonds and www.example.org/bonds for bonds of each kind.", "mostly links"),
        ("int bond_price(struct bond *b, double yield_rate) returns b->price; the struct must be set first.", "mostly code"),
        (f"{GOOD} It has grown since 1976.[12]", "a citation mark is left"),
        ("An index fund holds all the shares of an index at low cost, and follows it without", "the answer ends in mid-sentence"),
        ("An index fund: what is an index fund? It is an index fund.", "the answer says no more than the question"),
        ("Kernel Bypass, FPGA Acceleration, Solarflare Cards, Xilinx Alveo, Standard Cloud and Premises.", "the answer is a list of names or titles"),
        ("Whether the report that you see is at first displayed as a chart or as a text.", "the answer describes a control on a screen"),
        ("To force the value that was given, it can be used as the first command or the last.", "the answer describes a control on a screen"),
        ("the rate that a bank asks of a borrower is called interest, and it is paid every month.", "the answer begins in mid-sentence"),
        ("A bond is a loan to a company that pays interest until\n\nit is repaid by the company that took it.", "a paragraph ends or begins in mid-sentence"),
        ("An index fund is cheap, and it follows an index. But what does it cost to leave it?", "the answer ends in a question"),
        ("The test of the coefficients gives 0.9767 0.3930 2.48 0.01296 for the first of them.", "the answer holds a program's output"),
        ("The command takes -a for all files, -b for a backup, -c to check and -d to delete them.", "a list of a command's options"),
        (
            "Text is kept for later. (C-k) Kill the text to the end. (C-y) Yank the text back. It is moved (M-y) Rotate the ring.",
            "the lines of a list run together",
        ),
        ("bg bg [jobspec] resumes each suspended job in the background, as if it had been started there.", "the answer begins with a heading"),
        ("fund(index, cost = 0.1) buys the shares of an index for you at the cost that was given.", "a program's reference"),
        (
            "Os filtros podem ser usados para processar conteúdo originado do cliente, além de processar conteúdo originado no servidor usando o módulo"
            " que aceita requisições do cliente e reflete o corpo da requisição.",
            "the text is not in English",
        ),
        ("An index fund is cheap. FIXME: say how cheap it is, and add what the others cost.", "a draft, or a text that lost its letters"),
        ("A dierent fund is one that holds what its manager chooses, and it costs more in each year.", "a draft, or a text that lost its letters"),
        ("Now that we have a fund, we can buy its shares and wait until they are worth more than before.", "a lesson that goes on from the one before"),
        ("These are installation instructions for the fund, and they are read before anything is bought.", "the answer speaks of the document"),
        ("Support for an index is given according to the schedule laid out in this document for each of them.", "the answer points to a figure"),
        ("See the other page for a list of funds that hold the shares of an index at the lowest cost.", "the answer speaks of the document"),
        ("Copyright © 2020 by the authors. You may redistribute it and modify it under these terms.", "a legal notice"),
    ],
)
def test_each_fault_has_its_reason(answer: str, why: str) -> None:
    assert gate.reason("What is an index fund?", answer).startswith(why)


PIECES = st.sampled_from(
    [
        "a",
        "Who pays",
        "1,000",
        "-2.5",
        "?",
        ".",
        "!",
        " ",
        "  ",
        "\n",
        "-",
        "(",
        "www.",
        "https://",
        "x.com/",
        "/",
        "R> ",
        "> f(",
        ">>> ",
        "$ ls -",
        "x <- 1",
        "the",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_looking_only_where_it_can_begin_finds_what_looking_everywhere_finds(text: str) -> None:
    assert [match.span() for match in gate._ASKED.finditer(text)] == [match.span() for match in re.finditer(r"[^.!?\n]*\?", text)]
    everywhere = r"\S*(?:https?://|www\.|\w\.(?:com|org|net|gov|edu)/)\S*"
    assert [match.span() for match in gate._URL.finditer(text)] == [match.span() for match in re.finditer(everywhere, text)]
    console = r"(?:^|\s)(?:R> |>>> |\$ [a-z]+ -|> \w+ ?(?:<-|\())|\w <- \w"
    figures = r"(?:(?<!\S)[-+]?\d[\d.,:/-]*\s+){5,}|(?:(?<!\S)[-+]?\d+\.\d+\s+){3,}"
    assert gate._is_output(text) == bool(re.search(f"{figures}|{console}", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("What is Interest (simple?", "the heading is cut or damaged"),
        ("What is **Interest**?", "the heading is cut or damaged"),
        ("What is Interest...?", "the heading is cut or damaged"),
        ("What is 9-12?", "the question is no question"),
        ("What is the \\Trust?", "a backslash of an export is left"),
        ("What is ChatGPT said: the rate of interest?", ""),
        ("User: what is interest?", "a chat assistant speaks"),
    ],
)
def test_a_question_can_be_at_fault_too(question: str, why: str) -> None:
    assert gate.reason(question, GOOD).startswith(why)


@pytest.mark.parametrize(
    ("path", "question"),
    [
        (("Index funds",), "What are Index funds?"),
        (("Index funds", "Benefits"), "What are the benefits of Index funds?"),
        (("Index funds", "Overview"), "What are Index funds?"),
        (("The Kelly criterion", "How it works"), "How does the Kelly criterion work?"),
        (("Bonds", "Types", "Examples"), "What is an example of Bonds?"),
        (("Factor investing", "Value"), "What is Value in Factor investing?"),
        (("Managing risk in retirement",), "What is involved in managing risk in retirement?"),
        (("Open an account",), "How do you open an account?"),
        (("Open interest",), "What is Open interest?"),
        (("A mail server", "Installing"), "What is involved in installing A mail server?"),
        (("Choose a broker",), "How do you choose a broker?"),
        (("How to file late",), "How do you file late?"),
        (("When a package is eligible",), "Can you explain when a package is eligible?"),
        (("LLMs in Finance",), "What are LLMs in Finance?"),
        (("The fundamental taxonomy of asset classes",), "What is the fundamental taxonomy of asset classes?"),
        (("Roth vs traditional accounts",), "How do Roth and traditional accounts differ?"),
        (("Trading strategies",), "What are Trading strategies?"),
    ],
)
def test_questions_are_made_of_headings_and_completed_from_their_path(path: tuple[str, ...], question: str) -> None:
    assert phrasing.asked(path, "", "This is what it is.") == question


@pytest.mark.parametrize(
    ("path", "answer", "question"),
    [
        # A question that asks for a definition is made only where the text gives one.
        (("Base currency",), "The base currency is the one in which an account is kept.", "What is Base currency?"),
        (("Asset accounts",), "These accounts hold your money. They are listed first.", "What are Asset accounts?"),
        (("Shared folders", "Group access"), LONG, "What should I know about Group access in Shared folders?"),
        (("Budgets", "Currency choice"), LONG, "What should I know about Currency choice in Budgets?"),
        (("Types of schedules",), "There are four: deposits, bills, transfers and loans.", "What are the types of schedules?"),
        (("Setup of an account",), f"When you create an account, {LONG}", "What should I know about Setup of an account?"),
        (("Limits of tax-deferred accounts",), "Choose the lower one.", "What are the limits of tax-deferred accounts?"),
        (("The profit/loss statement",), LONG, "What should I know about the profit/loss statement?"),
        (("I have two jobs. Which one withholds the tax?",), "Both do.", "I have two jobs. Which one withholds the tax?"),
        # Words before a doing, and questions without their mark.
        (("Manually entering transactions",), "Right-click on the list.", "What is involved in manually entering transactions?"),
        (("How can an account be closed",), "Right-click on the list.", "How can an account be closed?"),
        (("Mailing lists",), "A mailing list is read by many.", "What are Mailing lists?"),
    ],
)
def test_the_form_of_a_question_fits_the_text_below_its_heading(path: tuple[str, ...], answer: str, question: str) -> None:
    assert phrasing.asked(path, "", answer) == question


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (("9-12",), "says nothing by itself"),
        (("Logging",), "says nothing by itself"),
        (("Configuration",), "says nothing by itself"),
        (("Chapter 5. Managing Packages",), "says nothing by itself"),
        (("Viewing as a chart",), "goes on from another"),
        (("Are there other limitations?",), "leans on the text before it"),
        (("Plans", "· Creating directories"), "says nothing by itself"),
        (("Some things to keep in mind",), "says nothing by itself"),
        (("Backup command fails to find a valid file in Windows",), "a statement"),
        (("Plans", "Step 3"), "says nothing by itself"),
        (("Plans", "2023"), "says nothing by itself"),
        (("Plans", "Figure 8.1. Loan repayment"), "says nothing by itself"),
        (("Plans", "$ git commit -a"), "says nothing by itself"),
        (("Plans", "git commit --amend"), "says nothing by itself"),
        (("Plans", "cp a.txt /tmp"), "says nothing by itself"),
        (("Plans", "CSV options"), "says nothing by itself"),
        (("Installing",), "no heading above names that"),
        (("Plans", "Details"), "says nothing by itself"),
        (("Benefits",), "no heading above names that"),
        (("User Guide", "Benefits"), "no heading above names that"),
        (("Time is the most important factor",), "a statement"),
        (("Do not sell in a panic",), "a statement"),
        (("Beyond beta",), "goes on from another"),
        (("A very long heading that goes on and on and says what the whole section says",), "a sentence, not a subject"),
    ],
)
def test_a_heading_that_makes_no_question_is_refused(path: tuple[str, ...], why: str) -> None:
    with pytest.raises(phrasing.Unclear, match=why):
        phrasing.asked(path, "", "Change the permissions of the folder.")


CHAT = f"""# Retirement

**You said:**

Act as an adviser. What is an index fund, and how is it different from a fund that a manager runs?

**ChatGPT said:**

## What is an index fund?

{GOOD}

Copy code

### You

Thanks. Is there a list of the best funds that somebody of my age should buy in this year?

### Assistant

## Which costs does a fund have?

A fund has a yearly charge that is taken out of its assets, and the cost of the trades that it makes.
"""


def test_the_turns_of_a_pasted_chat_are_told_apart() -> None:
    found = extract.pairs(CHAT)
    assert [(one.question, one.answer.split(" ")[0]) for one in found] == [("What is an index fund?", "An"), ("Which costs does a fund have?", "A")]
    assert not any(word in one.answer for one in extract.judged(CHAT) for word in ("Copy code", "Thanks", "Act as"))


def test_a_table_of_contents_and_a_bibliography_give_no_pairs() -> None:
    text = (
        "# Bonds\n\n## Overview of the parts\n\n- [What bonds are](#a)\n- [How bonds are priced and sold](#b)\n- [Risk](risk.html)\n\n"
        "## Pages\n\nWhat bonds are ......... 3\n\nHow bonds are priced and sold to people ......... 9\n\nRisk of many kinds ........ 12\n\n"
        "## References\n\n- **Iceberg Orders Explained**: Trading Journal, a long article on how large orders are hidden from the market.\n"
        '## Key Research Papers\n\n- **Deep Hedging**: "Deep Hedging", a long paper of Buehler and others on hedging with neural networks.\n'
    )
    assert extract.judged(text) == []


def test_what_an_export_leaves_is_taken_out_of_text_and_left_in_formulas() -> None:
    assert chrome.unescaped("The \\Trust Protector\\ may act\\.") == "The Trust Protector may act."
    assert chrome.unescaped("Use $\\mu$ and `a\\b`.") == "Use $\\mu$ and `a\\b`."


def test_an_answer_does_not_repeat_its_term_and_points_nowhere() -> None:
    text = "## Orders\n\n- **Iceberg order**: a large order of which only a small part is shown (discussed later) to the market.\n"
    assert [(one.question, one.answer) for one in extract.pairs(text)] == [
        ("What is Iceberg order?", "A large order of which only a small part is shown to the market.")
    ]


def test_what_is_refused_is_a_reject_with_its_reason() -> None:
    text = f"## 9-12\n\n{GOOD}\n\n## What is an index fund?\n\n{GOOD}\n\n## Index\n\n{GOOD}\n"
    assert [(one.question, one.refused) for one in extract.judged(text)] == [
        ("9-12 > 9-12", "the heading says nothing by itself"),
        ("What is an index fund?", ""),
    ]
