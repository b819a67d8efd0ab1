"""Checkers of text: whether a principle is kept, by rules that anyone can read.

A checker is called as ``check(text, prompt)`` and returns whether the text keeps the principle. For a principle about
responses the text is the response; for one about prompts it is the prompt itself. What a rule cannot see it does not
find: how often, `fedsafe.alignment.measure_checker` measures against the labels of a reader. A checker with a true
attribute `exact` is a rule that is the principle itself.
"""

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from fedsafe.alignment.identifiers import PersonalIdentifiers
from fedsafe.alignment.wording import folded, joined, parts_of, sentences_of, tokens_of, words_of
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.extensions import imported, one_line, resolve, unknown_option

Checker = Callable[[str, str], bool]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_AFTER_THE_END = "\"'\u201d\u2019)]"


@dataclass(frozen=True, kw_only=True)
class Words:
    """No listed word occurs more than so often; a word that ends in ``*`` stands for all that begin so.

    A word is found inside what a hyphen or an apostrophe joins ("sad-looking", "Sad's"), and where characters that are
    not seen are put into it. Other spellings ("s a d", "saad") are not.

    Attributes:
        none_of: The words.
        most: How many of them may occur in all.

    Raises:
        ConfigError: The list is empty or holds something else, or the number is negative.
    """

    none_of: Sequence[str]
    most: int = 0
    _exact: frozenset[str] = field(init=False, repr=False)
    _stems: tuple[str, ...] = field(init=False, repr=False)
    _parts: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        listed = _texts("words", "none_of", self.none_of)
        _whole("words", "most", self.most, 0)
        small = [folded(word) for word in listed]
        for word, written in zip(small, listed, strict=True):
            if not _WORD.fullmatch(word.removesuffix("*")):
                raise ConfigError(
                    f"the checker 'words' has {written!r} in none_of; each is one word, or a stem and '*'"
                )
        object.__setattr__(self, "_exact", frozenset(word for word in small if not word.endswith("*")))
        object.__setattr__(self, "_parts", max(map(joined, small)))
        object.__setattr__(self, "_stems", tuple(word[:-1] for word in small if word.endswith("*")))

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        return sum(self._listed(word) for word in words_of(text)) <= self.most

    def _listed(self, word: str) -> bool:
        return any(
            part in self._exact or part.startswith(self._stems) for part in parts_of(word, self._parts)
        )


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A regular expression is found, or is not.

    Attributes:
        pattern: The expression, searched for anywhere; case does not matter.
        found: Whether it must be found; else it must not.

    Raises:
        ConfigError: It is no expression.
    """

    pattern: str
    found: bool = False
    _compiled: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not isinstance(self.found, bool):
            raise ConfigError(
                "the checker 'pattern' has a pattern, which is a text, and found, which is true or false"
            )
        try:
            object.__setattr__(self, "_compiled", re.compile(self.pattern, re.IGNORECASE))
        except re.error as error:
            raise ConfigError(
                f"the checker 'pattern' has {self.pattern!r}, which is no regular expression: {error}"
            ) from error

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        return bool(self._compiled.search(text)) == self.found


@dataclass(frozen=True, kw_only=True)
class Length:
    """So many words; a number is one.

    Raises:
        ConfigError: The ends are no whole numbers in order.
    """

    least: int = 0
    most: int = 10**6
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _whole("length", "least", self.least, 0)
        _whole("length", "most", self.most, 1)
        if self.least > self.most:
            raise ConfigError(
                f"the checker 'length' asks for {self.least} words or more and {self.most} or fewer"
            )

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        return self.least <= len(tokens_of(text)) <= self.most


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The text ends with a sentence's end, and every quotation that it opens is closed.

    Attributes:
        quotations: Whether quotation marks must come in pairs, those of the prompt counted.
    """

    quotations: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.quotations, bool):
            raise ConfigError(
                f"the checker 'finished' has quotations {self.quotations!r}; it is true or false"
            )

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        ended = text.rstrip().rstrip(_AFTER_THE_END).endswith((".", "!", "?", "…"))
        whole = prompt + text
        paired = whole.count('"') % 2 == 0 and whole.count("“") == whole.count("”")
        return ended and (paired or not self.quotations)


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """No sentence occurs more than so often; case, spaces and punctuation do not count.

    The rule is exact about sentences as `fedsafe.alignment.wording.sentences_of` cuts them.

    Raises:
        ConfigError: The number is below 1.
    """

    most: int = 1
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _whole("repetition", "most", self.most, 1)

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        sentences = Counter(sentences_of(text))
        return max(sentences.values(), default=0) <= self.most


