"""A constitution: a versioned list of principles that a machine can check, and what follows where one is broken."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fedsafe.alignment.checkers import Checker, build_checker
from fedsafe.errors import ConfigError
from fedsafe.findings import Scalar, find_metric

ArticleScope = Literal["model", "prompt", "response"]
Action = Literal["block", "refuse", "regenerate", "warn"]

_ACTIONS: Mapping[ArticleScope, tuple[Action, ...]] = {
    "model": ("block", "warn"),
    "prompt": ("refuse", "warn"),
    "response": ("regenerate", "refuse", "warn"),
}
_OF_A_MODEL = ("metric", "where", "op", "threshold")
_OF_A_TEXT = ("checker", "bound", "hint")


@dataclass(frozen=True, kw_only=True)
class Article:
    """One principle.

    Attributes:
        id: Short name; findings, verdicts and refusals carry it.
        text: The principle, for people.
        scope: Whether it is about the "model", which a metric measures, or about a "prompt" or a "response", which a
            checker reads.
        checker: Of a text: see `build_checker`.
        bound: Of a response: the largest share of the answers that may break it, for the compliance report; None where
            none is set.
        hint: Of a response: what to put to the generator after this was broken; the text itself where empty.
        metric: Of a model: a registered metric.
        where: Of a model: entries that the metric's findings must hold.
        op: Of a model: ">=", "<=", ">" or "<".
        threshold: Of a model: in the metric's unit.
        confidence: Two-sided confidence that a verdict needs.
        severity: A "must" has to be met; a "should" is preferred and reported.
        action: Of a model: "block" its release, or "warn". Of a prompt: "refuse" it, or "warn". Of a response:
            "regenerate" it, "refuse" to answer at all, or "warn". Left out, it is the first of these, and "warn" for a
            should about a model or a prompt. A "must" does more than warn; a "should" neither blocks nor refuses.
        ratified_by: What a vote has found, as `fedsafe constitution ratify` wrote it; empty before there was one.

    Raises:
        ConfigError: An entry is missing, unknown, out of range, or contradicts another.
    """

    id: str
    text: str
    scope: ArticleScope
    checker: str | Mapping[str, Any] = ""
    bound: float | None = None
    hint: str = ""
    metric: str = ""
    where: Mapping[str, Scalar] = field(default_factory=dict)
    op: str = ""
    threshold: float | None = None
    confidence: float = 0.95
    severity: Literal["must", "should"] = "must"
    action: Action | None = None
    ratified_by: Mapping[str, Any] = field(default_factory=dict)
    _check: Checker | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("id", "text"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{name} is {value!r}; a principle needs a text there")
        self._one_of("scope", get_args(ArticleScope))
        self._one_of("severity", ("must", "should"))
        for name in ("checker", "where", "ratified_by"):
            strange = _no_json(getattr(self, name))
            if strange is not None:
                raise ConfigError(
                    f"{name} holds {strange!r}, a {type(strange).__name__}; write it as a text, a number, true or "
                    "false, a list or a table"
                )
        self._check_kind()
        confidence = self.confidence
        if isinstance(confidence, bool) or not isinstance(confidence, float) or not 0 < confidence < 1:
            raise ConfigError(f"confidence is {confidence!r}; it lies between 0 and 1, e.g. 0.95")
        actions = _ACTIONS[self.scope]
        if self.action is None:
            mild = self.severity == "should" and self.scope != "response"
            object.__setattr__(self, "action", "warn" if mild else actions[0])
        self._one_of("action", actions)
        if self.severity == "must" and self.action == "warn":
            raise ConfigError(f'a "must" cannot only warn: make it a "should", or let it {actions[0]}')
        if self.severity == "should" and self.action in ("block", "refuse"):
            raise ConfigError(f'a "should" cannot {self.action}: make it a "must", or let it warn')
        if not isinstance(self.hint, str) or not isinstance(self.ratified_by, Mapping):
            raise ConfigError(
                f"hint is a text and ratified_by a table; found {self.hint!r}, {self.ratified_by!r}"
            )

    def _one_of(self, name: str, known: Sequence[str]) -> None:
        value = getattr(self, name)
        if value not in known:
            near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"of a {self.scope} it is one of {', '.join(known)}"
            )
            raise ConfigError(f"{name} is {value!r}; {hint}")

    def _check_kind(self) -> None:
        """Refuses what belongs to the other kind of principle, and what is missing for this one."""
        foreign = _OF_A_TEXT if self.scope == "model" else _OF_A_MODEL
        if self.scope == "prompt":  # a prompt is no answer: what is asked is not the guard's to bound
            foreign = (*foreign, "bound", "hint")
        for name in foreign:
            if getattr(self, name) not in ("", None, {}):
                about = "a metric, and" if self.scope == "model" else "a checker, and"
                raise ConfigError(
                    f"{name} is set, but a principle of scope {self.scope!r} has {about} no {name}"
                )
        if self.scope != "model":
            if not isinstance(self.checker, str | Mapping):
                raise ConfigError(
                    f"checker is {self.checker!r}; it is a name, or a table of a name and options"
                )
            if not self.checker:
                raise ConfigError(f"a principle of scope {self.scope!r} needs a checker")
            object.__setattr__(self, "_check", build_checker(self.checker))
            bound = self.bound
            if bound is not None and (
                isinstance(bound, bool) or not isinstance(bound, float) or not 0 < bound < 1
            ):
                raise ConfigError(
                    f"bound is {bound!r}; it is a share of the answers between 0 and 1, e.g. 0.05"
                )
            return
        for name, kind, what in (
            ("metric", str, "the name of one, such as performance.accuracy"),
            ("where", Mapping, 'a table, such as { group = "a" }'),
            ("op", str, 'one of ">=", "<=", ">" and "<"'),
        ):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it is {what}")
        missing = [name for name in ("metric", "op", "threshold") if getattr(self, name) in ("", None)]
        if missing:
            raise ConfigError(f"a principle of scope 'model' needs {' and '.join(missing)}")
        find_metric(self.metric)

    def kept_by(self, text: str, prompt: str) -> bool:
        """Whether a text keeps the principle, as the checker sees it; the checker's own errors pass.

        Raises:
            ConfigError: The principle is about a model, or the checker answers something else than yes or no.
        """
        if self._check is None:
            raise ConfigError(f"principle {self.id!r} is about a model: no text keeps or breaks it")
        kept = self._check(text, prompt)
        if not isinstance(kept, bool):
            raise ConfigError(
                f"the checker of principle {self.id!r} returned {type(kept).__name__}, not True or False"
            )
        return kept

    @property
    def exact(self) -> bool:
        """Whether the checker's rule is the principle itself, as a number of words is: then it makes no error."""
        return bool(getattr(self._check, "exact", False))

    def to_table(self) -> dict[str, Any]:
        """As in the file, what is unset left out."""
        values = {name: getattr(self, name) for name in _KEYS}
        return {name: _plain(value) for name, value in values.items() if value not in ("", None, {})}

    @property
    def digest(self) -> str:
        """SHA-256 of everything but `ratified_by`, in hexadecimal: what a vote is about."""
        table = self.to_table()
        table.pop("ratified_by", None)
        return _digest(table)


