"""Loans, mortgages, cards and the ratios lenders read."""

from __future__ import annotations

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, pick, usd, whole
from runners.finance import lending, money


def _payment(i: int, principal: float, rate: float, months: float) -> str:
    paid = lending.monthly_payment(principal, rate, int(months))
    interest = paid * months - principal
    monthly = f"{rate / 12 * 100:.4f}%"
    return pick(
        i,
        f"Use the level-payment formula M = P·r / (1 − (1+r)^−n) with a monthly rate r = {pct(rate)}/12 = {monthly} and n = {num(months)}. "
        f"M = {whole(principal)} × {rate / 12:.6f} / (1 − {1 + rate / 12:.6f}^−{num(months)}) = **{usd(paid)} a month** (to the cent). "
        f"All {num(months)} payments come to {whole(paid * months)}, so interest is about {whole(interest)}.",
        f"**The payment is {usd(paid)} a month.** Step 1: monthly rate = {pct(rate)} ÷ 12 = {monthly}. Step 2: the present-value factor of {num(months)} payments is "
        f"(1 − (1+r)^−n)/r = {principal / paid:.4f}. Step 3: {whole(principal)} ÷ {principal / paid:.4f} = {usd(paid)}. "
        f"Over the whole term you pay {whole(paid * months)}, of which {whole(interest)} is interest (rounded to the dollar).",
    )


def _affordable(i: int, payment: float, rate: float, years: float) -> str:
    principal = lending.affordable_principal(payment, rate, int(years * 12))
    return (
        f"Turn the payment formula round: the loan is the present value of the payments, P = M·(1 − (1+r)^−n)/r. With r = {pct(rate)}/12 = {rate / 12:.6f} and "
        f"n = {num(years * 12)}, the factor is {principal / payment:.4f}, so P = {whole(payment)} × {principal / payment:.4f} = **about {whole(principal)}** (nearest dollar)."
    )


def _balance(i: int, principal: float, rate: float, years: float, after: float) -> str:
    months, gone = int(years * 12), int(after * 12)
    paid = lending.monthly_payment(principal, rate, months)
    left = lending.balance_after(principal, rate, months, gone)
    return (
        f"The balance is the present value of the payments still to come. Payment: {usd(paid)} a month on {whole(principal)} at {pct(rate)} over {num(years)} years. "
        f"After {num(after)} years {months - gone} payments remain, so the balance = {usd(paid)} × (1 − (1+{rate / 12:.6f})^−{months - gone})/{rate / 12:.6f} = **{whole(left)}**. "
        f"You have paid {whole(paid * gone)} so far, and only {whole(principal - left)} of it reduced the principal; the other {whole(round(paid * gone) - round(principal - left))} was interest."
    )


def _first_month(i: int, principal: float, rate: float, years: float) -> str:
    row = lending.amortization(principal, rate, int(years * 12))[0]
    return (
        f"Payment: {usd(row.interest + row.principal)} (level-payment formula, {num(years * 12)} months at {pct(rate)}/12). First month's interest = {whole(principal)} × {pct(rate)} ÷ 12 = "
        f"**{usd(row.interest)}**; what is left, {usd(row.interest + row.principal)} − {usd(row.interest)} = **{usd(row.principal)}**, goes to principal. "
        f"So {pct(row.interest / (row.interest + row.principal), 1)} of the first payment is interest."
    )


def _extra(i: int, principal: float, rate: float, years: float, extra: float) -> str:
    plain, faster = lending.amortization(principal, rate, int(years * 12)), lending.amortization(principal, rate, int(years * 12), extra)
    saved = sum(row.interest for row in plain) - sum(row.interest for row in faster)
    sooner = len(plain) - len(faster)
    paid = plain[0].interest + plain[0].principal
    return (
        f"Scheduled payment: {usd(paid)}. Paying {usd(paid + extra)} instead, the number of months is n = −ln(1 − P·r/M)/ln(1+r), which rounds up to {len(faster)} "
        f"instead of {len(plain)}. **The loan ends {sooner} months ({num(sooner / 12, 1)} years) sooner and saves about {whole(saved)} of interest** "
        f"({whole(sum(row.interest for row in plain))} on schedule, {whole(sum(row.interest for row in faster))} with the extra {whole(extra)})."
    )


