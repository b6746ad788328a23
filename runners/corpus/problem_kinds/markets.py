"""Bonds, bills, options, forwards and the prices that tie them together."""

from __future__ import annotations

import math

from runners.corpus.problem_kinds.kind import Kind, ask, count, num, pct, usd, whole
from runners.finance import bonds, options


def _price(i: int, face: float, coupon: float, yield_: float, years: int) -> str:
    value = bonds.price(face, coupon, yield_, years)
    n, rate, half = years * 2, yield_ / 2, face * coupon / 2
    annuity = half * (1 - (1 + rate) ** -n) / rate
    kind = "premium" if value > face else "discount"
    return (
        f"Semiannual coupons: {n} payments of {usd(half)}, discounted at {pct(yield_)}/2 = {pct(rate, 3)} a period. Coupons: {usd(half)} × (1 − {1 + rate:.6g}^−{n})/{rate:.6g} = {usd(annuity)}. Face: {whole(face)} / {1 + rate:.6g}^{n} = {usd(value - annuity)}. "
        f"**Price = {usd(value)}** ({num(value / face * 100, 3)} per 100), a {kind} because the coupon of {pct(coupon)} is {'above' if value > face else 'below'} the yield. Current yield: {pct(face * coupon / value)}."
    )


def _yield(i: int, face: float, coupon: float, price: float, years: int) -> str:
    ytm = bonds.yield_to_maturity(face, coupon, price, years)
    approx = (face * coupon + (face - price) / years) / ((face + price) / 2)
    return (
        f"Yield to maturity is the rate y at which {usd(face * coupon / 2)} every half-year for {years} years and {whole(face)} at the end are worth {usd(price)}. First guess: (coupon + yearly pull to par)/(average of price and face) = {pct(approx)}. "
        f"Solving exactly by trial or RATE({2 * years}, {num(face * coupon / 2)}, −{num(price)}, {num(face)}) × 2: **y = {pct(ytm)}** (bond-equivalent; effective annual {pct((1 + ytm / 2) ** 2 - 1)}). Current yield: {pct(face * coupon / price)}."
    )


def _duration(i: int, coupon: float, yield_: float, years: int, shift: float) -> str:
    macaulay, modified = bonds.macaulay_duration(coupon, yield_, years), bonds.modified_duration(coupon, yield_, years)
    convexity = bonds.convexity(coupon, yield_, years)
    exact = bonds.price(100, coupon, yield_ + shift, years) / bonds.price(100, coupon, yield_, years) - 1
    return (
        f"Weighting each half-yearly flow's time by its present value gives a Macaulay duration of {num(macaulay, 3)} years; modified = {num(macaulay, 3)} / (1 + {pct(yield_)}/2) = **{num(modified, 3)}**; convexity {num(convexity, 1)}. "
        f"For a {pct(shift)} rise in yield: duration alone −{num(modified, 3)} × {pct(shift)} = {pct(-modified * shift)}; with convexity + ½ × {num(convexity, 1)} × {shift:g}² gives **{pct(bonds.price_change(modified, convexity, shift))}**. Full repricing says {pct(exact)}."
    )


def _bill(i: int, face: float, discount: float, days: int) -> str:
    paid = bonds.bill_price(face, discount, days)
    return (
        f"Bills are quoted on a bank-discount basis over 360 days: price = F × (1 − d × days/360) = {whole(face)} × (1 − {pct(discount)} × {days}/360) = **{usd(paid)}**. Interest earned: {usd(face - paid)}. "
        f"Investment (coupon-equivalent) rate = {usd(face - paid)} / {usd(paid)} × 365/{days} = **{pct(bonds.bill_investment_rate(face, paid, days), 3)}**, higher than the {pct(discount)} discount because it is measured on the price paid and a 365-day year."
    )


def _call(i: int, spot: float, strike: float, months: int, rate: float, vol: float) -> str:
    years = months / 12
    d1, d2 = options.d_values(spot, strike, years, rate, vol)
    call = options.black_scholes(spot, strike, years, rate, vol)
    return (
        f"T = {num(years, 4)} years. d₁ = [ln({num(spot)}/{num(strike)}) + ({pct(rate)} + {pct(vol)}²/2)·T] / ({pct(vol)}·√T) = {d1:.4f}; d₂ = d₁ − σ√T = {d2:.4f}. N(d₁) = {options.normal_cdf(d1):.4f}, N(d₂) = {options.normal_cdf(d2):.4f}. "
        f"C = S·N(d₁) − K·e^(−rT)·N(d₂) = {num(spot)} × {options.normal_cdf(d1):.4f} − {num(strike)} × {math.exp(-rate * years):.4f} × {options.normal_cdf(d2):.4f} = **{usd(call)}**. "
        f"The put by parity is {usd(options.put_from_call(call, spot, strike, years, rate))}; the call's delta is {options.normal_cdf(d1):.2f}."
    )


