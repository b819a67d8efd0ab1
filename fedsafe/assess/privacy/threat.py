"""Who attacks, what they see and what it costs them: what every finding of an attack says, and what it may conclude."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Adversary = Literal["server", "client", "outsider"]

CAVEAT = "A stronger attack may find more: only an accounted epsilon bounds them all."
"""What stands behind every low score: an attack that fails is no guarantee."""


@dataclass(frozen=True, kw_only=True)
class Threat:
    """An attack, for people who must judge whether it is theirs.

    Attributes:
        attack: Its name, as in the finding's ``where``.
        adversary: Who could do this: "server" (sees each update), "client" (takes part) or "outsider" (sees models).
        sees: What they must see.
        costs: What they must spend or know besides.
        needs: What makes the figure valid.
    """

    attack: str
    adversary: Adversary
    sees: str
    costs: str
    needs: str

    def detail(self, statement: str, **further: Any) -> Mapping[str, Any]:
        """Entries of a finding's ``detail``.

        Args:
            statement: What was found, in a sentence.
            **further: Other entries.
        """
        return {
            "attack": self.attack,
            "adversary": self.adversary,
            "sees": self.sees,
            "costs": self.costs,
            "needs": self.needs,
            "statement": statement,
            **further,
        }


def against_chance(found: str, interval: tuple[float, float], chance: float, *, higher: bool = True) -> str:
    """Whether an interval holds chance, in a sentence that concludes no more than that.

    Args:
        found: What the attack did, a clause, for example "it finds 3.1 % of the members".
        interval: Of the figure.
        chance: What guessing would give.
        higher: Whether more than chance is a leak; else less is.
    """
    low, high = interval
    leak = low > chance if higher else high < chance
    if leak:
        return f"The {found}: better than guessing, so the model gives records away."
    return f"The {found}, which is not told from guessing. {CAVEAT}"
