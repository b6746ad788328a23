"""Small business and company finance, accounting standards, financial data and models."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, usd, whole
from runners.finance import business, classification, identifiers, limits, money, portfolio, tax


def _break_even(i: int, fixed: float, price: float, variable: float, profit: float) -> str:
    margin = price - variable
    units, wanted = -(-business.break_even_units(fixed, price, variable) // 1), -(-business.units_for_profit(fixed, price, variable, profit) // 1)
    return (
        f"Contribution per unit: {usd(price)} − {usd(variable)} = {usd(margin)} ({pct(margin / price, 1)} of price). Break-even: {whole(fixed)} ÷ {usd(margin)} = **{num(units)} units**, {whole(units * price)} of sales. "
        f"For a profit of {whole(profit)}: ({whole(fixed)} + {whole(profit)}) ÷ {usd(margin)} = **{num(wanted)} units** (rounded up), so at that volume sales could fall {pct(business.margin_of_safety(wanted, units), 1)} before a loss."
    )


def _project(i: int, outlay: float, yearly: float, years: int, salvage: float, rate: float) -> str:
    flows = [-outlay] + [yearly] * (years - 1) + [yearly + salvage]
    value, internal = money.npv(rate, flows), money.irr(flows)
    annuity = (1 - (1 + rate) ** -years) / rate
    return (
        f"NPV at {pct(rate)}: −{whole(outlay)} + {whole(yearly)} × {annuity:.4f} + {whole(salvage)}/{1 + rate:.6g}^{years} = **{whole(value)}**. IRR, the rate at which that is zero: **{pct(internal, 1)}**. Payback {num(money.payback_years(flows), 1)} years; profitability index {num(money.profitability_index(rate, flows), 2)}. "
        f"**{'Accept' if value > 0 else 'Reject'}** on these figures: the return is {'above' if value > 0 else 'below'} the {pct(rate)} required."
    )


def _wacc(i: int, equity: float, debt: float, cost: float, interest: float, rate: float) -> str:
    total = equity + debt
    value = business.wacc(equity, debt, cost, interest, rate)
    return (
        f"Use market values: V = {num(equity)} + {num(debt)} = {num(total)} million. Weights: equity {pct(equity / total, 1)}, debt {pct(debt / total, 1)}. After-tax cost of debt: {pct(interest)} × (1 − {pct(rate)}) = {pct(interest * (1 - rate))}. "
        f"WACC = {pct(equity / total, 1)} × {pct(cost)} + {pct(debt / total, 1)} × {pct(interest * (1 - rate))} = **{pct(value)}**. It fits projects as risky as the company; others need their own rate."
    )


def _macrs(i: int, basis: float, life: int, year: int) -> str:
    table = business.MACRS[life]
    deduction, so_far = business.macrs_deduction(basis, life, year), sum(business.macrs_deduction(basis, life, y) for y in range(1, year + 1))
    return (
        f"Pub. 946, Table A-1, {life}-year property, half-year convention: {', '.join(f'{p:.2f}%' for p in table)}. Year {year}: {whole(basis)} × {table[year - 1]:.2f}% = **{usd(deduction)}**. Through year {year} the deductions come to {usd(so_far)}, leaving an adjusted basis of {usd(basis - so_far)}. "
        f"Section 179 or bonus depreciation, if taken, reduces the basis first."
    )


def _s_corporation(i: int, profit: float, salary: float, costs: float, year: int) -> str:
    alone, together = tax.self_employment_tax(profit, year), tax.s_corporation_payroll_tax(salary, year)
    return (
        f"Sole proprietor: {whole(profit)} × 92.35% = {usd(profit * 0.9235)}; 12.4% up to the {year} base of {whole(limits.WAGE_BASE[year])} and 2.9% on all: {usd(alone)}. S corporation: FICA of both sides on the {whole(salary)} salary = {usd(together)}; the rest is distributed without it. Difference {usd(alone - together)}, "
        f"less {whole(costs)} for payroll and a second return: **{usd(alone - together - costs)} a year**. The salary must be reasonable for the work. Half of SE tax is deductible, and so is the employer's share, so the income-tax effects nearly cancel."
    )


def _dupont(i: int, income: float, sales: float, assets: float, equity: float) -> str:
    roe, margin, turnover, multiplier = business.dupont(income, sales, assets, equity)
    return (
        f"ROE = net margin × asset turnover × equity multiplier. Margin: {whole(income)}/{whole(sales)} = {pct(margin)}. Turnover: {whole(sales)}/{whole(assets)} = {num(turnover, 3)}. Multiplier: {whole(assets)}/{whole(equity)} = {num(multiplier, 3)}. "
        f"**ROE = {pct(roe)}**; return on assets {pct(margin * turnover)}. Borrowing raises the one to the other: without debt (multiplier 1) owners would earn the return on assets."
    )


def _cash_cycle(i: int, inventory: float, receivables: float, payables: float, sales: float, cogs: float) -> str:
    days = [business.turnover_days(inventory, cogs), business.turnover_days(receivables, sales), business.turnover_days(payables, cogs)]
    cycle = business.cash_conversion_days(*days)
    return (
        f"Days of inventory: {whole(inventory)}/{whole(cogs)} × 365 = {num(days[0], 1)}. Days of receivables: {whole(receivables)}/{whole(sales)} × 365 = {num(days[1], 1)}. Days of payables: {whole(payables)}/{whole(cogs)} × 365 = {num(days[2], 1)}. "
        f"Cash conversion cycle = {num(days[0], 1)} + {num(days[1], 1)} − {num(days[2], 1)} = **{num(cycle, 1)} days**. Collecting one day sooner would free {whole(sales / 365)} of cash once."
    )


def _pricing(i: int, cost: float, margin: float, markup: float) -> str:
    price = business.price_for_margin(cost, margin)
    return (
        f"Margin is a share of price, markup of cost. For a {pct(margin)} gross margin: price = {usd(cost)} ÷ (1 − {pct(margin)}) = **{usd(price)}**, a markup of {pct(business.markup_for_margin(margin), 1)}. A {pct(markup)} markup would give {usd(cost)} × {1 + markup:.6g} = {usd(cost * (1 + markup))}, "
        f"a margin of only {pct(markup / (1 + markup), 1)}. The difference is {usd(abs(price - cost * (1 + markup)))} on each unit."
    )


def _terms(i: int, discount: float, days: int, net: int, invoice: float, borrow: float) -> str:
    yearly = business.trade_credit_cost(discount, days, net)
    cost = invoice * (1 - discount) * borrow * (net - days) / 365
    return (
        f"Not taking {num(discount * 100)}/{days} net {net} means paying {usd(invoice * discount)} to keep {usd(invoice * (1 - discount))} for {net - days} more days. Effective yearly cost: (1 + {discount:g}/{1 - discount:g})^(365/{net - days}) − 1 = **{pct(yearly, 1)}**. Borrowing the money at {pct(borrow)} for those days costs about {usd(cost)}, "
        f"so **taking the discount gains {usd(invoice * discount - cost)}** on this invoice."
    )


def _dilution(i: int, invest: float, pre: float, founder: float, option_pool: float) -> str:
    share = business.post_money_share(invest, pre)
    after = business.diluted_share(founder, [share + option_pool])
    return (
        f"Post-money = {whole(pre)} + {whole(invest)} = {whole(pre + invest)}. The investor gets {whole(invest)} ÷ {whole(pre + invest)} = **{pct(share)}**. With a new option pool of {pct(option_pool)} of the post-money shares, existing holders keep {pct(1 - share - option_pool)}: the founder's {pct(founder)} becomes **{pct(after)}**, on paper {whole(after * (pre + invest))}. "
        f"Because the pool comes out of the pre-money, the effective pre-money valuation is {whole((1 - share - option_pool) * (pre + invest))}."
    )


def _allocation(i: int, price: float, first: float, second: float, months: int) -> str:
    shares = business.allocate(price, [first, second])
    return (
        f"ASC 606 and IFRS 15 allocate the price by relative stand-alone selling prices: {whole(first)} + {whole(second)} = {whole(first + second)}. Product: {whole(price)} × {whole(first)}/{whole(first + second)} = **{usd(shares[0])}**, revenue at delivery. Service: {whole(price)} × {whole(second)}/{whole(first + second)} = **{usd(shares[1])}**, "
        f"recognized over {months} months at {usd(shares[1] / months)} a month. The discount of {whole(first + second - price)} is thus shared by both obligations."
    )


def _loss_allowance(i: int, exposure: float, pd: float, life_pd: float, lgd: float) -> str:
    year, life = classification.expected_credit_loss(pd, lgd, exposure), classification.expected_credit_loss(life_pd, lgd, exposure)
    return (
        f"Expected loss = PD × LGD × exposure. IFRS 9 stage 1 (no significant increase in risk): {pct(pd)} × {pct(lgd)} × {whole(exposure)} = **{whole(year)}** for twelve months. Stage 2: lifetime, {pct(life_pd)} × {pct(lgd)} × {whole(exposure)} = **{whole(life)}**. US GAAP (CECL, ASC 326) books the lifetime loss from the first day, "
        f"so the same loan carries {whole(life - year)} more allowance under it at origination. Discounting is left out here."
    )


def _isin(i: int, body: str) -> str:
    digits = "".join(str(int(char, 36)) for char in body)
    check = identifiers.isin_check_digit(body)
    doubled = [int(d) * (2 if place % 2 == 0 else 1) for place, d in enumerate(reversed(digits))]
    total = sum(v - 9 if v > 9 else v for v in doubled)
    return (
        f"ISO 6166: turn letters into numbers (A = 10 … Z = 35): {body} becomes {digits}. Luhn: from the right, double every other digit starting with the last one and add the digits of the products: the sum is {total}. The check digit brings it to a multiple of ten: {total} + {check} = {total + check}. "
        f"**Check digit {check}; ISIN {body}{check}.** It catches any single wrong digit, but not that the security exists."
    )


def _iban(i: int, country: str, account: str) -> str:
    check = identifiers.iban_check_digits(country, account)
    remainder = identifiers.mod97(account + country + "00")
    return (
        f"ISO 13616: put the country code and 00 after the account part: {account}{country}00; write letters as numbers (A = 10 … Z = 35) and take the remainder by 97 (ISO 7064, MOD 97-10): {remainder}. Check digits = 98 − {remainder} = **{check}**, so the IBAN is **{country}{check}{account}**. "
        f"To verify one, move its first four characters to the end: the remainder must be 1."
    )


def _annualize(i: int, growth: float, level: float) -> str:
    yearly = (1 + growth) ** 4 - 1
    return (
        f"A quarterly rate q becomes a yearly one by compounding: (1 + q)^4 − 1 = {1 + growth:.4f}^4 − 1 = **{pct(yearly)}** at a seasonally adjusted annual rate, the way the BEA reports GDP. Simply multiplying by four gives {pct(growth * 4)}. In level terms {num(level)} becomes {num(level * (1 + growth), 1)} after the quarter, "
        f"and {num(level * (1 + yearly), 1)} after a year if the pace held, which one quarter does not promise."
    )


def _index(i: int, amount: float, then: float, now: float, years: float) -> str:
    value, rate = money.at_index(amount, then, now), money.growth_rate(then, now, years)
    return (
        f"Scale by the ratio of the index: {whole(amount)} × {num(now, 3)}/{num(then, 3)} = {whole(amount)} × {now / then:.4f} = **{whole(value)}**. Prices rose {pct(now / then - 1, 1)} in all, or ({now / then:.4f})^(1/{num(years)}) − 1 = **{pct(rate)} a year** over {num(years)} years. "
        f"Take the same series at both dates and, for escalation clauses, the CPI that is not seasonally adjusted."
    )


def _adjusted(i: int, before: float, after: float, ratio: float, dividend: float) -> str:
    total = portfolio.split_adjusted_return(before, after, ratio, dividend)
    factor = ratio
    return (
        f"One old share became {num(ratio)} new ones, worth {num(ratio)} × {usd(after)} = {usd(after * ratio)}, plus {usd(dividend)} of dividends per old share. Return = ({usd(after * ratio)} + {usd(dividend)}) ÷ {usd(before)} − 1 = **{pct(total)}**. The raw prices would suggest {pct(after / before - 1)}. "
        f"Adjusted history divides earlier prices by {num(factor)}: {usd(before)} becomes {usd(before / factor)}. A backtest must use adjusted returns, but raw prices for anything like price limits or order sizes."
    )


def _vintage(i: int, first: float, revised: float, previous: float) -> str:
    return (
        f"On release the growth was {num(first, 1)}/{num(previous, 1)} − 1 = {pct(first / previous - 1)}; after revision it is {num(revised, 1)}/{num(previous, 1)} − 1 = {pct(revised / previous - 1)}. **The revision moves it by {num((revised - first) / previous * 100, 2)} percentage points.** A model tested on today's file would have used a figure that nobody had then: "
        f"take vintages (for US data ALFRED at the St. Louis Fed) and the release date, not the reference date."
    )


def _confusion(i: int, tp: int, fp: int, fn: int, tn: int) -> str:
    precision, recall = classification.precision_and_recall(tp, fp, fn)
    accuracy = (tp + tn) / (tp + fp + fn + tn)
    return (
        f"Precision = TP/(TP + FP) = {num(tp)}/{num(tp + fp)} = **{pct(precision, 1)}**. Recall = TP/(TP + FN) = {num(tp)}/{num(tp + fn)} = **{pct(recall, 1)}**. F1 = 2PR/(P + R) = **{num(classification.f1(precision, recall), 3)}**. Accuracy is {pct(accuracy, 2)}, yet flagging nothing at all would score {pct((tn + fp) / (tp + fp + fn + tn), 2)}: "
        f"with rare events accuracy says little."
    )


def _bayes(i: int, base: float, sensitivity: float, false_rate: float, volume: int) -> str:
    truly = classification.flagged_truly(base, sensitivity, false_rate)
    real, caught = base * volume, base * volume * sensitivity
    false = (volume - real) * false_rate
    return (
        f"Of {num(volume)} cases {num(real, 0)} are real. The model flags {pct(sensitivity)} of them, {num(caught, 0)}, and {pct(false_rate)} of the {num(volume - real, 0)} others, {num(false, 0)}. P(real | flagged) = {num(caught, 0)} / ({num(caught, 0)} + {num(false, 0)}) = **{pct(truly, 1)}**. "
        f"So about {num(false / caught, 1)} false alarms come with each true one: a low base rate swamps even a good detector. Missed: {num(real - caught, 0)}."
    )


def _threshold(i: int, cost: float, loss: float, probability: float) -> str:
    level = classification.review_threshold(cost, loss)
    return (
        f"Review when its cost is under the loss it prevents on average: p × {whole(loss)} > {whole(cost)}, i.e. p above {whole(cost)} ÷ {whole(loss)} = **{pct(level)}**. This case scores {pct(probability)}: expected loss {usd(probability * loss)} against {usd(cost)}, so **{'review it' if probability > level else 'let it pass'}**. "
        f"The rule needs calibrated probabilities; check that of cases scored {pct(probability)} about that share turns out bad."
    )


def _tokens(i: int, requests: int, prompt: int, answer: int, price_in: float, price_out: float) -> str:
    monthly = requests * 30 * (prompt * price_in + answer * price_out) / 1e6
    one = (prompt * price_in + answer * price_out) / 1e6
    return (
        f"Per request: {num(prompt)} × {usd(price_in)}/1,000,000 + {num(answer)} × {usd(price_out)}/1,000,000 = ${one:.6f}. Per month of 30 days: {num(requests)} × 30 × ${one:.6f} = **{usd(monthly)}**. Output is {pct(answer * price_out / (prompt * price_in + answer * price_out), 1)} of it. "
        f"Halving the prompt would save {usd(requests * 30 * prompt / 2 * price_in / 1e6)} a month, halving the answers {usd(requests * 30 * answer / 2 * price_out / 1e6)}."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("unit-break-even", "business", "Horngren, 'Cost Accounting', ch. 3", 2025, "fixed:$500 price:$ variable:$ profit:$500", _break_even, (
        ask("My food truck has {fixed} of fixed cost a year, sells lunches at {price} and spends {variable} on each. Break-even, and volume for {profit} profit?", "Fixed costs step up when a second truck is needed.", 66_000, 13.5, 5.25, 50_000),
        ask("An online course costs {fixed} to make; it sells at {price} with {variable} of fees per sale. How many sales to cover it and to earn {profit}?", "Digital goods have high margins, so marketing is the real variable cost.", 18_000, 149, 19, 40_000),
        ask("Pottery studio: rent and wages {fixed}, bowl price {price}, clay and glaze {variable}. Units for zero and for {profit}?", "A price rise cuts the needed volume more than most owners expect.", 38_000, 42, 14, 25_000),
        ask("If a gym sells passes at {price} with {variable} variable cost each and has {fixed} of overhead, what must it sell to break even, and to make {profit}?", "Churn means that passes must be sold again and again.", 144_000, 480, 60, 60_000),
    )),
    Kind("project-npv", "business", "Brealey, Myers and Allen, 'Principles of Corporate Finance', ch. 2, 5", 2025, "outlay:$1000 yearly:$500 years:n salvage:$500 rate:%0.5", _project, (
        ask("A {outlay} oven saves {yearly} a year for {years} years and then fetches {salvage}. Worth it at {rate}?", "Use after-tax cash flows, not profit.", 60_000, 15_500, 6, 5_000, 0.10),
        ask("NPV and IRR: invest {outlay}, receive {yearly} yearly over {years} years, residual {salvage}, cost of capital {rate}.", "When NPV and IRR disagree on ranking, follow NPV.", 250_000, 58_000, 5, 30_000, 0.09),
        ask("Should the clinic buy a scanner for {outlay}, netting {yearly} for {years} years with {salvage} of resale value? Required return {rate}.", "Test the answer with a tenth less revenue.", 480_000, 96_000, 7, 40_000, 0.12),
        ask("Solar panels at {outlay} cut bills by {yearly} a year through year {years}; scrap {salvage}; our loan costs {rate}. Decide.", "A tax credit would lower the outlay.", 34_000, 3_900, 12, 1_000, 0.065),
    )),
    Kind("company-wacc", "business", "Brealey, Myers and Allen, 'Principles of Corporate Finance', ch. 17", 2025, "equity:n10 debt:n10 cost:%0.25 interest:%0.25 rate:%", _wacc, (
        ask("Equity of ${equity} million at {cost}, debt of ${debt} million at {interest}, tax {rate}. WACC?", "Preferred stock would be a third term.", 820, 410, 0.105, 0.058, 0.25),
        ask("What discount rate fits a retailer with ${debt}M borrowed at {interest}, a ${equity}M market cap, {cost} cost of equity and {rate} tax?", "Leases count as debt for this purpose.", 1_500, 900, 0.115, 0.0625, 0.24),
        ask("Find the weighted cost of capital: E = {equity}, D = {debt} (millions), re = {cost}, rd = {interest}, t = {rate}.", "More debt raises the cost of equity, so WACC falls less than it seems.", 260, 60, 0.13, 0.07, 0.21),
    )),
    Kind("macrs-year", "business", "IRS Publication 946, Table A-1", 2025, "basis:$500 life:n year:n", _macrs, (
        ask("Year {year} depreciation for a {basis} delivery van ({life}-year MACRS, half-year convention)?", "The mid-quarter convention applies instead if over 40% of the year's purchases fall in the last quarter.", 48_000, 5, 3),
        ask("Office furniture for {basis}, {life}-year class: what's deductible in year {year} without bonus?", "Books may use straight line at the same time.", 26_000, 7, 1),
        ask("How much of {basis} in computers ({life}-year property) is written off in recovery year {year}?", "Sale before the end leads to ordinary-income recapture.", 15_500, 5, 4),
        ask("A {life}-year special tool costing {basis}: deduction in year {year}?", "The half-year convention spreads the life over one more tax year.", 9_000, 3, 2),
    )),
    Kind("s-corporation-saving", "business", "IRC 1402, 3121; IRS Fact Sheet 2008-25", 2025, "profit:$1000 salary:$1000 costs:$100 year:s", _s_corporation, (
        ask("I net {profit} as a freelancer. As an S corporation with a {salary} salary and {costs} of extra costs, what do I save in {year}?", "Retirement contributions are based on the salary, which cuts both ways.", 135_000, 75_000, 2_800, 2025),
        ask("Is an S election sensible at {profit} profit, {salary} reasonable pay and {costs} of administration ({year})?", "At low profit the costs eat the saving.", 82_000, 60_000, 2_500, 2025),
        ask("Compare {year} payroll taxes: Schedule C profit {profit} against S-corp salary {salary}; running costs {costs}.", "State franchise taxes may apply to corporations.", 190_000, 110_000, 3_500, 2024),
    )),
    Kind("dupont-analysis", "business", "Penman, 'Financial Statement Analysis and Security Valuation'", 2025, "income:$1000 sales:$5000 assets:$5000 equity:$5000", _dupont, (
        ask("Break ROE down: net income {income}, sales {sales}, assets {assets}, equity {equity}.", "Compare each factor with firms of the same trade.", 84_000, 1_200_000, 900_000, 420_000),
        ask("DuPont for a grocer: {sales} revenue, {income} profit, {assets} total assets, {equity} owners' equity?", "Thin margins live on fast turnover.", 260_000, 13_000_000, 3_600_000, 1_500_000),
        ask("Why is this consultancy's return on equity so high? Profit {income}, fees {sales}, assets {assets}, equity {equity}.", "A small equity base can also be a sign of risk.", 410_000, 2_050_000, 800_000, 300_000),
    )),
    Kind("cash-conversion", "business", "Brealey, Myers and Allen, ch. 28", 2025, "inventory:$1000 receivables:$1000 payables:$1000 sales:$10000 cogs:$10000", _cash_cycle, (
        ask("Inventory {inventory}, receivables {receivables}, payables {payables}, sales {sales}, cost of sales {cogs}: cash cycle?", "A growing firm with a long cycle runs short of cash while profitable.", 180_000, 220_000, 140_000, 2_000_000, 1_300_000),
        ask("How long is our money tied up? Stock {inventory}; customers owe {receivables}; we owe suppliers {payables}; revenue {sales}; COGS {cogs}.", "Negative cycles, as at some retailers, finance growth.", 90_000, 40_000, 210_000, 3_000_000, 2_200_000),
        ask("Compute the cash conversion cycle of a furniture maker: {cogs} cost of sales on {sales}, with {inventory} inventory, {receivables} receivable and {payables} payable.", "Deposits from customers shorten it at once.", 320_000, 260_000, 110_000, 1_900_000, 1_150_000),
    )),
    Kind("margin-and-markup", "business", "SBA, pricing; margin and markup", 2025, "cost:$1 margin:% markup:%", _pricing, (
        ask("A bike costs me {cost} wholesale. Price for a {margin} margin, and what would a {markup} markup give?", "Discounts come straight out of margin.", 340, 0.35, 0.35),
        ask("Is a {markup} markup on {cost} the same as a {margin} margin?", "Quote margins to lenders, markups to suppliers.", 24, 0.5, 0.5),
        ask("Set the price of an item with unit cost {cost} so that {margin} of it is gross profit; compare with marking up {markup}.", "Card fees and returns reduce the real margin.", 118, 0.4, 0.6),
    )),
    Kind("trade-discount", "business", "Brealey, Myers and Allen, ch. 30", 2025, "discount:% days:n net:n invoice:$100 borrow:%0.5", _terms, (
        ask("Supplier terms {discount} off within {days} days, full in {net}; invoice {invoice}; our credit line is {borrow}. Take the discount?", "Paying on the last discount day keeps the money longest.", 0.02, 10, 30, 18_000, 0.09),
        ask("What does it cost to skip a {discount} discount ({days} days, net {net}) on {invoice}? We can borrow at {borrow}.", "Stretching payables past the net date risks the relation.", 0.01, 10, 45, 42_000, 0.085),
        ask("Effective annual rate of passing up {discount} for paying by day {days} instead of {net}, bill {invoice}, loan rate {borrow}?", "If you offer such terms, this is what you pay your customers.", 0.025, 7, 30, 9_600, 0.11),
    )),
    Kind("funding-dilution", "business", "NVCA model term sheet; pre-money and post-money valuation", 2025, "invest:$50000 pre:$100000 founder:% pool:%", _dilution, (
        ask("Raising {invest} at {pre} pre-money with a {pool} new option pool: what happens to my {founder}?", "Liquidation preferences can matter more than the percentage.", 2_000_000, 8_000_000, 0.6, 0.10),
        ask("A VC offers {invest} on a {pre} pre-money valuation plus a {pool} pool. I own {founder} today. And after?", "Negotiate the size of the pool as hard as the price.", 5_000_000, 20_000_000, 0.35, 0.08),
        ask("Seed round: {invest}, pre-money {pre}, pool {pool}, co-founder at {founder}. New stake?", "A SAFE converting in the same round dilutes further.", 750_000, 4_250_000, 0.45, 0.12),
    )),
    Kind("revenue-allocation", "standards", "ASC 606-10-32-31; IFRS 15.73-80", 2025, "price:$10 first:$10 second:$10 months:n", _allocation, (
        ask("We sell a machine with {months} months of service for {price}; alone they'd be {first} and {second}. How is revenue split?", "If a stand-alone price is not observable, estimate it.", 18_000, 16_000, 4_000, 24),
        ask("Bundle price {price}: phone {first} by itself, plan {second} by itself over {months} months. Allocate under IFRS 15.", "Commissions are a contract cost, spread likewise.", 1_100, 800, 480, 24),
        ask("A software license ({first} alone) plus {months} months of support ({second} alone) is contracted at {price}. Journal amounts?", "Whether the license is distinct must be judged first.", 50_000, 45_000, 15_000, 36),
    )),
    Kind("loss-allowance", "standards", "IFRS 9.5.5; ASC 326-20", 2025, "exposure:$10000 pd:%0.1 life_pd:%0.5 lgd:%", _loss_allowance, (
        ask("Loan of {exposure}: 12-month PD {pd}, lifetime PD {life_pd}, LGD {lgd}. Allowance under IFRS 9 and under CECL?", "Forward-looking scenarios must be weighted in.", 2_000_000, 0.012, 0.045, 0.4),
        ask("How do stage 1 and stage 2 allowances differ for {exposure} with PDs of {pd} and {life_pd} and {lgd} loss severity?", "Thirty days past due is the rebuttable sign of stage 2.", 650_000, 0.02, 0.08, 0.55),
        ask("Compute expected credit losses: exposure {exposure}, one-year default {pd}, lifetime {life_pd}, loss given default {lgd}.", "Trade receivables may use a provision matrix instead.", 12_000_000, 0.005, 0.03, 0.35),
    )),
    Kind("isin-check-digit", "standards", "ISO 6166; ISO/IEC 7812", 2025, "body:s", _isin, (
        ask("Our file lists a US share as {body} without its last character. What is the ISIN check digit?", "Validate identifiers before joining tables on them.", "US459200101"),
        ask("Compute the twelfth character of ISIN {body}.", "The two letters are the country of the issuer's numbering agency.", "GB000263494"),
        ask("A German share's code reads {body} and the final digit is smudged. Restore it.", "A wrong guess passes one time in ten, so look it up as well.", "DE000716460"),
    )),
    Kind("iban-check-digits", "standards", "ISO 13616; ISO 7064", 2025, "country:s account:s", _iban, (
        ask("Find the IBAN check digits for country {country} and account part {account}.", "Transfers with a failing IBAN are refused before they are sent.", "DE", "500105175407324931"),
        ask("How do I build the full {country} IBAN from {account}?", "The length is fixed for each country.", "BE", "539007547034"),
        ask("Work out MOD 97-10 for {country} and {account}.", "The check catches all swaps of two neighboring digits.", "CH", "00762011623852957"),
    )),
    Kind("annualized-growth", "data", "BEA, NIPA Handbook, ch. 4", 2025, "growth:%0.05 level:n10", _annualize, (
        ask("Quarterly GDP growth of {growth} from a level of {level} billion: annualized rate?", "Euro-area releases quote the quarterly rate instead.", 0.0065, 23_200),
        ask("Industrial output changed by {growth} in one quarter (index {level}). Express it as an annual rate.", "Negative quarters compound as well.", -0.011, 103),
        ask("How does the BEA get an annual figure from a quarter's {growth} on {level}?", "Revisions often exceed the difference between the two methods.", 0.0095, 22_700),
    )),
    Kind("index-escalation", "data", "BLS, How to Use the CPI for Escalation", 2025, "amount:$500 then:n1 now:n1 years:n", _index, (
        ask("Rent of {amount} is tied to an index that went from {then} to {now} in {years} years. New rent and yearly inflation?", "Name the series and the month in the contract.", 1_800, 258.8, 313.7, 5),
        ask("What is {amount} from {years} years ago worth now if the price index moved {then} to {now}?", "Quality changes make long comparisons rough.", 40_000, 172.2, 305.3, 23),
        ask("Deflate: index {then} then, {now} today, {years} years between, amount {amount} at the start.", "Regional series are noisier than the national one.", 75_000, 236.7, 291.5, 8),
    )),
    Kind("adjusted-price-return", "data", "CRSP, price adjustment factors", 2025, "before:$1 after:$1 ratio:n dividend:$", _adjusted, (
        ask("A share was {before} before a {ratio}-for-1 split and is {after} now; {dividend} of dividends per old share. True return?", "Volume must be adjusted the other way.", 240, 66, 4, 2.4),
        ask("Raw prices {before} and {after}, split ratio {ratio}, dividends {dividend} on the old share. What did holders make?", "Vendors differ in whether dividends are adjusted for.", 95, 50, 2, 1.1),
        ask("After a reverse split ({ratio} new for one old) the quote went from {before} to {after}. No dividends were paid. What's the return?", "Reverse splits often precede further falls.", 1.5, 12, 0.1, 0.0),
    )),
    Kind("data-vintage", "data", "Croushore and Stark (2001); ALFRED, Federal Reserve Bank of St. Louis", 2025, "first:n revised:n previous:n", _vintage, (
        ask("Payrolls were first reported at {first} thousand, later revised to {revised}; the month before was {previous}. How much does a backtest gain unfairly?", "Surprise indices need the consensus of the day as well.", 158_420.0, 158_310.0, 158_240.0),
        ask("First print {first}, today's figure {revised}, previous period {previous}. What is the vintage problem here?", "Even seasonal factors are revised for years back.", 104.8, 105.3, 104.1),
        ask("An index came out at {first} (prior {previous}) and now stands at {revised} in the database. Effect on growth?", "Store what you download, with its date.", 312.4, 311.9, 310.7),
    )),
    Kind("confusion-matrix", "technology", "Manning, Raghavan and Schütze, 'Introduction to Information Retrieval', ch. 8", 2025, "tp:n fp:n fn:n tn:n", _confusion, (
        ask("Card-fraud model: {tp} caught, {fp} false alarms, {fn} missed, {tn} rightly passed. Precision, recall, F1?", "Weigh errors by their dollars, not their number.", 180, 120, 60, 49_640),
        ask("Evaluate a loan-default classifier with TP {tp}, FP {fp}, FN {fn}, TN {tn}.", "Use a later year as the test set.", 420, 380, 230, 8_970),
        ask("Money-laundering alerts: {tp} confirmed, {fp} dismissed; {fn} found later elsewhere; {tn} clean customers. How good is the system?", "The misses that nobody found are not in the table.", 35, 965, 15, 98_985),
    )),
    Kind("alert-base-rate", "technology", "Bayes' rule; Axelsson (2000), the base-rate fallacy", 2025, "base:% sensitivity:% false_rate:% volume:n", _bayes, (
        ask("{base} of transactions are fraudulent; the detector catches {sensitivity} and wrongly flags {false_rate}. Of {volume} payments, what share of flags is real?", "A second, cheaper check on flagged cases helps most.", 0.002, 0.92, 0.01, 500_000),
        ask("If {base} of applicants default, a score flags {sensitivity} of them and {false_rate} of the good ones, how far can I trust a flag among {volume}?", "Refusing all flagged applicants has a cost, too.", 0.04, 0.75, 0.08, 20_000),
        ask("Insider-trading surveillance: base rate {base}, sensitivity {sensitivity}, false positives {false_rate}, {volume} orders. Chance that an alert is genuine?", "Analysts' time is the scarce resource.", 0.0005, 0.8, 0.02, 1_000_000),
    )),
    Kind("review-threshold", "technology", "Elkan (2001), 'The Foundations of Cost-Sensitive Learning'", 2025, "cost:$1 loss:$50 probability:%0.1", _threshold, (
        ask("A manual review costs {cost}, a fraud loses {loss}, the score is {probability}. Review?", "If review misses some fraud, divide by its success rate.", 12, 900, 0.018),
        ask("At what probability should claims worth {loss} be checked when a check costs {cost}? This one is at {probability}.", "Delay annoys honest customers: add that to the cost.", 85, 6_500, 0.009),
        ask("Model output {probability}; loss if bad {loss}; verification {cost}. Which action is cheaper on average?", "Thresholds move when losses do.", 4, 220, 0.031),
    )),
    Kind("token-bill", "technology", "Price per token as vendors quote it: dollars per million", 2025, "requests:n100 prompt:n10 answer:n10 price_in:$ price_out:$", _tokens, (
        ask("A support bot answers {requests} questions a day, {prompt} tokens in, {answer} out, at {price_in} and {price_out} per million. Monthly bill?", "Caching a fixed prompt often cuts the input price.", 4_000, 1_200, 250, 0.5, 1.5),
        ask("Estimate language-model cost: {requests} daily calls, prompt {prompt} tokens, reply {answer}, prices {price_in} in and {price_out} out per million tokens.", "A smaller fine-tuned model may answer the easy ones.", 25_000, 2_500, 400, 2.5, 10),
        ask("Document summarizer: {prompt} input and {answer} output tokens each, {requests} filings per day, {price_in}/{price_out} per million. What per month?", "Batch prices are lower when nobody waits.", 600, 30_000, 900, 3, 15),
    )),
)
# fmt: on