def _card_payoff(i: int, balance: float, rate: float, paid: float) -> str:
    months = money.periods_to_repay(balance, rate / 12, paid)
    interest = months * paid - balance
    return (
        f"Monthly rate: {pct(rate)} ÷ 12 = {rate / 12 * 100:.4f}%. First month's interest is {usd(balance * rate / 12)}, so the payment does reduce the balance. "
        f"Months = −ln(1 − B·r/p) / ln(1+r) = −ln(1 − {balance * rate / 12:.2f}/{num(paid)}) / ln({1 + rate / 12:.6f}) = {num(months, 1)}: **{int(-(-months // 1))} payments**, the last one smaller. "
        f"Total interest is roughly {num(months, 1)} × {whole(paid)} − {whole(balance)} = **{whole(interest)}** (no new charges assumed)."
    )


def _dti(i: int, housing: float, car: float, other: float, income: float) -> str:
    monthly = income / 12
    front, back = housing / monthly, lending.debt_to_income([housing, car, other], monthly)
    return (
        f"Gross monthly income = {whole(income)} ÷ 12 = {usd(monthly)}. Front-end ratio: housing {whole(housing)} ÷ {usd(monthly)} = **{pct(front, 1)}**. "
        f"Back-end ratio (DTI): ({whole(housing)} + {whole(car)} + {whole(other)}) = {whole(housing + car + other)} ÷ {usd(monthly)} = **{pct(back, 1)}**. "
        f"Measured against the traditional 28/36 guideline, the front end is {'within' if front <= 0.28 else 'above'} 28% and the back end is {'within' if back <= 0.36 else 'above'} 36%."
    )


def _ltv(i: int, price: float, down: float) -> str:
    ratio = (price - down) / price
    return (
        f"Loan = {whole(price)} − {whole(down)} = {whole(price - down)}. LTV = {whole(price - down)} ÷ {whole(price)} = **{pct(ratio, 1)}**. "
        f"On a conventional loan private mortgage insurance is normally asked for above 80% LTV, so here it is {'required' if ratio > 0.8 else 'not required'}; "
        f"20% down would be {whole(0.2 * price)}, {f'{whole(0.2 * price - down)} more than planned' if ratio > 0.8 else f'{whole(down - 0.2 * price)} less than planned'}."
    )


def _pmi_end(i: int, price: float, down: float, rate: float, years: float) -> str:
    loan, months = price - down, int(years * 12)
    ask_month = lending.month_at_loan_to_value(loan, rate, months, price, 0.80)
    ends = lending.month_at_loan_to_value(loan, rate, months, price, 0.78)
    return (
        f"Under the Homeowners Protection Act you may ask for cancellation when the scheduled balance reaches 80% of the original value, and the servicer must end it at 78% (payments current). "
        f"80% of {whole(price)} is {whole(0.8 * price)}; 78% is {whole(0.78 * price)}. The {whole(loan)} loan at {pct(rate)} over {num(years)} years amortizes to {whole(0.8 * price)} in **month {ask_month}** "
        f"({num(ask_month / 12, 1)} years) and to {whole(0.78 * price)} in **month {ends}** ({num(ends / 12, 1)} years)."
    )


def _refinance(i: int, balance: float, old: float, new: float, years: float, costs: float) -> str:
    n = int(years * 12)
    before, after = lending.monthly_payment(balance, old, n), lending.monthly_payment(balance, new, n)
    months = lending.refinance_break_even_months(before, after, costs)
    return (
        f"Keep the remaining term the same so the comparison is fair: {num(years)} years on {whole(balance)}. Payment at {pct(old)}: {usd(before)}; at {pct(new)}: {usd(after)}; "
        f"saving {usd(before - after)} a month. Break-even = {whole(costs)} ÷ {usd(before - after)} = {num(months, 1)}, i.e. **about {num(round(months))} months** ({num(months / 12, 1)} years). "
        f"If you stay the whole term the payments saved are {whole((before - after) * n)}, less costs {whole((before - after) * n - costs)}."
    )


