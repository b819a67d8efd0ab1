"""What the pages on robustness, explanations, fairness and privacy attacks show, taken from findings alone.

Every plot has a one-sentence reading, for people who do not know the method; a plot that has nothing to show is left
out, as the scorecard says why.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fedsafe.records import Json
from fedsafe.report.areas import alignment, attacks, explanations, groups, robustness
from fedsafe.report.areas.attacks import AttackerRow
from fedsafe.report.areas.figure import Figure
from fedsafe.report.pictures import Gallery, galleries

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Area:
    """A section of a page.

    Attributes:
        id: Its anchor.
        title: Its heading.
        about: What to know before reading it.
        figures: Plots.
        galleries: Pictures.
        rules: Rules that imitate the model, as (if, then, how often and how well).
        attackers: Privacy attacks, each with its adversary.
    """

    id: str
    title: str
    about: str
    figures: tuple[Figure, ...]
    galleries: tuple[Gallery, ...] = ()
    rules: tuple[tuple[str, str, str], ...] = ()
    attackers: tuple[AttackerRow, ...] = ()

    @property
    def shows(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.figures or self.galleries or self.rules or self.attackers)


def areas(findings: Sequence[Json]) -> list[Area]:
    """The areas that have something to show.

    Args:
        findings: The latest ones of a run, or those of one assessment.
    """
    made = (
        Area(
            id="robustness",
            title="How it breaks",
            about="An attack shows that an input can be found on which the model errs; a certificate proves that none "
            "exists. A stronger attack could lower the first, a better proof raise the second: the truth lies between.",
            figures=_drawn(
                findings, robustness.brackets, robustness.noise, robustness.smoothing, robustness.corruptions
            ),
            galleries=tuple(galleries(findings, ("robustness", "corruptions"))),
        ),
        Area(
            id="explanations",
            title="What it relies on",
            about="Attributions describe the model, not the world. Each method is shown beside a random attribution: "
            "what is no better than that explains nothing.",
            figures=_drawn(
                findings, explanations.attributions, explanations.removal, explanations.randomised
            ),
            galleries=tuple(galleries(findings, ("interpretability",))),
            rules=_found(findings, explanations.rules),
        ),
        Area(
            id="groups-shown",
            title="Whom it serves",
            about="Points are rates of groups, bars their intervals; bars that overlap widely show no difference. "
            "Small groups are left out here and named in the tables of groups.",
            figures=_drawn(findings, groups.groups, groups.costs),
        ),
        Area(
            id="alignment",
            title="Whose preferences it learned",
            about="Accuracies are over pairs, intervals over the people who judged them unless a table says otherwise. "
            "What other people foretell of a person is no limit, but what can be asked of a model that knows the items "
            "alone.",
            figures=_drawn(findings, alignment.agreement, alignment.choosing, alignment.poisoned),
        ),
        Area(
            id="attacks",
            title="What attackers learn",
            about="An attack that finds little proves nothing: a better one may find more. Only the claims above bound "
            "what can be learned.",
            figures=_drawn(findings, attacks.roc),
            galleries=tuple(galleries(findings, ("membership", "inversion", "privacy"))),
            attackers=_found(findings, attacks.attacker_rows),
        ),
    )
    return [area for area in made if area.shows]


def _drawn(
    findings: Sequence[Json], *drawers: Callable[[Sequence[Json]], Iterator[Figure]]
) -> tuple[Figure, ...]:
    return tuple(figure for drawer in drawers for figure in _found(findings, drawer))


def _found(findings: Sequence[Json], maker: Callable[[Sequence[Json]], Iterator[T]]) -> tuple[T, ...]:
    """What can be made; details of another shape, of a newer version or of somebody's own assessor, are left out."""
    made = []
    try:
        for entry in maker(findings):
            made.append(entry)  # noqa: PERF402 - what was made before the error counts
    except (KeyError, TypeError, ValueError, AttributeError):
        _LOG.debug("a figure of %s could not be drawn", maker.__name__, exc_info=True)
    return tuple(made)