_KEYS = tuple(entry.name for entry in fields(Article) if entry.init)


@dataclass(frozen=True, kw_only=True)
class Constitution:
    """All principles, in the order in which they are checked.

    Attributes:
        version: As the authors count.
        articles: At least one; their ids are distinct.
        title: For a report.

    Raises:
        ConfigError: There is none, or two have one id.
    """

    version: str
    articles: Sequence[Article]
    title: str = ""

    def __post_init__(self) -> None:
        for name in ("version", "title"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(
                    f'{name} is {getattr(self, name)!r}; write it as a text, such as {name} = "1"'
                )
        if not self.version:
            raise ConfigError('version is empty; write it as a text, such as version = "1"')
        if not self.articles:
            raise ConfigError("there is no [[principle]]; a constitution has at least one")
        ids = [article.id for article in self.articles]
        twice = next((name for name in ids if ids.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two principles have the id {twice!r}: rename one")

    def of(self, *scopes: ArticleScope) -> tuple[Article, ...]:
        """The principles of these scopes."""
        return tuple(article for article in self.articles if article.scope in scopes)

    def to_table(self) -> dict[str, Any]:
        """As in the file."""
        title = {"title": self.title} if self.title else {}
        return {
            "version": self.version,
            **title,
            "principle": [article.to_table() for article in self.articles],
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal: comments and layout do not change it, every key does."""
        return _digest(self.to_table())


def parse_constitution(table: Mapping[str, Any], source: str = "the constitution") -> Constitution:
    """Reads a constitution from plain values.

    Args:
        table: `version`, `title` and the list `principle`.
        source: The file, for messages.

    Raises:
        ConfigError: One line that names the source, the principle by its id, or by its position where it has none, the
            key and what to write instead.
    """
    _known(table, ("version", "title", "principle"), source)
    entries = table.get("principle", [])
    if not isinstance(entries, list):
        raise ConfigError(f"{source}: principle is no list; write each as [[principle]]")
    articles = []
    for position, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{source}: principle {position} is {entry!r}, not a table")
        named = entry.get("id")
        about = f"{source}: principle {repr(named) if isinstance(named, str) and named else position}"
        _known(entry, _KEYS, about)
        missing = [key for key in ("id", "text", "scope") if key not in entry]
        if missing:
            raise ConfigError(f"{about} lacks {' and '.join(missing)}")
        try:
            articles.append(Article(**entry))
        except ConfigError as error:
            raise ConfigError(f"{about}: {error}") from error
    if "version" not in table:
        raise ConfigError(f'{source} lacks its version; write version = "1" before the first [[principle]]')
    try:
        return Constitution(version=table["version"], title=table.get("title", ""), articles=tuple(articles))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def read_constitution(path: Path | str) -> Constitution:
    """Reads a constitution's TOML file.

    Raises:
        ConfigError: It cannot be read, is no TOML, or says something wrong; see `parse_constitution`.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the constitution {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the constitution {path} is not valid TOML: {error}") from error
    return parse_constitution(table, str(path))


def _known(table: Mapping[str, Any], known: Sequence[str], about: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"its keys are {', '.join(known)}"
            raise ConfigError(f"{about} has no key {key!r}; {hint}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _no_json(value: Any) -> Any:
    """The first value, if any, that is none of JSON's, as a date of TOML's is; None else."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((found for found in map(_no_json, value) if found is not None), None)
    return None if value is None or isinstance(value, str | bool | int | float) else value


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
