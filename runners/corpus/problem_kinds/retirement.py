"""Saving for retirement, required distributions, Social Security, and what a portfolio can pay."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, count, num, pct, pick, usd, whole
from runners.finance import limits, money, retirement, tax


def _rmd(i: int, balance: float, age: int, year: int) -> str:
    period = retirement.UNIFORM_LIFETIME[age]
    due = retirement.required_distribution(balance, age)
    return pick(
        i,
        f"RMD = prior December 31 balance ÷ distribution period. For age {age} the Uniform Lifetime Table (IRS Pub. 590-B, Table III) gives {period}. "
        f"{whole(balance)} ÷ {period} = **{usd(due)}** for {year}, which is {pct(due / balance)} of the account. The balance used is that of December 31, {year - 1}, whatever the market has done since.",
        f"**{usd(due)}.** Steps: (1) take the balance on December 31, {year - 1}: {whole(balance)}; (2) look up age {age}, the age reached in {year}, in the Uniform Lifetime Table: {period}; "
        f"(3) divide: {whole(balance)} / {period} = {usd(due)}, about {pct(due / balance, 1)} of the account. The table applies unless a spouse more than ten years younger is the sole beneficiary.",
    )


def _projection(i: int, start: float, yearly: float, rate: float, years: int) -> str:
    grown, added = money.future_value(start, rate, years), money.annuity_future_value(yearly, rate, years)
    total = grown + added
    return (
        f"Two pieces, with {pct(rate)} a year and contributions at each year's end. What is there now: {whole(start)} × {1 + rate:.6g}^{years} = {whole(grown)}. "
        f"New savings: {whole(yearly)} × ((1+{rate:.6g})^{years} − 1)/{rate:.6g} = {whole(added)}. **Total about {whole(total)}** (nearest dollar), "
        f"of which {whole(start + yearly * years)} was put in and {whole(total - start - yearly * years)} is growth."
    )


def _match(i: int, salary: float, deferral: float, rate: float, cap: float) -> str:
    got, most = retirement.employer_match(salary, deferral, rate, cap), retirement.employer_match(salary, 1, rate, cap)
    missed = most - got
    tail = (
        f"Deferring {pct(cap)} would collect the full {usd(most)}, so {usd(missed)} a year is left on the table."
        if missed > 0.005
        else f"That is the full match; deferring more than {pct(cap)} adds none."
    )
    return (
        f"The employer pays {pct(rate)} of what you defer, counting deferrals up to {pct(cap)} of pay. You defer {pct(deferral)} = {usd(salary * deferral)}. "
        f"Counted: {pct(min(deferral, cap))} × {whole(salary)} = {usd(salary * min(deferral, cap))}. Match = {pct(rate)} × {usd(salary * min(deferral, cap))} = **{usd(got)} a year**. {tail}"
    )


def _claim(i: int, benefit: float, months: int) -> str:
    factor = retirement.claiming_factor(months)
    years, rest = divmod(abs(months), 12)
    when = count(years, "year") + (f" and {count(rest, 'month')}" if rest else "") if years else count(rest, "month")
    if months < 0:
        early = -months
        steps = f"Early: 5/9 of 1% for each of the first {min(36, early)} months ({pct(min(36, early) * 5 / 900)})" + (
            f" and 5/12 of 1% for the other {early - 36} ({pct((early - 36) * 5 / 1200)})" if early > 36 else ""
        )
        steps += f", a reduction of {pct(1 - factor)} for claiming {when} before full retirement age."
    else:
        steps = f"Late: delayed credits of 2/3 of 1% a month (8% a year), {months} months = {pct(factor - 1)}, for waiting {when} past full retirement age; credits stop at 70."
    return f"{steps} Benefit = {whole(benefit)} × {pct(factor)} = **{usd(benefit * factor)} a month** before cost-of-living adjustments; SSA pays whole dollars, rounded down."


def _break_even(i: int, early: float, late: float, delay: int) -> str:
    months = retirement.claiming_break_even_months(early, late, delay * 12)
    return (
        f"By waiting {delay} years you forgo {delay * 12} × {whole(early)} = {whole(early * delay * 12)}, then receive {whole(late - early)} more each month. "
        f"Break-even = {whole(early * delay * 12)} ÷ {whole(late - early)} = {num(months, 1)} months after the later start, **about {num(months / 12, 1)} years**. "
        f"This ignores interest, taxes and cost-of-living adjustments (which raise both)."
    )


def _nest_egg(i: int, spending: float, other: float, rate: float) -> str:
    gap = spending - other
    return (
        f"Savings must supply what pensions and Social Security do not: {whole(spending)} − {whole(other)} = {whole(gap)} a year. "
        f"At an initial withdrawal of {pct(rate)}: {whole(gap)} ÷ {rate:.6g} = **{whole(gap / rate)}**, i.e. {num(1 / rate, 1)} times the gap. "
        f"A rate half a point lower would ask for {whole(gap / (rate - 0.005))}."
    )


def _lasts(i: int, balance: float, rate: float, withdrawal: float) -> str:
    if withdrawal <= balance * rate:
        raise ValueError("the money never runs out")
    years = retirement.years_money_lasts(balance, rate, withdrawal)
    return (
        f"Use a real return, so withdrawals keep their buying power: n = −ln(1 − B·r/W) / ln(1+r), end-of-year withdrawals. B·r = {whole(balance * rate)}, so 1 − {whole(balance * rate)}/{whole(withdrawal)} = "
        f"{1 - balance * rate / withdrawal:.4f}, and n = {num(years, 1)}: **the money lasts about {num(years, 1)} years**. The first-year withdrawal is {pct(withdrawal / balance, 1)} of the portfolio."
    )


def _roth_or_not(i: int, pretax: float, now: float, later: float, growth: float, years: int) -> str:
    roth, traditional = retirement.roth_against_traditional(pretax, now, later, growth, years)
    better = "Roth" if roth > traditional else "traditional"
    return (
        f"Compare the same {whole(pretax)} of pre-tax money. Growth factor: {1 + growth:.6g}^{years} = {(1 + growth) ** years:.4f}. Roth: {whole(pretax)} × (1 − {pct(now)}) × {(1 + growth) ** years:.4f} = {whole(roth)}, tax-free. "
        f"Traditional: {whole(pretax)} × {(1 + growth) ** years:.4f} × (1 − {pct(later)}) = {whole(traditional)} after tax. **{better.capitalize()} leaves {whole(abs(roth - traditional))} more**, "
        f"only because the rates differ ({pct(now)} now, {pct(later)} later); the growth cancels out."
    )


def _pro_rata(i: int, converted: float, basis: float, total: float) -> str:
    taxable = retirement.pro_rata_taxable(converted, basis, total)
    return (
        f"All traditional, SEP and SIMPLE IRAs are one pot (Form 8606). Non-taxable share = basis ÷ total = {whole(basis)} ÷ {whole(total)} = {pct(basis / total)}. "
        f"Tax-free part of the conversion: {whole(converted)} × {pct(basis / total)} = {usd(converted - taxable)}; **taxable: {usd(taxable)}**. "
        f"Basis left for later years: {usd(basis - converted + taxable)}. The total is the December 31 value plus what was converted."
    )


def _earnings_test(i: int, earnings: float, benefit: float, year: int) -> str:
    limit, held = limits.EARNINGS_TEST[year], retirement.earnings_test_withheld(earnings, year)
    held = min(held, benefit * 12)
    months = -(-held // benefit)
    return (
        f"Before the year of full retirement age, $1 is withheld for each $2 earned over the {year} limit of {whole(limit)}. Excess: {whole(earnings)} − {whole(limit)} = {whole(earnings - limit)}; half of it = **{whole(held)} withheld** "
        f"out of {whole(benefit * 12)} a year, so {whole(benefit * 12 - held)} is paid. SSA holds back whole checks first: about {count(months, 'month')} of {whole(benefit)}. "
        f"At full retirement age the benefit is recomputed to credit the months withheld."
    )


def _bend_points(i: int, aime: float, year: int) -> str:
    first, second = limits.BEND_POINTS[year]
    pia = retirement.primary_insurance_amount(aime, year)
    parts = [0.9 * min(aime, first), 0.32 * max(0, min(aime, second) - first), 0.15 * max(0, aime - second)]
    return (
        f"For someone turning 62 in {year} the bend points are {whole(first)} and {whole(second)}. 90% × {whole(min(aime, first))} = {usd(parts[0])}; 32% × {whole(max(0, min(aime, second) - first))} = {usd(parts[1])}; "
        f"15% × {whole(max(0, aime - second))} = {usd(parts[2])}. Sum, rounded down to the dime: **PIA = {usd(pia)} a month** at full retirement age, {pct(pia / aime, 1)} of the AIME."
    )


def _phase_out(i: int, magi: float, status: str, year: int, age: int) -> str:
    kind: limits.Status = "joint" if status == "joint" else "single"
    low, high = limits.ROTH_IRA_PHASE_OUT[year][kind]
    full = limits.IRA[year] + (limits.IRA_CATCH_UP[year] if age >= 50 else 0)
    allowed = tax.roth_ira_limit(magi, kind, year, age)
    raw = full * (high - magi) / (high - low)
    return (
        f"For {year} the Roth IRA phase-out on a {status} return runs from {whole(low)} to {whole(high)} of modified AGI, and the full limit at age {age} is {whole(full)}. Room left: ({whole(high)} − {whole(magi)}) ÷ {whole(high - low)} = "
        f"{pct((high - magi) / (high - low))}. {whole(full)} × that = {usd(raw)}, rounded up to the next $10: **{whole(allowed)}**. Earned income must be at least as much."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("rmd", "retirement", "IRS Publication 590-B, Appendix B, Table III", 2025, "balance:$1000 age:n year:s", _rmd, (
        ask("Walt is {age} this year and his IRA ended last year at {balance}. How big is his {year} required minimum distribution?", "A distribution may be taken in parts, as long as the total is out by December 31.", 286_000, 74, 2025),
        ask("Mother will be {age} in {year}. Her rollover IRA was worth {balance} at the previous year end. What does the IRS make her withdraw?", "Qualified charitable distributions can satisfy it.", 198_500, 81, 2025),
        ask("Compute the {year} RMD: traditional IRA, {balance} on 12/31 of the year before, owner aged {age}, wife two years younger.", "More than the minimum may always be taken.", 742_000, 78, 2025),
        ask("In {year} I reach {age}. I have {balance} in a SEP-IRA (value at the last year end). How much must come out?", "Several IRAs may be added up and the sum taken from any of them.", 1_130_000, 73, 2025),
        ask("A former teacher of {age} holds {balance} in a 403(b). What's the least the plan must pay her for {year}?", "403(b) RMDs can be taken from any of one's 403(b) accounts, but not from an IRA.", 351_000, 85, 2024),
        ask("What portion of a {balance} IRA has to leave the account in {year} if the owner turns {age}?", "The share grows every year, because the period shrinks.", 94_000, 92, 2025),
        ask("Grandpa turns {age} in {year}. His account statement for the end of the year before reads {balance}. Work out his mandatory withdrawal.", "Withholding can be set so that no estimated tax is needed.", 517_000, 88, 2024),
    )),
    Kind("retirement-projection", "retirement", "Future value of a sum and of an ordinary annuity", 2025, "start:$1000 yearly:$500 rate:%0.25 years:n", _projection, (
        ask("I'm 35 with {start} in my 401(k) and add {yearly} a year, match included. At {rate}, what could it be in {years} years?", "A projection at one smooth rate hides the swings on the way.", 62_000, 14_500, 0.065, 30),
        ask("Project a Roth IRA: {start} today, {yearly} each December, {rate} growth, {years} years.", "Divide by (1 + inflation) to the same power to see it in today's money.", 21_000, 7_000, 0.07, 25),
        ask("Kim saves {yearly} yearly on top of {start} already invested. What balance would {rate} a year produce after {years} years?", "Raising the saving with each pay rise matters more than one more point of return.", 140_000, 22_000, 0.055, 18),
        ask("Starting late: {start} saved, {yearly} a year from now until I stop in {years} years. Assume {rate}. Where do I end?", "Catch-up contributions are open from age 50.", 85_000, 30_000, 0.06, 12),
        ask("If a couple of 28 invest {yearly} annually beginning with {start}, how much do they hold after {years} years earning {rate}?", "Most of the ending value is growth on growth, which is why starting early pays.", 5_000, 10_000, 0.075, 37),
        ask("A physician has {start} in retirement accounts, contributes {yearly} per year and expects {rate}. Estimate the value {years} years on.", "Cash-balance plans may let high earners shelter more.", 410_000, 46_000, 0.05, 15),
    )),
    Kind("employer-match", "retirement", "Plan formula; U.S. Department of Labor, 'What You Should Know About Your Retirement Plan'", 2025, "salary:$1000 deferral:% rate:% cap:%", _match, (
        ask("My plan matches {rate} of contributions up to {cap} of salary. I earn {salary} and put in {deferral}. What does the company add?", "A match is an immediate return that no market offers.", 72_000, 0.04, 0.5, 0.06),
        ask("With pay of {salary} and a {deferral} deferral, how much free money comes from a {rate} match on the first {cap}?", "Check the vesting schedule before changing jobs.", 58_500, 0.08, 1.0, 0.04),
        ask("I only contribute {deferral} of my {salary}. Employer formula: {rate} up to {cap}. How much am I leaving behind?", "Raise the deferral by one point with every pay rise.", 91_000, 0.03, 1.0, 0.05),
        ask("An engineer making {salary} defers {deferral}; the match is {rate} of deferrals up to {cap} of pay. Compute the employer's share.", "Spread deferrals over the year if the plan matches by paycheck without a true-up.", 134_000, 0.10, 0.5, 0.08),
        ask("What match goes with a {deferral} election on {salary} when the plan says {rate} on up to {cap}?", "The match does not count against your own deferral limit.", 46_000, 0.05, 0.25, 0.06),
    )),
    Kind("claiming-age", "retirement", "20 CFR 404.410 and 404.313; SSA, early or delayed retirement", 2025, "benefit:$10 months:n", _claim, (
        ask("My full retirement age is 67 and the benefit then would be {benefit}. What do I get by starting at 62?", "The reduction is permanent, and it lowers what a surviving spouse can receive.", 1_950, -60),
        ask("Full benefit {benefit} at 67. I'm thinking of claiming on my 65th birthday. How much is that per month?", "Work income before full retirement age may hold back part of it.", 2_640, -24),
        ask("If I wait from 67 to 70, what happens to a {benefit} Social Security check?", "For a couple, the higher earner's delay also protects the survivor.", 2_210, 36),
        ask("Delaying by a year and a half past full retirement age: what does a {benefit} benefit become?", "No lump sum is needed: credits build up month by month.", 1_780, 18),
        ask("Claim at 64 and 3 months instead of 67 with {benefit} at full age. Monthly amount?", "Credits and reductions are figured to the month, so a short wait already helps.", 3_050, -33),
        ask("At 63 she's tempted to file; her statement shows {benefit} at 67. What would she receive?", "Health, other income and a spouse's age belong in the decision.", 1_430, -48),
        ask("He filed 8 months ahead of his full retirement age. Full amount {benefit}. What's the reduced one?", "Within twelve months an application can be withdrawn once, if all benefits are repaid.", 2_875, -8),
    )),
    Kind("claiming-break-even", "retirement", "Break-even of forgone against added benefits; SSA claiming guidance", 2025, "early:$10 late:$10 delay:n", _break_even, (
        ask("{early} a month now or {late} if I wait {delay} years: how long must I live for waiting to win?", "Past that point every month favors the later claim.", 1_470, 2_100, 5),
        ask("Social Security offers {late} at 70 against {early} at 67, {delay} years earlier. When do the totals cross?", "The larger check also continues for a surviving spouse.", 2_400, 2_976, 3),
        ask("Break-even on filing at 62 for {early} versus {delay} years later for {late}?", "Insurance against a long life, not the break-even, is the stronger reason to wait.", 1_120, 1_984, 8),
        ask("A single woman can take {early} today or hold off {delay} years to get {late}. Find the crossover.", "With poor health the early claim may be right.", 1_890, 2_205, 2),
    )),
    Kind("nest-egg", "retirement", "Bengen (1994), 'Determining Withdrawal Rates Using Historical Data'", 2025, "spending:$1000 other:$1000 rate:%", _nest_egg, (
        ask("We'd spend {spending} a year in retirement, with {other} from Social Security. What do we need at a {rate} withdrawal rate?", "Health costs before Medicare deserve a line of their own.", 88_000, 41_000, 0.04),
        ask("How large a portfolio covers {spending} of yearly expenses less a {other} pension, drawing {rate}?", "A pension without inflation adjustment covers less each year.", 72_000, 30_000, 0.0375),
        ask("FIRE check: expenses {spending}, side income {other}, safe rate {rate}. Target number?", "A fifty-year retirement calls for a lower rate than thirty years.", 54_000, 12_000, 0.0325),
        ask("My planner uses {rate} for sustainable withdrawals. Spending is {spending}; rent and annuity bring {other}. What must be saved?", "Taxes on withdrawals belong in the spending figure.", 120_000, 65_000, 0.045),
        ask("Translate {spending} annual spending with {other} guaranteed income into a savings goal using {rate}.", "Flexibility in bad years lets the rate be a little higher.", 64_000, 28_000, 0.035),
    )),
    Kind("money-lasts", "retirement", "Number of periods of an annuity", 2025, "balance:$5000 rate:%0.25 withdrawal:$500", _lasts, (
        ask("How many years will {balance} support {withdrawal} a year in today's dollars with a {rate} real return?", "A bad market in the first years would shorten it.", 900_000, 0.03, 54_000),
        ask("Retired with {balance}; we take {withdrawal} annually and expect {rate} above inflation. When does it run out?", "Delaying Social Security could be paid from this portfolio for a few years.", 640_000, 0.025, 40_000),
        ask("If an inheritance of {balance} pays me {withdrawal} each year, inflation-adjusted, at {rate} real, how long is that?", "An immediate annuity would pass the risk of living long to an insurer.", 350_000, 0.02, 25_000),
        ask("Is {withdrawal} a year from {balance} too much for a thirty-year retirement? Take {rate} as the real growth.", "If the answer is under thirty years, cut spending or work longer.", 1_400_000, 0.035, 78_000),
        ask("A widow draws {withdrawal} yearly from {balance}, invested to earn {rate} more than prices rise. Number of years?", "Spending often falls with age, which stretches the money.", 480_000, 0.015, 24_000),
    )),
    Kind("roth-or-traditional", "retirement", "IRC 408A; algebra of one tax paid now or later", 2025, "pretax:$500 now:% later:% growth:%0.25 years:n", _roth_or_not, (
        ask("Roth or traditional for {pretax} of pay? I'm at {now} now and expect {later} in retirement; {growth} for {years} years.", "Future rates are a guess, so holding both kinds hedges it.", 10_000, 0.22, 0.12, 0.06, 25),
        ask("A resident doctor in the {now} bracket will later be at {later}. Compare {pretax} put into each kind of account for {years} years at {growth}.", "Low-income years are the time for Roth money.", 7_000, 0.12, 0.32, 0.07, 30),
        ask("Convert {pretax} now at {now} or pay {later} on it in {years} years? Growth {growth}; the tax comes out of the account.", "Paying the tax from other money would favor the conversion further.", 50_000, 0.24, 0.22, 0.05, 15),
        ask("Given {growth} returns over {years} years and rates of {now} today, {later} afterwards, which account wins on {pretax}?", "State taxes count as well, above all for a move between states.", 20_000, 0.22, 0.24, 0.065, 20),
        ask("My bracket falls from {now} to {later} when I stop working in {years} years. What does the choice cost on {pretax} at {growth}?", "Required distributions can push the later rate up again.", 23_500, 0.32, 0.22, 0.055, 10),
    )),
    Kind("pro-rata-conversion", "retirement", "IRC 408(d)(2); Form 8606 instructions", 2025, "converted:$500 basis:$500 total:$1000", _pro_rata, (
        ask("I made a {basis} nondeductible contribution and have IRAs of {total} in all. If I convert {converted}, how much is taxed?", "Rolling the pre-tax part into a 401(k) first would clear the way for a backdoor Roth.", 7_000, 7_000, 84_000),
        ask("Backdoor Roth gone wrong: {total} across my IRAs, {basis} of basis, {converted} converted. Taxable portion?", "The account from which it is taken makes no difference.", 14_000, 28_000, 112_000),
        ask("Total IRA money {total}, after-tax contributions {basis}. Find the income from converting {converted}.", "Keep every Form 8606: it is the only record of basis.", 50_000, 45_000, 300_000),
        ask("She wants only her {basis} of after-tax dollars moved to Roth but also owns pre-tax IRAs, {total} together. Converting {converted} means what tax base?", "After-tax dollars cannot be picked out alone.", 20_000, 20_000, 65_000),
    )),
    Kind("earnings-test", "retirement", "20 CFR 404.415; SSA, exempt amounts", 2025, "earnings:$500 benefit:$10 year:s", _earnings_test, (
        ask("I'm 63, collect {benefit} a month and will earn {earnings} in {year}. How much of my Social Security is held back?", "Only wages and self-employment income count, not pensions or interest.", 38_000, 1_450, 2025),
        ask("At 64 in {year}, with a job paying {earnings} and a {benefit} benefit, what does the retirement earnings test take?", "A special monthly rule can help in the first year of retirement.", 31_400, 1_720, 2025),
        ask("Would a part-time wage of {earnings} reduce a {benefit} check in {year} for someone well under full retirement age?", "The money is not lost: the later benefit rises.", 27_000, 1_280, 2024),
        ask("My sister took benefits of {benefit} at 62 and went back to work for {earnings}. What is withheld for {year}?", "Report expected earnings early to avoid an overpayment letter.", 44_800, 1_610, 2024),
    )),
    Kind("benefit-formula", "retirement", "42 USC 415(a); SSA, PIA formula bend points", 2025, "aime:$50 year:s", _bend_points, (
        ask("Average indexed monthly earnings of {aime}, turning 62 in {year}: what is the primary insurance amount?", "Claiming before or after full retirement age then adjusts it.", 5_400, 2025),
        ask("How does Social Security turn an AIME of {aime} into a benefit for the class of {year}?", "The formula replaces far more of low earnings than of high ones.", 2_850, 2025),
        ask("Apply the bend points ({year} eligibility) to {aime} per month.", "More years of work count only if they replace lower ones among the top 35.", 9_200, 2025),
        ask("With {aime} of AIME and age 62 reached in {year}, give me the full monthly benefit and its share of earnings.", "Cost-of-living increases are added from the year of turning 62.", 7_600, 2024),
    )),
    Kind("roth-phase-out", "retirement", "IRC 408A(c)(3); IRS Notices 2023-75 and 2024-80", 2025, "magi:$100 status:s year:s age:n", _phase_out, (
        ask("Our modified AGI is {magi} on a {status} return for {year}; I'm {age}. How much can I put in a Roth IRA?", "An excess can be recharacterized until the return's extended due date.", 239_000, "joint", 2025, 44),
        ask("I file as {status}, am {age} and have {magi} of MAGI. What's my {year} Roth contribution limit?", "A traditional contribution is always allowed with earned income, deductible or not.", 152_700, "single", 2025, 31),
        ask("At {age} with {magi} of MAGI, filing {status}, do I get any Roth IRA room for {year}?", "The deadline is the April filing date of the next year.", 158_200, "single", 2024, 53),
        ask("We file a {status} return showing {magi} for {year}. What can each of us, both {age}, contribute to a Roth?", "A pre-tax 401(k) deferral would lower MAGI and restore room.", 232_500, "joint", 2024, 58),
    )),
)
# fmt: on
