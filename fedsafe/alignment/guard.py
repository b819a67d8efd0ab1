"""A guard around any text generator: it answers with what keeps the constitution, or says that it does not answer."""

import inspect
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from fedsafe.alignment.constitution import Article, Constitution
from fedsafe.errors import ConfigError
from fedsafe.extensions import one_line

Restate = Callable[[str, Sequence[Article]], str]
Reward = Callable[[str], float]

REFUSAL = "I cannot answer this within the principles that I keep to."


class Generate(Protocol):
    """Any text generator; one that takes a keyword `seed` gets one, and can be asked for the same text again."""

    def __call__(self, prompt: str) -> str:
        """The text that answers a prompt."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One text that was generated, and what the checkers found.

    Attributes:
        text: The text.
        attempt: From 1.
        seed: That the generator was given; None where it takes none.
        violated: Ids of the principles that it breaks, or whose checker failed, in the constitution's order.
        score: Its reward; None where there is no reward model, or it failed.
    """

    text: str
    attempt: int
    seed: int | None
    violated: tuple[str, ...]
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the guard answers, and how it came to it.

    Attributes:
        prompt: That was answered.
        text: The answer, or the refusal.
        refused: Whether it is the refusal.
        reason: Why it refused, in one sentence; "" where it did not.
        attempts: Rounds of generation, from 0 for a prompt that was refused.
        violated: Ids of what the prompt, or the last candidates, broke; for an answer, those of severity "should" that
            it breaks, and those that only warn.
        candidates: All that was generated.
        failures: One line for each checker, generator or reward that raised.
    """

    prompt: str
    text: str
    refused: bool
    reason: str = ""
    attempts: int = 0
    violated: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def first(self) -> Candidate | None:
        """What the generator would have answered without a guard; None where it was not asked."""
        return next((candidate for candidate in self.candidates if candidate.attempt == 1), None)


def instruct(prompt: str, violated: Sequence[Article]) -> str:
    """The prompt, and the principles that were broken as instructions: for a model that follows some."""
    rules = "\n".join(f"- {article.hint or article.text}" for article in violated)
    return f"{prompt}\n\nKeep to these principles:\n{rules}"


def lead_in(prompt: str, violated: Sequence[Article]) -> str:
    """The prompt, and the hints of what was broken as its last sentences: for a model that only writes on.

    A principle without a hint adds nothing.
    """
    return " ".join([prompt, *dict.fromkeys(article.hint for article in violated if article.hint)])


class GuardedGenerator:
    """Answers prompts in a fixed order: check the prompt, generate, check, choose, generate anew, refuse.

    1. A prompt that breaks a principle of action "refuse" is refused, and nothing is generated.
    2. `best_of` candidates are generated, and looked at. One that breaks a principle of action "refuse" ends in a
       refusal. Of those that keep every "must", those that break the fewest "should" are preferred, and of these the
       reward model's best is the answer; without one, the first. Where that is so, and nothing is asked for at once or
       may refuse, none is generated after one that breaks nothing.
    3. Where none keeps every "must", or each breaks a "should" that is to be regenerated, the principles that were
       broken are stated in the prompt and new candidates are generated, in all `attempts` times. Then the best that
       keeps every "must" is the answer, with what it breaks said; there is a refusal if there is none.

    It always ends: the generator is called `best_of * attempts` times at most. It fails closed: a checker that
    raises or answers neither yes nor no counts as a principle that is not kept, and the response records why. A
    generator that raises or returns no text gives no candidate.

    A principle that a vote has rejected is kept to like any other, as long as it stands in the constitution:
    `fedsafe.alignment.ratified_file.rejected` names those.

    Args:
        generate: Any ``generate(prompt)`` or ``generate(prompt, seed=...)``; a method ``many(prompt, seeds)``, where
            there is one, is asked for all candidates at once, and no more than `best_of` are taken.
        constitution: Its principles about models are not judged here.
        reward: Scores a text, higher is better.
        best_of: Candidates of an attempt.
        attempts: At most.
        refusal: What a refusal says.
        restate: Puts the principles that were broken into the prompt: `instruct`, `lead_in` or another.
        rng: Of the seeds of answers that are given none.

    Raises:
        ConfigError: A number is below 1, or no principle is about a text.
    """

    def __init__(
        self,
        generate: Generate,
        constitution: Constitution,
        *,
        reward: Reward | None = None,
        best_of: int = 4,
        attempts: int = 3,
        refusal: str = REFUSAL,
        restate: Restate = instruct,
        rng: np.random.Generator | None = None,
    ) -> None:
        for name, value in (("best_of", best_of), ("attempts", attempts)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"the guard's {name} is {value!r}; it is a whole number from 1")
        if not callable(generate):
            raise ConfigError(f"the guard's generator is {type(generate).__name__}, not something to call")
        self.constitution = constitution
        self._prompts, self._responses = constitution.of("prompt"), constitution.of("response")
        if not self._prompts and not self._responses:
            raise ConfigError(
                "the constitution has no principle about a prompt or a response: there is nothing to guard"
            )
        self._generate, self._reward, self._restate = generate, reward, restate
        self._best_of, self._attempts, self._refusal = best_of, attempts, refusal
        self._seeded = _takes_seed(generate)
        self._rng, self._lock = rng if rng is not None else np.random.default_rng(), threading.Lock()

    def __call__(self, prompt: str, *, seed: int | None = None) -> Response:
        """The answer to a prompt.

        Args:
            prompt: The prompt.
            seed: The first candidate's is this one, so that a generator asked with it alone writes the same; the others
                follow from it. Drawn where it is left out.

        Raises:
            ConfigError: The prompt is no text, or the seed no whole number from 0.
        """
        if not isinstance(prompt, str):
            raise ConfigError(f"a prompt is a text, not {type(prompt).__name__}")
        whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if seed is not None and (not whole or seed < 0):
            raise ConfigError(f"the guard's seed is {seed!r}; it is a whole number from 0")
        if seed is None:
            with self._lock:
                seed = int(self._rng.integers(2**63))
        work = _Work(prompt=prompt)
        broken = self._broken(self._prompts, prompt, prompt, work)
        refused = [article for article in broken if article.action == "refuse"]
        work.warned = tuple(article.id for article in broken if article.action == "warn")
        if refused:
            return self._refuse(work, refused, "the prompt breaks")
        for attempt in range(1, self._attempts + 1):
            work.attempts = attempt
            asked = self._restated(prompt, broken, work) if attempt > 1 and broken else prompt
            fresh = self._candidates(asked, seed, attempt, work)
            broken = [a for a in self._responses if any(a.id in candidate.violated for candidate in fresh)]
            grave = [
                article for article in broken if article.action == "refuse" and article.severity == "must"
            ]
            if grave:
                return self._refuse(work, grave, "a candidate breaks")
            best = self._best(work)
            if best is not None and not self._disliked(best):
                return self._answer(work, best)
        best = self._best(work)
        if best is not None:
            return self._answer(work, best)
        tries = f"after {self._attempts} attempts every candidate breaks a principle; those of the last"
        return (
            self._refuse(work, broken, tries)
            if broken
            else self._refuse(work, (), "nothing could be generated")
        )

    def _candidates(self, asked: str, seed: int, attempt: int, work: "_Work") -> list[Candidate]:
        seeds = [_seed(seed, attempt, place) for place in range(self._best_of)]
        together = callable(getattr(self._generate, "many", None))
        grave = any(article.action == "refuse" for article in self._responses)
        one_is_enough = self._reward is None and not together and not grave
        fresh = []
        for own, text in zip(seeds, self._texts(asked, seeds, work), strict=False):
            if text is None:
                continue
            # The principles are about the answer to what was asked, not to what the guard made of it.
            broken = self._broken(self._responses, text, work.prompt, work)
            candidate = Candidate(
                text=text,
                attempt=attempt,
                seed=own if self._seeded else None,
                violated=tuple(article.id for article in broken),
                score=self._score(text, work) if self._reward and not _hard(broken) else None,
            )
            fresh.append(candidate)
            if one_is_enough and not _hard(broken) and not self._disliked(candidate):
                break  # it is the answer, whatever the others would be
        work.candidates += fresh
        return fresh

    def _texts(self, asked: str, seeds: list[int], work: "_Work") -> Iterator[str | None]:
        """Texts one by one: what was written before an error counts, and an endless generator ends."""
        try:
            for text in self._written(asked, seeds):
                if not isinstance(text, str):
                    work.failed("the generator returned something else than a text")
                yield text if isinstance(text, str) else None
        except (Exception, SystemExit) as error:  # the generator is anyone's code
            work.failed(f"the generator failed: {one_line(error)}")

    def _written(self, asked: str, seeds: list[int]) -> Iterator[Any]:
        many: Any = getattr(self._generate, "many", None)
        if callable(many):
            written = many(asked, seeds)
            if isinstance(written, str):  # its letters are no texts
                raise TypeError("many(prompt, seeds) returned one text, not a list of them")
            yield from itertools.islice(written, len(seeds))
            return
        options: list[dict[str, int]] = [{"seed": own} if self._seeded else {} for own in seeds]
        for option in options:
            yield self._generate(asked, **option)

    def _broken(self, articles: Sequence[Article], text: str, prompt: str, work: "_Work") -> list[Article]:
        broken = []
        for article in articles:
            try:
                kept = article.kept_by(text, prompt)
            except (
                Exception,
                SystemExit,
            ) as error:  # a checker is anyone's code; what cannot be checked is not kept
                work.failed(f"the checker of principle {article.id!r} failed: {one_line(error)}")
                kept = False
            if not kept:
                broken.append(article)
        return broken

    def _score(self, text: str, work: "_Work") -> float | None:
        try:
            score = float(self._reward(text))  # type: ignore[misc]
        except (Exception, SystemExit) as error:  # the reward is anyone's code
            work.failed(f"the reward failed: {one_line(error)}")
            return None
        if not math.isfinite(score):
            work.failed(f"the reward of a candidate is {score}")
            return None
        return score

    def _restated(self, prompt: str, broken: Sequence[Article], work: "_Work") -> str:
        try:
            asked = self._restate(prompt, broken)
        except Exception as error:  # anyone's code; the prompt itself can be asked again
            work.failed(f"restating the prompt failed: {one_line(error)}")
            return prompt
        return asked if isinstance(asked, str) else prompt

    def _best(self, work: "_Work") -> Candidate | None:
        hard = {article.id for article in _hard(self._responses)}
        passing = [candidate for candidate in work.candidates if not hard.intersection(candidate.violated)]

        def rank(candidate: Candidate) -> tuple[int, float]:
            return -len(self._disliked(candidate)), -math.inf if candidate.score is None else candidate.score

        return max(passing, key=rank, default=None)  # the first of equals

    def _disliked(self, candidate: Candidate) -> list[str]:
        soft = [a.id for a in self._responses if a.severity == "should" and a.action != "warn"]
        return [name for name in soft if name in candidate.violated]

    def _answer(self, work: "_Work", best: Candidate) -> Response:
        return Response(
            prompt=work.prompt,
            text=best.text,
            refused=False,
            attempts=work.attempts,
            violated=(*work.warned, *best.violated),
            candidates=tuple(work.candidates),
            failures=tuple(work.failures),
        )

    def _refuse(self, work: "_Work", broken: Sequence[Article], why: str) -> Response:
        named = ", ".join(article.id for article in broken)
        return Response(
            prompt=work.prompt,
            text=self._refusal,
            refused=True,
            reason=f"{why}: {named}" if named else why,
            attempts=work.attempts,
            violated=tuple(article.id for article in broken),
            candidates=tuple(work.candidates),
            failures=tuple(work.failures),
        )


@dataclass(kw_only=True)
class _Work:
    """What is known of an answer while it is made."""

    prompt: str
    attempts: int = 0
    warned: tuple[str, ...] = ()
    candidates: list[Candidate] = field(default_factory=list)
    failures: dict[str, None] = field(default_factory=dict)

    def failed(self, line: str) -> None:
        self.failures[line] = None


def _hard(articles: Sequence[Article]) -> list[Article]:
    return [article for article in articles if article.severity == "must"]


def _seed(seed: int, attempt: int, place: int) -> int:
    if attempt == 1 and place == 0:
        return seed
    words = np.random.SeedSequence([seed, attempt, place]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def _takes_seed(generate: Callable[..., str]) -> bool:
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(generate).parameters
    except (TypeError, ValueError):  # some compiled callables do not say
        return False
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
