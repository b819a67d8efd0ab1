"""The audit of a run: a second training beside it, under a key of its own, that no model of the run ever meets."""

import hmac
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from fedsafe.aggregation import RULES
from fedsafe.audit import AuditedTraining, Kind, confidence_of_look, due_rounds, findings_of
from fedsafe.audit.client_canaries import room_of
from fedsafe.audit.findings import ALARM
from fedsafe.errors import ConfigError
from fedsafe.extensions import resolve
from fedsafe.findings import Finding
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.audit_config import AuditConfig
from fedsafe.runs.audit_setting import setting_of
from fedsafe.runs.compose import Parts

_LOG = logging.getLogger(__name__)

AUDIT = "audit"
"""Stands as the assessor of an audit's findings."""


class RunAudit:
    """Trains beside a run, only as far as the next look needs.

    Coins, cohorts, batches and noise follow from the run's key, through a key of the audit's own, and the plan that is
    trained has another hash: a look is the same in a resumed run, which trains the audited rounds again, and no stream
    of the run is met.

    Args:
        config: The section of the configuration.
        parts: Of the run.
        plan: The run's.
        key: The run's secret.
    """

    def __init__(self, config: AuditConfig, parts: Parts, plan: PrivacyPlan, key: bytes) -> None:
        self._config, self._parts, self._plan, self._key = config, parts, plan, key
        self._due = due_rounds(plan.rounds, config.every)
        # All looks of all kinds together keep the confidence.
        self._confidence = 1.0 - (1.0 - config.confidence) / len(config.kinds)
        self._trainings: dict[Kind, AuditedTraining] = {}
        self._open = ExitStack()

    def after(self, round: int) -> list[Finding]:
        """The findings of the looks that are due after a round: none where none is due.

        An alarm is logged as a warning.

        Raises:
            ConfigError: The rule cannot be audited.
            EngineError: A client of the audited training failed.
        """
        if round not in self._due:
            return []
        findings = []
        for kind in self._config.kinds:
            training = self._training(kind)
            training.until(round)
            look = training.look(confidence_of_look(round, self._due, self._confidence))
            report = training.report((look,), self._config.confidence)
            findings += findings_of(report)
            if look.crossed:
                _LOG.warning("%s", report.alarm())
        return findings

    def stops(self, findings: Iterable[Finding]) -> str | None:
        """Why the run ends here; None where it goes on."""
        return _stop(self._config, [finding.to_json() for finding in findings])

    def close(self) -> None:
        """Remove what the trainings left on the disk."""
        self._open.close()

    def _training(self, kind: Kind) -> AuditedTraining:
        if kind not in self._trainings:
            made = AuditedTraining(
                setting_of(self._parts, self._plan),
                kind=kind,
                canaries=self._config.canaries,
                delta=self._config.delta,
                seed=self._parts.config.seed,
                key=hmac.digest(self._key, f"fedsafe audit {kind}".encode(), "sha256"),
            )
            self._trainings[kind] = self._open.enter_context(made)
        return self._trainings[kind]


def check_audit(parts: Parts) -> None:
    """Refuse an audit that could not be trained, before anything slow.

    Raises:
        ConfigError: Clients train on nodes, the rule needs their losses, or so many canaries do not fit the memory.
    """
    config = parts.config
    if config.audit is None:
        return
    if config.engine.name == "flower":
        raise ConfigError(
            "[audit] trains on the clients' records, which Flower's nodes keep to themselves: leave it out, and use "
            "`fedsafe audit CONFIG` where the records are"
        )
    spec = config.server.aggregator
    name = spec if isinstance(spec, str) else str(spec["name"])
    if getattr(resolve("aggregator", name, RULES), "needs_losses", False):
        raise ConfigError(
            f"[audit] with server.aggregator = {name!r}, which steers by the clients' exact losses: nothing is claimed "
            "for it that an audit could test; leave one of the two out"
        )
    if "client" in config.audit.kinds and parts.groups is not None:
        raise ConfigError(
            f"[audit] of clients adds clients of its own, and server.aggregator = {name!r} weighs groups, of which "
            'they have none: audit "noisy_mean", whose noise is the same, or leave one of the two out'
        )
    if "client" in config.audit.kinds:
        room_of(config.audit.canaries, parts.layout.total)


def alarms_of(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the alarms among lines of ``findings.jsonl`` say, in their order."""
    return [
        str(line["detail"]["alarm"]) for line in lines if line["metric"] == ALARM and line["value"] == 1.0
    ]


def recorded_stop(config: AuditConfig | None, lines: Iterable[Mapping[str, Any]]) -> str | None:
    """Why a resumed run has nothing left to do; None where it goes on.

    Args:
        config: The section of the configuration; None without an audit.
        lines: Of ``findings.jsonl``.
    """
    return None if config is None else _stop(config, lines)


def _stop(config: AuditConfig, lines: Iterable[Mapping[str, Any]]) -> str | None:
    alarms = alarms_of(lines) if config.on_alarm == "stop" else []
    return f"audit.on_alarm = 'stop': {alarms[0]}" if alarms else None
