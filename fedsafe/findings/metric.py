"""What a metric is: its unit, range, direction and source."""

from dataclasses import dataclass
from typing import Literal

from fedsafe.errors import ConfigError

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a name in a finding or a requirement means.

    Attributes:
        name: Dotted name, the assessor first.
        unit: Unit of the value.
        low: Smallest possible value, or None.
        high: Largest possible value, or None.
        direction: Which way is better: "higher", "lower" or "none".
        description: One sentence for a report.
        citation: Author and year of the definition, or "".
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    direction: Direction
    description: str
    citation: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.direction not in ("higher", "lower", "none"):
            raise ConfigError(
                f"metric {self.name!r} has direction {self.direction!r}; it needs a name, and one of "
                "'higher', 'lower', 'none'"
            )


def share(name: str, direction: Direction, description: str, citation: str = "") -> Metric:
    """A metric that is a share, from 0 to 1."""
    return Metric(
        name=name,
        unit="share",
        low=0.0,
        high=1.0,
        direction=direction,
        description=description,
        citation=citation,
    )
