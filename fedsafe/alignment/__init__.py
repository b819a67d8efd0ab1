"""Alignment: whose preferences a model follows, learned from people who keep their answers, and what they agreed on."""

from fedsafe.alignment.checker_errors import (
    CheckerError,
    Labelled,
    measure_any,
    measure_checker,
    read_labelled,
)
from fedsafe.alignment.compliance import compliance
from fedsafe.alignment.constitution import Article, Constitution, parse_constitution, read_constitution
from fedsafe.alignment.guard import Candidate, GuardedGenerator, Response, instruct, lead_in
from fedsafe.alignment.ratification import Ratification, Ratified, Tally, ratify, tally
from fedsafe.alignment.stories import StoryWriter
from fedsafe.alignment.voting import Ballot, Vote, simulate_votes, vote

__all__ = [
    "Article",
    "Ballot",
    "Candidate",
    "CheckerError",
    "Constitution",
    "GuardedGenerator",
    "Labelled",
    "Ratification",
    "Ratified",
    "Response",
    "StoryWriter",
    "Tally",
    "Vote",
    "compliance",
    "instruct",
    "lead_in",
    "measure_any",
    "measure_checker",
    "parse_constitution",
    "ratify",
    "read_constitution",
    "read_labelled",
    "simulate_votes",
    "tally",
    "vote",
]
