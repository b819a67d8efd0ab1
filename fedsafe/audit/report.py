"""What an audit found: at each look a lower bound beside the accounted one, and whether they cross."""

from dataclasses import asdict, dataclass
from decimal import ROUND_FLOOR, Context
from typing import Any

from fedsafe.audit.looks import Look
from fedsafe.privacy.audit.cosine import ASSUMPTION as COSINES
from fedsafe.privacy.audit.gaussian_one_run import HYPOTHESIS
from fedsafe.privacy.audit.membership import ASSUMPTION
from fedsafe.records import to_plain


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """An audited run.

    Args:
        kind: Of the canaries.
        unit: ``"record"`` or ``"client"``: whose epsilon is audited.
        canaries: How many coins were thrown.
        included: How many fell on heads.
        adversary: Who guesses.
        confidence: That no look's bound exceeds the truth.
        delta: At which lower and upper bound are compared.
        claimed_delta: Of the plan; where it differs, the accounted figure is that of the same plan at ``delta``.
        looks: In the order of rounds, the last one at the end.
        parameters: ``(parameters,)`` count of the audited model, what canaries needed included.
    """

    kind: str
    unit: str
    canaries: int
    included: int
    adversary: str
    confidence: float
    delta: float
    claimed_delta: float
    looks: tuple[Look, ...]
    parameters: int

    @property
    def crossed(self) -> bool:
        """Whether any look's bounds cross: with this confidence, the accounted epsilon is not what was run."""
        return any(look.crossed for look in self.looks)

    @property
    def warning(self) -> str:
        """What a model of this run must never be without."""
        return (
            f"an audited run: {self.canaries} {self.kind} canaries were among its {self.unit}s, and its model is "
            "not for release"
        )

    def alarm(self) -> str | None:
        """What to say where bounds cross, with what to do; None where none do."""
        for look in self.looks:
            if look.crossed:
                proved = _down(look.bound.epsilon)
                return (
                    f"after round {look.round} the canaries prove epsilon > {proved} per {self.unit} at delta "
                    f"{self.delta:g} (confidence {self.confidence:g} over all looks), and the accounted upper "
                    f"bound is {look.accounted:.4g}: what was run is not what was accounted for. Release nothing; "
                    "look at clipping, noise and sampling"
                )
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values; an infinite number becomes null."""
        plain: dict[str, Any] = to_plain(
            {
                **{name: value for name, value in vars(self).items() if name != "looks"},
                "warning": self.warning,
                "crossed": self.crossed,
                "alarm": self.alarm(),
                "looks": [{**asdict(look), "crossed": look.crossed} for look in self.looks],
                "kinds_of_figures": {
                    "accounted": "upper bound",
                    "bound": f"lower bound, confidence {self.confidence:g} over all looks",
                    "gaussian": f"lower bound under the hypothesis that {HYPOTHESIS}",
                    "membership": f"lower bound if {ASSUMPTION}",
                    "cosines": f"estimates, neither bound; and a lower bound if {COSINES}",
                },
            }
        )
        return plain


def _down(value: float) -> str:
    """Four significant digits of a lower bound, which stays one."""
    return f"{Context(prec=4, rounding=ROUND_FLOOR).create_decimal(repr(float(value))):f}"
