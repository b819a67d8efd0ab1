"""The section ``byzantine``: clients that are adversaries, and what they do."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from fedsafe.errors import ConfigError
from fedsafe.runs.sections import Section


class ByzantineConfig(Section):
    """Simulated adversaries: a share of the clients, or so many of them, chosen by the seed.

    ``attack`` is what they send in place of their updates, for rules over rows; see ``fedsafe.aggregation.attacks``.
    ``poison`` is what they do to their records before they train, for any rule; see ``fedsafe.client.poisoning``. A
    share of 0 leaves none: the clean run of a comparison.
    """

    attack: str | dict[str, Any] | None = None
    poison: str | dict[str, Any] | None = None
    share: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    adversaries: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _who_and_what(self) -> Self:
        if self.attack is None and self.poison is None:
            raise ConfigError(
                'byzantine says nothing that adversaries do: set byzantine.attack, such as "alie", or '
                'byzantine.poison, such as "label_flip"'
            )
        if (self.share is None) == (self.adversaries is None):
            said = (
                "how many twice: leave one out"
                if self.share is not None
                else "not how many adversaries there are"
            )
            raise ConfigError(f"byzantine says {said}: set byzantine.share = 0.3, or byzantine.adversaries")
        return self

    def count(self, clients: int) -> int:
        """How many of so many clients are adversaries.

        Raises:
            ConfigError: No honest client would be left.
        """
        count = self.adversaries if self.adversaries is not None else round((self.share or 0.0) * clients)
        if count >= clients:
            said = (
                f"adversaries = {self.adversaries}"
                if self.adversaries is not None
                else f"share = {self.share}"
            )
            raise ConfigError(
                f"byzantine.{said} of {clients} clients leaves no honest one: at most {clients - 1} can be adversaries"
            )
        return count
