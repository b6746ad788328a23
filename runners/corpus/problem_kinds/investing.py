"""Portfolios, funds and the arithmetic of returns."""

from __future__ import annotations

import math

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, usd, whole
from runners.finance import money, portfolio


def _two_assets(i: int, weight: float, first: float, second: float, rho: float) -> str:
    a, b = weight * first, (1 - weight) * second
    cross = 2 * a * b * rho
    volatility = portfolio.two_asset_volatility(weight, first, second, rho)
    return (
        f"σp² = w₁²σ₁² + w₂²σ₂² + 2w₁w₂ρσ₁σ₂. With w₁ = {pct(weight)}, w₂ = {pct(1 - weight)}: {a * a:.6f} + {b * b:.6f} + ({cross:.6f}) = {volatility**2:.6f}. "
        f"**σp = √{volatility**2:.6f} = {pct(volatility)}**, against a weighted average of {pct(a + b)}: diversification removes {num((a + b - volatility) * 100, 2)} percentage points."
    )


def _minimum_variance(i: int, first: float, second: float, rho: float) -> str:
    weight = portfolio.minimum_variance_weight(first, second, rho)
    cov = rho * first * second
    return (
        f"w₁ = (σ₂² − ρσ₁σ₂) / (σ₁² + σ₂² − 2ρσ₁σ₂). Covariance = {rho:g} × {pct(first)} × {pct(second)} = {cov:.6f}. Numerator: {second**2:.6f} − {cov:.6f} = {second**2 - cov:.6f}; "
        f"denominator: {first**2:.6f} + {second**2:.6f} − {2 * cov:.6f} = {first**2 + second**2 - 2 * cov:.6f}. **{pct(weight, 1)} in the first asset and {pct(1 - weight, 1)} in the second**, "
        f"with a volatility of {pct(portfolio.two_asset_volatility(weight, first, second, rho))}."
    )


def _capm(i: int, rf: float, beta: float, market: float, actual: float) -> str:
    required, alpha = portfolio.capm(rf, beta, market), portfolio.alpha(actual, rf, beta, market)
    return (
        f"CAPM: required return = rf + β(rm − rf) = {pct(rf)} + {num(beta)} × ({pct(market)} − {pct(rf)}) = **{pct(required)}**. "
        f"Jensen's alpha = actual − required = {pct(actual)} − {pct(required)} = **{pct(alpha)}**: {'more' if alpha > 0 else 'less'} than its market risk called for, before asking whether the difference is luck."
    )


def _sharpe(i: int, first: float, first_vol: float, second: float, second_vol: float, rf: float) -> str:
    a, b = portfolio.sharpe(first, rf, first_vol), portfolio.sharpe(second, rf, second_vol)
    return (
        f"Sharpe = (return − risk-free) ÷ standard deviation. First: ({pct(first)} − {pct(rf)}) ÷ {pct(first_vol)} = **{a:.3f}**. Second: ({pct(second)} − {pct(rf)}) ÷ {pct(second_vol)} = **{b:.3f}**. "
        f"The {'first' if a > b else 'second'} earned more per unit of total risk, although the {'first' if first > second else 'second'} had the higher return."
    )


def _returns(i: int, first: float, second: float, third: float, amount: float) -> str:
    returns = [first, second, third]
    mean, geometric = sum(returns) / 3, portfolio.geometric_mean(returns)
    end = amount * math.prod(1 + r for r in returns)
    return (
        f"Chain the growth factors: {1 + first:.6g} × {1 + second:.6g} × {1 + third:.6g} = {end / amount:.5f}, so {whole(amount)} became **{usd(end)}**. Arithmetic mean: {pct(mean)}. Geometric (compound) mean: "
        f"{end / amount:.5f}^(1/3) − 1 = **{pct(geometric)} a year**. The compound figure is what the money really did; the gap to the arithmetic mean grows with volatility."
    )


def _fees(i: int, amount: float, gross: float, low: float, high: float, years: int) -> str:
    cheap, dear = portfolio.value_after_fee(amount, gross, low, years), portfolio.value_after_fee(amount, gross, high, years)
    return (
        f"Take the fee from each year's value: V = {whole(amount)} × [(1 + {pct(gross)})(1 − fee)]^{years}. At {pct(low)}: {whole(cheap)}. At {pct(high)}: {whole(dear)}. "
        f"**The dearer fund costs {whole(cheap - dear)}**, which is {pct(1 - dear / cheap, 1)} of the cheaper fund's ending value, for a yearly difference of {pct(high - low)}."
    )


