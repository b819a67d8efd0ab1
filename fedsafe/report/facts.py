"""The facts of a run as (label, text) pairs, and its claims as text."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from fedsafe.records import Start
from fedsafe.report import formats
from fedsafe.report.reading import Reading

Facts: TypeAlias = list[tuple[str, str]]

_CLAIM_FIELDS = (
    ("unit", "Unit"),
    ("epsilon", "Epsilon"),
    ("delta", "Delta"),
    ("group_epsilon", "Epsilon for two records of one person"),
    ("adjacency", "Adjacency"),
    ("adversary", "Adversary"),
    ("cohort_secret", "Relies on secret cohorts"),
    ("release", "What is released"),
    ("sampler", "Sampler, as executed"),
    ("regime", "Regime"),
    ("horizon", "Horizon"),
    ("accountant", "Accountant"),
    ("randomness", "Randomness"),
    ("arithmetic", "Arithmetic"),
    ("known_cohorts_epsilon", "Epsilon to somebody who sees the cohorts"),
    ("fallback_epsilon", "Epsilon if secure aggregation were broken"),
)
_SHOWN_APART = {"assumptions", "not_covered", "statement", *(key for key, _ in _CLAIM_FIELDS)}


def claim(reading: Reading, unit: str) -> dict[str, Any]:
    """The claim of a unit as text; a missing one and one without a guarantee say "none" and why."""
    found = reading.claim(unit)
    shown = "none" if found is None else formats.epsilon(found.get("epsilon"))
    if found is None or shown == "none":
        statement = "" if found is None else str(found.get("statement") or "")
        return {
            "unit": unit,
            "epsilon": "none",
            "statement": statement or f"No {unit}-level guarantee is claimed; the record does not say why.",
        }
    return {
        "unit": unit,
        "epsilon": shown,
        "delta": formats.delta(found.get("delta")),
        "adversary": found.get("adversary"),
        "statement": found.get("statement") or "The record holds no statement for this claim.",
        "fields": [
            (label, _claim_value(key, found[key]))
            for key, label in _CLAIM_FIELDS
            if found.get(key) is not None
        ],
        "assumptions": found.get("assumptions") or [],
        "not_covered": found.get("not_covered") or [],
        "more": {
            formats.status(key).capitalize(): words(entry)
            for key, entry in found.items()
            if key not in _SHOWN_APART
        },
    }


def matrix(reading: Reading) -> dict[str, Any]:
    """What is claimed for each unit against each adversary, as text; no rows where the record has none."""
    cells = [dict(cell) for cell in reading.start.matrix] if reading.start else []
    units = list(dict.fromkeys(str(cell["unit"]) for cell in cells))
    return {
        "units": units,
        "rows": [
            {
                "adversary": adversary,
                "cells": [_cell(cell) for cell in cells if cell["adversary"] == adversary],
            }
            for adversary in dict.fromkeys(str(cell["adversary"]) for cell in cells)
        ],
    }


def _cell(cell: Mapping[str, Any]) -> dict[str, str]:
    claim = cell.get("claim") or {}
    return {
        "epsilon": formats.epsilon(cell.get("epsilon")),
        "delta": formats.delta(cell["delta"]) if claim else "",
        "reason": str(cell.get("reason") or ""),
        "statement": str(claim.get("statement") or ""),
    }


def _claim_value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "delta":
        return formats.delta(value)
    if key.endswith("epsilon"):
        return f"{formats.epsilon(value)} (recorded as {value!r})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def federation(start: Start) -> Facts:
    """Clients, partition, sizes, and what a round does."""
    about = start.federation
    sizes = about.get("records_per_client") or {}
    rows = [
        ("Clients", words(about.get("clients"))),
        ("Training records", words(start.task.get("train_records"))),
        ("Partition", words(about.get("partition"))),
        ("Records in a client", ", ".join(f"{key} {words(sizes[key])}" for key in sizes)),
        ("Trainer", start.trainer),
        *_availability(about.get("availability") or {}),
        *_adversaries(about.get("byzantine") or {}),
    ]
    rows += [(label, words(value)) for label, value in _plan_numbers(start.plan)]
    return [(label, value) for label, value in rows if value]


def _availability(about: Mapping[str, Any]) -> Facts:
    """The model of who is there, and what is expected of it: whoever was missing is private."""
    if not about:
        return []
    deadline, planned = about.get("deadline"), about.get("planned_seconds")
    return [
        ("Clients are there", words(about.get("name"))),
        ("Speed of clients", words(about.get("speed"))),
        ("Dropout of a client that is there", formats.share(about.get("dropout"))),
        (
            "Deadline of a round",
            "none" if deadline is None else f"{formats.number(deadline)} virtual seconds",
        ),
        ("Asked clients that are missing, expected", formats.share(about.get("expected_missing"))),
        ("Virtual clock", words(about.get("clock"))),
        ("Longest round", f"{formats.number(about.get('longest_round_seconds'))} virtual seconds"),
        ("All rounds", "" if planned is None else f"{formats.number(planned)} virtual seconds"),
    ]


def _adversaries(about: Mapping[str, Any]) -> Facts:
    """Who is simulated to attack, and how."""
    if not about:
        return []
    return [
        (
            "Simulated adversaries",
            f"{words(about.get('adversaries'))} of {words(about.get('clients'))} clients",
        ),
        ("What they send", words(about.get("attack"))),
        ("What they do to their records", words(about.get("poison"))),
    ]


def _plan_numbers(plan: Mapping[str, Any]) -> list[tuple[str, Any]]:
    record, client = plan.get("record") or {}, plan.get("client") or {}
    return [
        ("Rounds of the plan", plan.get("rounds")),
        ("Client in a cohort with probability", client.get("rate")),
        ("Clip of an update", client.get("clip") if client.get("noise") else None),
        ("Noise multiplier, update", client.get("noise") or None),
        ("Local steps in a round", record.get("steps")),
        ("Record in a step with probability", record.get("rate")),
        ("Clip of a gradient", record.get("clip") if record.get("noise") else None),
        ("Noise multiplier, gradient", record.get("noise") or None),
        ("Most rounds of one client", record.get("max_participations")),
    ]


def provenance(start: Start) -> Facts:
    """Task, data, model, seed, code and machine."""
    source = start.task.get("source") or {}
    rows = [
        ("Task", words(start.task.get("name"))),
        ("Kind", words(start.task.get("kind"))),
        ("Classes", words(start.task.get("classes"))),
        ("Features", words(start.task.get("features"))),
        ("Evaluated on", words(start.task.get("evaluation"))),
        *((f"Data: {formats.status(str(key))}", words(entry)) for key, entry in source.items()),
        ("Model", f"{words(start.model.get('name'))}, {words(start.model.get('parameters'))} parameters"),
        ("Seed", str(start.seed)),
        (
            "Noise key",
            "derived from the seed: no guarantee" if start.reproducible else "not derived from the seed",
        ),
        ("Code revision", start.revision or "unknown"),
        *((f"Machine: {formats.status(str(key))}", words(entry)) for key, entry in start.machine.items()),
    ]
    return [(label, value) for label, value in rows if value]


def verification(reading: Reading) -> Facts:
    """What a verifier compares: plan, ledger head, and digest of the parameters."""
    rows = []
    if reading.start is not None and reading.start.plan.get("hash"):
        rows.append(("Plan", str(reading.start.plan["hash"])))
    if reading.rounds:
        last = reading.rounds[-1]
        rows += [
            ("Ledger head", str(last.ledger.get("head"))),
            ("Ledger sequence number", str(last.ledger.get("sequence"))),
            ("SHA-256 of the parameters", last.parameters_sha256),
            ("Checkpoint", last.checkpoint or "none"),
        ]
    return rows


def words(value: Any) -> str:
    """A plain value, nested or not, as words."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return formats.number(value)
    if isinstance(value, Mapping):
        name = [str(value["name"])] if "name" in value else []
        parts = [f"{formats.status(str(key))} {words(part)}" for key, part in value.items() if key != "name"]
        return ", ".join(name + parts)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(words(part) for part in value)
    return str(value)