def _apr(i: int, principal: float, fees: float, rate: float, months: float) -> str:
    paid, apr = lending.monthly_payment(principal, rate, int(months)), lending.annual_percentage_rate(principal, fees, rate, int(months))
    return (
        f"You sign for {whole(principal)} but receive {whole(principal - fees)}. Payment at the note rate {pct(rate)}: {usd(paid)} a month for {num(months)} months. "
        f"The APR is the rate at which those payments are worth what you received: {whole(principal - fees)} = {usd(paid)} × (1 − (1+r)^−{num(months)})/r, solved by trial or a spreadsheet's RATE. "
        f"r = {apr / 12 * 100:.4f}% a month, so **APR = {pct(apr)}**, {num((apr - rate) * 100, 2)} percentage points above the note rate."
    )


def _orders(i: int, first: float, first_rate: float, second: float, second_rate: float, third: float, third_rate: float, budget: float) -> str:
    debts = [
        lending.Debt("A", first, first_rate, max(25, 0.02 * first)),
        lending.Debt("B", second, second_rate, max(25, 0.02 * second)),
        lending.Debt("C", third, third_rate, max(25, 0.02 * third)),
    ]
    avalanche, snowball = lending.pay_off(debts, budget, "avalanche"), lending.pay_off(debts, budget, "snowball")
    saved = snowball.interest - avalanche.interest
    return (
        f"Assume minimums of 2% of the starting balance (at least $25) and everything else to the target debt. A = {whole(first)} at {pct(first_rate)}, B = {whole(second)} at {pct(second_rate)}, "
        f"C = {whole(third)} at {pct(third_rate)}. Avalanche (dearest first: {', '.join(avalanche.cleared)}): {avalanche.months} months, interest **{whole(avalanche.interest)}**. "
        f"Snowball (smallest first: {', '.join(snowball.cleared)}): {snowball.months} months, interest **{whole(snowball.interest)}**. {f'Avalanche saves **{whole(saved)}** of interest.' if saved > 0.5 else 'The two orders are the same here, so **nothing is to choose between them**.'}"
    )


def _utilization(i: int, first: float, first_limit: float, second: float, second_limit: float, third: float, third_limit: float) -> str:
    used, limit = first + second + third, first_limit + second_limit + third_limit
    ratio, target = used / limit, 0.10
    worst = max((first / first_limit, "first"), (second / second_limit, "second"), (third / third_limit, "third"))
    return (
        f"Overall utilization = balances ÷ limits = ({whole(first)} + {whole(second)} + {whole(third)}) ÷ ({whole(first_limit)} + {whole(second_limit)} + {whole(third_limit)}) "
        f"= {whole(used)} ÷ {whole(limit)} = **{pct(ratio, 1)}**. Card by card: {pct(first / first_limit, 1)}, {pct(second / second_limit, 1)}, {pct(third / third_limit, 1)}; the {worst[1]} is the heaviest. "
        f"To report 10% overall, balances must come to {whole(target * limit)}, so **pay {whole(max(0, used - target * limit))}** before the statements close."
    )


def _points(i: int, loan: float, rate: float, lower: float, points: float, years: float) -> str:
    n = int(years * 12)
    before, after, cost = lending.monthly_payment(loan, rate, n), lending.monthly_payment(loan, lower, n), loan * points / 100
    return (
        f"One point is 1% of the loan: {num(points)} × 1% × {whole(loan)} = {whole(cost)}. Payment at {pct(rate, 3)}: {usd(before)}; at {pct(lower, 3)}: {usd(after)}; difference {usd(before - after)} a month. "
        f"Simple break-even = {whole(cost)} ÷ {usd(before - after)} = **{num(cost / (before - after), 1)} months**, about {num(cost / (before - after) / 12, 1)} years."
    )


def _lease(i: int, cost: float, residual: float, factor: float, months: float) -> str:
    depreciation, rent = (cost - residual) / months, (cost + residual) * factor
    return (
        f"A lease payment is depreciation plus a rent charge. Depreciation: ({whole(cost)} − {whole(residual)}) ÷ {num(months)} = {usd(depreciation)}. "
        f"Rent charge: ({whole(cost)} + {whole(residual)}) × {factor:.5f} = {usd(rent)}. Base payment = **{usd(depreciation + rent)} a month** before sales tax. "
        f"The money factor times 2,400 approximates a yearly rate in percent: {factor:.5f} × 2,400 = {num(factor * 2400, 2)}."
    )


