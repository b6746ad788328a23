"""Sizing, risk and the cost of trades."""

from __future__ import annotations

import math

from runners.corpus.problem_kinds.kind import Kind, ask, num, pct, usd, whole
from runners.finance import portfolio, trading


def _kelly(i: int, p: float, b: float, capital: float) -> str:
    full = trading.kelly(p, b)
    return (
        f"Kelly: f* = p − (1 − p)/b = {num(p, 3)} − {num(1 - p, 3)}/{num(b)} = **{pct(full, 1)} of capital**, {whole(full * capital)} of {whole(capital)}. "
        f"Expected value per dollar staked: {num(p, 3)} × {num(b)} − {num(1 - p, 3)} = {num(p * b - 1 + p, 3)}. Half Kelly, {pct(full / 2, 1)} or {whole(full * capital / 2)}, keeps about three quarters of the growth with half the volatility, "
        f"and forgives an edge that was overestimated."
    )


def _var(i: int, value: float, vol: float, confidence: float, days: int) -> str:
    loss, tail = trading.parametric_var(value, vol, confidence, days), trading.expected_shortfall(value, vol, confidence)
    return (
        f"Normal VaR = V × z × σ × √t. z at {pct(confidence, 1)} is {num(trading.QUANTILES[confidence], 4)}; √{days} = {days**0.5:.4f}. {whole(value)} × {num(trading.QUANTILES[confidence], 4)} × {pct(vol)} × {days**0.5:.4f} = **{whole(loss)}**. "
        f"On {pct(1 - confidence, 1)} of {'days' if days == 1 else f'{days}-day periods'} the loss should be larger; for one day the mean of those worse losses (expected shortfall) is {whole(tail)}. Real tails are fatter than normal ones."
    )


def _size(i: int, capital: float, risk: float, entry: float, stop: float) -> str:
    shares = int(trading.position_size(capital, risk, entry, stop) + 1e-9)
    return (
        f"Risk budget: {pct(risk)} × {whole(capital)} = {usd(capital * risk)}. Risk per share: the distance from {usd(entry)} to {usd(stop)}, {usd(abs(entry - stop))}. {usd(capital * risk)} ÷ {usd(abs(entry - stop))} = **{num(shares)} shares** (rounded down). "
        f"The position is {whole(shares * entry)}, {pct(shares * entry / capital, 1)} of the account; hitting the stop loses {usd(shares * abs(entry - stop))} before slippage. A gap through the stop can lose more."
    )


def _margin(i: int, shares: int, entry: float, initial: float, maintenance: float, now: float) -> str:
    loan, level = shares * entry * (1 - initial), trading.margin_call_price(entry, initial, maintenance)
    equity = shares * now - loan
    needed = maintenance * shares * now - equity
    return (
        f"Loan = {num(shares)} × {usd(entry)} × (1 − {pct(initial)}) = {whole(loan)}. A call comes where equity/value = {pct(maintenance)}: price = loan per share {usd(entry * (1 - initial))} ÷ (1 − {pct(maintenance)}) = **{usd(level)}**. "
        f"At {usd(now)}: value {whole(shares * now)}, equity {whole(equity)} = {pct(equity / (shares * now), 1)}, so {f'a deposit of **{whole(needed)}** restores {pct(maintenance)}' if needed > 0 else f'there is no call yet, with {whole(-needed)} of excess equity'}. Interest is ignored."
    )


def _shortfall(i: int, ordered: int, filled: int, decision: float, executed: float, final: float, fees: float) -> str:
    total = trading.implementation_shortfall(decision, executed, filled, ordered, final, fees)
    paper = ordered * decision
    return (
        f"Implementation shortfall of a buy has three parts. Execution: {num(filled)} × ({usd(executed)} − {usd(decision)}) = {usd(filled * (executed - decision))} ({num(trading.slippage_bps(decision, executed, 1), 1)} bp of slippage). "
        f"Missed shares: {num(ordered - filled)} × ({usd(final)} − {usd(decision)}) = {usd((ordered - filled) * (final - decision))}. Fees: {usd(fees)}. **Total {usd(total)}**, {num(total / paper * 10_000, 1)} basis points of the {whole(paper)} paper trade."
    )


