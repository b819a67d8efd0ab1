"""What the guarded model says of one input: an answer, or an abstention with its reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fedsafe.errors import ConfigError

Action = Literal["abstain", "note", "off"]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision.

    Attributes:
        id: Of the decision, as in the log.
        answered: Whether there is an answer.
        label: Predicted class; None for an abstention, and where a number is predicted.
        value: Predicted number in the target's own unit; None for an abstention, and where a class is predicted.
        confidence: Calibrated probability of the predicted class; None where there is none.
        reasons: Why it abstained: a code of `docs/serving.md`, perhaps with a detail after a colon.
        notes: What was found and did not keep it from answering.
        p_values: "ood", "adversarial" and "combined" where they were computed.
        explanation: Name of a column or pixel to what it moved the explained output by; None where not asked for.
    """

    id: str
    answered: bool
    label: str | None = None
    value: float | None = None
    confidence: float | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    p_values: Mapping[str, float] = field(default_factory=dict)
    explanation: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {
            "id": self.id,
            "answered": self.answered,
            "label": self.label,
            "value": self.value,
            "confidence": self.confidence,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "p_values": dict(self.p_values),
        }
        if self.explanation is not None:
            found["explanation"] = dict(self.explanation)
        return found


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What keeps a guarded model from answering, besides an input that is no record of the schema.

    Attributes:
        floor: Least calibrated confidence of an answer; 0 for none.
        strange: An alarm of the monitor: "abstain", or "note" to answer and say so.
        flips: A protected column with another value would change the decision.
        queries: The caller asks as one does who copies or probes a model.
        privacy: A text holds a personal identifier, or is nearly one of the canaries.

    Raises:
        ConfigError: The floor is no share, or an action is unknown.
    """

    floor: float = 0.0
    strange: Action = "abstain"
    flips: Action = "abstain"
    queries: Action = "abstain"
    privacy: Action = "abstain"

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor < 1.0:
            raise ConfigError(f"the least confidence is from 0 to below 1, not {self.floor!r}")
        for name in ("strange", "flips", "queries", "privacy"):
            if getattr(self, name) not in ("abstain", "note", "off"):
                raise ConfigError(f"policy {name} = {getattr(self, name)!r}: use abstain, note or off")