@dataclass(frozen=True, kw_only=True)
class Mentions:
    """Whoever of a list the prompt names occurs in the text, too; at least one of them, or all.

    Attributes:
        names: Such as first names.
        all: Whether all of those in the prompt must occur.

    Raises:
        ConfigError: The list is empty or holds something else.
    """

    names: Sequence[str]
    all: bool = False

    def __post_init__(self) -> None:
        _texts("mentions", "names", self.names)
        if not isinstance(self.all, bool):
            raise ConfigError(f"the checker 'mentions' has all {self.all!r}; it is true or false")

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        known = {name.casefold() for name in self.names}
        asked, written = known.intersection(_bare(prompt)), _bare(text)
        return not asked or (asked <= written if self.all else bool(asked & written))


@dataclass(frozen=True, kw_only=True)
class Shouting:
    """At most this share of the words of two letters or more is in capitals.

    Raises:
        ConfigError: It is no share.
    """

    most: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.most, bool) or not isinstance(self.most, int | float) or not 0 <= self.most < 1:
            raise ConfigError(f"the checker 'shouting' has most {self.most!r}; it is a share, such as 0.1")

    def __call__(self, text: str, prompt: str) -> bool:
        """Whether the text keeps the rule."""
        words = [word for word in _WORD.findall(text) if len(word) > 1]
        kept: bool = sum(word.isupper() for word in words) <= self.most * len(words)
        return kept


CHECKERS: Mapping[str, Callable[..., Checker]] = MappingProxyType(
    {
        "words": Words,
        "pattern": Pattern,
        "length": Length,
        "finished": Finished,
        "repetition": Repetition,
        "mentions": Mentions,
        "shouting": Shouting,
        "personal_identifiers": PersonalIdentifiers,
    }
)
"""The built-in ones, by name."""


def build_checker(setting: str | Mapping[str, Any]) -> Checker:
    """The checker that a constitution names.

    Args:
        setting: A name, or a table of a `name` and options. A built-in name, or an entry point of the group
            ``fedsafe.checkers``, is built with the options. An import path ``"package.module:function"`` is a function
            ``check(text, prompt, **options)`` that says whether the principle is kept.

    Raises:
        ConfigError: The name or an option is not known, an option's value is wrong, or what is built cannot be called
            with a text and a prompt.
    """
    if not isinstance(setting, str | Mapping):
        raise ConfigError(f"a checker is a name, or a table with a name; this is {setting!r}")
    table = {"name": setting} if isinstance(setting, str) else dict(setting)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"a checker is a name, or a table with a name; this is {setting!r}")
    if ":" in name:
        check = imported(name, "checker")
        problem = unknown_option(check, table, first=2)
        if problem:
            raise ConfigError(f"checker {name!r}: {problem}")
        _callable_as_checker(name, check, table)
        bound = functools.partial(check, **table)
        if getattr(check, "exact", False) is True:
            bound.exact = True  # type: ignore[attr-defined]
        return bound
    factory = resolve("checker", name, CHECKERS)
    problem = unknown_option(factory, table)
    if problem:
        raise ConfigError(f"checker {name!r}: {problem}")
    try:
        built = factory(**table)
    except FedSafeError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a plug-in's own code may raise anything; a built-in lacks an option
        raise ConfigError(f"checker {name!r} cannot be built: {one_line(error)}") from error
    _callable_as_checker(name, built, {})
    return built


def _callable_as_checker(name: str, check: object, options: Mapping[str, Any]) -> None:
    if not callable(check):
        raise ConfigError(f"checker {name!r} is {type(check).__name__}, not something to call")
    try:
        signature = inspect.signature(check)
    except (TypeError, ValueError):  # some compiled callables do not say
        return
    try:
        signature.bind("", "", **options)
    except TypeError as error:
        raise ConfigError(
            f"checker {name!r} cannot be called as check(text, prompt): {one_line(error)}"
        ) from error


def _bare(text: str) -> set[str]:
    return {word.removesuffix("'s").removesuffix("\u2019s") for word in words_of(text)}


def _texts(checker: str, option: str, value: object) -> list[str]:
    whole = isinstance(value, list | tuple) and all(isinstance(entry, str) and entry for entry in value)
    if not whole or not value:
        raise ConfigError(
            f"the checker {checker!r} has {option} {value!r}; it is a list of words, at least one"
        )
    return list(value)  # type: ignore[call-overload, no-any-return]


def _whole(checker: str, option: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"the checker {checker!r} has {option} {value!r}; it is a whole number from {least}"
        )
