"""Check digits of the numbers that finance data are keyed by.

Sources: ISO/IEC 7812 (cards, Luhn), ISO 6166 (ISIN), ISO 17442 (LEI), ISO 13616 (IBAN), ISO 7064 MOD 97-10, ABA routing number policy, CUSIP Global Services.
"""

from __future__ import annotations


def as_digits(text: str) -> str:
    """Digits as they are, letters as 10 to 35."""
    return "".join(str(int(char, 36)) for char in text)


def luhn_sum(digits: str) -> int:
    """Sum of ``digits``, every second one doubled from the last, each by its own digits; ten's complement is the check digit."""
    values = [int(char) * (1 + (place % 2 == 0)) for place, char in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in values)


def luhn_check_digit(digits: str) -> int:
    """Digit that completes ``digits`` (without it) under the Luhn formula."""
    return -luhn_sum(digits) % 10


def isin_check_digit(body: str) -> int:
    """Digit that completes the eleven characters of an ISIN: letters as 10 to 35, then Luhn."""
    return luhn_check_digit(as_digits(body))


def mod97(text: str) -> int:
    """Remainder by 97 of a string whose letters stand for 10 to 35 (ISO 7064)."""
    return int(as_digits(text)) % 97


def iban_check_digits(country: str, account: str) -> str:
    """Two digits after the country code: 98 less the remainder of account + country + 00."""
    return f"{98 - mod97(account + country + '00'):02d}"


def routing_checksum(number: str) -> int:
    """Weighted sum 3, 7, 1 of a nine-digit ABA routing number; a valid one is a multiple of 10."""
    return sum(int(char) * weight for char, weight in zip(number, (3, 7, 1) * 3, strict=True))
