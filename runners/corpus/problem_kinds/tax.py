"""US federal income, payroll and gains taxes."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, count, num, pct, pick, usd, whole
from runners.finance import limits, tax
from runners.finance.limits import Status

_NAMES: dict[str, Status] = {"single": "single", "joint": "joint", "head-of-household": "head"}


def _income_tax(i: int, gross: float, status: str, year: int) -> str:
    kind = _NAMES[status]
    standard = limits.STANDARD_DEDUCTION[year][kind]
    taxable = tax.taxable_income(gross, kind, year)
    parts = tax.by_bracket(taxable, kind, year)
    due = tax.income_tax(taxable, kind, year)
    lines = "; ".join(f"{pct(rate)} × {whole(amount)} = {usd(amount * rate)}" for amount, rate in parts)
    return pick(
        i,
        f"Taxable income = {whole(gross)} − {whole(standard)} ({year} standard deduction, {status}) = {whole(taxable)}. By bracket: {lines}. "
        f"**Tax: {usd(due)}** before credits. The last dollar is taxed at {pct(parts[-1][1])}, but the average on gross income is {pct(due / gross, 1)}.",
        f"**About {whole(due)} ({usd(due)} by the {year} rate schedule).** Subtract the {status} standard deduction of {whole(standard)} from {whole(gross)}: {whole(taxable)} is taxable. "
        f"Then fill the brackets from below: {lines}. Marginal rate {pct(parts[-1][1])}; effective rate on gross income {pct(due / gross, 1)}.",
    )


def _self_employment(i: int, profit: float, wages: float, year: int) -> str:
    earnings, room = profit * 0.9235, max(0.0, limits.WAGE_BASE[year] - wages)
    covered, due = min(earnings, room), tax.self_employment_tax(profit, year, wages)
    return (
        f"Schedule SE, {year}: net earnings = {whole(profit)} × 92.35% = {usd(earnings)}. Social Security part: the wage base is {whole(limits.WAGE_BASE[year])}"
        + (f", of which wages used {whole(wages)}" if wages else "")
        + f", so 12.4% × {usd(covered)} = {usd(covered * 0.124)}. Medicare part: 2.9% × {usd(earnings)} = {usd(earnings * 0.029)}. **SE tax = {usd(due)}**, and half of it, {usd(due / 2)}, is deducted in reaching AGI."
    )


def _stacked_gain(i: int, ordinary: float, gain: float, status: str, year: int) -> str:
    kind = _NAMES[status]
    zero_top, fifteen_top = limits.GAIN_BRACKETS[year][kind]
    at_zero = min(gain, max(0.0, zero_top - ordinary))
    at_fifteen = min(gain - at_zero, max(0.0, fifteen_top - ordinary - at_zero))
    due = tax.gains_tax(ordinary, gain, kind, year)
    return (
        f"Long-term gains sit on top of ordinary taxable income. {year}, {status}: 0% up to {whole(zero_top)} of taxable income, 15% up to {whole(fifteen_top)}, 20% above. Ordinary income fills the first {whole(ordinary)}, "
        f"so {whole(at_zero)} of the {whole(gain)} gain is taxed at 0%, {whole(at_fifteen)} at 15% and {whole(gain - at_zero - at_fifteen)} at 20%. **Tax on the gain: {usd(due)}**, {pct(due / gain, 1)} of it."
    )


def _niit(i: int, magi: float, investment: float, status: str) -> str:
    kind = _NAMES[status]
    threshold = limits.NIIT_THRESHOLD[kind]
    due = tax.net_investment_income_tax(investment, magi, kind)
    return (
        f"NIIT is 3.8% of the lesser of (a) net investment income, {whole(investment)}, and (b) modified AGI over the threshold for a {status} return: {f'{whole(magi)} − {whole(threshold)} = {whole(magi - threshold)}' if magi > threshold else f'none, as {whole(magi)} is under {whole(threshold)}'}. "
        f"The lesser is {whole(min(investment, max(0, magi - threshold)))}. **3.8% × that = {usd(due)}** (Form 8960). The thresholds are not indexed to inflation."
    )


def _fica(i: int, wages: float, year: int) -> str:
    base, due = limits.WAGE_BASE[year], tax.fica(wages, year)
    extra = tax.additional_medicare(wages, "single")
    tail = f" Pay over $200,000 also has 0.9% Additional Medicare withheld: {usd(extra)}." if extra else ""
    return (
        f"Social Security: 6.2% of pay up to the {year} base of {whole(base)}: 6.2% × {whole(min(wages, base))} = {usd(0.062 * min(wages, base))}. Medicare: 1.45% × {whole(wages)} = {usd(0.0145 * wages)}. "
        f"**FICA withheld from the employee: {usd(due)}**, {pct(due / wages)} of pay.{tail} The employer pays {usd(due)} as well."
    )


def _losses(i: int, gains: float, losses: float) -> str:
    _, deducted, carried = tax.after_loss_offset(gains, losses)
    needed = -(-carried // 3_000)
    return (
        f"Net the year first: {whole(gains)} of gains − {whole(losses)} of losses = {whole(gains - losses)}. A net loss reduces ordinary income by at most $3,000 a year ($1,500 married filing separately): **{whole(deducted)} deducted now, "
        f"{whole(carried)} carried forward** without limit of time, keeping its short- or long-term character. With no further gains it would be used up in another {count(needed, 'year')} at $3,000 each."
    )


def _home_sale(i: int, price: float, costs: float, bought: float, improved: float, exclusion: float) -> str:
    basis = bought + improved
    gain, taxable = tax.home_sale_gain(price, costs, basis, exclusion)
    return (
        f"Amount realized: {whole(price)} − {whole(costs)} of selling costs = {whole(price - costs)}. Adjusted basis: {whole(bought)} + {whole(improved)} of improvements = {whole(basis)}. Gain = {whole(gain)}. "
        f"Section 121 excludes up to {whole(exclusion)} ({'joint return' if exclusion == 500_000 else 'one owner'}, owned and lived in for two of the last five years). **Taxable gain: {whole(taxable)}**{', long-term' if taxable else ''}."
    )


def _benefits(i: int, benefits: float, other: float, status: str) -> str:
    kind = _NAMES[status]
    first, second = (32_000, 44_000) if kind == "joint" else (25_000, 34_000)
    combined, taxable = other + benefits / 2, tax.taxable_social_security(benefits, other, kind)
    return (
        f"Combined income = other income {whole(other)} + half of benefits {whole(benefits / 2)} = {whole(combined)}. On a {status} return up to half of benefits is taxed above {whole(first)}, up to 85% above {whole(second)}. "
        f"First tier: lesser of half the benefits and 50% × {whole(max(0, min(combined, second) - first))} = {usd(min(0.5 * (max(0, min(combined, second) - first)), benefits / 2))}; "
        f"second: 85% × {whole(max(0, combined - second))} = {usd(0.85 * max(0, combined - second))}; cap 85% of benefits = {usd(0.85 * benefits)}. **Taxable: {usd(taxable)}**, {pct(taxable / benefits, 1)} of the benefits."
    )


def _itemize(i: int, mortgage: float, taxes: float, gifts: float, status: str, rate: float) -> str:
    kind = _NAMES[status]
    allowed, standard = min(taxes, 10_000), limits.STANDARD_DEDUCTION[2024][kind]
    itemized = mortgage + allowed + gifts
    better = max(itemized, standard)
    return (
        f"2024, {status} return. Itemized: mortgage interest {whole(mortgage)} + state and local taxes {whole(allowed)} (cap $10,000 for 2024) + gifts {whole(gifts)} = {whole(itemized)}. Standard deduction: {whole(standard)}. "
        f"**{'Itemize' if itemized > standard else 'Take the standard deduction'}: it is {whole(abs(itemized - standard))} larger**, worth {whole(abs(itemized - standard) * rate)} of tax in the {pct(rate)} bracket. The deduction claimed is {whole(better)}."
    )


def _safe_harbor(i: int, last: float, this: float, agi: float) -> str:
    factor = 1.1 if agi > 150_000 else 1.0
    needed = tax.underpayment_safe_harbor(last, this, agi)
    return (
        f"No underpayment penalty is due if payments reach the lesser of 90% of this year's tax (90% × {whole(this)} = {whole(0.9 * this)}) and {pct(factor)} of last year's ({pct(factor)} × {whole(last)} = {whole(factor * last)}; "
        f"110% applies when last year's AGI was over $150,000, here {whole(agi)}). **Pay at least {whole(needed)} on time**, in four equal parts {usd(needed / 4)} each. The rest may wait until the return is due."
    )


def _bunching(i: int, gift: float, other: float, status: str) -> str:
    kind, year = _NAMES[status], 2024
    standard = limits.STANDARD_DEDUCTION[year][kind]
    evenly, bunched = tax.charitable_bunching(gift, other, kind, year)
    return (
        f"Compare two years at the 2024 {status} standard deduction of {whole(standard)}, other itemized deductions {whole(other)} a year. Giving {whole(gift)} yearly: each year the larger of {whole(standard)} and {whole(other + gift)}, "
        f"two-year total {whole(evenly)}. Giving {whole(2 * gift)} in one year: {whole(max(standard, other + 2 * gift))} that year and {whole(max(standard, other))} in the other, total {whole(bunched)}. "
        f"**Bunching adds {whole(bunched - evenly)} of deductions** over the two years. A donor-advised fund lets the charities still be paid evenly."
    )


def _qbi(i: int, income: float, taxable: float, gains: float) -> str:
    by_income, by_taxable = 0.2 * income, 0.2 * (taxable - gains)
    deduction = tax.qualified_business_deduction(income, taxable, gains)
    return (
        f"Below the section 199A income threshold the deduction is the lesser of 20% of qualified business income, 20% × {whole(income)} = {usd(by_income)}, and 20% of taxable income (before this deduction) less net capital gain, "
        f"20% × ({whole(taxable)} − {whole(gains)}) = {usd(by_taxable)}. **Deduction: {usd(deduction)}**; the {'business-income' if by_income <= by_taxable else 'taxable-income'} limit binds. It lowers income tax, not self-employment tax."
    )


def _child(i: int, children: int, magi: float, status: str, year: int) -> str:
    kind, each = _NAMES[status], limits.CHILD_CREDIT[year]
    threshold = 400_000 if kind == "joint" else 200_000
    credit = tax.child_tax_credit(children, magi, kind, each)
    steps = -(-max(0, magi - threshold) // 1000)
    return (
        f"{year}: {whole(each)} for each qualifying child under 17, {num(children)} × {whole(each)} = {whole(children * each)}. The phase-out on a {status} return starts at {whole(threshold)} of modified AGI: {whole(max(0, magi - threshold))} over, "
        f"counted as {count(steps, 'started thousand')} × $50 = {whole(50 * steps)}. **Credit: {whole(credit)}** before the limit by tax liability. Each child needs a Social Security number."
    )


def _installment(i: int, price: float, basis: float, down: float, yearly: float) -> str:
    ratio = (price - basis) / price
    return (
        f"Gross profit = {whole(price)} − {whole(basis)} = {whole(price - basis)}; gross profit percentage = {whole(price - basis)} ÷ {whole(price)} = {pct(ratio)}. Year of sale: {whole(down)} received × {pct(ratio)} = "
        f"**{usd(tax.installment_gain(price, basis, down))} of gain**. Each later principal payment of {whole(yearly)}: {usd(tax.installment_gain(price, basis, yearly))}. Interest is taxed separately as ordinary income (Form 6252)."
    )


def _mileage(i: int, miles: float, year: int, rate: float) -> str:
    deduction = miles * limits.MILEAGE[year]
    return (
        f"The {year} standard mileage rate for business is {num(100 * limits.MILEAGE[year])} cents a mile. {num(miles)} × ${limits.MILEAGE[year]:.2f} = **{usd(deduction)} deduction** on Schedule C. At a {pct(rate)} combined marginal rate (income and self-employment tax) "
        f"it saves about {whole(deduction * rate)}. Tolls and parking are added; fuel, insurance and depreciation are already in the rate. Commuting does not count."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("income-tax", "tax", "Rev. Proc. 2023-34 and 2024-40, section 2.01; P.L. 119-21, section 70102", 2025, "gross:$500 status:s year:s", _income_tax, (
        ask("I earn {gross} from one job, file {status} and take the standard deduction. What's my {year} federal income tax?", "Pre-tax 401(k) or HSA contributions would lower the taxable amount.", 68_000, "single", 2025),
        ask("Work out the {year} income tax on a {status} return with {gross} of wages and nothing else.", "A child tax credit would come straight off this figure.", 145_000, "joint", 2025),
        ask("A {status} filer made {gross} in {year}. Walk through the brackets.", "Being in a bracket never means that all income is taxed at its rate.", 96_500, "head-of-household", 2025),
        ask("Does a raise to {gross} cost me more than it brings? Show {year} tax for a {status} return with the standard deduction.", "A raise always leaves more after income tax, since only the dollars above a limit are taxed higher.", 121_000, "single", 2025),
        ask("For {year}, {gross} of gross income, {status} filing status: compute tax, marginal rate and effective rate.", "These are the 2024 amounts; later years are indexed.", 212_000, "joint", 2024),
        ask("How much did Uncle Sam take in income tax in {year} from a {status} taxpayer with a {gross} salary?", "Payroll tax comes on top of it.", 54_500, "single", 2024),
        ask("Partners at a firm, we reported {gross} together on a {status} return. What is the {year} tax if we don't itemize?", "Quarterly estimates should follow this figure when nothing is withheld.", 430_000, "joint", 2025),
    )),
    Kind("self-employment-tax", "tax", "IRC 1401, 1402; Schedule SE (Form 1040)", 2025, "profit:$500 wages:$500 year:s", _self_employment, (
        ask("My freelance design business cleared {profit} in {year} and I have no other job. Self-employment tax?", "Set aside money each month: it is due with quarterly estimates.", 64_000, 0, 2025),
        ask("I have a {wages} W-2 salary and {profit} of consulting profit in {year}. What do I owe on Schedule SE?", "Wages use up the Social Security base first.", 38_000, 150_000, 2025),
        ask("Compute the {year} SE tax on {profit} of Schedule C profit for a plumber without wages.", "A solo 401(k) lowers income tax but not this tax.", 117_500, 0, 2025),
        ask("Uber and tutoring brought me {profit} net in {year}; my day job paid {wages}. Find the tax for Social Security and Medicare.", "It applies from $400 of net earnings.", 9_200, 41_000, 2024),
        ask("A surgeon's locum work nets {profit} in {year}, and there are no wages. How does the cap on Social Security change the bill?", "Above $200,000 the additional 0.9% Medicare tax may apply too.", 260_000, 0, 2025),
    )),
    Kind("stacked-gains", "tax", "Rev. Proc. 2023-34 and 2024-40, section 2.03; Form 1040 instructions", 2025, "ordinary:$500 gain:$500 status:s year:s", _stacked_gain, (
        ask("Ordinary taxable income {ordinary}, long-term gain {gain}, {status}, {year}. How much of the gain is taxed, and at what rate?", "Realizing gains in low-income years can make them free of federal tax.", 38_500, 24_000, "single", 2025),
        ask("We sold a vacant lot at a {gain} long-term gain. Our other taxable income on a {status} return for {year} is {ordinary}. Gain tax?", "State income tax comes on top in most states.", 82_000, 60_000, "joint", 2025),
        ask("For {year}, can a retiree with {ordinary} of taxable pension ({status}) realize {gain} of long-term gains without tax on them?", "The extra income may make more Social Security taxable.", 71_000, 22_500, "joint", 2025),
        ask("A founder cashes out {gain} held for six years. She has {ordinary} of ordinary taxable income and files {status} for {year}. Capital gains tax, please.", "The 3.8% tax on investment income comes on top.", 180_000, 900_000, "single", 2025),
        ask("In {year} I'm {status} with {ordinary} taxable income before a {gain} stock profit held 14 months. Federal tax on the profit?", "Held a year or less, it would have been taxed as ordinary income.", 52_000, 15_000, "head-of-household", 2024),
    )),
    Kind("net-investment-income-tax", "tax", "IRC 1411; Form 8960", 2025, "magi:$1000 investment:$500 status:s", _niit, (
        ask("Modified AGI of {magi}, {investment} of dividends and gains, {status} return. Is there NIIT?", "Tax-exempt interest is not in the base.", 228_000, 45_000, "single"),
        ask("Our {status} return shows {magi} of MAGI including {investment} from rentals and funds. How much surtax?", "Wages are not investment income, but they raise MAGI.", 340_000, 61_000, "joint"),
        ask("What 3.8% tax falls on {investment} of interest when a {status} filer's MAGI is {magi}?", "Spreading a large gain over years can keep MAGI lower.", 212_500, 30_000, "single"),
        ask("Sold the business; {investment} of net investment income, MAGI {magi}, filing {status}. Compute Form 8960.", "Gain from a business in which you are active may be outside the tax.", 1_150_000, 780_000, "joint"),
        ask("Estimate the net investment income tax for a {status} parent with {magi} MAGI and {investment} in capital gains.", "Loss harvesting reduces both the gain and MAGI.", 241_000, 18_000, "head-of-household"),
    )),
    Kind("fica-withholding", "tax", "IRC 3101; SSA contribution and benefit base", 2025, "wages:$500 year:s", _fica, (
        ask("How much FICA comes out of {wages} of salary in {year}?", "Unlike income tax, there is no standard deduction here.", 83_000, 2025),
        ask("With wages of {wages} in {year}, what do Social Security and Medicare take from my pay?", "Two employers may withhold too much Social Security; the excess is credited on Form 1040.", 195_000, 2025),
        ask("An executive is paid {wages} in {year}. Split her payroll taxes.", "Once the base is reached, the paycheck rises for the rest of the year.", 310_000, 2025),
        ask("My son's first job pays {wages}. What payroll tax is withheld for {year}, apart from income tax?", "Each year of covered work builds credits toward benefits.", 27_500, 2024),
        ask("Compute employee FICA for {year}: gross {wages}.", "401(k) deferrals do not reduce FICA wages.", 172_000, 2024),
    )),
    Kind("capital-loss-carryover", "tax", "IRC 1211(b), 1212(b); Schedule D", 2025, "gains:$100 losses:$500", _losses, (
        ask("I realized {gains} of gains and {losses} of losses this year. What do I deduct now, and what carries over?", "Carryovers end with the taxpayer's death.", 2_400, 14_500),
        ask("Crypto crash: {losses} lost against {gains} of profits elsewhere. How and over how long will the loss be used?", "Wash-sale rules do not yet name crypto, but that may change.", 6_000, 41_000),
        ask("After netting {gains} of capital gain distributions with {losses} from selling a bad stock, how much offsets my salary this year?", "Do not buy the stock back within 30 days before or after.", 3_300, 19_800),
        ask("Losses {losses}, gains {gains}. Show how the annual cap on deductible net losses works for a married couple filing together.", "Future gains absorb the carryover without limit.", 500, 11_000),
    )),
    Kind("home-sale-exclusion", "tax", "IRC 121; IRS Publication 523", 2025, "price:$5000 costs:$1000 bought:$5000 improved:$1000 exclusion:$", _home_sale, (
        ask("We bought for {bought}, spent {improved} on an addition and sold at {price} with {costs} in commissions. Exclusion {exclusion}. Taxable gain?", "Keep the receipts of improvements: they add to basis.", 985_000, 54_000, 310_000, 60_000, 500_000),
        ask("Single owner: sale price {price}, fees {costs}, purchase {bought}, new kitchen {improved}. What's taxed beyond the {exclusion} exclusion?", "Repairs, unlike improvements, do not count.", 640_000, 36_000, 255_000, 28_000, 250_000),
        ask("Is any tax due when a widower sells his house for {price} (costs {costs}), basis {bought} plus {improved}, with a {exclusion} exclusion?", "Half of the basis may have been stepped up at the spouse's death; ask about it.", 520_000, 31_000, 240_000, 35_000, 250_000),
        ask("Sold the family home at {price}. Paid {bought} in 1994, improvements {improved}, closing and agent {costs}. Joint exclusion {exclusion}. Gain to report?", "The exclusion can be used once in two years.", 1_320_000, 70_000, 285_000, 140_000, 500_000),
    )),
    Kind("taxable-benefits", "tax", "IRC 86; IRS Publication 915, worksheet 1", 2025, "benefits:$100 other:$500 status:s", _benefits, (
        ask("How much of {benefits} of Social Security is taxable with {other} of other income on a {status} return?", "Municipal bond interest counts in combined income, too.", 26_400, 24_000, "single"),
        ask("We draw {benefits} in benefits and {other} from IRAs, {status} return. Taxable benefits?", "A Roth withdrawal would not raise combined income.", 44_000, 30_000, "joint"),
        ask("Retired nurse: {benefits} from SSA, {other} pension, filing {status}. Which part of the benefits is income?", "The thresholds have not moved since 1984 and 1993.", 21_600, 38_000, "single"),
        ask("Compute the taxable portion for {benefits} of benefits when a {status} couple has {other} besides.", "Withholding on benefits can be asked for with Form W-4V.", 52_800, 61_000, "joint"),
        ask("{status} return, {other} of part-time wages and interest, {benefits} of Social Security: what is taxed?", "Each extra dollar here can add up to $1.85 of taxable income.", 18_000, 17_500, "single"),
    )),
    Kind("itemize-or-not", "tax", "IRC 63, 164(b)(6); Rev. Proc. 2023-34", 2024, "mortgage:$100 taxes:$100 gifts:$100 status:s rate:%", _itemize, (
        ask("For 2024: {mortgage} mortgage interest, {taxes} state and property tax, {gifts} to charity, {status}. Itemize? Bracket {rate}.", "For 2025 the cap on state taxes is higher, so run it again each year.", 16_800, 13_500, 6_200, "joint", 0.22),
        ask("A {status} homeowner paid {mortgage} interest, {taxes} SALT and gave {gifts} in 2024. Standard or itemized at {rate}?", "Medical costs above 7.5% of AGI could be added.", 9_700, 7_800, 1_500, "single", 0.24),
        ask("2024 return, {status}: interest {mortgage}, SALT {taxes}, donations {gifts}, {rate} bracket. Which deduction wins and by how much tax?", "Non-itemizers get no federal deduction for 2024 gifts.", 7_900, 9_400, 3_000, "joint", 0.22),
        ask("Should I bother with Schedule A for 2024? I file as {status} with {mortgage} of mortgage interest, {taxes} of taxes, {gifts} of gifts, {rate} rate.", "State returns may allow itemizing in any case.", 11_200, 6_900, 5_400, "head-of-household", 0.22),
    )),
    Kind("estimated-tax-safe-harbor", "tax", "IRC 6654(d); Form 2210 instructions", 2025, "last:$500 this:$500 agi:$1000", _safe_harbor, (
        ask("Last year's tax was {last} on AGI of {agi}; this year I expect {this}. How much must I pay in to avoid a penalty?", "Withholding counts as paid evenly, whenever it happens.", 24_000, 41_000, 138_000),
        ask("Income is jumping: tax {last} then, {this} now, prior AGI {agi}. What's the safe harbor for estimated payments?", "Basing it on last year gives certainty in a year of windfalls.", 52_000, 96_000, 265_000),
        ask("With a slower year ahead ({this} of tax against {last} last year, AGI {agi} then), what minimum keeps the IRS penalty away?", "If income falls further, 90% of the actual tax falls with it.", 37_500, 29_000, 172_000),
        ask("A contractor owed {last} for the prior year (AGI {agi}) and projects {this}. Give the required annual payment and quarterly amounts.", "Due dates are in April, June, September and January.", 15_200, 17_800, 92_000),
    )),
    Kind("charitable-bunching", "tax", "IRC 63, 170; Rev. Proc. 2023-34", 2024, "gift:$500 other:$500 status:s", _bunching, (
        ask("We give {gift} a year and have {other} of other itemized deductions ({status}). Does bunching two years of gifts help?", "Giving appreciated shares saves the gain's tax as well.", 9_000, 18_000, "joint"),
        ask("A {status} donor of {gift} annually with {other} in SALT and interest: evenly or every other year?", "Check the percentage-of-AGI limits for large gifts.", 5_000, 11_500, "single"),
        ask("How many dollars of deductions are gained by giving {gift} times two every second year if other Schedule A items are {other}, {status}?", "Timing works best when other deductions are just under the standard one.", 14_000, 24_000, "joint"),
        ask("Paid-off house, so only {other} of SALT to itemize; I tithe {gift} and file as {status}. Quantify giving in alternate years.", "Prepaying state tax does not help past the cap.", 12_500, 10_000, "head-of-household"),
    )),
    Kind("business-income-deduction", "tax", "IRC 199A; Form 8995", 2025, "income:$500 taxable:$500 gains:$500", _qbi, (
        ask("My sole proprietorship's qualified income is {income}; taxable income before the deduction is {taxable}, with no capital gains. QBI deduction?", "QBI is already reduced by half the SE tax and retirement contributions.", 70_000, 58_000, 0),
        ask("Compute section 199A for {income} of S-corporation profit, taxable income {taxable}, net capital gain {gains}, below the threshold.", "Wages an S corporation pays its owner are not QBI.", 95_000, 140_000, 12_000),
        ask("A landlord in a rental business: QBI {income}, taxable income {taxable}, capital gain {gains}. What may be deducted?", "Rental activity must rise to a trade or business, or meet the safe harbor.", 42_000, 61_000, 25_000),
        ask("Does a {gains} stock gain shrink my 20% pass-through deduction when QBI is {income} and taxable income {taxable}?", "Qualified dividends count as net capital gain here.", 60_000, 72_000, 18_000),
    )),
    Kind("child-credit-phase-out", "tax", "IRC 24; P.L. 119-21, section 70104", 2025, "children:n magi:$500 status:s year:s", _child, (
        ask("{children} kids under 17, {magi} of MAGI, {status} return, {year}: how much child tax credit is left?", "The refundable part is limited separately.", 2, 417_500, "joint", 2025),
        ask("I'm a {status} parent of {children} earning {magi} in {year}. Do I lose any of the child credit?", "Contributions to a pre-tax plan lower MAGI and restore $50 a thousand.", 1, 208_300, "head-of-household", 2025),
        ask("What child tax credit goes with {children} qualifying children and {magi} on a {status} return for {year}?", "A child who turned 17 in the year gives $500 instead, as other dependent.", 3, 362_000, "joint", 2024),
        ask("High earners: {magi}, {children} children, filing {status} for {year}. Is anything left after the phase-out?", "Once the reduction exceeds the full amount nothing remains.", 4, 455_200, "joint", 2025),
    )),
    Kind("installment-sale", "tax", "IRC 453; IRS Publication 537", 2025, "price:$5000 basis:$5000 down:$5000 yearly:$1000", _installment, (
        ask("I'm selling land for {price} (basis {basis}) with {down} now and {yearly} of principal a year. What gain is taxed when?", "Spreading may keep each year's gain in the 15% band.", 400_000, 120_000, 80_000, 40_000),
        ask("Owner financing: contract price {price}, adjusted basis {basis}, {down} down payment, {yearly} annual principal. Show the gross profit method.", "You may elect out and take all the gain at once.", 650_000, 260_000, 130_000, 65_000),
        ask("How much of {down} received at closing is gain if my cabin with basis {basis} goes for {price}, the balance paid {yearly} yearly?", "Depreciation recapture is taxed in the year of sale regardless.", 285_000, 171_000, 57_000, 28_500),
    )),
    Kind("business-mileage", "tax", "IRS Notices 2024-8 and 2025-5", 2025, "miles:n100 year:s rate:%", _mileage, (
        ask("I drove {miles} business miles for my cleaning company in {year}. Deduction at the standard rate, and tax saved at {rate}?", "Keep a log with date, purpose and odometer.", 11_400, 2025, 0.28),
        ask("Realtor, {miles} work miles in {year}, combined marginal rate {rate}. What is the mileage write-off worth?", "The choice of method is made in the car's first year.", 18_900, 2025, 0.36),
        ask("A courier logged {miles} miles in {year}. Compute the standard mileage deduction and its value in a {rate} combined bracket.", "Employees cannot deduct their mileage on the federal return.", 26_500, 2024, 0.25),
    )),
)
# fmt: on
