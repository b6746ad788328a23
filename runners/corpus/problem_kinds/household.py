"""Banking, insurance, education, estates, plans and the basics of a household's money."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, usd, whole
from runners.finance import education, insurance, limits, money, tax


def _apy(i: int, deposit: float, first: float, times: int, second: float) -> str:
    apy = money.effective_rate(first, times)
    better = "first" if apy > second else "second"
    return (
        f"APY = (1 + r/m)^m − 1 = (1 + {pct(first)}/{times})^{times} − 1 = **{pct(apy, 3)}**. The other bank's quote is already an APY: {pct(second, 3)}. On {whole(deposit)} for one year: {usd(deposit * apy)} against {usd(deposit * second)}. "
        f"**The {better} account pays {usd(deposit * abs(apy - second))} more.** Compounding more often helps, but far less than a higher rate does."
    )


def _deposit(i: int, joint: float, single_a: float, single_b: float) -> str:
    share = joint / 2
    joint_out = 2 * max(0.0, share - limits.FDIC_LIMIT)
    out_a, out_b = max(0.0, single_a - limits.FDIC_LIMIT), max(0.0, single_b - limits.FDIC_LIMIT)
    total = joint + single_a + single_b
    out = joint_out + out_a + out_b
    return (
        f"FDIC cover is $250,000 per depositor, per bank, per ownership category. Joint: each owner's half is {whole(share)}, so {whole(joint_out)} of {whole(joint)} is over. Single accounts: {whole(out_a)} of {whole(single_a)} and {whole(out_b)} of {whole(single_b)} are over. "
        f"**Insured: {whole(total - out)}; not insured: {whole(out)}** of {whole(total)}. Payable-on-death beneficiaries or a second bank would add cover."
    )


def _cd(i: int, deposit: float, rate: float, months: int, penalty_days: int, new: float) -> str:
    years = months / 12
    keep, cost = money.future_value(deposit, rate, years), deposit * rate * penalty_days / 365
    switch = money.future_value(deposit - cost, new, years)
    return (
        f"Penalty for breaking: {penalty_days} days of simple interest = {whole(deposit)} × {pct(rate)} × {penalty_days}/365 = {usd(cost)}. Staying {months} months at {pct(rate)}: {whole(deposit)} × {1 + rate:.6g}^{num(years, 3)} = {usd(keep)}. "
        f"Switching: ({whole(deposit)} − {usd(cost)}) × {1 + new:.6g}^{num(years, 3)} = {usd(switch)}. **{'Switch' if switch > keep else 'Stay'}: {usd(abs(switch - keep))} better** at the end, before tax on the interest (the penalty is deductible)."
    )


def _overdraft(i: int, advance: float, fee: float, days: int) -> str:
    rate = fee / advance * 365 / days
    return (
        f"Treat the fee as interest. Cost for {days} days: {usd(fee)} ÷ {usd(advance)} = {pct(fee / advance, 1)}. As a simple annual rate: {pct(fee / advance, 1)} × 365/{days} = **{pct(rate, 0)} APR**. "
        f"A credit card at 24% would charge about {usd(advance * 0.24 * days / 365)} for the same days. Banks may not charge overdraft fees on ATM and one-time debit card transactions unless you opted in (Regulation E)."
    )


def _patient(i: int, bill: float, deductible: float, share: float, maximum: float) -> str:
    cost = insurance.patient_cost(bill, deductible, share, maximum)
    uncapped = min(bill, deductible) + share * max(0, bill - deductible)
    return (
        f"Deductible first: {whole(min(bill, deductible))}. Then coinsurance: {pct(share)} × ({whole(bill)} − {whole(min(bill, deductible))}) = {whole(share * max(0, bill - deductible))}; together {whole(uncapped)}. The out-of-pocket maximum is {whole(maximum)}, "
        f"which {'caps it' if uncapped > maximum else 'is not reached'}. **You pay {whole(cost)}, the plan {whole(bill - cost)}** (covered, in-network care; premiums never count toward the maximum)."
    )


def _coinsurance(i: int, loss: float, carried: float, value: float, required: float, deductible: float) -> str:
    paid = insurance.coinsurance_payment(loss, carried, value, required, deductible)
    ratio = min(1.0, carried / (required * value))
    return (
        f"Insurance required: {pct(required)} × {whole(value)} = {whole(required * value)}; carried: {whole(carried)}; ratio {pct(ratio, 1)}. Loss × ratio = {whole(loss)} × {pct(ratio, 1)} = {whole(loss * ratio)} (at most the limit), less the {whole(deductible)} deductible: "
        f"**the insurer pays {whole(paid)}** and the owner bears {whole(loss - paid)}. {'Carrying the required amount would have avoided the penalty.' if ratio < 1 else 'The requirement is met, so there is no penalty.'}"
    )


def _life(i: int, income: float, years: int, rate: float, debts: float, goals: float, assets: float) -> str:
    value = money.annuity_present_value(income, rate, years)
    need = insurance.life_needs(income, years, rate, debts, goals, assets)
    return (
        f"Income to replace: {whole(income)} a year for {years} years at a real {pct(rate)}: {whole(income)} × (1 − {1 + rate:.6g}^−{years})/{rate:.6g} = {whole(value)}. Add debts {whole(debts)} and goals {whole(goals)}; subtract savings and cover in place {whole(assets)}. "
        f"**Need: about {whole(need)}**, in practice {whole(round(need, -4))}. Level term for {years} years fits, since the need shrinks to nothing by then."
    )


def _deductible(i: int, low: float, low_premium: float, high: float, high_premium: float) -> str:
    saving = low_premium - high_premium
    years = insurance.deductible_break_even_years(low, high, saving)
    return (
        f"Raising the deductible from {whole(low)} to {whole(high)} adds {whole(high - low)} of your own risk per claim and saves {whole(low_premium)} − {whole(high_premium)} = {whole(saving)} a year. Break-even = {whole(high - low)} ÷ {whole(saving)} = **{num(years, 1)} claim-free years**. "
        f"If you claim less often than once in {num(years, 1)} years the higher deductible wins, provided {whole(high)} is in the emergency fund."
    )


def _disability(i: int, salary: float, target: float, group: float, cap: float) -> str:
    monthly = salary / 12
    gap = insurance.disability_gap(monthly, target, group, cap)
    return (
        f"Monthly pay: {whole(salary)} ÷ 12 = {usd(monthly)}. Wanted: {pct(target)} = {usd(monthly * target)}. The group plan pays {pct(group)} = {usd(monthly * group)}, capped at {whole(cap)}: {usd(min(monthly * group, cap))}. "
        f"**Gap: {usd(gap)} a month**, {whole(gap * 12)} a year. Benefits from a plan whose premiums the employer paid are taxable; from one you paid with after-tax money they are not, so the true gap may be wider."
    )


def _hsa(i: int, amount: float, kind: str, age: int, bracket: float, year: int) -> str:
    limit = limits.HSA[year]["family" if kind == "family" else "self"] + (limits.HSA_CATCH_UP if age >= 55 else 0)
    allowed = min(amount, limit)
    catch_up = f" plus the $1,000 catch-up at {age} = {whole(limit)}" if age >= 55 else ""
    return (
        f"{year} HSA limit for {kind} coverage: {whole(limits.HSA[year]['family' if kind == 'family' else 'self'])}{catch_up}. Through payroll {whole(allowed)} escapes income tax at {pct(bracket)}, {usd(allowed * bracket)}, and FICA at 7.65%, {usd(allowed * 0.0765)}: **{usd(allowed * (bracket + 0.0765))} saved in tax**"
        + (f"; the other {whole(amount - limit)} would be an excess contribution." if amount > limit else f"; {whole(limit - amount)} of room is left.")
        + " Employer money counts toward the limit. Growth and medical withdrawals are tax-free."
    )


def _college(i: int, cost: float, growth: float, years: int, start: float, rate: float) -> str:
    total = education.four_year_cost(cost, growth, years)
    monthly = education.monthly_saving(total, start, rate, years)
    first = education.future_cost(cost, growth, years)
    return (
        f"First year's cost: {whole(cost)} × {1 + growth:.6g}^{years} = {whole(first)}; four years, each {pct(growth)} dearer: {whole(total)}. What is saved grows to {whole(start)} × (1 + {pct(rate)}/12)^{12 * years} = {whole(start * (1 + rate / 12) ** (12 * years))}. "
        f"The rest by level month-end saving: **{usd(monthly)} a month** for {years} years. It treats the whole cost as due at the start of college, so it is a little cautious."
    )


def _credit_choice(i: int, expenses: float) -> str:
    aotc, refundable = education.american_opportunity_credit(expenses)
    lifetime = education.lifetime_learning_credit(expenses)
    return (
        f"American Opportunity: 100% of the first $2,000 and 25% of the next $2,000 of {whole(expenses)} = **{whole(aotc)}**, of which 40% ({whole(refundable)}) is refundable; first four years of college, at least half-time. Lifetime Learning: 20% of up to $10,000 = **{whole(lifetime)}**, not refundable. "
        f"For the same student only one may be taken: here {'the American Opportunity Credit' if aotc > lifetime else 'either' if aotc == lifetime else 'the Lifetime Learning Credit'} is {'larger by ' + whole(abs(aotc - lifetime)) if aotc != lifetime else 'equal'}. Expenses paid from a 529 do not count."
    )


def _repayment(i: int, agi: float, family: int, share: float, balance: float, rate: float, year: int) -> str:
    first, further = limits.POVERTY_GUIDELINE[year]
    line = first + further * (family - 1)
    payment, interest = education.income_based_payment(agi, family, year, share), balance * rate / 12
    return (
        f"Poverty guideline {year} for {family}: {whole(first)} + {family - 1} × {whole(further)} = {whole(line)}; 150% = {whole(1.5 * line)}. Discretionary income: {whole(agi)} − {whole(1.5 * line)} = {whole(max(0, agi - 1.5 * line))}. IBR payment = {pct(share)} of it ÷ 12 = **{usd(payment)} a month**. "
        f"Monthly interest on {whole(balance)} at {pct(rate)}: {usd(interest)}, so the balance {'falls' if payment > interest else 'would grow'}. The payment is never more than the ten-year standard one."
    )


def _nonqualified(i: int, withdrawn: float, basis: float, value: float, rate: float) -> str:
    earnings, due = education.nonqualified_penalty(withdrawn, basis / value, rate)
    return (
        f"Each 529 withdrawal is part contributions, part earnings. Earnings share = 1 − {whole(basis)}/{whole(value)} = {pct(1 - basis / value, 1)}. Of {whole(withdrawn)}: {usd(earnings)} is earnings, {usd(withdrawn - earnings)} a return of contributions. Income tax {pct(rate)} × {usd(earnings)} = {usd(earnings * rate)}; 10% additional tax {usd(earnings * 0.1)}. "
        f"**Federal cost: {usd(due)}**, {pct(due / withdrawn, 1)} of the withdrawal. The addition is waived up to a tax-free scholarship."
    )


def _gifts(i: int, gift: float, people: int, donors: int, year: int) -> str:
    each = limits.GIFT_EXCLUSION[year]
    taxable = tax.taxable_gift(gift, year, donors)
    return (
        f"The {year} annual exclusion is {whole(each)} per donor and recipient{'; spouses who split gifts double it to ' + whole(2 * each) if donors == 2 else ''}. Given to each of {people}: {whole(gift)}. Over the exclusion: {whole(gift)} − {whole(donors * each)} = {whole(taxable)} each. "
        f"**Taxable gifts: {whole(taxable * people)} in all**{', reported on Form 709 and taken from the lifetime exemption of ' + whole(limits.ESTATE_EXCLUSION[year]) + ' per donor; no tax is paid now' if taxable else ''}. Tax-free in total: {whole((gift - taxable) * people)}. Tuition paid straight to a school does not count."
    )


def _estate(i: int, gross: float, debts: float, charity: float, ported: float, year: int) -> str:
    taxable = gross - debts - charity
    due = tax.estate_tax(taxable, year, ported=ported)
    return (
        f"Taxable estate: {whole(gross)} − {whole(debts)} of debts and expenses{f' − {whole(charity)} to charity' if charity else ''} = {whole(taxable)}. Shelter: the {year} basic exclusion of {whole(limits.ESTATE_EXCLUSION[year])}{f' plus {whole(ported)} ported from the first spouse = {whole(limits.ESTATE_EXCLUSION[year] + ported)}' if ported else ''}. "
        f"Excess {whole(max(0, taxable - limits.ESTATE_EXCLUSION[year] - ported))} × 40% = **{whole(due)} of federal estate tax** (no lifetime taxable gifts). Form 706 is due nine months after death; states may tax much smaller estates."
    )


def _step_up(i: int, paid: float, at_death: float, sold: float, rate: float) -> str:
    gain, alternative = sold - at_death, sold - paid
    return (
        f"Inherited property takes the value at death as basis (IRC 1014): {whole(at_death)}. Gain on the sale: {whole(sold)} − {whole(at_death)} = **{whole(gain)}**, long-term however soon it is sold; at {pct(rate)} the tax is {usd(max(0, gain) * rate)}. "
        f"Had it been given during life, the basis of {whole(paid)} would carry over and the gain be {whole(alternative)}, tax {usd(alternative * rate)}. **The step-up saves {usd((alternative - max(0, gain)) * rate)}.** It does not apply to IRAs or 401(k)s."
    )


def _goal(i: int, target: float, years: int, rate: float, start: float, inflation: float) -> str:
    nominal = target * (1 + inflation) ** years
    monthly = money.saving_needed(nominal, rate / 12, years * 12, start)
    return (
        f"{whole(target)} in today's money is {whole(target)} × {1 + inflation:.6g}^{years} = {whole(nominal)} in {years} years at {pct(inflation)} inflation. Savings in hand grow to {whole(start)} × (1 + {pct(rate)}/12)^{12 * years} = {whole(start * (1 + rate / 12) ** (12 * years))}. "
        f"The missing {whole(nominal - start * (1 + rate / 12) ** (12 * years))} as a month-end annuity at {pct(rate)}/12: **{usd(monthly)} a month**. Raising it by inflation each year would let you begin lower."
    )


def _net_worth(i: int, house: float, mortgage: float, savings: float, retirement: float, debts: float, monthly: float) -> str:
    worth = house + savings + retirement - mortgage - debts
    return (
        f"Assets: house {whole(house)} + cash {whole(savings)} + retirement {whole(retirement)} = {whole(house + savings + retirement)}. Debts: mortgage {whole(mortgage)} + other {whole(debts)} = {whole(mortgage + debts)}. **Net worth: {whole(worth)}.** "
        f"Debt to assets: {pct((mortgage + debts) / (house + savings + retirement), 1)}. Liquidity: {whole(savings)} ÷ {whole(monthly)} of monthly spending = **{num(savings / monthly, 1)} months** of reserves, {'under' if savings / monthly < 3 else 'within or above'} the usual three to six."
    )


def _concentration(i: int, shares: float, price: float, basis: float, other: float, rate: float, drop: float) -> str:
    value = shares * price
    total = value + other
    sell = max(0.0, value - 0.10 * total)
    cost = sell * (1 - basis / price) * rate
    return (
        f"Position: {num(shares)} × {usd(price)} = {whole(value)}, **{pct(value / total, 1)} of {whole(total)}**. A fall of {pct(drop)} in it costs {whole(value * drop)}, {pct(value * drop / total, 1)} of everything. To reach 10%, sell {whole(sell)} (before tax). Gain on it: {whole(sell)} × (1 − {num(basis)}/{num(price)}) = {whole(sell * (1 - basis / price))}; "
        f"tax at {pct(rate)}: **{whole(cost)}**, or {pct(cost / sell, 1)} of the sale. Gifts of shares, lots with high basis and several tax years soften it."
    )


def _inflation(i: int, amount: float, rate: float, years: int) -> str:
    later, worth = amount * (1 + rate) ** years, amount / (1 + rate) ** years
    return (
        f"Prices grow by (1 + {pct(rate)})^{years} = {(1 + rate) ** years:.4f}. What costs {whole(amount)} now will cost **{whole(later)}** in {years} years. The other way round, {whole(amount)} kept as cash will buy only what **{whole(worth)}** buys today, a loss of {pct(1 - worth / amount, 1)} of its buying power. "
        f"By the rule of 72 prices double in about {num(72 / (rate * 100), 0)} years."
    )


def _budget(i: int, gross: float, withheld: float, needs: float) -> str:
    net = gross * (1 - withheld) / 12
    return (
        f"Take-home: {whole(gross)} × (1 − {pct(withheld)}) ÷ 12 = {usd(net)} a month. The 50/30/20 split: needs **{usd(net * 0.5)}**, wants **{usd(net * 0.3)}**, saving and extra debt payments **{usd(net * 0.2)}**. Needs are now {whole(needs)}, {pct(needs / net, 1)} of take-home, "
        f"{'over' if needs > net / 2 else 'under'} the half by {usd(abs(needs - net / 2))}. {'Wants or housing must give way before saving does.' if needs > net / 2 else 'The difference can go to saving.'}"
    )


def _reserve(i: int, rent: float, food: float, utilities: float, insurance_: float, minimums: float, months: int, saved: float, monthly: float) -> str:
    essential = rent + food + utilities + insurance_ + minimums
    target = insurance.emergency_fund(essential, months)
    gap = max(0, target - saved)
    return (
        f"Essential spending: {whole(rent)} + {whole(food)} + {whole(utilities)} + {whole(insurance_)} + {whole(minimums)} = {whole(essential)} a month. {months} months: **{whole(target)}**. Saved {whole(saved)}, so {whole(gap)} is missing; at {whole(monthly)} a month it takes **{num(-(-gap // monthly))} months**. "
        f"Keep it in an insured savings account: the purpose is to be there, not to earn."
    )


def _early_start(i: int, yearly: float, rate: float, early_years: int, gap: int, late_years: int) -> str:
    total = early_years + gap
    early = money.annuity_future_value(yearly, rate, early_years) * (1 + rate) ** gap
    late = money.annuity_future_value(yearly, rate, late_years)
    return (
        f"Early saver: {whole(yearly)} for {early_years} years grows to {whole(money.annuity_future_value(yearly, rate, early_years))}, then {gap} years untouched: × {(1 + rate) ** gap:.4f} = **{whole(early)}** on {whole(yearly * early_years)} paid in. Late saver: {whole(yearly)} a year for the last {late_years} of the {total} years: **{whole(late)}** on {whole(yearly * late_years)}. "
        f"At {pct(rate)} the {'early' if early > late else 'late'} one ends {whole(abs(early - late))} ahead{': time in the market does the work of money' if early > late else ', but with far more paid in'}."
    )


def _rule_of_72(i: int, rate: float, amount: float, years: int) -> str:
    exact = money.doubling_years(rate)
    return (
        f"Rule of 72: 72 ÷ {num(rate * 100)} = **{num(72 / (rate * 100), 1)} years** to double; exactly ln 2 / ln(1 + {pct(rate)}) = {num(exact, 2)}. In {years} years there are about {num(years / exact, 1)} doublings: {whole(amount)} × 2^{num(years / exact, 2)} = **{whole(money.future_value(amount, rate, years))}**, the same as {whole(amount)} × {1 + rate:.6g}^{years}. "
        f"The rule is closest near 8% and also tells how fast debt or prices double."
    )


def _real_wage(i: int, salary: float, raise_: float, inflation: float) -> str:
    new, real = salary * (1 + raise_), money.real_rate(raise_, inflation)
    return (
        f"New pay: {whole(salary)} × {1 + raise_:.6g} = {whole(new)}. To buy what it bought before, pay would have to be {whole(salary)} × {1 + inflation:.6g} = {whole(salary * (1 + inflation))}. Real change = (1 + {pct(raise_)})/(1 + {pct(inflation)}) − 1 = **{pct(real)}**, i.e. {whole(abs(new - salary * (1 + inflation)))} a year "
        f"{'ahead of' if real > 0 else 'behind'} prices. The nominal raise of {pct(raise_)} {'is partly' if real > 0 else 'is more than wholly'} eaten by inflation of {pct(inflation)}."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("apy-comparison", "banking", "Regulation DD, 12 CFR 1030, Appendix A", 2025, "deposit:$500 first:%0.05 times:n second:%0.05", _apy, (
        ask("Bank one pays {first} compounded {times} times a year, bank two says {second} APY. Which is better for {deposit}?", "Check fees and minimum balances as well.", 20_000, 0.044, 365, 0.0445),
        ask("Is {first} nominal with {times} compounding periods more than a {second} APY on a {deposit} deposit?", "Promotional rates end; note the date.", 7_500, 0.0395, 12, 0.0405),
        ask("What's the APY of a {first} rate credited {times} times yearly, and does it beat {second} APY elsewhere? I have {deposit}.", "APY lets accounts be compared directly; that is why the law requires it.", 50_000, 0.0475, 4, 0.048),
    )),
    Kind("deposit-insurance", "banking", "12 CFR 330.6 and 330.9; FDIC, 'Your Insured Deposits'", 2025, "joint:$10000 single_a:$10000 single_b:$10000", _deposit, (
        ask("We two keep {joint} jointly, I have {single_a} alone and my wife {single_b}, all at one bank. What's covered?", "The FDIC's EDIE calculator checks such cases.", 560_000, 270_000, 90_000),
        ask("One FDIC bank: joint account {joint}, his own {single_a}, her own {single_b}. How much is at risk?", "IRAs at a bank are a further category.", 480_000, 310_000, 265_000),
        ask("After selling a house a couple has {joint} in a joint account plus {single_a} and {single_b} in individual ones. FDIC coverage?", "Temporary windfalls can be spread over banks the same day.", 900_000, 40_000, 15_000),
    )),
    Kind("breaking-a-cd", "banking", "Regulation DD, 12 CFR 1030.4; IRS Publication 550 for the penalty", 2025, "deposit:$1000 rate:%0.05 months:n penalty_days:n new:%0.05", _cd, (
        ask("I've a {deposit} CD at {rate} with {months} months left; the penalty is {penalty_days} days of interest. New CDs pay {new}. Break it?", "Read the disclosure: some penalties can eat principal.", 30_000, 0.028, 30, 180, 0.044),
        ask("Does it pay to leave a {rate} certificate ({deposit}, {months} months to go) for {new} if they charge {penalty_days} days' interest?", "A ladder avoids having to choose.", 15_000, 0.036, 12, 90, 0.043),
        ask("{months} months remain on our {rate} CD of {deposit}. Early exit costs {penalty_days} days of interest and {new} is on offer. Compare.", "With little time left the penalty usually wins.", 50_000, 0.041, 9, 180, 0.0455),
    )),
    Kind("overdraft-as-apr", "banking", "Regulation E, 12 CFR 1005.17; CFPB on overdraft", 2025, "advance:$5 fee:$1 days:n", _overdraft, (
        ask("My bank charged {fee} for covering a {advance} purchase that I repaid {days} days later. What interest rate is that?", "Linking a savings account is usually cheaper.", 60, 35, 5),
        ask("A deposit advance of {advance} for {days} days costs {fee}. Express that as an annual rate.", "Credit unions offer small loans capped at 28%.", 400, 60, 14),
        ask("A {advance} overdraft for {days} days, fee {fee}: APR, please.", "Low-balance alerts prevent most of these.", 150, 27, 3),
    )),
    Kind("medical-cost-share", "insurance", "healthcare.gov glossary: deductible, coinsurance, out-of-pocket maximum", 2025, "bill:$500 deductible:$100 share:% maximum:$500", _patient, (
        ask("Surgery for {bill}. My plan: {deductible} deductible, {share} coinsurance, {maximum} out-of-pocket maximum. My share?", "Ask for the in-network allowed amount, not the charge.", 32_000, 2_500, 0.2, 7_500),
        ask("How much of a {bill} hospital bill do I pay with {deductible} deductible, {share} after it and a {maximum} cap?", "Once the cap is met, covered care is free for the plan year.", 9_400, 1_200, 0.3, 6_000),
        ask("An MRI and tests come to {bill}. Deductible {deductible} untouched, then {share}, maximum {maximum}. Estimate my cost.", "Freestanding imaging centers are often far cheaper.", 2_600, 3_000, 0.2, 8_000),
        ask("Family plan: {bill} of in-network care, deductible {deductible}, coinsurance {share}, out-of-pocket limit {maximum}. Who pays what?", "Embedded individual limits may apply within a family.", 58_000, 4_000, 0.1, 9_000),
    )),
    Kind("coinsurance-penalty", "insurance", "ISO CP 00 10, coinsurance condition", 2025, "loss:$5000 carried:$10000 value:$10000 required:% deductible:$500", _coinsurance, (
        ask("Shop worth {value} insured for {carried}, {required} clause, {deductible} deductible; a {loss} fire. Payment?", "Review limits yearly, as building costs rise.", 120_000, 400_000, 700_000, 0.8, 2_500),
        ask("Does our {carried} policy on a {value} building meet a {required} coinsurance clause, and what does a {loss} loss pay after {deductible}?", "An agreed-value endorsement suspends the clause.", 90_000, 900_000, 1_100_000, 0.8, 5_000),
        ask("A {loss} storm loss, {value} replacement value, {carried} limit, {required} requirement, {deductible} deductible. Who bears what?", "The penalty hits partial losses, which are the common ones.", 260_000, 1_000_000, 1_600_000, 0.9, 10_000),
    )),
    Kind("life-insurance-need", "insurance", "Rejda and McNamara, 'Principles of Risk Management and Insurance', ch. 11", 2025, "income:$1000 years:n rate:%0.25 debts:$5000 goals:$5000 assets:$5000", _life, (
        ask("If I die, my family needs {income} a year for {years} years (real {rate}), {debts} of debts paid and {goals} for college. We have {assets}. How much cover?", "Social Security survivor benefits lower the income to replace.", 60_000, 20, 0.02, 280_000, 150_000, 190_000),
        ask("Needs analysis: {income} yearly, {years} years, {rate} real, debts {debts}, other goals {goals}, assets {assets}.", "Group cover ends with the job.", 40_000, 15, 0.015, 90_000, 60_000, 75_000),
        ask("A stay-at-home parent's work would cost {income} a year to replace for {years} years. Debts {debts}, goals {goals}, assets {assets}, rate {rate}. Insure for what?", "Unpaid work is a real loss to the family.", 34_000, 12, 0.02, 20_000, 15_000, 10_000),
        ask("Sole breadwinner: {income} for {years} years at {rate} above inflation, {debts} owed, {goals} for tuition, {assets} set aside. Death benefit?", "Recompute when a child is born or a loan is repaid.", 95_000, 25, 0.025, 520_000, 240_000, 310_000),
    )),
    Kind("deductible-choice", "insurance", "Insurance Information Institute, auto and home deductibles", 2025, "low:$100 low_premium:$50 high:$500 high_premium:$50", _deductible, (
        ask("Collision cover costs {low_premium} with a {low} deductible or {high_premium} with {high}. Which?", "On an old car consider dropping collision.", 250, 920, 1_000, 700),
        ask("Raise my home deductible from {low} ({low_premium} a year) to {high} ({high_premium})?", "Wind and hail often have a separate percentage deductible.", 1_000, 2_350, 5_000, 1_900),
        ask("Premium {low_premium} at {low} deductible, {high_premium} at {high}: after how many years does the higher one pay?", "Small claims can raise later premiums anyway.", 500, 1_480, 2_000, 1_180),
    )),
    Kind("disability-gap", "insurance", "IRC 104(a)(3), 105; Council for Disability Income Awareness", 2025, "salary:$1000 target:% group:% cap:$500", _disability, (
        ask("My group disability pays {group} up to {cap} a month; I earn {salary} and want {target}. What's missing?", "Own-occupation wording matters for specialists.", 165_000, 0.7, 0.6, 6_000),
        ask("Salary {salary}: is {group} of pay with a {cap} monthly cap enough for a {target} goal?", "Bonuses are often outside group definitions of pay.", 240_000, 0.65, 0.6, 10_000),
        ask("Find the individual disability cover to add: pay {salary}, target {target}, employer plan {group}, maximum {cap}.", "A longer elimination period lowers the premium.", 98_000, 0.75, 0.5, 5_000),
    )),
    Kind("hsa-saving", "insurance", "IRC 223; Rev. Proc. 2023-23 and 2024-25", 2025, "amount:$50 kind:s age:n bracket:% year:s", _hsa, (
        ask("I'm {age} with {kind} HDHP coverage and put {amount} into an HSA by payroll in {year}. Tax saved at {bracket}?", "Unspent money carries over for ever.", 3_600, "self-only", 34, 0.22, 2025),
        ask("Can I contribute {amount} in {year} ({kind} plan, age {age}), and what does it save in the {bracket} bracket?", "Withdraw an excess before the return's due date.", 9_800, "family", 57, 0.24, 2025),
        ask("HSA for {year}: {kind} coverage, aged {age}, {amount} through work, {bracket} federal. Benefit?", "After 65 non-medical withdrawals are taxed but not penalized.", 8_300, "family", 45, 0.12, 2024),
    )),
    Kind("college-saving", "education", "Growth of cost and sinking fund; College Board, Trends in College Pricing", 2025, "cost:$1000 growth:%0.5 years:n start:$500 rate:%0.25", _college, (
        ask("College costs {cost} a year now, rising {growth}. Our child starts in {years} years; we have {start} at {rate}. Monthly saving?", "Aid, work and loans may cover part of it.", 30_000, 0.035, 14, 8_000, 0.06),
        ask("Fund four private-college years ({cost} each today, {growth} inflation) for a {years}-years-off freshman with {start} saved earning {rate}.", "Do not let it crowd out retirement saving.", 62_000, 0.03, 10, 45_000, 0.055),
        ask("Grandparents want to pay for in-state college: {cost} a year, {growth} growth, {years} years away, {start} in a 529, {rate} return. What per month?", "Many states deduct 529 contributions.", 26_000, 0.04, 17, 2_000, 0.065),
    )),
    Kind("education-credits", "education", "IRC 25A; IRS Publication 970", 2025, "expenses:$100", _credit_choice, (
        ask("Sophomore, {expenses} of tuition and fees, income below the limits. Which education credit?", "The American Opportunity Credit can be taken for four years only.", 3_400),
        ask("We paid {expenses} for our daughter's freshman year. Compare both college credits.", "Plan 529 money around the first $4,000.", 11_500),
        ask("A community-college student had {expenses} of qualified expenses. What can her parents claim at best?", "Required books count for the American Opportunity Credit wherever bought.", 1_800),
    )),
    Kind("income-based-repayment", "education", "34 CFR 685.221; HHS poverty guidelines 2024 and 2025", 2025, "agi:$500 family:n share:% balance:$1000 rate:%0.05 year:s", _repayment, (
        ask("AGI {agi}, household of {family}, new IBR at {share}: what's the payment ({year} guidelines) on {balance} at {rate}?", "Recertify income each year.", 52_000, 1, 0.10, 41_000, 0.0653, 2025),
        ask("Teacher with {family} in the family earning {agi}: {share} IBR payment for {year}? She owes {balance} at {rate}.", "Payments can count toward Public Service Loan Forgiveness.", 61_000, 3, 0.15, 58_000, 0.06, 2025),
        ask("How much would income-based repayment ({share}, {year} poverty line) ask of a single-earner household of {family} with {agi} AGI and {balance} at {rate}?", "Filing separately can lower the payment and raise the tax.", 78_000, 4, 0.10, 96_000, 0.0708, 2024),
    )),
    Kind("nonqualified-529", "education", "IRC 529(c)(6); IRS Publication 970", 2025, "withdrawn:$500 basis:$1000 value:$1000 rate:%", _nonqualified, (
        ask("We need {withdrawn} from a 529 worth {value} (contributed {basis}) for a roof. Cost at {rate}?", "Changing the beneficiary to a sibling avoids it.", 15_000, 36_000, 60_000, 0.22),
        ask("Our son skipped college: 529 value {value}, contributions {basis}. If I pull out {withdrawn} at {rate}, what is the tax?", "Up to $35,000 over a lifetime may go to his Roth IRA instead.", 40_000, 52_000, 80_000, 0.24),
        ask("Tax and penalty on {withdrawn} taken for living abroad from a {value} plan with {basis} paid in, {rate} bracket?", "States may take back earlier deductions.", 8_000, 21_000, 28_000, 0.12),
    )),
    Kind("annual-gifts", "estate", "IRC 2503(b), 2505, 2513; Rev. Proc. 2023-34 and 2024-40", 2025, "gift:$500 people:n donors:n year:s", _gifts, (
        ask("In {year} I'd like to give {gift} to each of my {people} grandchildren. Any gift tax return?", "Gifts within the exclusion need no Form 709.", 25_000, 4, 1, 2025),
        ask("My wife and I, splitting gifts, want to hand {gift} to each of {people} children in {year}. What is taxable?", "Splitting must be elected on Form 709.", 60_000, 3, 2, 2025),
        ask("{people} nieces get {gift} each from a rich aunt in {year}. What part uses her lifetime exemption?", "Five years of exclusions can be used at once through a 529.", 22_000, 5, 1, 2024),
    )),
    Kind("estate-tax", "estate", "IRC 2001, 2010, 2055; Rev. Proc. 2023-34 and 2024-40; P.L. 119-21", 2025, "gross:$100000 debts:$50000 charity:$50000 ported:$100000 year:s", _estate, (
        ask("Estate of {gross}, debts {debts}, {charity} to a university, {ported} of ported exclusion, death in {year}. Federal estate tax?", "A timely election on the first estate's return is what makes exclusion portable.", 32_000_000, 1_000_000, 2_000_000, 9_500_000, 2025),
        ask("A bachelor dies in {year} with {gross}, owing {debts} and leaving all to his nephews. What does the IRS take?", "Liquidity to pay it must be planned for.", 18_500_000, 500_000, 0, 0, 2025),
        ask("Compute the {year} estate tax: gross {gross}, deductions {debts}, charitable bequests {charity}, DSUE {ported}.", "Gifts during life above the annual exclusion would be added back.", 27_000_000, 750_000, 1_250_000, 6_000_000, 2024),
        ask("With the exclusion set for {year}, what would an estate of {gross} less {debts} of debts and {charity} of gifts to charity owe?", "From 2026 the exclusion is $15 million, then indexed.", 24_000_000, 400_000, 600_000, 0, 2026),
    )),
    Kind("step-up", "estate", "IRC 1014, 1015, 1223(9)", 2025, "paid:$1000 at_death:$5000 sold:$5000 rate:%", _step_up, (
        ask("Dad bought land for {paid}; at his death it was worth {at_death}; I sold for {sold}. Gain and tax at {rate}?", "Get an appraisal dated near the death.", 35_000, 310_000, 325_000, 0.15),
        ask("Should grandma give me her shares (cost {paid}, now {at_death}) or leave them? I'd sell at {sold}, taxed {rate}.", "Estate tax and her own needs belong in the choice.", 18_000, 140_000, 150_000, 0.188),
        ask("Inherited rental house: original cost {paid}, date-of-death value {at_death}, sale {sold}. At {rate}, what did the stepped-up basis save?", "Depreciation starts anew on the new basis if it stays rented.", 120_000, 480_000, 495_000, 0.20),
    )),
    Kind("real-goal", "wealth", "Future value and sinking fund", 2025, "target:$5000 years:n rate:%0.25 start:$1000 inflation:%0.25", _goal, (
        ask("We want {target} of today's dollars in {years} years and hold {start}. At {rate} and {inflation} inflation, what must we save monthly?", "Review the plan yearly.", 500_000, 20, 0.065, 60_000, 0.025),
        ask("Lake cabin worth {target} now, to be bought in {years} years: {start} saved, {rate} return, {inflation} price growth. Monthly amount?", "Short goals belong in safer assets.", 240_000, 8, 0.045, 35_000, 0.03),
        ask("Seed a family foundation with {target} (present value) in {years} years; {start} in the pot, {rate} return, {inflation} inflation.", "A donor-advised fund costs less to run at this size.", 1_000_000, 15, 0.06, 200_000, 0.0225),
        ask("Target {target} real in {years} years for a child's first home, starting from nothing at {rate} with prices rising {inflation}.", "Gift limits and ownership deserve thought.", 80_000, 18, 0.07, 0, 0.025),
    )),
    Kind("net-worth-check", "wealth", "CFPB, 'Your Money, Your Goals'", 2025, "house:$5000 mortgage:$5000 savings:$500 retirement:$1000 debts:$500 monthly:$100", _net_worth, (
        ask("House {house}, mortgage {mortgage}, {savings} cash, {retirement} in plans, {debts} other debt, {monthly} monthly spending. How are we doing?", "The trend over years says more than the level.", 430_000, 290_000, 18_000, 165_000, 21_000, 5_200),
        ask("Compute net worth and liquidity: home {house}, loan {mortgage}, savings {savings}, 401(k) {retirement}, cards and cars {debts}, expenses {monthly} a month.", "Pre-tax accounts are worth less than their face after tax.", 610_000, 180_000, 54_000, 720_000, 9_000, 7_800),
        ask("A renter-turned-owner lists {house} of house against {mortgage}, {savings} in the bank, {retirement} retirement, {debts} of student loans; spends {monthly}. Position?", "Home equity cannot pay next month's bills.", 320_000, 304_000, 6_500, 22_000, 38_000, 3_900),
    )),
    Kind("concentrated-position", "wealth", "SEC, diversification; IRC 1(h)", 2025, "shares:n100 price:$1 basis:$1 other:$10000 rate:% drop:%", _concentration, (
        ask("I own {shares} shares of my employer at {price} (basis {basis}) and {other} elsewhere. What does a {drop} fall do and what would 10% cost at {rate}?", "Insiders need a trading plan under Rule 10b5-1.", 8_000, 95, 20, 500_000, 0.188, 0.5),
        ask("Inherited concentration: {shares} shares, price {price}, basis {basis}, other assets {other}. Effects of a {drop} drop and of selling down at {rate}?", "An exchange fund defers the gain but ties the money up.", 15_000, 60, 48, 900_000, 0.15, 0.4),
        ask("Founder stock {shares} × {price}, basis {basis}, rest {other}. Tax at {rate} to reach a tenth; and loss if it falls {drop}?", "Qualified small business stock may exclude much of the gain.", 100_000, 42, 1, 1_500_000, 0.238, 0.6),
    )),
    Kind("inflation-effect", "literacy", "BLS, Consumer Price Index; compound growth", 2025, "amount:$500 rate:%0.25 years:n", _inflation, (
        ask("What does {rate} inflation do to {amount} over {years} years?", "Wages and Social Security rise too, savings in cash do not.", 10_000, 0.03, 20),
        ask("Groceries cost us {amount} a year. With {rate} inflation, what will they cost in {years} years?", "Plan retirement spending in future dollars.", 9_000, 0.0325, 25),
        ask("I keep {amount} in a drawer. How much buying power is left after {years} years at {rate}?", "An insured account at least keeps part of the pace.", 25_000, 0.025, 10),
    )),
    Kind("budget-split", "literacy", "Warren and Warren Tyagi, 'All Your Worth' (50/30/20)", 2025, "gross:$1000 withheld:% needs:$50", _budget, (
        ask("I make {gross}, about {withheld} is withheld, and my must-pay bills are {needs} a month. Show me 50/30/20.", "In dear cities 60/20/20 may be the honest start.", 58_000, 0.22, 2_150),
        ask("Build a 50/30/20 budget from {gross} of salary with {withheld} deductions; needs are {needs}.", "Pay yourself first by standing order.", 84_000, 0.26, 2_400),
        ask("New graduate: {gross} pay, {withheld} off for taxes and insurance, {needs} of rent, food and loans. Does it fit the 50/30/20 rule?", "Minimum loan payments are needs; extra ones count as saving.", 47_000, 0.2, 1_750),
    )),
    Kind("reserve-plan", "literacy", "CFPB, 'An essential guide to building an emergency fund'", 2025, "rent:$25 food:$10 utilities:$10 insurance_:$10 minimums:$10 months:n saved:$100 monthly:$25", _reserve, (
        ask("Rent {rent}, food {food}, utilities {utilities}, insurance {insurance_}, minimum payments {minimums}. I want {months} months aside, have {saved} and can add {monthly}. How long?", "A first $1,000 already stops most emergencies from becoming debt.", 1_350, 450, 180, 210, 120, 4, 1_600, 300),
        ask("Two earners: {rent} mortgage, {food} groceries, {utilities} utilities, {insurance_} insurance, {minimums} debt. Target {months} months; {saved} saved; {monthly} monthly. Timeline?", "With two incomes three months may do.", 2_300, 800, 320, 380, 450, 3, 5_000, 650),
        ask("Freelancer's cushion: {months} months of {rent} + {food} + {utilities} + {insurance_} + {minimums}, {saved} in hand, {monthly} a month toward it.", "Irregular income calls for the longer end of the range.", 1_600, 500, 200, 520, 90, 8, 9_000, 800),
    )),
    Kind("early-start", "literacy", "Future value of an annuity; Investor.gov", 2025, "yearly:$250 rate:%0.25 early_years:n gap:n late_years:n", _early_start, (
        ask("Ann saves {yearly} a year for {early_years} years, then stops for {gap}. Bob begins later and saves for {late_years}. Who has more at {rate}?", "Doing both is better still.", 4_000, 0.07, 10, 30, 30),
        ask("Is {early_years} early years of {yearly} worth more than {late_years} late ones, if the early money rests {gap} years at {rate}?", "The lower the return, the less the head start is worth.", 6_000, 0.06, 12, 25, 25),
        ask("Twins: one invests {yearly} annually in the first {early_years} years and waits {gap}, the other only in the last {late_years}. Return {rate}. Compare.", "An employer match makes the early years richer still.", 3_000, 0.08, 8, 32, 32),
    )),
    Kind("rule-of-72", "literacy", "Rule of 72; Investor.gov", 2025, "rate:%0.5 amount:$500 years:n", _rule_of_72, (
        ask("How fast does {amount} double at {rate}, and what is it after {years} years?", "Fees of one percent slow the doubling by years.", 0.05, 10_000, 30),
        ask("Use the rule of 72 for a {rate} return, then project {amount} across {years} years.", "It is an estimate for one steady rate.", 0.09, 5_000, 24),
        ask("A card balance of {amount} grows {rate} a year if unpaid. When does it double, and what's owed in {years} years?", "Compound interest works against debtors just as hard.", 0.24, 3_000, 6),
    )),
    Kind("real-raise", "literacy", "Fisher (1930); BLS, CPI", 2025, "salary:$500 raise_:%0.25 inflation:%0.25", _real_wage, (
        ask("I got a {raise_} raise on {salary}; prices rose {inflation}. Am I better off?", "Bring the inflation figure to the next pay talk.", 62_000, 0.03, 0.041),
        ask("Salary {salary}, increase {raise_}, inflation {inflation}: real change in pay?", "Benefits and bonuses are part of pay, too.", 88_000, 0.05, 0.029),
        ask("The union won {raise_} on a {salary} wage while the CPI went up {inflation}. What is it worth in real terms?", "Cost-of-living clauses settle this automatically.", 54_000, 0.0375, 0.034),
    )),
)
# fmt: on
