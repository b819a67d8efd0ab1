"""A constitution's principles about models and about a generator's answers, as requirements over findings."""

from fedsafe.alignment.constitution import Article, ArticleScope, Constitution
from fedsafe.assess.requirements import Requirement
from fedsafe.errors import ConfigError


def constitution_requirements(
    constitution: Constitution, scope: ArticleScope = "model"
) -> tuple[Requirement, ...]:
    """The principles of one scope as requirements, each with its principle's id and text.

    A principle about a model is held to its own metric. One about a response that has a bound is held to it by the true
    share of the answers that break it, see `fedsafe.alignment.compliance`; one without a bound is reported only.

    Args:
        constitution: All principles.
        scope: Which of them.

    Raises:
        ConfigError: A principle about a model is no valid requirement; the message names it.
    """
    return tuple(
        _requirement(article)
        for article in constitution.of(scope)
        if scope == "model" or article.bound is not None
    )


def _requirement(article: Article) -> Requirement:
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
                "statement": article.text,
            }
        )
    except ConfigError as error:
        raise ConfigError(f"principle {article.id!r}: {error}") from error
