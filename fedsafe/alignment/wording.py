"""How a text is cut into words and sentences, for checkers that count them."""

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_TOKEN = re.compile(r"[^\W_]+(?:[.,'\u2019-][^\W_]+)*")
_JOINT = re.compile(r"['\u2019-]")
# What ends a sentence, with closing quotations and brackets, where a space, an opening or a capital follows.
_END = re.compile(
    r"(?:(?<![.!?])[.!?]++|[\u3002\uff01\uff1f])[\"'\u201d\u2019)\]]*+(?=\s|$|[\"\u201c(]|[^\W\d_a-z])|\n\s*\n"
)
_LAST = re.compile(r"([^\W\d_]+)$")
_ABBREVIATED = frozenset(
    {"mr", "mrs", "ms", "mx", "dr", "prof", "st", "jr", "sr", "capt", "lt", "sgt", "vs", "approx"}
)
_LONGEST = (
    16  # letters before a full stop that are looked at, so that no text takes longer than its length asks
)
_LETTERS = re.compile(r"\b[^\W\d_]\.[^\W\d_]$")  # e.g, i.e, U.S


def folded(text: str) -> str:
    """A text in small letters, compatible characters as one (NFKC), without characters that are not seen (Cf)."""
    seen = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", seen).casefold()


def words_of(text: str) -> list[str]:
    """The words of a text, `folded`; numbers are none."""
    return _WORD.findall(folded(text))


def tokens_of(text: str) -> list[str]:
    """The words and numbers of a text, `folded`."""
    return _TOKEN.findall(folded(text))


def parts_of(word: str, most: int = 1) -> list[str]:
    """A word, and up to so many neighbours of what it is joined of: "sad-looking" holds "sad", and so does "Sad's"."""
    joints = [0, *(match.end() for match in _JOINT.finditer(word)), len(word) + 1]
    if len(joints) == 2:
        return [word]
    spans = [
        word[start : end - 1]
        for place, start in enumerate(joints[:-1])
        for end in joints[place + 1 : place + 1 + most]
    ]
    return [word, *spans]


def joined(word: str) -> int:
    """Of how many parts a word is joined."""
    return len(_JOINT.findall(word)) + 1


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each as its words and numbers with one space between; those without any are left out.

    A sentence ends at a full stop, an exclamation or a question mark, or at an empty line. A full stop in a number,
    after a common English abbreviation ("Mr.", "e.g.") or after a capital other than I ("J. Smith") ends none.
    """
    found, start, length = [], 0, len(text.rstrip())
    for match in _END.finditer(text):
        near = text[max(start, match.start() - _LONGEST) : match.start()]
        if match.group() == "." and match.end() < length and _shortened(near):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    cut = (" ".join(tokens_of(sentence)) for sentence in found)
    return [sentence for sentence in cut if sentence]


def _shortened(before: str) -> bool:
    """Whether a full stop after this belongs to an abbreviation."""
    last = _LAST.search(before)
    if last is None:
        return False
    word = last.group()
    initial = len(word) == 1 and word.isupper() and word != "I"
    return initial or word.casefold() in _ABBREVIATED or _LETTERS.search(before) is not None