_ANNUITY = "Level-payment loan formula; Regulation Z, 12 CFR 1026, Appendix J"
# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("loan-payment", "credit", _ANNUITY, 2025, "principal:$100 rate:%0.05 months:n", _payment, (
        ask("Dana is financing a used pickup: {principal} over {months} months at {rate}. What will each payment be?", "Ask the dealer for the out-the-door price too, because fees rolled into the loan raise this figure.", 18_400, 0.069, 60),
        ask("We're borrowing {principal} on a fixed-rate mortgage, {rate}, {months} months. Give me principal and interest only.", "Property tax, homeowner's insurance and any PMI come on top.", 342_000, 0.0665, 360),
        ask("A credit union quotes {rate} on a {principal} personal loan repaid in {months} monthly installments. How much leaves my account every month, and what does the loan cost in interest?", "Compare offers by APR, which also counts an origination fee.", 9_500, 0.1125, 36),
        ask("My nephew wants a motorcycle and would sign a {months}-month note for {principal} with an interest rate of {rate}. Work out his installment.", "A shorter note raises the installment but cuts the interest.", 11_200, 0.0935, 48),
        ask("Suppose a fifteen-year home loan ({months} months) for {principal} carries {rate}. Compute the monthly amount and the lifetime interest.", "Against thirty years the payment is higher and the interest far lower.", 265_000, 0.0585, 180),
        ask("Calculate the level payment that retires a {principal} boat loan at {rate} annual interest after {months} months.", "Marine lenders often allow long terms; depreciation may outrun the balance.", 47_000, 0.0825, 144),
        ask("If graduate PLUS debt of {principal} is put on the standard ten-year plan ({months} payments) at {rate}, what's the bill each month?", "Federal loans may be prepaid at any time without a penalty.", 64_000, 0.0894, 120),
    )),
    Kind("affordable-loan", "credit", _ANNUITY, 2025, "payment:$25 rate:%0.05 years:n", _affordable, (
        ask("I can put {payment} a month toward principal and interest. At {rate} for {years} years, how large a mortgage does that carry?", "Lenders will also test your debt-to-income ratio.", 2_100, 0.0675, 30),
        ask("Our budget leaves room for a {payment} car payment. With {rate} financing over {years} years, what's the most we could borrow?", "Add the down payment and trade-in to get the price you can shop for.", 425, 0.074, 5),
        ask("A bakery can spare {payment} monthly for an equipment loan; the bank offers {years} years at {rate}. Find the principal that fits.", "Leave slack: sales in a slow month must still cover it.", 1_350, 0.0925, 7),
        ask("Reverse the mortgage formula for me: {years} years, {rate}, and no more than {payment} per month.", "Taxes and insurance must fit in addition.", 1_475, 0.0615, 15),
        ask("How much home-equity loan would {payment} every month repay in {years} years when the rate is {rate}?", "The house secures the loan, so borrow less than the most you could.", 600, 0.0845, 10),
        ask("Given a ceiling of {payment} each month, {years}-year term and {rate} interest, what amount can a first-time buyer finance?", "A rate half a point lower would raise it noticeably.", 1_850, 0.0695, 30),
    )),
    Kind("loan-balance", "credit", _ANNUITY, 2025, "principal:$1000 rate:%0.05 years:n after:n", _balance, (
        ask("Seven years into things, what do I still owe? I took {principal} at {rate} for {years} years and am {after} years in.", "Ask the servicer for a payoff quote, which adds interest to the day.", 310_000, 0.0525, 30, 7),
        ask("Our {years}-year mortgage started at {principal} with a {rate} rate. Estimate the remaining principal once {after} years of payments are behind us.", "Sale price less this balance and selling costs is your cash.", 228_000, 0.0395, 30, 10),
        ask("After {after} years of a {years}-year auto loan for {principal} at {rate}, how much is outstanding?", "Compare it with the car's value before trading in: the difference may be negative equity.", 36_000, 0.0799, 6, 2),
        ask("Compute the payoff figure at the end of year {after} for a commercial note: {principal}, {years}-year amortization, {rate}.", "Many commercial notes balloon at this point; plan the refinancing early.", 850_000, 0.0715, 25, 10),
        ask("Borrower owes a {principal} loan amortized across {years} years at {rate}. What balance is left when {after} years have passed, and how much went to interest?", "Early payments are mostly interest because the balance is still large.", 180_000, 0.0645, 15, 5),
        ask("I'd like to know the principal left on a {principal} student loan refinanced at {rate} over {years} years, {after} years later.", "Extra payments now would cut every later month's interest.", 92_000, 0.058, 10, 4),
    )),
    Kind("first-payment-split", "credit", _ANNUITY, 2025, "principal:$1000 rate:%0.05 years:n", _first_month, (
        ask("Of my very first payment on a {principal}, {years}-year, {rate} mortgage, how much is interest and how much reduces what I owe?", "Each later payment shifts a little more to principal.", 405_000, 0.0685, 30),
        ask("Why does the balance barely move at first? Show month one of a {principal} home loan at {rate} over {years} years.", "Interest is charged on the balance, and the balance is largest now.", 275_000, 0.072, 30),
        ask("Split the opening installment of a {years}-year, {principal} loan at {rate} into its interest and principal parts.", "A shorter term moves the split toward principal at once.", 160_000, 0.0555, 15),
        ask("An investor borrows {principal} at {rate} for {years} years against a duplex. How is payment number one divided?", "Only the interest is deductible against rent; the principal builds equity.", 330_000, 0.0775, 30),
        ask("Break down month 1: van loan, {principal}, {rate}, {years} years.", "With simple-interest auto loans, paying a few days early also lowers the interest part.", 41_000, 0.0649, 6),
    )),
    Kind("extra-payment", "credit", _ANNUITY, 2025, "principal:$1000 rate:%0.05 years:n extra:$25", _extra, (
        ask("If I add {extra} to every payment on a new {principal} mortgage at {rate} for {years} years, when am I done and what do I save?", "Mark the extra as principal, or the servicer may treat it as an early installment.", 290_000, 0.0635, 30, 250),
        ask("We round up our house payment by {extra}. Loan: {years} years, {principal}, {rate}. Is that worth anything?", "It works like a risk-free return equal to the loan rate.", 355_000, 0.0675, 30, 100),
        ask("Effect of an additional {extra} monthly on a {years}-year auto note of {principal} at {rate}?", "Check the contract for precomputed interest, which would remove the benefit.", 32_000, 0.0775, 6, 125),
        ask("Nora refinanced {principal} of student debt at {rate}, {years}-year term, and can send {extra} more each month. How much interest does she avoid?", "An emergency fund and any employer match usually come first.", 68_000, 0.0599, 15, 200),
        ask("Suppose a {principal} fifteen-year mortgage ({years} years, {rate}) gets {extra} of additional principal every month. Quantify the time and interest saved.", "The later years shrink most, since the saved interest compounds.", 240_000, 0.0565, 15, 300),
        ask("My parents overpay their {rate} home loan ({principal}, {years} years) by {extra} a month from day one. What does it do for them?", "Compare with an after-tax yield on safe bonds before doing more.", 198_000, 0.0495, 30, 400),
    )),
    Kind("card-payoff", "credit", "Number of periods of an annuity; Regulation Z, 12 CFR 1026.7(b)(12)", 2025, "balance:$50 rate:%0.25 paid:$5", _card_payoff, (
        ask("I stopped using a card with {balance} on it at {rate} APR. Paying {paid} a month, how long until it's gone?", "Doubling the payment cuts the time by more than half.", 6_200, 0.2475, 220),
        ask("How many months will {paid} per month need to clear a {balance} store-card balance charged at {rate}?", "A 0% transfer offer may help if its fee is under this interest.", 2_150, 0.2999, 120),
        ask("Total interest, please: {balance} owed, {rate} card rate, {paid} paid monthly, nothing new charged.", "Statements must show a similar estimate for 36 months.", 9_800, 0.2125, 400),
        ask("Luis consolidated cards into one {balance} line at {rate}. If he sticks to {paid} a month, when is he debt-free?", "Automating the payment keeps the plan from slipping.", 14_500, 0.1575, 450),
        ask("At {rate}, is {paid} a month enough against {balance}? If so, give the payoff time and interest.", "A payment near the monthly interest would hardly dent it.", 4_400, 0.2725, 150),
        ask("A medical bill of {balance} went on plastic at {rate}; the family can manage {paid} monthly. What does it cost them in the end?", "Hospitals often offer interest-free plans: ask before using a card.", 7_600, 0.2299, 275),
    )),
    Kind("debt-to-income", "credit", "CFPB, 'What is a debt-to-income ratio?'; traditional 28/36 underwriting guideline", 2025, "housing:$25 car:$10 other:$10 income:$1000", _dti, (
        ask("The mortgage would be {housing} with taxes and insurance, I pay {car} for a car and {other} on student loans, and earn {income} a year. What's my DTI?", "Lenders use gross, not take-home, income.", 2_350, 410, 285, 98_000),
        ask("Compute front-end and back-end ratios: gross pay {income} annually, proposed housing {housing}, auto {car}, card minimums {other}.", "Paying off a small installment debt can be the quickest repair.", 1_900, 525, 160, 76_000),
        ask("Would a couple earning {income} together pass 28/36 with {housing} for the house, {car} for two vehicles and {other} of other debt each month?", "Some programs accept higher back-end ratios with strong credit or reserves.", 3_400, 880, 240, 152_000),
        ask("As a renter applying for a loan I list {housing} rent, a {car} truck payment and {other} in minimums; salary {income}. How does the lender see me?", "For a purchase, the new housing payment replaces the rent.", 1_650, 375, 420, 61_000),
        ask("A nurse makes {income}. Debts each month: {housing} PITI, {car} leased car, {other} loans. Find both ratios.", "Overtime counts only when it has a documented history.", 2_050, 330, 190, 89_000),
        ask("Debt check before I apply: annual gross {income}; housing {housing}; vehicle {car}; everything else {other}.", "Groceries, utilities and phone bills are not in the ratio.", 2_800, 615, 505, 118_000),
    )),
    Kind("loan-to-value", "credit", "CFPB, 'What is a loan-to-value ratio?'; Homeowners Protection Act, 12 USC 4901", 2025, "price:$5000 down:$1000", _ltv, (
        ask("We're putting {down} down on a {price} house. What LTV is that and does it mean PMI?", "PMI protects the lender, not you.", 420_000, 50_000),
        ask("Loan-to-value on a {price} condo with {down} of our own money?", "A lower appraisal than the price would raise the ratio, since lenders use the smaller.", 315_000, 75_000),
        ask("How far from 20% is a buyer with {down} saved for a place costing {price}?", "A gift from family may count with a signed gift letter.", 365_000, 40_000),
        ask("A duplex is listed at {price}; the purchaser has {down} in cash. Give the LTV ratio.", "Investment property is usually held to a lower maximum.", 540_000, 135_000),
        ask("Determine the ratio of loan to value if {down} goes toward a home priced {price}.", "Each pricing tier, typically 5 points of LTV, can change the rate offered.", 289_000, 29_000),
    )),
    Kind("pmi-end", "credit", "Homeowners Protection Act of 1998, 12 USC 4901-4902", 2025, "price:$5000 down:$1000 rate:%0.125 years:n", _pmi_end, (
        ask("Bought at {price} with {down} down, {rate}, {years} years. When may I drop mortgage insurance on schedule?", "Extra principal or, by the servicer's rules, a new appraisal can bring it forward.", 400_000, 40_000, 0.065, 30),
        ask("With a {years}-year loan at {rate} on a {price} home ({down} down), which month does PMI end by itself?", "FHA mortgage insurance follows other rules.", 350_000, 17_500, 0.07, 30),
        ask("Find the 80% and 78% milestones: purchase price {price}, down payment {down}, {rate} fixed over {years} years.", "You must be current on payments at the date.", 280_000, 42_000, 0.05875, 15),
        ask("Our lender added PMI because we put only {down} on a {price} property ({rate}, {years} years). How long are we stuck with it?", "Put the cancellation request in writing.", 515_000, 77_000, 0.0625, 30),
        ask("At what point does the balance fall far enough to cancel PMI if the price was {price}, equity at closing {down}, rate {rate}, term {years} years?", "Original value means the lesser of price and appraisal at closing.", 455_000, 68_000, 0.055, 20),
    )),
    Kind("refinance-break-even", "credit", "CFPB mortgage refinance guidance: cost divided by monthly saving", 2025, "balance:$1000 old:% new:% years:n costs:$100", _refinance, (
        ask("My balance is {balance} with {years} years left at {old}. A refi to {new} costs {costs}. When does it pay for itself?", "If you may move before then, don't.", 260_000, 0.0725, 0.0625, 27, 5_400),
        ask("Is refinancing {balance} from {old} down to {new} worth {costs} of closing costs if the term stays {years} years?", "Rolling the costs into the loan hides them but does not remove them.", 415_000, 0.06875, 0.06125, 29, 8_200),
        ask("Payback period, please: {years}-year remaining mortgage of {balance}, current rate {old}, offer {new}, fees {costs}.", "Restarting a 30-year clock would lower the payment but add interest.", 188_000, 0.065, 0.055, 22, 3_900),
        ask("A broker promises savings by swapping my {old} loan for {new}; I owe {balance} over {years} more years and fees run {costs}. Check the claim.", "Compare Loan Estimates from at least two lenders on the same day.", 335_000, 0.07, 0.066, 28, 6_700),
        ask("How long must I keep the house to recover {costs} spent cutting the rate from {old} to {new} on {balance} with {years} years to go?", "A no-cost refinance shortens the wait for a somewhat higher rate.", 152_000, 0.0775, 0.06375, 18, 4_300),
    )),
    Kind("apr-with-fee", "credit", "Regulation Z, 12 CFR 1026.22 and Appendix J", 2025, "principal:$500 fees:$10 rate:%0.25 months:n", _apr, (
        ask("An online lender advertises {rate} on {principal} for {months} months but keeps a {fees} origination fee. What's the true APR?", "Always compare APRs, not note rates.", 12_000, 600, 0.1199, 36),
        ask("I'd get {principal} less a {fees} fee and repay at {rate} across {months} months. Express the cost as an APR.", "The shorter the loan, the more a fee adds to the APR.", 5_000, 250, 0.0975, 24),
        ask("Convert to APR: note {principal}, prepaid finance charge {fees}, {rate}, {months} payments.", "This is the figure Regulation Z makes the lender disclose.", 25_000, 875, 0.085, 60),
        ask("Two offers: one has no fee at a higher rate, the other {rate} with {fees} taken from {principal} over {months} months. What APR must the no-fee loan beat?", "Any no-fee rate under this APR is the cheaper loan when both run to term.", 18_000, 990, 0.1049, 48),
        ask("How much does a {fees} charge raise the effective rate on a {months}-month, {principal} loan quoted at {rate}?", "Paying off early makes the fee weigh even more.", 8_000, 320, 0.1325, 36),
    )),
    Kind("avalanche-snowball", "credit", "CFPB, 'Reducing debt': highest-rate and snowball methods", 2025, "first:$100 first_rate:%0.5 second:$100 second_rate:%0.5 third:$100 third_rate:%0.5 budget:$25", _orders, (
        ask("Three debts: A {first} at {first_rate}, B {second} at {second_rate}, C {third} at {third_rate}, and {budget} a month for all. Avalanche or snowball?", "If early wins keep you going, the difference may be a fair price.", 5_200, 0.245, 1_300, 0.12, 8_400, 0.185, 600),
        ask("How much would paying the dearest card first save me over paying the smallest? Balances {first} ({first_rate}), {second} ({second_rate}), {third} ({third_rate}); {budget} monthly.", "Minimums are always paid on everything.", 7_500, 0.2799, 2_400, 0.19, 3_600, 0.0899, 700),
        ask("Compare both payoff orders for {budget} each month against A: {first} at {first_rate}; B: {second} at {second_rate}; C: {third} at {third_rate}.", "The gap grows with the spread between the rates.", 11_000, 0.0699, 3_100, 0.2675, 900, 0.149, 650),
        ask("My sister has a {first} personal loan ({first_rate}), a {second} card ({second_rate}) and {third} at a furniture store ({third_rate}); she can find {budget} a month. Which order costs least?", "Calling the card issuer for a lower rate costs nothing.", 6_300, 0.115, 4_800, 0.2325, 1_700, 0.2899, 550),
        ask("With {budget} per month, model highest-rate-first versus smallest-first on debts of {first} at {first_rate}, {second} at {second_rate} and {third} at {third_rate}.", "Once one debt is gone, its payment rolls to the next.", 3_900, 0.225, 2_800, 0.1725, 9_900, 0.2625, 800),
    )),
    Kind("credit-utilization", "credit", "myFICO, 'Amounts owed'; CFPB credit-score guide", 2025, "first:$50 first_limit:$500 second:$50 second_limit:$500 third:$50 third_limit:$500", _utilization, (
        ask("Cards: {first} of {first_limit}, {second} of {second_limit}, {third} of {third_limit}. What's my utilization and how much should I pay to hit 10%?", "Issuers usually report the statement balance.", 1_850, 5_000, 640, 8_000, 2_900, 6_500),
        ask("A loan officer says my usage is too high. I carry {first}/{first_limit}, {second}/{second_limit} and {third}/{third_limit}. Check it.", "Closing an unused card would shrink the limits and raise the ratio.", 3_300, 4_000, 1_150, 10_000, 450, 3_000),
        ask("Work out overall and per-card utilization when balances are {first}, {second}, {third} against limits {first_limit}, {second_limit}, {third_limit}.", "Scores look at single cards as well as the total.", 900, 2_500, 2_200, 12_000, 1_400, 7_500),
        ask("Before the mortgage pull I owe {first} on a {first_limit} card, {second} on a {second_limit} card, {third} on a {third_limit} card. How much must go?", "The effect fades as soon as lower balances are reported.", 4_750, 9_000, 3_050, 5_000, 1_600, 11_000),
    )),
    Kind("discount-points", "credit", "CFPB, 'How should I use lender credits and points?'", 2025, "loan:$5000 rate:% lower:% points:n years:n", _points, (
        ask("Buying {points} points takes a {loan}, {years}-year mortgage from {rate} to {lower}. How long to break even?", "Points paid on a main home's purchase are generally deductible if you itemize.", 360_000, 0.06875, 0.06375, 2, 30),
        ask("Is {points} discount point for {lower} instead of {rate} sensible on {loan} over {years} years if I'd move in six?", "Compare the break-even with how long you expect to keep the loan, not the house.", 300_000, 0.07, 0.0675, 1, 30),
        ask("Months needed to recover {points} discount points on a {loan} loan, {years} years, rate cut {rate} to {lower}?", "Money spent on points could also raise the down payment and end PMI sooner.", 225_000, 0.06125, 0.0575, 1.5, 15),
        ask("The lender's sheet shows {rate} with no points or {lower} with {points}. We'd borrow {loan} for {years} years. Where do the two lines cross?", "If rates fall and you refinance early, the points are lost.", 510_000, 0.0665, 0.0625, 1.75, 30),
    )),
    Kind("auto-lease", "credit", "Consumer Leasing Act, Regulation M, 12 CFR 1013.4: depreciation and rent charge", 2025, "cost:$500 residual:$500 factor:n months:n", _lease, (
        ask("Capitalized cost {cost}, residual {residual}, money factor {factor}, {months} months: what's the lease payment before tax?", "Mileage and wear charges may follow at the end.", 38_500, 22_000, 0.0022, 36),
        ask("A dealer quotes a {months}-month lease on a {cost} SUV with {residual} residual value and a money factor of {factor}. Verify the base payment.", "The capitalized cost is negotiable, just like a price.", 46_000, 27_500, 0.0019, 36),
        ask("Work the two parts of a lease: {cost} net cap cost, {residual} at the end, {months} payments, factor {factor}.", "Gap cover is often included; check before buying it again.", 29_000, 14_500, 0.0028, 39),
        ask("What monthly charge results when a car worth {cost} is leased {months} months to a residual of {residual} at a {factor} money factor?", "A higher residual lowers the payment, but also makes buying the car later dearer.", 54_000, 33_500, 0.0016, 24),
    )),
)
# fmt: on