def _impact(i: int, vol: float, share: float, volume: float, price: float) -> str:
    quantity = share * volume
    impact = trading.square_root_impact(vol, quantity, volume)
    return (
        f"Square-root law: impact ≈ Y·σ·√(Q/V) with Y about 1 and daily σ. Q = {pct(share)} of {num(volume)} shares = {num(quantity, 0)}. Impact = {pct(vol)} × √{share:g} = **{num(impact * 10_000, 1)} basis points**, {usd(price * impact, 3)} a share at {usd(price)}, "
        f"or about {whole(quantity * price * impact)} on a {whole(quantity * price)} order at the full impact. Quadrupling the order doubles the impact per share. It is an empirical rule: fit Y to your own fills."
    )


def _hedge(i: int, value: float, beta: float, level: float, multiplier: float, target: float) -> str:
    contract = level * multiplier
    count = trading.hedge_contracts(value, beta, contract, target)
    return (
        f"One contract covers {num(level)} × ${num(multiplier)} = {whole(contract)}. N = (β target − β) × V / F = ({num(target)} − {num(beta)}) × {whole(value)} / {whole(contract)} = {num(count, 2)}: **{'sell' if count < 0 else 'buy'} {num(abs(round(count)))} contracts**. "
        f"The rounding leaves a beta of {num(beta + round(count) * contract / value, 3)}. The hedge removes market risk only; what the portfolio does beside the index stays."
    )


def _expectancy(i: int, p: float, win: float, loss: float, trades: int, cost: float) -> str:
    gross = trading.expectancy(p, win, loss)
    net = gross - cost
    return (
        f"Expectancy = p·win − (1 − p)·loss = {pct(p)} × {whole(win)} − {pct(1 - p)} × {whole(loss)} = {usd(gross)} a trade. Less costs of {usd(cost)}: **{usd(net)} net a trade**, {whole(net * trades)} over {num(trades)} trades on average. "
        f"Break-even win rate with these sizes and costs: ({whole(loss)} + {usd(cost)})/({whole(win)} + {whole(loss)}) = {pct((loss + cost) / (win + loss), 1)}. {'The edge survives its costs.' if net > 0 else 'Costs eat the edge.'}"
    )


def _vwap(i: int, p1: float, v1: float, p2: float, v2: float, p3: float, v3: float, fill: float) -> str:
    value = trading.vwap([p1, p2, p3], [v1, v2, v3])
    return (
        f"VWAP = Σ price × volume ÷ Σ volume = ({usd(p1)} × {num(v1)} + {usd(p2)} × {num(v2)} + {usd(p3)} × {num(v3)}) ÷ {num(v1 + v2 + v3)} = {whole(p1 * v1 + p2 * v2 + p3 * v3)} ÷ {num(v1 + v2 + v3)} = **{usd(value, 4)}**. "
        f"A buy at {usd(fill)} was {num(abs(trading.slippage_bps(value, fill, 1)), 1)} basis points {'worse' if fill > value else 'better'} than VWAP. A large order moves VWAP itself, so beating it can be an illusion."
    )


def _zscore(i: int, spread: float, mean: float, deviation: float, enter: float) -> str:
    z = trading.z_score(spread, mean, deviation)
    action = "no trade" if abs(z) < enter else ("short the spread" if z > 0 else "buy the spread")
    return (
        f"z = (spread − mean) ÷ standard deviation = ({num(spread, 3)} − {num(mean, 3)}) ÷ {num(deviation, 3)} = **{z:.2f}**. With an entry rule of |z| ≥ {num(enter)}: **{action}**. "
        f"Entry levels stand at {num(mean - enter * deviation, 3)} and {num(mean + enter * deviation, 3)}; the target is the mean. Mean and deviation must come from data before the trade, or the backtest looks ahead; a broken relation, not noise, is the main risk."
    )