def _parity(i: int, call: float, put: float, spot: float, strike: float, months: int, rate: float) -> str:
    years = months / 12
    fair = options.put_from_call(call, spot, strike, years, rate)
    action = (
        "sell the put and the stock short, buy the call and lend the present value of the strike"
        if put > fair
        else "buy the put and the stock, sell the call and borrow the present value of the strike"
    )
    return (
        f"Parity for European options without dividends: C + K·e^(−rT) = P + S. PV of the strike: {num(strike)} × e^(−{rate:g} × {num(years, 4)}) = {usd(strike * math.exp(-rate * years))}. Fair put = {usd(call)} + {usd(strike * math.exp(-rate * years))} − {usd(spot)} = **{usd(fair)}**. "
        f"Quoted at {usd(put)}, it is {'dear' if put > fair else 'cheap'} by {usd(abs(put - fair))} a share: {action}. After costs and spreads so small a gap may not be tradable."
    )


def _covered_call(i: int, cost: float, strike: float, premium: float, shares: int) -> str:
    return (
        f"Per share: the premium of {usd(premium)} is kept in every case. Break-even = {usd(cost)} − {usd(premium)} = **{usd(cost - premium)}**. Greatest profit, if the stock is at or above {usd(strike)}: ({usd(strike)} − {usd(cost)}) + {usd(premium)} = {usd(strike - cost + premium)} a share, "
        f"**{whole((strike - cost + premium) * shares)}** on {num(shares)} shares ({pct((strike - cost + premium) / cost, 1)}). Greatest loss, if it goes to zero: {whole((cost - premium) * shares)}. Gains over the strike belong to the call's buyer."
    )


def _spread(i: int, low: float, high: float, paid: float, received: float) -> str:
    cost = paid - received
    return (
        f"Net debit: {usd(paid)} − {usd(received)} = {usd(cost)} a share, the most that can be lost (**{whole(cost * 100)} per contract of 100**). Greatest gain: width {usd(high - low)} − {usd(cost)} = {usd(high - low - cost)}, **{whole((high - low - cost) * 100)} per contract**, at or above {usd(high)}. "
        f"Break-even at expiry: {usd(low)} + {usd(cost)} = **{usd(low + cost)}**. Reward to risk: {num((high - low - cost) / cost, 2)} to 1."
    )


def _forward(i: int, spot: float, rate: float, income: float, months: int, quoted: float) -> str:
    years = months / 12
    fair = options.forward_price(spot, years, rate, income)
    return (
        f"Cost of carry: F = S·e^((r − q)T) = {num(spot)} × e^(({pct(rate)} − {pct(income)}) × {num(years, 4)}) = **{num(fair, 2)}**. The quote of {num(quoted)} is {'above' if quoted > fair else 'below'} it by {num(abs(quoted - fair), 2)}, "
        f"so an arbitrageur would {'sell the future, borrow and buy the basket' if quoted > fair else 'buy the future, sell the basket short and lend'}. The basis shrinks to zero at delivery."
    )


def _currency(i: int, spot: float, home: float, foreign: float, months: int, unit: str) -> str:
    years = months / 12
    forward = options.currency_forward(spot, home, foreign, years)
    return (
        f"Covered interest parity with annual rates: F = S × [(1 + r$)/(1 + rf)]^T = {spot:g} × ({1 + home:g}/{1 + foreign:g})^{num(years, 4)} = **{forward:.4f} dollars per {unit}**. "
        f"The {unit} trades at a forward {'premium' if forward > spot else 'discount'} of {pct(abs(forward / spot - 1))} because its interest rate is {'lower' if foreign < home else 'higher'}: the forward offsets the rate difference, so there is no free gain in the higher rate."
    )


