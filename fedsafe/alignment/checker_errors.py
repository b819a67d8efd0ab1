"""How often a checker is wrong, counted on texts that somebody read and labelled."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsafe.alignment.constitution import Article
from fedsafe.errors import ConfigError, DataError
from fedsafe.extensions import one_line
from fedsafe.findings import Interval, clopper_pearson

_LABELS = {"1": True, "0": False}


@dataclass(frozen=True, kw_only=True)
class CheckerError:
    """How often a checker finds what breaks a principle, and leaves what keeps it.

    Attributes:
        found: Texts that break the principle, by the labels of whoever read them, and that the checker finds.
        broken: All that break it.
        cleared: Texts that keep it and that the checker leaves.
        kept: All that keep it.
        exact: Whether the checker's rule is the principle itself, such as a number of words: then it makes no error,
            and the counts are not used.
    """

    found: int = 0
    broken: int = 0
    cleared: int = 0
    kept: int = 0
    exact: bool = False

    @property
    def sensitivity(self) -> float | None:
        """The share of what breaks the principle that is found; None where no text breaks it."""
        return 1.0 if self.exact else self.found / self.broken if self.broken else None

    @property
    def specificity(self) -> float | None:
        """The share of what keeps the principle that is left; None where no text keeps it."""
        return 1.0 if self.exact else self.cleared / self.kept if self.kept else None

    def intervals(self, confidence: float = 0.95) -> tuple[Interval, Interval]:
        """Of sensitivity and specificity (Clopper and Pearson, 1934)."""
        if self.exact:
            return (1.0, 1.0), (1.0, 1.0)
        return clopper_pearson(self.found, self.broken, confidence), clopper_pearson(
            self.cleared, self.kept, confidence
        )


EXACT = CheckerError(exact=True)
"""Of a checker whose rule is the principle."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text and what a reader says of it.

    Labels are as good as the reader: figures that rest on them are about what that reader finds, and somebody who has
    also written the checkers knows what these look for.

    Attributes:
        prompt: What it answers.
        text: The text.
        breaks: By a principle's id, whether the text breaks it; what was not said is left out.
    """

    prompt: str
    text: str
    breaks: Mapping[str, bool]


def measure_checker(article: Article, labelled: Sequence[Labelled]) -> CheckerError:
    """Counts the errors of a principle's checker on labelled texts.

    They have to be a random sample of those that the checker will see, or at least of those that break the principle
    and of those that keep it; texts that the rule was written from make it look better than it is.

    Args:
        article: The principle, about prompts or responses.
        labelled: Those without a label of this principle do not count.

    Raises:
        ConfigError: The checker raises on a text, or answers neither yes nor no; the message has both.
    """
    if article.exact:
        return EXACT
    rows = [(number, row) for number, row in enumerate(labelled, start=1) if article.id in row.breaks]
    return _counted(
        [_found(article, row, number) for number, row in rows], [row.breaks[article.id] for _, row in rows]
    )


def measure_any(articles: Sequence[Article], labelled: Sequence[Labelled]) -> CheckerError:
    """Counts the errors of all checkers together: a text is broken if it breaks any principle, found if any is found.

    Args:
        articles: The principles; one whose rule is exact needs no labels.
        labelled: Those that lack a label of the others do not count.

    Raises:
        ConfigError: A checker raises on a text, or answers neither yes nor no; the message has both.
    """
    if all(article.exact for article in articles):
        return EXACT
    judged = [article for article in articles if not article.exact]
    found, breaks = [], []
    for number, row in enumerate(labelled, start=1):
        if any(article.id not in row.breaks for article in judged):
            continue
        caught = {article.id for article in articles if _found(article, row, number)}
        exact = caught.difference(article.id for article in judged)
        found.append(bool(caught))
        breaks.append(bool(exact) or any(row.breaks[article.id] for article in judged))
    return _counted(found, breaks)


def _found(article: Article, row: Labelled, number: int) -> bool:
    try:
        return not article.kept_by(row.text, row.prompt)
    except (
        Exception,
        SystemExit,
    ) as error:  # a checker is anyone's code; an error that is not counted hides itself
        raise ConfigError(
            f"the checker of principle {article.id!r} failed on labelled text {number}: {one_line(error)}; mend it, "
            "or leave out its labels"
        ) from error


def _counted(found: Sequence[bool], breaks: Sequence[bool]) -> CheckerError:
    pairs = list(zip(found, breaks, strict=True))
    return CheckerError(
        found=pairs.count((True, True)),
        broken=sum(breaks),
        cleared=pairs.count((False, False)),
        kept=len(breaks) - sum(breaks),
    )


def read_labelled(path: Path | str, ids: Sequence[str]) -> list[Labelled]:
    """Labelled texts of a CSV file.

    Args:
        path: Columns ``prompt`` and ``text``, and one named by each labelled principle's id with 1 where the text
            breaks it, 0 where it keeps it, and nothing where it was not said. Other columns are ignored.
        ids: Ids of the principles; those without a column have no labels.

    Raises:
        DataError: The file cannot be read, lacks a column, labels nothing of these principles, or holds another label.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the labelled texts {path} cannot be read: {error}") from error
    columns = list(rows[0]) if rows else []
    for needed in ("prompt", "text"):
        if needed not in columns:
            raise DataError(
                f"the labelled texts {path} have no column {needed!r}; found {columns or 'nothing'}"
            )
    labels = [name for name in ids if name in columns]
    if not labels:
        raise DataError(
            f"the labelled texts {path} have no column of a principle; those are {', '.join(ids)}"
        )
    found = []
    for number, row in enumerate(rows, start=1):
        breaks = {}
        for name in labels:
            label = (row[name] or "").strip()
            if label and label not in _LABELS:
                raise DataError(
                    f"{path}, text {number}: {name} is {label!r}; it is 1 (breaks), 0 (keeps) or nothing"
                )
            if label:
                breaks[name] = _LABELS[label]
        if row["prompt"] is None or row["text"] is None:
            raise DataError(f"{path}, text {number} has fewer columns than the head of the file")
        found.append(Labelled(prompt=row["prompt"], text=row["text"], breaks=breaks))
    return found