def _volatility(i: int, a: float, b: float, c: float, d: float, e: float) -> str:
    returns = [a, b, c, d, e]
    mean, daily = sum(returns) / 5, portfolio.sample_volatility(returns)
    return (
        f"Mean of the five returns: {pct(mean, 3)}. Sum of squared deviations: {sum((r - mean) ** 2 for r in returns):.8f}; divided by n − 1 = 4 and rooted: daily σ = {pct(daily, 3)}. "
        f"Annualized by √252 = 15.8745: **{pct(trading.annual_volatility(daily), 1)}**. Five days estimate volatility poorly (the standard error is about a third of it), and √time scaling assumes that days are uncorrelated."
    )


def _ewma(i: int, sigma: float, move: float, decay: float) -> str:
    new = trading.ewma_volatility(sigma, move, decay)
    return (
        f"RiskMetrics update: σ²new = λσ² + (1 − λ)r² = {num(decay)} × {sigma**2:.8f} + {num(1 - decay)} × {move**2:.8f} = {new**2:.8f}; **σ = {pct(new, 3)} a day**, {pct(trading.annual_volatility(new), 1)} annualized with 252 days. "
        f"The {pct(move)} move was {num(abs(move) / sigma, 1)} of the old standard deviations, so the estimate {'rises' if new > sigma else 'falls'} from {pct(sigma, 3)}. With λ = {num(decay)} half of the weight lies on the last {num(math.log(0.5) / math.log(decay), 0)} days."
    )


