"""Personal identifiers in a text: addresses of mail, telephone numbers, numbers of cards and accounts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fedsafe.errors import ConfigError

Identifier = Literal["email", "telephone", "card", "iban"]

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d(?:[ ().\-/]{0,2}\d){6,18}(?!\w)")
_DATES = re.compile(
    r"(?:(?:(?:1[5-9]|20)\d\d([-/.])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\2(?:1[5-9]|20)\d\d)(?!\d)[ ,-]*)+"
)
_FRACTION = re.compile(r"\d+\.\d+")
_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}(?!\w)")


@dataclass(frozen=True, kw_only=True)
class PersonalIdentifiers:
    """The text holds no identifier of these kinds.

    A card's number has 13 to 19 digits of which Luhn's sum (ISO/IEC 7812-1) is right, an account's number the check
    digits of ISO 13616, and a telephone number 7 to 15 digits (ITU-T E.164) that are written together, with a plus or
    with separators and that do not begin with a date (2026-11-30). Names and postal addresses are not looked for.

    Attributes:
        kinds: Which to look for.

    Raises:
        ConfigError: A kind is not known, or none is given.
    """

    kinds: Sequence[str] = get_args(Identifier)

    def __post_init__(self) -> None:
        known = get_args(Identifier)
        given = isinstance(self.kinds, list | tuple) and len(self.kinds) > 0
        if not given or any(kind not in known for kind in self.kinds):
            raise ConfigError(
                f"the checker 'personal_identifiers' has kinds {self.kinds!r}; they are of {', '.join(known)}"
            )

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        return not identifiers_in(text).intersection(self.kinds)


def identifiers_in(text: str) -> set[str]:
    """The kinds of identifier that a text holds."""
    found = {"email"} if _EMAIL.search(text) else set()
    for match in _IBAN.finditer(text):
        if _is_account(match.group().replace(" ", "").upper()):
            found.add("iban")
    for match in _DIGITS.finditer(text):
        if _FRACTION.fullmatch(match.group()):
            continue
        dates = _DATES.match(match.group())
        digits = re.sub(r"\D", "", match.group()[dates.end() if dates else 0 :])
        if 13 <= len(digits) <= 19 and is_luhn(digits):
            found.add("card")
        elif 7 <= len(digits) <= 15:
            found.add("telephone")
    return found


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (Luhn, 1960)."""
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _is_account(number: str) -> bool:
    moved = number[4:] + number[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1
