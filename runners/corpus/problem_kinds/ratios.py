"""Ratios and short formulas of companies, insurers, lenders and hedgers."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, usd, whole
from runners.finance import business, education, insurance, money, options, portfolio, trading


def _depreciation(i: int, cost: float, salvage: float, years: int) -> str:
    straight = business.straight_line(cost, salvage, years)
    first, second = business.double_declining(cost, years, 1), business.double_declining(cost, years, 2)
    return (
        f"Straight line: ({whole(cost)} − {whole(salvage)}) ÷ {years} = **{usd(straight)} every year**. Double-declining balance: twice the straight rate, 2/{years} = {pct(2 / years)}, on book value and without salvage: year 1 {whole(cost)} × {pct(2 / years)} = **{usd(first)}**, "
        f"year 2 ({whole(cost)} − {usd(first)}) × {pct(2 / years)} = **{usd(second)}**, and so on until book value reaches {whole(salvage)}. Book method and tax depreciation (MACRS) may differ."
    )


def _liquidity(i: int, cash: float, securities: float, receivables: float, inventory: float, owed: float) -> str:
    current = (cash + securities + receivables + inventory) / owed
    quick = business.quick_ratio(cash, securities, receivables, owed)
    return (
        f"Current assets: {whole(cash)} + {whole(securities)} + {whole(receivables)} + {whole(inventory)} = {whole(cash + securities + receivables + inventory)}. Current ratio: {whole(cash + securities + receivables + inventory)} ÷ {whole(owed)} = **{num(current)}**. "
        f"Quick ratio, without inventory: {whole(cash + securities + receivables)} ÷ {whole(owed)} = **{num(quick)}**. Working capital: {whole(cash + securities + receivables + inventory - owed)}. {'The bills of the year are covered even if nothing is sold.' if quick >= 1 else 'Paying the bills of the year depends on selling inventory.'}"
    )


def _multiples(i: int, price: float, eps: float, shares: float, debt: float, cash: float, ebitda: float) -> str:
    cap = price * shares
    value = business.enterprise_value(cap, debt, cash)
    return (
        f"P/E = {usd(price)} ÷ {usd(eps)} = **{num(price / eps, 1)}** (earnings yield {pct(eps / price)}). Market capitalization: {usd(price)} × {num(shares)} million = ${num(cap, 1)} million. Enterprise value adds debt and takes off cash: {num(cap, 1)} + {num(debt)} − {num(cash)} = ${num(value, 1)} million. "
        f"EV/EBITDA = {num(value, 1)} ÷ {num(ebitda)} = **{num(value / ebitda, 1)}**. The second multiple is not moved by how the company is financed, so it compares better across firms."
    )


def _coverage(i: int, income: float, payment: float, needed: float) -> str:
    service = payment * 12
    ratio = business.debt_service_coverage(income, service)
    return (
        f"Debt service: {usd(payment)} × 12 = {whole(service)} a year. DSCR = net operating income ÷ debt service = {whole(income)} ÷ {whole(service)} = **{num(ratio)}**. The lender wants {num(needed)}: {'met' if ratio >= needed else 'not met'}. The most yearly debt service that income carries at {num(needed)} is {whole(income)} ÷ {num(needed)} = {whole(income / needed)}, "
        f"**{usd(income / needed / 12)} a month**. Income could fall {pct(max(0, 1 - 1 / ratio), 1)} before payments were uncovered."
    )


def _runway(i: int, cash: float, spending: float, revenue: float, cut: float) -> str:
    months, saved = business.burn_months(cash, spending, revenue), business.burn_months(cash, spending * (1 - cut), revenue)
    return (
        f"Net burn = {whole(spending)} − {whole(revenue)} = {whole(spending - revenue)} a month. Runway = {whole(cash)} ÷ {whole(spending - revenue)} = **{num(months, 1)} months**. Cutting spending by {pct(cut)} lowers the burn to {whole(spending * (1 - cut) - revenue)} and stretches it to **{num(saved, 1)} months**. "
        f"Since raising a round takes about six months, start when {num(max(0, months - 6), 1)} months have passed at the latest. Growth of revenue would lengthen it, late customers shorten it."
    )


def _growth(i: int, roe: float, payout: float, sales: float) -> str:
    rate = business.sustainable_growth(roe, payout)
    return (
        f"Sustainable growth = ROE × retained share = {pct(roe)} × (1 − {pct(payout)}) = **{pct(rate)} a year** without new equity and with the same margins, turnover and leverage. Sales of {whole(sales)} could thus reach {whole(sales * (1 + rate))} next year and {whole(sales * (1 + rate) ** 5)} in five. "
        f"By the rule of 72 that doubles the firm in about {num(72 / (rate * 100), 0)} years. Faster growth needs more debt, new shares, a lower payout or a better return."
    )


def _relever(i: int, beta: float, now: float, then: float, rate: float, rf: float, premium: float) -> str:
    bare = business.unlevered_beta(beta, now, rate)
    new = bare * (1 + (1 - rate) * then)
    return (
        f"Hamada: unlevered β = {num(beta)} ÷ (1 + (1 − {pct(rate)}) × {num(now)}) = **{num(bare, 3)}**. Relevered at D/E = {num(then)}: {num(bare, 3)} × (1 + (1 − {pct(rate)}) × {num(then)}) = **{num(new, 3)}**. Cost of equity by CAPM: {pct(rf)} + {num(new, 3)} × {pct(premium)} = **{pct(rf + new * premium)}**. "
        f"The formula takes debt as riskless, so at high leverage it overstates the owners' share of the risk."
    )


def _cash_value(i: int, cost: float, age: float, life: float, deductible: float) -> str:
    actual = insurance.actual_cash_value(cost, age, life)
    return (
        f"Depreciation: {num(age)} of {num(life)} years used = {pct(min(1, age / life), 1)} of {whole(cost)} = {whole(cost - actual)}. Actual cash value = {whole(cost)} − {whole(cost - actual)} = {whole(actual)}; less the {whole(deductible)} deductible the policy pays **{whole(max(0, actual - deductible))}**. "
        f"Replacement cost cover would pay {whole(cost)} − {whole(deductible)} = **{whole(cost - deductible)}**, usually in two parts: the cash value now, the rest once the item is replaced."
    )


def _underwriting(i: int, losses: float, expenses: float, premiums: float, investment: float) -> str:
    ratio = insurance.combined_ratio(losses, expenses, premiums)
    result = premiums - losses - expenses
    return (
        f"Loss ratio: {num(losses)} ÷ {num(premiums)} = {pct(losses / premiums, 1)}. Expense ratio: {num(expenses)} ÷ {num(premiums)} = {pct(expenses / premiums, 1)}. **Combined ratio: {pct(ratio, 1)}**, an underwriting {'loss' if result < 0 else 'profit'} of ${num(abs(result), 1)} million. With investment income of ${num(investment)} million the pre-tax result is **{usd(result + investment, 1)} million**. "
        f"Over 100% an insurer pays out more than it takes in and lives on investing the premiums it holds."
    )


def _accrual(i: int, principal: float, rate: float, months: int, years: int) -> str:
    added = education.deferred_interest(principal, rate, months)
    before, after = money.payment(principal, rate / 12, years * 12), money.payment(principal + added, rate / 12, years * 12)
    return (
        f"Unsubsidized loans accrue simple interest: {whole(principal)} × {pct(rate)} × {months}/12 = **{usd(added)}**. If it is capitalized (private loans; federal ones after a deferment), repayment starts at {usd(principal + added)}: over {years} years at {pct(rate)} the payment is {usd(after)} instead of {usd(before)}, "
        f"**{usd(after - before)} more a month** and {usd((after - before) * years * 12)} over the term. Paying the interest as it accrues, about {usd(principal * rate / 12)} a month, avoids that."
    )


def _concentration(i: int, a: float, b: float, c: float, d: float, e: float) -> str:
    weights = [a, b, c, d, e]
    index = portfolio.herfindahl(weights)
    return (
        f"Herfindahl index = sum of squared weights: {' + '.join(f'{w:g}²' for w in weights)} = {' + '.join(f'{w * w:.4f}' for w in weights)} = **{index:.4f}**. Effective number of holdings = 1 ÷ {index:.4f} = **{num(1 / index, 2)}** of five; equal weights would give 0.2000 and 5. "
        f"The largest position of {pct(max(weights))} alone makes up {pct(max(weights) ** 2 / index, 0)} of the index. It ignores correlation: five banks are less than five holdings."
    )


def _delta_hedge(i: int, contracts: int, spot: float, strike: float, months: int, rate: float, vol: float) -> str:
    years = months / 12
    d1, _ = options.d_values(spot, strike, years, rate, vol)
    delta = options.delta(spot, strike, years, rate, vol)
    shares = contracts * 100 * delta
    return (
        f"Delta of a call = N(d₁). d₁ = [ln({num(spot)}/{num(strike)}) + ({pct(rate)} + {pct(vol)}²/2) × {num(years, 4)}] / ({pct(vol)} × √{num(years, 4)}) = {d1:.4f}, so delta = **{delta:.3f}**. Short {contracts} contracts of 100: hold {contracts} × 100 × {delta:.3f} = **{num(shares, 0)} shares** against them. "
        f"If the stock rises $1 the calls cost about {whole(shares)} more and the shares gain as much. The hedge is right for small moves only: delta changes (gamma), so it must be adjusted."
    )


def _hedge_ratio(i: int, rho: float, asset: float, futures: float, units: float, size: float) -> str:
    ratio = trading.minimum_variance_hedge(rho, asset, futures)
    return (
        f"Minimum-variance ratio h = ρ × σ of the asset ÷ σ of the future = {num(rho)} × {pct(asset)} ÷ {pct(futures)} = **{num(ratio, 3)}**. Contracts: {num(ratio, 3)} × {num(units)} ÷ {num(size)} = {num(ratio * units / size, 2)}, so **{num(round(ratio * units / size))}**. The hedge removes ρ² = {pct(rho**2, 1)} of the variance; "
        f"what is left, basis risk, has a volatility of {pct(asset * (1 - rho**2) ** 0.5)} against {pct(asset)} unhedged."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("book-depreciation", "business", "Horngren; ASC 360-10-35: straight-line and double-declining balance", 2025, "cost:$500 salvage:$100 years:n", _depreciation, (
        ask("A press costs {cost}, lasts {years} years and then brings {salvage}. Compare straight-line with double-declining depreciation.", "Accelerated methods lower early profit, not total profit.", 50_000, 5_000, 10),
        ask("How much is expensed in years one and two on a {cost} bus ({years}-year life, {salvage} residual) under each book method?", "A change of method needs a reason.", 90_000, 12_000, 8),
        ask("Our bakery bought {cost} of ovens: useful life {years} years, salvage {salvage}. Annual depreciation, please, both ways.", "Cash flow is the same either way before tax.", 24_000, 2_000, 5),
    )),
    Kind("liquidity-ratios", "business", "Penman; acid-test and current ratio", 2025, "cash:$1000 securities:$1000 receivables:$1000 inventory:$1000 owed:$1000", _liquidity, (
        ask("Cash {cash}, T-bills {securities}, receivables {receivables}, stock {inventory}; {owed} due within a year. Current and quick ratio?", "Seasonal firms look best just after the season.", 40_000, 10_000, 120_000, 150_000, 180_000),
        ask("Can a software firm with {cash} cash, {securities} of securities, {receivables} owed by clients and {inventory} of hardware pay {owed} of current debts?", "Deferred revenue is a debt of work, not of money.", 310_000, 200_000, 240_000, 15_000, 420_000),
        ask("A bank asks for our acid test: {receivables} receivable, {inventory} inventory, {cash} in the bank, {securities} marketable, {owed} current liabilities.", "Covenants often set a floor for it.", 22_000, 0, 95_000, 260_000, 205_000),
    )),
    Kind("valuation-multiples", "business", "Brealey, Myers and Allen, ch. 19; Penman", 2025, "price:$1 eps:$0.1 shares:n10 debt:n10 cash:n10 ebitda:n10", _multiples, (
        ask("Share price {price}, EPS {eps}, {shares} million shares, ${debt}M debt, ${cash}M cash, ${ebitda}M EBITDA: P/E and EV/EBITDA?", "Use forward figures for both or for neither.", 48, 3.2, 120, 900, 300, 620),
        ask("Which multiples does a company show that trades at {price} with {eps} of earnings a share ({shares}M shares, debt {debt}M, cash {cash}M, EBITDA {ebitda}M)?", "Leases and pensions can count as debt, too.", 22, 1.1, 400, 2_500, 800, 1_450),
        ask("Compare two views of price: {price} over {eps} EPS, and enterprise value over {ebitda} million EBITDA, given {shares} million shares, {debt} million of debt and {cash} million of cash.", "A low multiple can be a warning rather than a bargain.", 130, 5.2, 60, 150, 700, 510),
    )),
    Kind("debt-service-coverage", "business", "SBA SOP 50 10; commercial lending practice", 2025, "income:$1000 payment:$50 needed:n", _coverage, (
        ask("Our motel's net operating income is {income}; the loan takes {payment} a month. Does that meet a DSCR of {needed}?", "Lenders often add back owner's pay and take off reserves.", 185_000, 11_800, 1.25),
        ask("A fourplex nets {income} before debt. With {payment} monthly payments and a {needed} requirement, how does coverage look?", "Vacancy belongs in net operating income.", 46_000, 3_350, 1.2),
        ask("The SBA lender wants {needed} times coverage. Cash flow {income}, proposed installment {payment}. Pass?", "A longer term would lower the installment.", 120_000, 7_200, 1.15),
    )),
    Kind("startup-runway", "business", "Burn rate and runway; SBA", 2025, "cash:$10000 spending:$1000 revenue:$1000 cut:%", _runway, (
        ask("We have {cash} in the bank, spend {spending} a month and bring in {revenue}. Runway, and with {cut} less spending?", "Board members would rather hear early than late.", 1_400_000, 145_000, 40_000, 0.2),
        ask("Startup math: {cash} cash, {spending} monthly costs, {revenue} revenue. How long, and what does a {cut} cut buy?", "Payroll is most of it, so cuts are people.", 620_000, 88_000, 31_000, 0.15),
        ask("How many months until zero at {spending} out and {revenue} in with {cash} left, and after trimming costs by {cut}?", "A credit line is easier to get before it is needed.", 260_000, 52_000, 38_000, 0.1),
    )),
    Kind("sustainable-growth", "business", "Higgins (1977), 'How Much Growth Can a Firm Afford?'", 2025, "roe:%0.5 payout:% sales:$10000", _growth, (
        ask("ROE {roe}, payout {payout}, sales {sales}: how fast can we grow without new shares?", "Inflation alone uses part of it.", 0.16, 0.4, 8_000_000),
        ask("A family firm pays out {payout} of profit and earns {roe} on equity. What growth does that finance from {sales}?", "Minority owners may want the dividend anyway.", 0.11, 0.6, 3_500_000),
        ask("Find the self-financed growth rate: return on equity {roe}, dividends {payout} of earnings, revenue {sales}.", "Growth above it shows up as rising debt.", 0.22, 0.25, 14_000_000),
    )),
    Kind("relevered-beta", "business", "Hamada (1972)", 2025, "beta:n0.05 now:n then:n rate:% rf:%0.25 premium:%0.25", _relever, (
        ask("A peer's beta is {beta} at D/E {now}; we plan {then}. Tax {rate}, risk-free {rf}, equity premium {premium}. Our cost of equity?", "Average several peers before trusting one beta.", 1.2, 0.5, 0.2, 0.25, 0.0425, 0.05),
        ask("Unlever {beta} from a debt-to-equity of {now} and relever it to {then} with a {rate} tax rate; then use {rf} and {premium}.", "Peers must share the business risk, not just the label.", 0.95, 0.8, 1.5, 0.21, 0.04, 0.055),
        ask("If a buyout takes D/E from {now} to {then}, what happens to a beta of {beta} and the owners' required return ({rf} risk-free, {premium} premium, {rate} tax)?", "Distress costs come on top.", 1.05, 0.3, 2.0, 0.25, 0.045, 0.05),
    )),
    Kind("cash-value-claim", "insurance", "ISO HO 00 03, loss settlement; NAIC, actual cash value and replacement cost", 2025, "cost:$100 age:n life:n deductible:$100", _cash_value, (
        ask("Hail ruined a {age}-year-old roof that costs {cost} to replace and lasts {life} years. Deductible {deductible}. ACV against replacement cost?", "Some policies switch old roofs to cash value.", 18_000, 9, 20, 2_000),
        ask("A burst pipe wrecked {cost} of flooring, {age} of {life} years old. What do the two kinds of cover pay after {deductible}?", "Photos and receipts speed the claim.", 7_500, 4, 15, 1_000),
        ask("My stolen {age}-year-old sofa set would be {cost} new ({life}-year life). With a {deductible} deductible, what does an actual cash value policy give me?", "Personal property is often at cash value unless endorsed.", 4_200, 6, 10, 500),
    )),
    Kind("combined-ratio", "insurance", "NAIC, statutory ratios; Rejda and McNamara, ch. 7", 2025, "losses:n10 expenses:n10 premiums:n10 investment:n5", _underwriting, (
        ask("An insurer earned ${premiums} million of premiums, paid {losses} in losses and {expenses} in expenses, and invested for {investment}. Combined ratio and result?", "One hurricane year says little about pricing.", 690, 270, 900, 75),
        ask("Is underwriting profitable with losses of {losses}, expenses of {expenses} and premiums of {premiums} (all millions), plus {investment} of investment income?", "Reserve releases can flatter the loss ratio.", 310, 140, 520, 28),
        ask("Auto insurer: {premiums} million earned, {losses} million claims, {expenses} million costs, {investment} million from bonds. How did it do?", "Rates are filed with the state, so repair takes time.", 1_280, 340, 1_500, 110),
    )),
    Kind("capitalized-interest", "education", "34 CFR 685.202(b); StudentAid.gov, interest capitalization", 2025, "principal:$500 rate:%0.05 months:n years:n", _accrual, (
        ask("I borrow {principal} unsubsidized at {rate} as a freshman and start paying {months} months later, over {years} years. What does the wait cost?", "Subsidized loans accrue nothing while in school.", 5_500, 0.0639, 54, 10),
        ask("Graduate loan: {principal}, {rate}, {months} months of deferment, {years}-year repayment. Interest added and effect on the payment?", "Pay at least the interest in the grace period.", 20_500, 0.0794, 30, 10),
        ask("A parent PLUS loan of {principal} at {rate} is put off for {months} months. What is owed then and how does a {years}-year payment change?", "PLUS loans charge an origination fee, too.", 15_000, 0.0894, 48, 10),
    )),
    Kind("effective-holdings", "investing", "Herfindahl (1950); effective number of bets", 2025, "a:% b:% c:% d:% e:%", _concentration, (
        ask("My five stocks weigh {a}, {b}, {c}, {d} and {e}. How diversified am I by the Herfindahl index?", "Add funds before adding more single names.", 0.5, 0.2, 0.15, 0.1, 0.05),
        ask("Compute the effective number of positions for weights {a}, {b}, {c}, {d}, {e}.", "Managers quote it beside the active share.", 0.3, 0.25, 0.2, 0.15, 0.1),
        ask("A family holds {a} in one company and {b}, {c}, {d}, {e} in four others. What does concentration math say?", "Control may be worth the concentration, but then know its price.", 0.72, 0.1, 0.08, 0.06, 0.04),
    )),
    Kind("delta-hedge", "trading", "Hull, 'Options, Futures, and Other Derivatives', ch. 19", 2025, "contracts:n spot:$1 strike:$ months:n rate:%0.25 vol:%1", _delta_hedge, (
        ask("I'm short {contracts} calls struck {strike} on a {spot} stock, {months} months out, {vol} volatility, {rate} rate. Shares for a delta hedge?", "Rehedging daily is a usual compromise with costs.", 20, 50, 52, 3, 0.045, 0.3),
        ask("A desk sold {contracts} call contracts: spot {spot}, strike {strike}, {months} months, r {rate}, σ {vol}. How many shares neutralize it?", "Jumps cannot be hedged with shares.", 150, 98, 95, 6, 0.04, 0.24),
        ask("Delta and hedge, please: {contracts} written calls, {spot} price, {strike} strike, {months} months to expiry, implied volatility {vol}, interest {rate}.", "Near expiry an at-the-money delta swings fast.", 60, 210, 220, 1, 0.0425, 0.38),
    )),
    Kind("minimum-variance-hedge", "trading", "Ederington (1979); Hull, ch. 3", 2025, "rho:n asset:%0.5 futures:%0.5 units:n1000 size:n", _hedge_ratio, (
        ask("An airline hedges {units} gallons of jet fuel with heating-oil futures of {size} gallons: correlation {rho}, fuel volatility {asset}, futures {futures}. How many?", "Re-estimate the ratio over the hedge's own horizon.", 0.88, 0.32, 0.36, 2_000_000, 42_000),
        ask("Farm co-op: {units} bushels of a local grain, contract {size} bushels, ρ = {rho}, σ {asset} and {futures}. Optimal hedge?", "Basis at your elevator is the risk that stays.", 0.93, 0.28, 0.25, 400_000, 5_000),
        ask("Compute the hedge ratio for {units} pounds of copper scrap against {size}-pound futures with correlation {rho} and volatilities {asset} / {futures}.", "A cross hedge is only as good as its correlation.", 0.75, 0.26, 0.22, 1_000_000, 25_000),
    )),
)
# fmt: on