def _forward_rate(i: int, short: float, short_years: int, long: float, long_years: int) -> str:
    rate = bonds.forward_rate(short, short_years, long, long_years)
    return (
        f"Lending for {long_years} years must equal lending for {short_years} and rolling over: (1 + {pct(long)})^{long_years} = (1 + {pct(short)})^{short_years} × (1 + f)^{long_years - short_years}. {(1 + long) ** long_years:.6f} / {(1 + short) ** short_years:.6f} = {(1 + long) ** long_years / (1 + short) ** short_years:.6f}; "
        f"**f = {pct(rate)}** a year over the {count(long_years - short_years, 'year')} after year {short_years}. It is a break-even, not a forecast: it holds a term premium, too."
    )


def _accrued(i: int, face: float, coupon: float, clean: float, days: int, period: int) -> str:
    accrued = bonds.accrued_interest(face, coupon, days, period)
    return (
        f"Accrued interest = semiannual coupon × days since the last one ÷ days in the period = {usd(face * coupon / 2)} × {days}/{period} = **{usd(accrued)}**. Clean price: {num(clean, 3)}% of {whole(face)} = {usd(face * clean / 100)}. "
        f"The buyer pays the dirty price, {usd(face * clean / 100)} + {usd(accrued)} = **{usd(face * clean / 100 + accrued)}**, and gets it back with the next full coupon."
    )