# fmt: off
# One line for one person who asks: the table is read across.
KINDS = (
    Kind("kelly-stake", "trading", "Kelly (1956); Thorp (2006)", 2025, "p:% b:n capital:$1000", _kelly, (
        ask("A setup wins {p} of the time and pays {b} to 1. What does Kelly stake out of {capital}?", "Correlated bets must share one Kelly fraction.", 0.54, 1.1, 50_000),
        ask("How much of {capital} is optimal if I win {p} of trades and a win is {b} times a loss?", "Track records short of some hundred trades overstate p.", 0.42, 2.2, 80_000),
        ask("Compute full and half Kelly: probability {p}, odds {b}, bankroll {capital}.", "Betting twice Kelly makes growth zero.", 0.6, 1.0, 20_000),
        ask("Options seller: {p} winners, but a loss is large (payoff ratio {b}). What fraction of {capital} does the formula allow?", "A rare large loss missing from the record makes this figure too high.", 0.85, 0.25, 150_000),
    )),
    Kind("parametric-var", "trading", "RiskMetrics Technical Document (1996)", 2025, "value:$10000 vol:%0.05 confidence:% days:n", _var, (
        ask("Position {value}, daily volatility {vol}: {days}-day VaR at {confidence}?", "VaR says how often, not how bad.", 4_000_000, 0.013, 0.99, 1),
        ask("Give the {confidence} value at risk over {days} days for a {value} currency book moving {vol} a day.", "The square root of time assumes independent days.", 1_500_000, 0.006, 0.95, 10),
        ask("A crypto fund of {value} swings {vol} a day. Which loss will it stay under with {confidence} confidence over {days} days?", "Backtest by counting the exceptions.", 600_000, 0.042, 0.975, 5),
        ask("For a risk report: {value} equity portfolio, {vol} daily standard deviation, {confidence} confidence, {days} trading days.", "Stress tests cover what the model cannot.", 25_000_000, 0.0095, 0.99, 10),
    )),
    Kind("position-size", "trading", "Fixed-fraction sizing; Van Tharp, 'Trade Your Way to Financial Freedom'", 2025, "capital:$1000 risk:% entry:$ stop:$", _size, (
        ask("With {capital} and a {risk} risk limit, how many shares at {entry} with a stop at {stop}?", "Tight stops look cheap until they are hit by noise.", 60_000, 0.01, 42.5, 40.1),
        ask("Account {capital}, I risk {risk} a trade. Entry {entry}, stop {stop}. Position?", "Count open positions in one sector as one bet.", 25_000, 0.015, 118.0, 111.5),
        ask("Size a swing trade: buy {entry}, exit if {stop}, {risk} of {capital} at risk.", "If the size exceeds the account, margin or a smaller stake follows.", 140_000, 0.005, 18.75, 17.9),
        ask("Short sale at {entry}, stop above at {stop}, {capital} equity, {risk} per idea: share count?", "Shorts can gap up overnight, so many traders halve the size.", 200_000, 0.0075, 64.0, 67.2),
    )),
    Kind("margin-call", "trading", "Regulation T, 12 CFR 220.12; FINRA Rule 4210", 2025, "shares:n100 entry:$ initial:% maintenance:% now:$", _margin, (
        ask("{shares} shares bought at {entry} with {initial} down, maintenance {maintenance}. When is the margin call, and where do I stand at {now}?", "Brokers may sell without waiting for you.", 500, 80, 0.5, 0.25, 56),
        ask("Margin check: {initial} initial, {maintenance} house requirement, {shares} at {entry}, now {now}.", "House requirements can be raised at any time.", 1_000, 24, 0.5, 0.35, 17.5),
        ask("At what price do I get called on {shares} shares ({entry} cost, {initial} equity at start, {maintenance} maintenance)? Today it's {now}.", "Borrowing turns a dip into a forced sale.", 300, 150, 0.6, 0.30, 104),
    )),
    Kind("implementation-shortfall", "trading", "Perold (1988), 'The Implementation Shortfall'", 2025, "ordered:n filled:n decision:$ executed:$ final:$ fees:$", _shortfall, (
        ask("We decided on {ordered} shares at {decision}, got {filled} at an average of {executed}, and the close was {final}; commissions {fees}. Cost?", "A limit order lowers the first part and raises the second.", 20_000, 16_000, 31.2, 31.29, 31.8, 120),
        ask("Break down the shortfall: order {ordered}, filled {filled}, decision price {decision}, fill {executed}, end {final}, fees {fees}.", "Measure many trades: one is mostly noise.", 5_000, 5_000, 112.4, 112.62, 113.0, 45),
        ask("Decision {decision}; only {filled} of {ordered} bought at {executed} before it ran to {final}. Fees {fees}. What did trading cost us?", "Delay, not commission, is often the dearest part.", 50_000, 30_000, 9.5, 9.54, 9.95, 200),
    )),
    Kind("market-impact", "trading", "Almgren et al. (2005); Grinold and Kahn, 'Active Portfolio Management'", 2025, "vol:%0.1 share:% volume:n100000 price:$", _impact, (
        ask("Estimate the impact of buying {share} of a day's volume ({volume} shares) in a {price} stock with {vol} daily volatility.", "Splitting over days trades impact for timing risk.", 0.02, 0.05, 3_000_000, 45),
        ask("Daily σ {vol}, ADV {volume}, price {price}: what does an order of {share} of ADV cost by the square-root rule?", "Costs per share rise with size, so capacity is limited.", 0.015, 0.10, 8_000_000, 120),
        ask("Small cap at {price}: volume {volume}, volatility {vol}. We need {share} of that. Expected price pressure?", "Illiquid names have a higher Y.", 0.035, 0.20, 400_000, 12),
    )),
    Kind("index-hedge", "trading", "Hull, 'Options, Futures, and Other Derivatives', ch. 3", 2025, "value:$100000 beta:n level:n multiplier:n target:n", _hedge, (
        ask("Hedge a {value} portfolio (beta {beta}) fully with futures at {level}, ${multiplier} a point, target beta {target}.", "Roll the contracts before expiry.", 6_000_000, 1.15, 5_400, 50, 0),
        ask("How many contracts (index {level}, multiplier {multiplier}) bring a {value} book from beta {beta} to {target}?", "Margin must be kept in cash for daily settlement.", 12_500_000, 1.3, 5_200, 50, 0.6),
        ask("I want more exposure: {value} of low-beta stocks at {beta}, target {target}, futures {level} × ${multiplier}. Trade?", "Leverage by futures is cheap and cuts both ways.", 2_000_000, 0.7, 2_100, 50, 1.0),
    )),
    Kind("trade-expectancy", "trading", "Expected value; break-even win rate", 2025, "p:% win:$10 loss:$10 trades:n cost:$", _expectancy, (
        ask("I win {p} of trades, {win} on average, and lose {loss} otherwise; costs {cost} a trade. What do {trades} trades bring?", "The spread of results around the mean is wide.", 0.45, 420, 260, 200, 9),
        ask("Scalper's math: {p} hit rate, +{win}, −{loss}, fees {cost}, {trades} trades a year. Worth it?", "At this frequency costs decide.", 0.58, 60, 70, 1_500, 8),
        ask("Does a {p} win rate with {win} winners and {loss} losers beat costs of {cost} over {trades} trades?", "Few big winners carry trend systems, so skipping one hurts.", 0.32, 1_450, 480, 120, 15),
    )),
    Kind("vwap-fill", "trading", "Berkowitz, Logue and Noser (1988)", 2025, "p1:$ v1:n p2:$ v2:n p3:$ v3:n fill:$", _vwap, (
        ask("Trades: {v1} at {p1}, {v2} at {p2}, {v3} at {p3}. VWAP, and how was our buy at {fill}?", "Arrival price is the stricter benchmark.", 20.10, 4_000, 20.25, 9_000, 20.05, 2_000, 20.19),
        ask("Compute the volume-weighted price of {v1} @ {p1}, {v2} @ {p2} and {v3} @ {p3} and grade a {fill} purchase.", "Pick the benchmark before the order, not after.", 88.40, 1_200, 88.10, 3_500, 88.75, 2_300, 88.30),
        ask("Did we beat VWAP? Prints {p1} × {v1}, {p2} × {v2}, {p3} × {v3}; our average {fill}.", "Exclude your own trades if they are large.", 5.02, 60_000, 5.05, 25_000, 4.98, 40_000, 5.03),
    )),
    Kind("pairs-z-score", "trading", "Gatev, Goetzmann and Rouwenhorst (2006)", 2025, "spread:n mean:n deviation:n enter:n", _zscore, (
        ask("Pair spread {spread}, mean {mean}, standard deviation {deviation}, entry at {enter} sigmas. Signal?", "Hedge both legs by dollars or beta.", 4.8, 2.1, 1.15, 2),
        ask("The log spread reads {spread} against {mean} ± {deviation}. Do I trade with a {enter}-sigma rule?", "Costs of four trades (two in, two out) come off the gain.", 0.412, 0.455, 0.032, 2),
        ask("Mean reversion: current {spread}, average {mean}, deviation {deviation}, threshold {enter}. Direction?", "A stop by time frees capital from pairs that never close.", -1.9, 0.3, 0.85, 2.5),
    )),
    Kind("realized-volatility", "trading", "Hull, 'Options, Futures, and Other Derivatives', ch. 15", 2025, "a:%0.1 b:%0.1 c:%0.1 d:%0.1 e:%0.1", _volatility, (
        ask("Five daily returns: {a}, {b}, {c}, {d}, {e}. Annualized volatility?", "Compare it with implied volatility before buying options.", 0.012, -0.008, 0.004, -0.015, 0.009),
        ask("From {a}, {b}, {c}, {d} and {e}, what daily and yearly standard deviation do you get?", "One outlier dominates so short a window.", 0.003, 0.021, -0.018, 0.006, -0.002),
        ask("Estimate sigma for a quiet bond ETF that moved {a}, {b}, {c}, {d}, {e}.", "Quiet samples underestimate risk.", 0.002, -0.001, 0.004, -0.003, 0.001),
    )),
    Kind("ewma-update", "trading", "RiskMetrics Technical Document (1996)", 2025, "sigma:%0.1 move:%0.1 decay:n", _ewma, (
        ask("Yesterday's volatility estimate was {sigma} and today the market moved {move}. Update it with λ = {decay}.", "GARCH adds a pull toward a long-run level.", 0.011, -0.034, 0.94),
        ask("Decay {decay}, daily σ {sigma}, latest return {move}: new exponentially weighted volatility?", "A calm day lowers the estimate only slowly.", 0.022, 0.004, 0.94),
        ask("What does one {move} day do to a risk model at {sigma} volatility if the smoothing factor is {decay}?", "A lower λ reacts faster and is noisier.", 0.008, 0.027, 0.97),
    )),
)
# fmt: on
