"""The compliance report of a guard: what its answers keep, as findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsafe.alignment.checker_errors import CheckerError, Labelled, measure_any, measure_checker
from fedsafe.alignment.constitution import Article, Constitution
from fedsafe.alignment.corrected_shares import Corrected, after_selection, fall, rogan_gladen
from fedsafe.alignment.guard import Response
from fedsafe.errors import ConfigError
from fedsafe.findings import (
    Finding,
    Pairs,
    Scalar,
    bounded_mean,
    clopper_pearson,
    estimate,
    not_measured,
    paired_difference,
    proportion,
)

ANY = "any"
"""Stands for all principles about responses together: a text breaks "any" if it breaks one of them."""

_CONFIDENCE = 0.95


def compliance(
    constitution: Constitution,
    responses: Sequence[Response],
    labelled: Sequence[Labelled] = (),
    read: Sequence[Labelled] = (),
    *,
    rng: np.random.Generator,
    data: str = "",
) -> list[Finding]:
    """What a guard's responses keep of a constitution.

    A finding's `where` names the principle, or `ANY`, and what is counted: "unguarded" are the first candidates, which
    is what the generator would have answered; "answers" are the responses that are no refusals; "requests" are all, a
    refusal breaking nothing; "prompts" are what was asked. A principle's intervals are at its own confidence.

    ``constitution.violations`` is what checkers find. ``constitution.true_violations`` is the truth as far as it can be
    known:

    * of the unguarded, by `rogan_gladen`, from labels of other unguarded texts;
    * of answers, where the checker's rule is the principle itself, what it finds;
    * of answers else, what `read` says of them, with Clopper and Pearson's interval; nothing where none was read. The
      guard selects answers by its checkers, so that these say nothing of what is left, and labels of other texts say it
      only under assumptions that are not to be had. ``constitution.inferred_violations`` is that figure
      (`after_selection`): it is right if all prompts are alike and restating changes nothing, and too low by any factor
      where they do not.

    ``constitution.fall`` is of the two true shares.

    Args:
        constitution: That the guard kept to.
        responses: All of its responses to a sample of prompts.
        labelled: Texts of the unguarded generator, other than those of the responses, a random sample.
        read: Answers among the responses that somebody read and labelled, all or a random part; a label `ANY` stands
            for all principles. Those that are no answer of these responses do not count.
        rng: Of the draws for intervals.
        data: Where the prompts come from.

    Raises:
        ConfigError: There is no response, or a checker fails on a labelled text.
    """
    if not responses:
        raise ConfigError("a compliance report needs responses, and there is none")
    articles = constitution.of("response")
    findings = _costs(responses, data)
    for article in constitution.of("prompt"):
        hits = sum(not _kept(article, response.prompt, response.prompt) for response in responses)
        findings.append(
            proportion(
                "constitution.violations",
                hits,
                len(responses),
                unit="prompts",
                confidence=article.confidence,
                where={"principle": article.id, "of": "prompts"},
                data=data,
            )
        )
    labels = {(row.prompt, row.text): row.breaks for row in read}
    for article in articles:
        error = measure_checker(article, labelled)
        of_answers = _read_of(responses, labels, article)
        part = _Part(article.id, {article.id}, error, of_answers, article.confidence)
        findings += _principle(part, responses, rng, data)
    if articles:
        error = measure_any(articles, labelled)
        part = _Part(
            ANY, {a.id for a in articles}, error, _any_read_of(responses, labels, articles), _CONFIDENCE
        )
        findings += _principle(part, responses, rng, data)
    return findings


@dataclass(frozen=True)
class _Part:
    """One principle, or all of them as one."""

    name: str
    ids: set[str]
    error: CheckerError
    read: tuple[int, int]  # answers that break it, of those that were read
    confidence: float


def _read_of(
    responses: Sequence[Response], labels: Mapping[tuple[str, str], Mapping[str, bool]], article: Article
) -> tuple[int, int]:
    """How many answers break a principle of how many that are known."""
    answers = [response for response in responses if not response.refused]
    if article.exact:
        return sum(article.id in response.violated for response in answers), len(answers)
    known = [labels.get((response.prompt, response.text), {}).get(article.id) for response in answers]
    return sum(label is True for label in known), sum(label is not None for label in known)


def _any_read_of(
    responses: Sequence[Response],
    labels: Mapping[tuple[str, str], Mapping[str, bool]],
    articles: Sequence[Article],
) -> tuple[int, int]:
    exact = {article.id for article in articles if article.exact}
    judged = [article.id for article in articles if not article.exact]
    broken = read = 0
    for response in responses:
        if response.refused:
            continue
        said = labels.get((response.prompt, response.text), {})
        if judged and ANY not in said and any(name not in said for name in judged):
            continue
        read += 1
        found = [said[name] for name in (ANY, *judged) if name in said]
        broken += any(found) or bool(exact.intersection(response.violated))
    return broken, read


def _costs(responses: Sequence[Response], data: str) -> list[Finding]:
    count = len(responses)
    at_prompt = sum(response.refused and not response.attempts for response in responses)
    refused = sum(response.refused for response in responses)
    findings = [
        proportion("constitution.refusals", refused, count, unit="prompts", data=data),
        proportion(
            "constitution.refusals",
            at_prompt,
            count,
            unit="prompts",
            where={"because of": "prompt"},
            data=data,
        ),
    ]
    written = [len(response.candidates) for response in responses]
    mean = float(np.mean(written))
    if count < 2:
        return [*findings, estimate("constitution.generations", mean, n=count, unit="prompts", data=data)]
    interval, method = bounded_mean(written, 0, max(1, *written), 0.95)
    return [
        *findings,
        estimate(
            "constitution.generations",
            mean,
            interval=interval,
            method=method,
            n=count,
            unit="prompts",
            data=data,
        ),
    ]


def _principle(
    part: _Part, responses: Sequence[Response], rng: np.random.Generator, data: str
) -> list[Finding]:
    """Everything about one principle, or about all of them as one."""
    requests, level = len(responses), part.confidence
    bare = [bool(part.ids.intersection(r.first.violated)) for r in responses if r.first is not None]
    # An answer may come of a second attempt where the first wrote nothing: it counts, with nothing to pair it with.
    breaking = [bool(part.ids.intersection(r.violated)) and not r.refused for r in responses]
    paired = [
        broken for broken, response in zip(breaking, responses, strict=True) if response.first is not None
    ]
    answers = sum(not response.refused for response in responses)
    k, n, flagged = sum(bare), len(bare), sum(breaking)

    def where(of: str) -> dict[str, Scalar]:
        return {"principle": part.name, "of": of}

    raw = [
        proportion(
            "constitution.violations",
            hits,
            trials,
            unit=unit,
            confidence=level,
            where=where(of),
            data=data,
        )
        for of, hits, trials, unit in (
            ("unguarded", k, n, "texts"),
            ("answers", flagged, answers, "texts"),
            ("requests", flagged, requests, "prompts"),
        )
    ]
    change = paired_difference(
        "constitution.change",
        Pairs.of(np.array(paired, bool), np.array(bare, bool)),
        unit="prompts",
        confidence=level,
        where={"principle": part.name},
        data=data,
    )
    broken, read = part.read
    true, inferred = "constitution.true_violations", "constitution.inferred_violations"
    inference = after_selection(k, n, flagged, answers, part.error, level, rng=rng)
    figures = (
        (true, rogan_gladen(k, n, part.error, level), where("unguarded"), n),
        (true, _direct(broken, read, answers, level), where("answers"), read),
        (true, _of_requests(broken, read, answers, requests, level), where("requests"), requests),
        (inferred, inference, where("answers"), answers),
        (
            "constitution.fall",
            fall(k, n, part.error, broken, read, level, rng=rng),
            dict[str, Scalar](principle=part.name),
            read,
        ),
    )
    corrected = [_corrected(metric, found, at, count, level, data) for metric, found, at, count in figures]
    return [*raw, change, *corrected, *_errors(part, data)]


def _direct(broken: int, read: int, answers: int, confidence: float) -> Corrected:
    if not read:
        why = (
            "no answer was read: what a checker missed in answers that it let pass is not known from other texts"
            if answers
            else "there is no answer"
        )
        return Corrected(value=None, interval=None, method=why)
    return Corrected(
        value=broken / read, interval=clopper_pearson(broken, read, confidence), method="clopper-pearson"
    )


def _of_requests(broken: int, read: int, answers: int, requests: int, confidence: float) -> Corrected:
    """Of all requests: a refusal breaks nothing."""
    if not answers or read == answers:
        interval = clopper_pearson(broken, requests, confidence)
        return Corrected(value=broken / requests, interval=interval, method="clopper-pearson")
    direct = _direct(broken, read, answers, (1 + confidence) / 2)
    if direct.value is None or direct.interval is None:
        return direct
    low, high = clopper_pearson(answers, requests, (1 + confidence) / 2)
    return Corrected(
        value=direct.value * answers / requests,
        interval=(direct.interval[0] * low, direct.interval[1] * high),
        method="clopper-pearson of both shares, bonferroni",
    )


def _errors(part: _Part, data: str) -> list[Finding]:
    if part.error.exact:
        return []
    return [
        proportion(
            f"constitution.checker_{what}",
            hits,
            trials,
            unit="labelled texts",
            confidence=part.confidence,
            method="clopper-pearson",
            where={"principle": part.name},
            data=data,
        )
        for what, hits, trials in (
            ("sensitivity", part.error.found, part.error.broken),
            ("specificity", part.error.cleared, part.error.kept),
        )
    ]


def _corrected(
    metric: str, found: Corrected, where: dict[str, Scalar], n: int, confidence: float, data: str
) -> Finding:
    if found.value is None:
        return not_measured(
            metric, found.method, status="insufficient", n=n, unit="texts", where=where, data=data
        )
    return estimate(
        metric,
        found.value,
        interval=found.interval,
        confidence=confidence,
        method=found.method,
        n=n,
        unit="texts",
        where=where,
        data=data,
    )


def _kept(article: Article, text: str, prompt: str) -> bool:
    try:
        return article.kept_by(text, prompt)
    except (
        Exception,
        SystemExit,
    ):  # a checker is anyone's code; the guard has refused the prompt for it, and said so
        return False
