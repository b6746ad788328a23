"""Check digits of the numbers that finance data are keyed by.

Sources: ISO/IEC 7812 (cards, Luhn), ISO 6166 (ISIN), ISO 17442 (LEI), ISO 13616 (IBAN), ISO 7064 MOD 97-10, ABA routing number policy, CUSIP Global Services.
"""

from __future__ import annotations


def luhn_check_digit(digits: str) -> int:
    """Digit that completes ``digits`` (without it) under the Luhn formula."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return -total % 10


def isin_check_digit(body: str) -> int:
    """Digit that completes the eleven characters of an ISIN: letters as 10 to 35, then Luhn."""
    return luhn_check_digit("".join(str(int(char, 36)) for char in body))


def mod97(text: str) -> int:
    """Remainder by 97 of a string whose letters stand for 10 to 35 (ISO 7064)."""
    return int("".join(str(int(char, 36)) for char in text)) % 97


def iban_check_digits(country: str, account: str) -> str:
    """Two digits after the country code: 98 less the remainder of account + country + 00."""
    return f"{98 - mod97(account + country + '00'):02d}"


def routing_checksum(number: str) -> int:
    """Weighted sum 3, 7, 1 of a nine-digit ABA routing number; a valid one is a multiple of 10."""
    return sum(int(char) * weight for char, weight in zip(number, (3, 7, 1) * 3, strict=True))