def _averaging(i: int, amount: float, p1: float, p2: float, p3: float, p4: float) -> str:
    prices = [p1, p2, p3, p4]
    shares = [amount / p for p in prices]
    average = portfolio.average_cost([amount] * 4, prices)
    return (
        f"Shares bought: {', '.join(f'{whole(amount)} ÷ {usd(p)} = {num(s, 3)}' for p, s in zip(prices, shares, strict=True))}; in all {num(sum(shares), 3)}. Average cost = {whole(4 * amount)} ÷ {num(sum(shares), 3)} = **{usd(average)} a share**. "
        f"The plain average of the prices is {usd(sum(prices) / 4)}: equal dollars buy more shares when they are cheap (a harmonic mean). At the last price the position is worth {usd(sum(shares) * p4)}."
    )


def _rebalance(i: int, stocks: float, bonds: float, target: float) -> str:
    total = stocks + bonds
    trade = target * total - stocks
    return (
        f"Total: {whole(stocks)} + {whole(bonds)} = {whole(total)}. Stocks are now {pct(stocks / total, 1)}; the target of {pct(target)} is {whole(target * total)}. "
        f"**{'Buy' if trade > 0 else 'Sell'} {whole(abs(trade))} of stocks and {'sell' if trade > 0 else 'buy'} as much in bonds**, ending with {whole(target * total)} and {whole((1 - target) * total)}. The drift was {num(abs(stocks / total - target) * 100, 1)} percentage points."
    )


def _gordon(i: int, dividend: float, growth: float, required: float, price: float) -> str:
    coming = dividend * (1 + growth)
    value = portfolio.gordon_value(coming, required, growth)
    return (
        f"Constant-growth model: value = D₁ / (r − g). Next dividend: {usd(dividend)} × {1 + growth:.6g} = {usd(coming)}. Value = {coming:.4f} / ({pct(required)} − {pct(growth)}) = **{usd(value)}**. "
        f"Against a price of {usd(price)} the share looks {'cheap' if value > price else 'dear'} by {pct(abs(value / price - 1), 1)} on these assumptions; the price itself implies a return of {pct(coming / price + growth)} (dividend yield plus growth)."
    )


def _taxable_equivalent(i: int, muni: float, taxable: float, rate: float) -> str:
    equivalent = muni / (1 - rate)
    return (
        f"Taxable-equivalent yield = tax-free yield ÷ (1 − tax rate) = {pct(muni)} ÷ (1 − {pct(rate)}) = **{pct(equivalent)}**. The taxable bond offers {pct(taxable)}, or {pct(taxable * (1 - rate))} after tax. "
        f"On yield alone the {'municipal' if equivalent > taxable else 'taxable'} bond wins by {num(abs(equivalent - taxable) * 100, 2)} points before tax; the break-even tax rate is 1 − {pct(muni)}/{pct(taxable)} = {pct(1 - muni / taxable, 1)}."
    )


def _drawdown(i: int, peak: float, low: float, years: float) -> str:
    loss = 1 - low / peak
    gain = portfolio.recovery_gain(loss)
    rate = money.growth_rate(low, peak, years)
    return (
        f"Drawdown = 1 − {whole(low)}/{whole(peak)} = **{pct(loss, 1)}**. Gain needed to be back: loss ÷ (1 − loss) = {whole(peak)}/{whole(low)} − 1 = **{pct(gain, 1)}**, more than the loss since it works on a smaller base. "
        f"To recover within {num(years)} years takes {pct(rate)} a year: ({whole(peak)}/{whole(low)})^(1/{num(years)}) − 1."
    )


def _real(i: int, nominal: float, inflation: float, tax_rate: float) -> str:
    after_tax = nominal * (1 - tax_rate)
    before, real = money.real_rate(nominal, inflation), money.real_rate(after_tax, inflation)
    return (
        f"Fisher: real = (1 + nominal)/(1 + inflation) − 1. Before tax: {1 + nominal:.4f}/{1 + inflation:.4f} − 1 = {pct(before)}. Tax of {pct(tax_rate)} is charged on the nominal return, leaving {pct(after_tax)}, "
        f"so the **real after-tax return is {pct(real)}**. The shortcut of subtracting inflation gives {pct(after_tax - inflation)}, slightly off because it ignores the cross term."
    )


