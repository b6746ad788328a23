"""US federal amounts by year, each with where it was published. A year that is not here is a KeyError, never a guess."""

from __future__ import annotations

from typing import Literal

Status = Literal["single", "joint", "head"]
#: As questions name them.
STATUSES: dict[str, Status] = {"single": "single", "joint": "joint", "head-of-household": "head"}

#: Upper ends of the brackets 10, 12, 22, 24, 32, 35 %; above the last, 37 %. Rev. Proc. 2023-34 and 2024-40, s. 2.01.
BRACKETS: dict[int, dict[Status, tuple[float, ...]]] = {
    2024: {
        "single": (11_600, 47_150, 100_525, 191_950, 243_725, 609_350),
        "joint": (23_200, 94_300, 201_050, 383_900, 487_450, 731_200),
        "head": (16_550, 63_100, 100_500, 191_950, 243_700, 609_350),
    },
    2025: {
        "single": (11_925, 48_475, 103_350, 197_300, 250_525, 626_350),
        "joint": (23_850, 96_950, 206_700, 394_600, 501_050, 751_600),
        "head": (17_000, 64_850, 103_350, 197_300, 250_500, 626_350),
    },
}
RATES = (0.10, 0.12, 0.22, 0.24, 0.32, 0.35, 0.37)

#: Rev. Proc. 2023-34; for 2025 as raised by P.L. 119-21, s. 70102.
STANDARD_DEDUCTION: dict[int, dict[Status, float]] = {
    2024: {"single": 14_600, "joint": 29_200, "head": 21_900},
    2025: {"single": 15_750, "joint": 31_500, "head": 23_625},
}

#: Taxable income up to which long-term gains are taxed at 0 % and at 15 %; 20 % above. Rev. Proc. 2023-34 and 2024-40, s. 2.03.
GAIN_BRACKETS: dict[int, dict[Status, tuple[float, float]]] = {
    2024: {"single": (47_025, 518_900), "joint": (94_050, 583_750), "head": (63_000, 551_350)},
    2025: {"single": (48_350, 533_400), "joint": (96_700, 600_050), "head": (64_750, 566_700)},
}

#: IRC 1411(b); not indexed.
NIIT_THRESHOLD: dict[Status, float] = {"single": 200_000, "joint": 250_000, "head": 200_000}

#: Combined income from which half, and from which 85 %, of Social Security benefits is taxable; not indexed (IRC 86(c)).
BENEFIT_BASES: dict[Status, tuple[float, float]] = {"single": (25_000, 34_000), "joint": (32_000, 44_000), "head": (25_000, 34_000)}
#: Modified AGI from which the child tax credit falls (IRC 24(h)(3)).
CHILD_CREDIT_THRESHOLD: dict[Status, float] = {"single": 200_000, "joint": 400_000, "head": 200_000}

#: Social Security contribution and benefit base (ssa.gov/oact/cola/cbb.html).
WAGE_BASE = {2024: 168_600, 2025: 176_100, 2026: 184_500}
SOCIAL_SECURITY_RATE, MEDICARE_RATE, ADDITIONAL_MEDICARE_RATE = 0.062, 0.0145, 0.009

#: IRS Notices 2023-75, 2024-80, 2025-67.
DEFERRAL_401K = {2024: 23_000, 2025: 23_500, 2026: 24_500}
CATCH_UP_401K = {2024: 7_500, 2025: 7_500, 2026: 8_000}
CATCH_UP_401K_60_TO_63 = {2025: 11_250, 2026: 11_250}
ANNUAL_ADDITIONS = {2024: 69_000, 2025: 70_000, 2026: 72_000}
IRA = {2024: 7_000, 2025: 7_000, 2026: 7_500}
IRA_CATCH_UP = {2024: 1_000, 2025: 1_000, 2026: 1_100}
ROTH_IRA_PHASE_OUT: dict[int, dict[Status, tuple[float, float]]] = {
    2024: {"single": (146_000, 161_000), "joint": (230_000, 240_000)},
    2025: {"single": (150_000, 165_000), "joint": (236_000, 246_000)},
}

#: Rev. Proc. 2023-23 and 2024-25.
HSA = {2024: {"self": 4_150, "family": 8_300}, 2025: {"self": 4_300, "family": 8_550}}
HSA_CATCH_UP = 1_000

#: Rev. Proc. 2023-34 and 2024-40 (s. 2.41-2.43); 2026 by P.L. 119-21, s. 70106.
ESTATE_EXCLUSION = {2024: 13_610_000, 2025: 13_990_000, 2026: 15_000_000}
GIFT_EXCLUSION = {2024: 18_000, 2025: 19_000, 2026: 19_000}
ESTATE_RATE = 0.40

#: Bend points of the primary insurance amount by year of turning 62 (ssa.gov/oact/cola/bendpoints.html).
BEND_POINTS = {2024: (1_174, 7_078), 2025: (1_226, 7_391)}
#: Earnings test before full retirement age (ssa.gov/oact/cola/rtea.html).
EARNINGS_TEST = {2024: 22_320, 2025: 23_400}

#: HHS poverty guideline, 48 contiguous states: first person, each further person (89 FR 2961; 90 FR 5917).
POVERTY_GUIDELINE = {2024: (15_060, 5_380), 2025: (15_650, 5_500)}

#: Basic limit of deposit protection: FDIC 12 USC 1821.
FDIC_LIMIT = 250_000

#: Standard mileage rate for business, dollars per mile (Notices 2024-08, 2025-5).
MILEAGE = {2024: 0.67, 2025: 0.70}

#: Most that a consumer bears for unauthorized transfers: told within two business days, within 60 days of the statement (12 CFR 1005.6(b)).
REGULATION_E_TIERS = (50, 500)
#: Years a negative item may stay on a consumer report (15 USC 1681c).
REPORT_YEARS = {"late payment": 7, "bankruptcy": 10}
#: 529 to Roth IRA: lifetime dollars (IRC 529(c)(3)(E)).
ROLLOVER_529_LIFETIME = 35_000
#: IRC 408(d)(8), as indexed (Notices 2023-75, 2024-80).
QUALIFIED_CHARITABLE_DISTRIBUTION = {2024: 105_000, 2025: 108_000}
#: Days to file a currency transaction report (31 CFR 1010.306(a)(1)).
CTR_DAYS = 15
#: Dollars of 13(f) securities, days after the quarter (17 CFR 240.13f-1).
FORM_13F = (100_000_000, 45)
#: Income of a natural person alone, with a spouse or partner (17 CFR 230.501(a)(6)).
ACCREDITED_INCOME = (200_000, 300_000)
#: Hours and least months (CFA Institute); hours on the standard and the apprenticeship pathway (CFP Board).
CFA_EXPERIENCE, CFP_EXPERIENCE = (4_000, 36), (6_000, 4_000)
#: Child tax credit a child (IRC 24(h); for 2025 P.L. 119-21, s. 70104).
CHILD_CREDIT = {2024: 2_000, 2025: 2_200}
