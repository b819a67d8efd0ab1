"""A principle of conduct that a model can be held to by changing its inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from fedsafe.errors import ConfigError

PrincipleKind = Literal["invariance", "direction", "case"]


@dataclass(frozen=True, kw_only=True)
class Principle:
    """One sentence about how a model must decide, and what to test it by (Ribeiro et al., 2020).

    Attributes:
        id: Short name; findings carry it.
        text: The sentence.
        kind: "invariance": another value of the column must not change the decision. "direction": a higher value
            must not lower the score, which is the logit of the outcome. "case": a given record must get a given
            class, or number.
        column: The schema's column to change; for a case, none.
        order: For a direction in a categorical column, its categories from lowest to highest; as the schema lists
            them where empty.
        outcome: For a direction, the class whose score must not fall; the positive class or the number itself where
            empty.
        tolerance: How far a score may fall, in log-odds; for a number, how far it may fall, move or miss, as a share of
            the target's range.
        record: For a case, the raw record: column to text.
        expected: For a case, the class, or the number as text.

    Raises:
        ConfigError: The kind is unknown, or what it needs is missing.
    """

    id: str
    text: str
    kind: PrincipleKind
    column: str = ""
    order: tuple[str, ...] = ()
    outcome: str = ""
    tolerance: float = 1e-6
    record: Mapping[str, str] = field(default_factory=dict)
    expected: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(PrincipleKind):
            known = ", ".join(get_args(PrincipleKind))
            raise ConfigError(f"principle {self.id!r} has the kind {self.kind!r}; it is one of {known}")
        needed = ("record", "expected") if self.kind == "case" else ("column",)
        for name in ("id", *needed):
            if not getattr(self, name):
                raise ConfigError(f"principle {self.id!r} is of the kind {self.kind!r} and needs {name!r}")
        if not 0 <= self.tolerance < float("inf"):
            raise ConfigError(f"principle {self.id!r} has the tolerance {self.tolerance!r}; it is 0 or more")


# Adult's most frequent values in the columns that a case is not about.
_NEUTRAL: Mapping[str, str] = MappingProxyType(
    {
        "marital-status": "Never-married",
        "relationship": "Not-in-family",
        "race": "White",
        "sex": "Male",
        "capital-gain": "0",
        "capital-loss": "0",
        "native-country": "United-States",
    }
)

SHIPPED: Mapping[str, tuple[Principle, ...]] = MappingProxyType(
    {
        "adult": (
            Principle(
                id="education",
                text="More education, all else equal, must not lower the score of a high income.",
                kind="direction",
                column="education",
            ),
            Principle(
                id="young and without work",
                text="Who is 17, went to school for four years and never worked has no high income.",
                kind="case",
                record={
                    **_NEUTRAL,
                    "age": "17",
                    "workclass": "Never-worked",
                    "education": "1st-4th",
                    "occupation": "Other-service",
                    "hours-per-week": "10",
                },
                expected="<=50K",
            ),
            Principle(
                id="large capital gain",
                text="Who gained more than a high income in a year, and earns besides, has a high income.",
                kind="case",
                record={
                    **_NEUTRAL,
                    "age": "45",
                    "workclass": "Self-emp-inc",
                    "education": "Doctorate",
                    "occupation": "Exec-managerial",
                    "hours-per-week": "60",
                    "capital-gain": "99999",
                },
                expected=">50K",
            ),
        ),
    }
)
"""Principles of the tasks that ship with FedSafe, by the task's name; invariance to group columns comes on top."""
