"""A constitution's principles about models and about a generator's answers, as requirements over findings."""

from collections.abc import Sequence

from fedsafe.alignment.constitution import Article, ArticleScope, Constitution
from fedsafe.alignment.ratified_file import rejected
from fedsafe.assess.requirements import Requirement
from fedsafe.errors import ConfigError


def constitution_requirements(
    constitution: Constitution, scope: ArticleScope = "model"
) -> tuple[Requirement, ...]:
    """The principles of one scope as requirements, each with its principle's id and text.

    A principle about a model is held to its own metric. One about a response that has a bound is held to it by the true
    share of the answers that break it, as they were read, see `fedsafe.alignment.compliance`; one without a bound is
    reported only. One that a vote has rejected is judged like the others as long as it stands there; its statement says
    so.

    Args:
        constitution: All principles.
        scope: Which of them.

    Raises:
        ConfigError: A principle about a model is no valid requirement; the message names it.
    """
    turned_down = rejected(constitution)
    return tuple(
        _requirement(article, turned_down)
        for article in constitution.of(scope)
        if scope == "model" or article.bound is not None
    )


def _requirement(article: Article, turned_down: Sequence[str]) -> Requirement:
    values = {
        "metric": article.metric,
        "where": dict(article.where),
        "op": article.op,
        "threshold": article.threshold,
    }
    if article.scope != "model":
        values = {
            "metric": "constitution.true_violations",
            "where": {"principle": article.id, "of": "answers"},
            "op": "<=",
            "threshold": article.bound,
        }
    try:
        return Requirement.parse(
            {
                **values,
                "confidence": article.confidence,
                "severity": article.severity,
                "principle": article.id,
                "statement": f"{article.text} (a vote has rejected this)"
                if article.id in turned_down
                else article.text,
            }
        )
    except ConfigError as error:
        raise ConfigError(f"principle {article.id!r}: {error}") from error