def _tips(i: int, face: float, coupon: float, ratio: float) -> str:
    principal = bonds.inflation_adjusted_principal(face, ratio)
    return (
        f"TIPS principal is face times the index ratio: {whole(face)} × {ratio:g} = **{usd(principal)}**. The semiannual coupon is half of {pct(coupon, 3)} on the adjusted principal: {usd(principal)} × {pct(coupon / 2, 4)} = **{usd(principal * coupon / 2)}**. "
        f"The principal gain of {usd(principal - face)} is taxed as income each year although it is paid only at maturity; at maturity you receive no less than face."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("bond-price", "markets", "Fabozzi, 'Bond Markets, Analysis, and Strategies', ch. 2", 2025, "face:$ coupon:%0.125 yield_:%0.1 years:n", _price, (
        ask("A corporate bond of {face} face with {years} years left pays a {coupon} coupon in two halves a year. What is it worth if the market yields {yield_}?", "As maturity nears, the price is pulled to par.", 1_000, 0.0475, 0.0555, 8),
        ask("Price a Treasury note: {coupon} semiannual coupon, {years} years, yield {yield_}, {face} principal.", "Treasuries are quoted in 32nds of a point.", 10_000, 0.04125, 0.0385, 10),
        ask("I inherited a {face} bond paying {coupon} (semiannual) that has {years} years left. Similar bonds yield {yield_}. Value?", "A call provision would cap the premium.", 5_000, 0.0625, 0.0445, 6),
        ask("At a required yield of {yield_}, how much should one pay for {face} par, {coupon} coupon, {years}-year semiannual-pay bonds?", "Taxes differ for discount and coupon income.", 100_000, 0.035, 0.051, 20),
    )),
    Kind("bond-yield", "markets", "Fabozzi, 'Bond Markets, Analysis, and Strategies', ch. 3", 2025, "face:$ coupon:%0.125 price:$5 years:n", _yield, (
        ask("A {face} bond with a {coupon} semiannual coupon and {years} years to run sells at {price}. Yield to maturity?", "It assumes coupons are reinvested at the same yield.", 1_000, 0.05, 945, 7),
        ask("My broker shows {price} for a {years}-year, {coupon} coupon bond of {face}. What does it yield if held to the end?", "Yield to call matters if the issuer may redeem early.", 1_000, 0.065, 1_062, 9),
        ask("Solve for YTM: price {price}, par {face}, coupon {coupon} twice yearly, {years} years.", "A premium bond's current yield overstates its return.", 1_000, 0.0325, 880, 12),
    )),
    Kind("duration-convexity", "markets", "Fabozzi, 'Bond Markets, Analysis, and Strategies', ch. 4", 2025, "coupon:%0.125 yield_:%0.1 years:n shift:%", _duration, (
        ask("How sensitive is a {years}-year {coupon} semiannual bond at a {yield_} yield to a {shift} rise?", "Convexity helps the holder both ways.", 0.045, 0.048, 10, 0.01),
        ask("Give Macaulay and modified duration and convexity: coupon {coupon}, yield {yield_}, {years} years; then the effect of {shift} more yield.", "Low coupons and long terms mean long durations.", 0.02, 0.0425, 30, 0.0075),
        ask("A pension holds a {years}-year note ({coupon}, twice a year, yielding {yield_}). Estimate its loss if rates go up {shift}.", "Matching durations of assets and promises removes most of this risk.", 0.055, 0.05, 5, 0.015),
    )),
    Kind("treasury-bill", "markets", "31 CFR 356, Appendix B; TreasuryDirect", 2025, "face:$ discount:%0.05 days:n", _bill, (
        ask("A {days}-day T-bill is auctioned at {discount} discount. What do I pay for {face}, and what's the true yield?", "Bill interest is free of state income tax.", 10_000, 0.0432, 182),
        ask("Purchase price and investment rate: {face} bill, {days} days, discount rate {discount}?", "Compare the investment rate, not the discount, with a CD.", 25_000, 0.0415, 91),
        ask("For {days} days I want to park cash in a {face} Treasury bill quoted {discount}. Show cost and coupon-equivalent yield.", "Noncompetitive bids get the auction's rate.", 100_000, 0.0428, 28),
    )),
    Kind("black-scholes-call", "markets", "Black and Scholes (1973); Hull, ch. 15", 2025, "spot:$1 strike:$ months:n rate:%0.25 vol:%1", _call, (
        ask("Value a {months}-month European call: stock {spot}, strike {strike}, rate {rate} continuous, volatility {vol}, no dividend.", "Volatility is the one input nobody can look up.", 62, 60, 6, 0.045, 0.28),
        ask("Use Black-Scholes for an at-the-money call, {spot} spot and {strike} strike, {months} months, r = {rate}, σ = {vol}.", "An at-the-money call is worth about 0.4·S·σ·√T when rates are low.", 100, 100, 3, 0.04, 0.20),
        ask("What would a call struck at {strike} cost with shares at {spot}, {months} months left, {vol} implied volatility and {rate} risk-free?", "Most of its value is time value, which decays.", 145, 160, 9, 0.0425, 0.35),
        ask("An employee stock option: {spot} share price, {strike} exercise price, {months} months, {vol} volatility, {rate}. Model value?", "Early exercise and vesting lower the value of real employee options.", 38, 25, 48, 0.04, 0.45),
    )),
    Kind("put-call-parity", "markets", "Stoll (1969); Hull, ch. 11", 2025, "call:$0.1 put:$0.1 spot:$1 strike:$ months:n rate:%0.25", _parity, (
        ask("Call {call}, put {put}, stock {spot}, strike {strike}, {months} months, {rate}. Is parity violated?", "American options and dividends loosen the relation to bounds.", 6.2, 4.1, 80, 80, 6, 0.05),
        ask("If a {months}-month call on a {spot} share (strike {strike}) costs {call} and money {rate}, what should the put cost? It's quoted {put}.", "The relation needs no model of volatility.", 3.4, 5.9, 47, 50, 4, 0.04),
        ask("Check these quotes for arbitrage: C = {call}, P = {put}, S = {spot}, K = {strike}, T = {months} months, r = {rate}.", "Early-exercise rights, borrow fees and the bid-ask spread explain most apparent gaps.", 11.5, 6.0, 125, 122, 12, 0.045),
    )),
    Kind("covered-call", "markets", "OCC, 'Characteristics and Risks of Standardized Options'", 2025, "cost:$1 strike:$1 premium:$0.1 shares:n", _covered_call, (
        ask("I own {shares} shares bought at {cost} and sell calls struck {strike} for {premium}. Best, worst and break-even?", "An assignment is a sale, with its tax.", 48, 52, 1.3, 300),
        ask("Covered write: stock {cost}, call strike {strike}, premium {premium}, {shares} shares. Profit limits?", "The premium cushions a fall only by its own size.", 110, 115, 2.8, 200),
        ask("Would writing a {strike} call for {premium} on {shares} shares that cost {cost} cap my gain? Show the numbers.", "Selling calls on shares you would not part with is a mistake.", 23, 25, 0.6, 1000),
    )),
    Kind("bull-call-spread", "markets", "OCC, options strategies", 2025, "low:$ high:$ paid:$0.1 received:$0.1", _spread, (
        ask("I buy the {low} call at {paid} and sell the {high} call at {received}. Max gain, max loss, break-even?", "Both legs should share expiry and contract size.", 100, 110, 5.2, 1.9),
        ask("Analyze a debit spread: long {low} for {paid}, short {high} for {received}.", "Close it before expiry if the stock sits between the strikes.", 45, 50, 2.4, 0.8),
        ask("How much can I make or lose per contract on a {low}/{high} bull call spread bought {paid} and sold {received}?", "Selling the upper call lowers the cost and gives up the rest of the rise.", 210, 225, 8.6, 3.5),
    )),
    Kind("index-forward", "markets", "Hull, 'Options, Futures, and Other Derivatives', ch. 5", 2025, "spot:n10 rate:%0.25 income:%0.1 months:n quoted:n10", _forward, (
        ask("Index at {spot}, rate {rate}, dividend yield {income}: fair {months}-month future? It trades at {quoted}.", "Trading costs make a band around the fair price.", 5_200, 0.045, 0.014, 3, 5_260),
        ask("Is a {months}-month index contract at {quoted} rich or cheap if spot is {spot}, financing {rate} and dividends {income}?", "Dividends are lumpy, so desks use the actual schedule.", 2_150, 0.05, 0.016, 6, 2_170),
        ask("Compute fair value for {months} months: cash index {spot}, r = {rate}, q = {income}, market {quoted}.", "When dividends exceed the rate, futures trade under spot.", 8_000, 0.025, 0.036, 9, 7_960),
    )),
    Kind("currency-forward", "markets", "Hull, ch. 5; covered interest parity", 2025, "spot:n0.01 home:%0.25 foreign:%0.25 months:n unit:s", _currency, (
        ask("Spot is {spot} dollars per {unit}; dollar rate {home}, {unit} rate {foreign}. What's the {months}-month forward?", "An exporter can lock it in today.", 1.08, 0.045, 0.025, 12, "euro"),
        ask("A firm will pay in pounds in {months} months. With {spot} spot, {home} US and {foreign} UK rates, price the forward per {unit}.", "Banks add a spread to this mid price.", 1.27, 0.0425, 0.0475, 6, "pound"),
        ask("Does the higher {foreign} rate abroad against {home} here give free money at {spot} per {unit} for {months} months, hedged?", "Unhedged it is the carry trade, which earns slowly and loses suddenly.", 0.66, 0.04, 0.055, 12, "Australian dollar"),
    )),
    Kind("implied-forward-rate", "markets", "Fabozzi, 'Bond Markets, Analysis, and Strategies', ch. 5", 2025, "short:%0.1 short_years:n long:%0.1 long_years:n", _forward_rate, (
        ask("Zeros yield {short} for {short_years} year and {long} for {long_years}. What rate is implied for the time between?", "An upward curve implies forwards above both spots.", 0.041, 1, 0.044, 2),
        ask("From {short_years}-year {short} and {long_years}-year {long} spot rates, derive the forward.", "An inverted curve implies falling short rates.", 0.046, 2, 0.042, 5),
        ask("Should I roll a {short_years}-year CD at {short} or take {long_years} years at {long}? Which later rate breaks even?", "If you expect more than that, stay short.", 0.043, 3, 0.0455, 5),
    )),
    Kind("accrued-interest", "markets", "SIFMA standard securities calculation methods", 2025, "face:$ coupon:%0.125 clean:n days:n period:n", _accrued, (
        ask("I buy {face} of a {coupon} semiannual bond at {clean}, {days} days after the coupon in a {period}-day period. What do I pay in all?", "The seller reports the accrued part as interest.", 10_000, 0.05, 98.25, 74, 181),
        ask("Dirty price of {face} face, {coupon} coupon paid twice a year, clean {clean}, {days} of {period} days gone?", "Quotes are clean so that prices do not jump on coupon dates.", 50_000, 0.0375, 101.5, 120, 184),
        ask("Compute accrued interest and settlement amount: {coupon} note, {face} par, quoted {clean}, day {days} of {period}.", "Corporate bonds count 30/360, Treasuries actual/actual.", 25_000, 0.0425, 99.125, 45, 182),
    )),
    Kind("tips-principal", "markets", "TreasuryDirect, TIPS; 31 CFR 356", 2025, "face:$ coupon:%0.125 ratio:n0.001", _tips, (
        ask("My {face} TIPS has an index ratio of {ratio} and a {coupon} coupon. What is the next payment?", "Holding TIPS in an IRA avoids tax on income not yet paid.", 10_000, 0.0125, 1.085),
        ask("Inflation-adjusted principal and half-yearly interest: {face} TIPS, {coupon}, index ratio {ratio}?", "Deflation would lower the principal, and the coupon with it.", 25_000, 0.02125, 1.032),
        ask("If CPI has lifted the ratio to {ratio}, what's a {face} TIPS with {coupon} interest paying now?", "The real yield at purchase is what you lock in.", 5_000, 0.00625, 1.214),
    )),
)
# fmt: on