def _time_weighted(i: int, start: float, middle: float, flow: float, end: float) -> str:
    rate = portfolio.time_weighted_return([(start, middle), (middle + flow, end)])
    return (
        f"Break the period at the flow. First part: {whole(middle)}/{whole(start)} − 1 = {pct(middle / start - 1)}. Then {whole(flow)} comes in, so the second part starts at {whole(middle + flow)}: {whole(end)}/{whole(middle + flow)} − 1 = {pct(end / (middle + flow) - 1)}. "
        f"Link them: {middle / start:.5f} × {end / (middle + flow):.5f} − 1 = **{pct(rate)} time-weighted**. The dollar gain, {whole(end - start - flow)}, depends on when money came; the time-weighted return does not, so it is used to judge managers."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("two-asset-risk", "investing", "Markowitz (1952), 'Portfolio Selection'", 2025, "weight:% first:%0.5 second:%0.5 rho:n", _two_assets, (
        ask("I hold {weight} in a stock fund with {first} volatility and the rest in bonds at {second}; correlation {rho}. How risky is the whole?", "If the correlation rises in a crisis, so does the portfolio's risk.", 0.6, 0.16, 0.055, 0.1),
        ask("Mix of {weight} US equity ({first} standard deviation) with foreign equity ({second}) correlated at {rho}: total risk?", "Highly correlated assets diversify little.", 0.7, 0.155, 0.18, 0.85),
        ask("What does adding gold do? {weight} stays in shares at {first}, the remainder goes to gold at {second}, and the correlation is {rho}.", "A risky asset can lower risk when it moves differently.", 0.9, 0.17, 0.15, -0.05),
        ask("Compute portfolio standard deviation: weight {weight} in asset one (σ = {first}), asset two σ = {second}, ρ = {rho}.", "With ρ = 1 the weighted average would be reached exactly.", 0.35, 0.22, 0.09, 0.4),
    )),
    Kind("minimum-variance", "investing", "Bodie, Kane and Marcus, 'Investments', ch. 7", 2025, "first:%0.5 second:%0.5 rho:n", _minimum_variance, (
        ask("Which split of two funds, volatilities {first} and {second}, correlation {rho}, has the least risk?", "Least risk is not best return for risk.", 0.18, 0.08, 0.15),
        ask("Find the minimum-variance weights when σ₁ = {first}, σ₂ = {second} and ρ = {rho}.", "Estimated correlations are uncertain, so treat the weights as rough.", 0.24, 0.20, -0.3),
        ask("A retiree wants the calmest blend of a dividend fund ({first} risk) and an intermediate bond fund ({second}), correlated {rho}. Percentages?", "Inflation risk is not in this calculation.", 0.13, 0.06, 0.25),
    )),
    Kind("capm-alpha", "investing", "Sharpe (1964); Jensen (1968)", 2025, "rf:%0.25 beta:n market:%0.25 actual:%0.25", _capm, (
        ask("Risk-free {rf}, market return {market}, beta {beta}: what should the stock have returned, and was {actual} good?", "Beta is estimated from history and drifts.", 0.042, 1.25, 0.10, 0.113),
        ask("My fund has a beta of {beta} and made {actual} when T-bills paid {rf} and the index {market}. Alpha?", "Subtract fees before praising a manager.", 0.045, 0.85, 0.12, 0.118),
        ask("Use CAPM for a utility share: β = {beta}, rf = {rf}, expected market {market}. It yielded {actual}.", "Low beta means a lower required return, not a safe share.", 0.04, 0.55, 0.09, 0.061),
        ask("An active manager returned {actual} with beta {beta}; bills were {rf}, the market {market}. Is it skill by Jensen's measure?", "A single year proves little.", 0.05, 1.1, 0.235, 0.252),
    )),
    Kind("sharpe-comparison", "investing", "Sharpe (1966, 1994)", 2025, "first:%0.25 first_vol:%0.5 second:%0.25 second_vol:%0.5 rf:%0.25", _sharpe, (
        ask("Fund one: {first} with {first_vol} volatility. Fund two: {second} with {second_vol}. Risk-free {rf}. Which was better for its risk?", "The ratio suits a whole portfolio more than one holding among many.", 0.124, 0.19, 0.086, 0.095, 0.04),
        ask("Compare Sharpe ratios: {first} return at {first_vol} versus {second} at {second_vol}, cash at {rf}.", "Smoothed prices of private assets flatter the ratio.", 0.15, 0.28, 0.105, 0.15, 0.045),
        ask("A hedge fund shows {first} and risk of {first_vol}; an index fund {second} and {second_vol}. With bills at {rf}, who wins per unit of risk?", "Look at drawdowns, too: option selling hides in this ratio.", 0.09, 0.06, 0.13, 0.16, 0.05),
        ask("Given cash of {rf}: strategy A earned {first} (σ {first_vol}), strategy B {second} (σ {second_vol}). Rank them.", "Three years of data leave a wide margin of error.", 0.072, 0.11, 0.098, 0.17, 0.03),
    )),
    Kind("compound-return", "investing", "Geometric mean; GIPS", 2025, "first:%0.5 second:%0.5 third:%0.5 amount:$500", _returns, (
        ask("My fund did {first}, {second} and {third} in three years. What became of {amount}, and what's the yearly rate?", "Advertised average returns should be compound ones.", 0.26, -0.18, 0.11, 10_000),
        ask("{amount} in a tech ETF: {first}, then {second}, then {third}. Why isn't the average return what I earned?", "A loss needs a larger gain to undo it.", 0.45, -0.35, 0.28, 25_000),
        ask("Find arithmetic and geometric means of {first}, {second}, {third}, and the end value of {amount}.", "The geometric mean is never above the arithmetic one.", 0.08, 0.07, 0.095, 40_000),
        ask("Three bad-good years in a row for {amount}: {first}, {second}, {third}. Compound annual growth?", "Steady returns end higher than wild ones with the same average.", -0.22, 0.31, -0.05, 15_000),
    )),
    Kind("fee-drag", "investing", "SEC, 'How Fees and Expenses Affect Your Investment Portfolio'", 2025, "amount:$1000 gross:%0.25 low:% high:% years:n", _fees, (
        ask("What do fees of {high} instead of {low} cost on {amount} over {years} years at {gross} gross?", "Costs are the one part of return known in advance.", 50_000, 0.07, 0.0004, 0.0075, 30),
        ask("An adviser's wrap program charges {high}; I could hold index funds at {low}. {amount}, {years} years, {gross}. Difference?", "Advice can be worth its price; judge it as a service, not by return.", 300_000, 0.065, 0.001, 0.0125, 20),
        ask("Compare expense ratios {low} and {high} for {amount} growing {gross} before costs during {years} years.", "Taxes on turnover can matter as much.", 18_000, 0.08, 0.0003, 0.0095, 35),
        ask("Does {high} versus {low} a year matter over only {years} years on {amount} if the market gives {gross}?", "Loads and exit fees belong in the comparison.", 120_000, 0.06, 0.002, 0.011, 10),
    )),
    Kind("dollar-cost-averaging", "investing", "Harmonic mean; FINRA, dollar-cost averaging", 2025, "amount:$50 p1:$1 p2:$1 p3:$1 p4:$1", _averaging, (
        ask("I put {amount} a month into an ETF at {p1}, {p2}, {p3} and {p4}. What's my average cost per share?", "A lump sum has usually done better, since markets rise more often than fall.", 500, 50, 40, 32, 44),
        ask("Four purchases of {amount} each, prices {p1}, {p2}, {p3}, {p4}: average cost against average price?", "The habit, not the arithmetic, is the main benefit.", 1_000, 80, 92, 100, 88),
        ask("My 401(k) bought {amount} of a fund each quarter at {p1}, {p2}, {p3} and {p4}. Compute what I paid on average.", "Automatic purchases keep emotion out of it.", 1_500, 25, 22, 30, 27),
    )),
    Kind("rebalancing", "investing", "SEC Office of Investor Education, asset allocation", 2025, "stocks:$1000 bonds:$1000 target:%", _rebalance, (
        ask("Stocks have grown to {stocks} beside {bonds} of bonds. My target is {target} stocks. What do I trade?", "Doing it in a tax-deferred account avoids a taxable gain.", 182_000, 78_000, 0.6),
        ask("After a crash I hold {stocks} in equities and {bonds} in bonds; the plan says {target} equities. Rebalance it.", "Buying after a fall is the hardest and most useful part of the rule.", 94_000, 106_000, 0.7),
        ask("Bring a portfolio of {stocks} shares and {bonds} fixed income back to {target} / remainder.", "New contributions can do part of the work without selling.", 415_000, 105_000, 0.75),
        ask("A foundation has {stocks} in stock funds, {bonds} in bonds, policy weight {target} stocks. Required trades?", "A band of five points avoids trading on noise.", 2_300_000, 1_200_000, 0.55),
    )),
    Kind("dividend-growth-value", "investing", "Gordon and Shapiro (1956)", 2025, "dividend:$0.05 growth:%0.25 required:%0.25 price:$1", _gordon, (
        ask("A utility just paid {dividend}; dividends grow {growth} and I require {required}. Is {price} a fair price?", "Small changes in growth move the answer a lot.", 2.4, 0.03, 0.08, 52.0),
        ask("Value a share by Gordon growth: last dividend {dividend}, growth {growth}, discount rate {required}, market price {price}.", "The model suits mature, steady payers only.", 1.6, 0.045, 0.09, 33.0),
        ask("What return does {price} imply for a stock with a {dividend} dividend growing {growth}, and what is it worth at {required}?", "No company outgrows the economy for ever.", 3.1, 0.025, 0.075, 70.0),
    )),
    Kind("municipal-or-taxable", "investing", "Taxable-equivalent yield; MSRB investor education", 2025, "muni:%0.05 taxable:%0.05 rate:%", _taxable_equivalent, (
        ask("Muni at {muni} or corporate at {taxable}, {rate} federal bracket?", "In-state munis may also escape state tax.", 0.034, 0.049, 0.32),
        ask("In the {rate} bracket, what must a CD pay to beat a {muni} municipal fund? I can get {taxable}.", "Munis belong in taxable accounts, not in an IRA.", 0.029, 0.043, 0.24),
        ask("Tax-exempt {muni} against taxable {taxable} of the same quality and term. I pay {rate} on the margin. Choose.", "Private-activity bonds can be subject to the AMT.", 0.0375, 0.0475, 0.12),
        ask("With NIIT my marginal rate is {rate}. Compare a {muni} state bond with a {taxable} Treasury.", "Treasuries are free of state income tax.", 0.033, 0.0445, 0.408),
    )),
    Kind("drawdown-recovery", "investing", "Arithmetic of losses; Bodie, Kane and Marcus, ch. 5", 2025, "peak:$1000 low:$1000 years:n", _drawdown, (
        ask("My account fell from {peak} to {low}. What gain gets me even, and what yearly return does that take over {years} years?", "Contributions during the slump shorten the wait.", 240_000, 156_000, 4),
        ask("Portfolio peak {peak}, trough {low}: drawdown, recovery gain and pace for {years} years?", "Deep losses are why risk is set before the storm.", 1_000_000, 520_000, 6),
        ask("A crypto holding went {peak} to {low}. How much must it rise, and per year if I give it {years}?", "Nothing says that it has to come back.", 30_000, 7_500, 5),
    )),
    Kind("real-after-tax", "investing", "Fisher (1930)", 2025, "nominal:%0.1 inflation:%0.1 tax_rate:%", _real, (
        ask("A CD yields {nominal}, inflation is {inflation}, and I'm taxed at {tax_rate}. What do I really earn?", "Tax on the inflation part is why cash loses ground.", 0.045, 0.031, 0.24),
        ask("Real after-tax return of a {nominal} bond with {inflation} inflation in a {tax_rate} bracket?", "I bonds and TIPS tie the return to inflation instead.", 0.052, 0.026, 0.32),
        ask("If prices climb {inflation} and my savings earn {nominal} before {tax_rate} tax, is my buying power growing?", "Money needed soon stays safe even at a real loss.", 0.041, 0.038, 0.22),
    )),
    Kind("time-weighted-return", "investing", "GIPS standards; Bodie, Kane and Marcus, ch. 24", 2025, "start:$1000 middle:$1000 flow:$1000 end:$1000", _time_weighted, (
        ask("The year began at {start}. By June it was {middle}; then I added {flow} and ended with {end}. What was the fund's return?", "Your own, money-weighted result would be the IRR of the flows.", 100_000, 112_000, 50_000, 155_500),
        ask("Judge the manager: {start} at first, {middle} before a {flow} deposit, {end} at year end.", "Managers do not control when clients add money.", 2_000_000, 1_880_000, 500_000, 2_570_000),
        ask("Time-weighted return, please: opening {start}, {middle} just before contributing {flow}, closing {end}.", "Daily valuation makes this exact for mutual funds.", 36_000, 39_500, 12_000, 50_200),
    )),
)
# fmt: on
