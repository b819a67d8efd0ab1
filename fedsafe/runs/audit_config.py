"""The section ``audit``: a second training with canaries in it, beside the run."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedsafe.audit import FEWEST, Kind
from fedsafe.errors import ConfigError
from fedsafe.runs.sections import Count, Delta, Section


def _gradient() -> list[Kind]:
    return ["gradient"]


class AuditConfig(Section):
    """When to audit, with what, and what to do where bounds cross.

    ``kinds`` are records with a chosen gradient, mislabelled records, and clients; each trains for itself, and they
    share the allowed error. ``delta`` is where bounds are compared: the plan's, or ``0.01 / canaries`` if that is less.
    """

    every: Count = 10
    kinds: Annotated[list[Kind], Field(min_length=1)] = Field(default_factory=_gradient)
    canaries: Annotated[int, Field(ge=FEWEST)] = 1000
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    delta: Delta | None = None
    on_alarm: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _each_kind_once(self) -> Self:
        repeated = sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1})
        if repeated:
            raise ConfigError(f"audit.kinds names {repeated[0]!r} twice: leave one out")
        return self
