"""Personal identifiers in texts, and near-duplicates of texts that must not come out.

What is found is a pattern, not a person: a name or an address in free text is not found, and nothing else is claimed.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator

_EMAIL: Final = re.compile(r"[A-Za-z0-9._%+\-]{1,64}@(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2,24}")
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b", re.IGNORECASE)
# Characters by country, from the IBAN registry of ISO 13616.
_IBANS: Final = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
        32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_CARD: Final = re.compile(r"(?<![\d.])\d(?:[ \-]?\d){12,18}(?![\d.])")
# With a country's prefix, or in groups of a national number: a plain run of digits is a number of something else.
_PHONE: Final = re.compile(
    r"(?<![\w+])(?<!\d[ .\-])(?:\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,4}(?:[ .\-]?\d{2,4}){1,4}"
    r"|\(\d{2,5}\) ?\d{2,4}(?:[ .\-]\d{2,5}){1,3}|0\d{1,4}[ .\-/]\d{2,4}(?:[ .\-]\d{2,4}){1,3}"
    r"|\d{3}[ .\-]\d{3}[ .\-]\d{4})(?!\w)"
)
_LONGEST: Final = 100_000
_PRIME: Final = np.uint64((1 << 31) - 1)


def identifiers(text: str) -> tuple[str, ...]:
    """Kinds of identifiers in a text: "email", "phone", "iban" and "card", those that there are.

    An IBAN must have its country's length and pass the check of ISO 13616 (mod 97), a card number that of Luhn (1960).

    Args:
        text: Any; what follows the first 100,000 characters is not read.
    """
    read = text[:_LONGEST]
    found = []
    if _EMAIL.search(read):
        found.append("email")
    card = any(_luhn(re.sub(r"\D", "", match.group())) for match in _CARD.finditer(read))
    iban = any(_iban(match.group()) for match in _IBAN.finditer(read))
    # The digits of a card or an IBAN are no telephone number.
    rest = _CARD.sub(" ", _IBAN.sub(" ", read)) if card or iban else read
    if _PHONE.search(rest):
        found.append("phone")
    return (*found, *(["iban"] if iban else []), *(["card"] if card else []))


def _luhn(digits: str) -> bool:
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [int(d) * (2 if at % 2 else 1) for at, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _iban(text: str) -> bool:
    plain = text.replace(" ", "").upper()
    length = _IBANS.get(plain[:2], 0)
    if not 0 < length <= len(plain):
        return False
    # What follows an IBAN may look like more of it.
    moved = plain[4:length] + plain[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


class Canaries:
    """Texts that must not come in or out again, found also with small changes by MinHash (Broder, 1997).

    A text is the set of its runs of words; the share of equal minima of random hashes of two sets estimates the share
    of runs that they have in common (Jaccard). Only the minima are kept.

    Args:
        texts: The canaries.
        similarity: Estimated share in common from which on a text is a near-duplicate.
        words: In a run.
        hashes: How many; the estimate's error is about 1 / sqrt(hashes).
        seed: Of the hashes.

    Raises:
        ConfigError: There is no text, one has no words, or the similarity is no share.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        similarity: float = 0.6,
        words: int = 3,
        hashes: int = 128,
        seed: int = 0,
    ) -> None:
        if not texts or not 0.0 < similarity <= 1.0:
            raise ConfigError(
                f"canaries need texts and a similarity in (0, 1]: got {len(texts)} and {similarity}"
            )
        rng = public_generator(seed, "minhash")
        self._a = rng.integers(1, int(_PRIME), hashes, dtype=np.uint64)
        self._b = rng.integers(0, int(_PRIME), hashes, dtype=np.uint64)
        self._words, self._similarity = words, similarity
        minima = [self._minima(text) for text in texts]
        if any(found is None for found in minima):
            raise ConfigError("a canary has no words: leave it out")
        self._known = np.stack([found for found in minima if found is not None])

    def nearest(self, text: str) -> float:
        """Estimated share in common with the nearest canary; 0 of a text without words."""
        found = self._minima(text)
        return 0.0 if found is None else float((self._known == found).mean(axis=1).max())

    def near(self, text: str) -> bool:
        """Whether a text is nearly a canary."""
        return self.nearest(text) >= self._similarity

    def _minima(self, text: str) -> NDArray[np.uint64] | None:
        read = re.findall(r"\w+", text[:_LONGEST].lower())
        if not read:
            return None
        runs = {" ".join(read[at : at + self._words]) for at in range(max(1, len(read) - self._words + 1))}
        codes = [int.from_bytes(hashlib.blake2b(run.encode(), digest_size=4).digest(), "big") for run in runs]
        values = np.array(codes, np.uint64) % _PRIME
        return np.asarray(((values[:, None] * self._a + self._b) % _PRIME).min(axis=0))


class TextPrivacy:
    """Both checks together.

    Args:
        canaries: Texts that must not come out; none where None.
    """

    def __init__(self, canaries: Canaries | None = None) -> None:
        self._canaries = canaries

    def check(self, text: str) -> tuple[str, ...]:
        """What was found: "identifier:email" and so on, and "canary"."""
        found = [f"identifier:{kind}" for kind in identifiers(text)]
        if self._canaries is not None and self._canaries.near(text):
            found.append("canary")
        return tuple(found)
