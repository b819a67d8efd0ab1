"""The gate: the only process of a client that trains, adds noise, charges the ledger and makes replies.

It stands in the place of Flower's own executor beside a SuperNode: nothing that a server uploads runs with the client's
records. What it holds a request to, in this order: the bundle's digest; FedSafe's own code; the message, to the
byte; the experiment, by the client's policy; the plan, which it calibrates by itself; the ledger. Only then is anything
read of a record, and only what was written down first is released (``docs/decisions/0021-the-gate.md``).

Guarantees:
    ============================================  =====================================================
    case                                          result
    ============================================  =====================================================
    anything outside of policy, plan or budget    an error with a reason of a fixed list, and an audit line
    an exception, whatever it says                ``failed``; its text stays here
    the same request again                        the stored bytes again, uncharged
    killed at any moment                          the ledger has at least what was sent
    the server knows the seed                     noise is keyed by this machine's operating system
    ============================================  =====================================================
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

import fedsafe
from fedsafe.apps.agreed import (
    inputs_digest,
    least_apart,
    most_releases,
    planned_releases,
    require_as_planned,
)
from fedsafe.apps.code import code_digest
from fedsafe.apps.joining import DURABLE, JOINED
from fedsafe.apps.packing import pack_stage
from fedsafe.apps.refusals import error_of
from fedsafe.data import Task
from fedsafe.deploy.agreement import Agreement
from fedsafe.deploy.bundle import bundle_digest, has_own_code
from fedsafe.deploy.client_ledger import AUDIT, ClientLedger
from fedsafe.deploy.experiment import (
    Experiment,
    compose_experiment,
    config_digest,
    own_rows,
    read_experiment,
)
from fedsafe.deploy.figures import STATUS, Metrics, Status
from fedsafe.deploy.isolation import Isolated
from fedsafe.deploy.making import Ready, made
from fedsafe.deploy.own_records import load_own, place_of, secret_paths
from fedsafe.deploy.policy import Policy, read_policy
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.deploy.replies import Replies
from fedsafe.deploy.requests import Request, flat_layout, read_request, require_instruction, unpack
from fedsafe.deploy.run_keys import RunKeys
from fedsafe.deploy.runtime import Work
from fedsafe.deploy.secure import SecureSums
from fedsafe.errors import LedgerError, PlanViolation
from fedsafe.federation.messages import (
    TRAIN,
    Instruction,
    read_correction,
    read_instruction,
)
from fedsafe.federation.secure_messages import ENDS, TRAINS, StageRequest
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.client_config import objective_of
from fedsafe.runs.compose import client_runtime
from fedsafe.runs.config import Config
from fedsafe.runs.keys import data_fingerprint, key_fingerprint
from fedsafe.runs.metrics import RoundMetrics
from fedsafe.runs.start import package_versions

# Experiments that stay in memory: a server may have two runs at once.
_KEPT = 2
_BYTES_BESIDE = 2**20
Say = Callable[..., None]


class Gate:
    """Answers the messages of a server for one client.

    Args:
        folder: Of the client: ``policy.toml``, ``data.toml``, the schema, and ``state/``.
        own: The task with this client's records; of ``data.toml`` by default.
        clock: Seconds since 1970.
        say: Told what happens, as an event and its fields.

    Raises:
        ConfigError: The policy or data source cannot be read.
        LedgerError: The ledger cannot be trusted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        own: Callable[[Mapping[str, Any]], Task] | None = None,
        clock: Callable[[], float] = time.time,
        say: Say = lambda event, **fields: None,
    ) -> None:
        self.folder, self.state = folder, folder / "state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self._policy = read_policy(folder / "policy.toml")
        self._own = own if own is not None else partial(load_own, folder, self._policy.client)
        self._say = say
        self.ledger = ClientLedger.open(self.state, self._policy.client, clock=clock)
        self._replies = Replies(self.state / "replies")
        self._keys = RunKeys(self.state)
        self._secure = SecureSums(folder, self.ledger, self._policy.budget.record)
        self._ready: OrderedDict[str, Ready] = OrderedDict()
        self.metrics = Metrics()
        self.status = Status.of(self.state / STATUS, self._policy, self.ledger)
        self._show()

    @property
    def policy(self) -> Policy:
        """What the client allows."""
        return self._policy

    @property
    def most_bytes(self) -> int:
        """That a message may have: a model and a correction of the largest that is allowed."""
        return 8 * self._policy.model.most_parameters + _BYTES_BESIDE

    def answer(self, work: Work) -> Message:
        """The reply to a message: a stored or new release, what joining says, or an error with a reason."""
        began, run = time.monotonic(), ""
        kind = str(work.message.metadata.message_type)
        try:
            self._require_app(work)
            if work.problem is not None:
                raise Refused(Refusal.MESSAGE_NOT_UNDERSTOOD, work.problem)
            request = read_request(work.message)
            run = request.run
            answered = self._beside_an_app if has_own_code(work.fab) else self._answered
            reply = Message(answered(work, request), reply_to=work.message)
        except Refused as refused:
            self._refuse(refused.reason, refused.detail, run)
            reply = Message(error_of(refused.reason), reply_to=work.message)
        except Exception as error:  # whatever it says may quote a record
            self._refuse(Refusal.FAILED, place_of(error), run)
            reply = Message(error_of(Refusal.FAILED), reply_to=work.message)
        self.metrics.seconds.labels(kind=kind if kind in ("train", "evaluate") else "other").observe(
            time.monotonic() - began
        )
        self._show()
        return reply

    def close(self) -> None:
        """Release the ledger."""
        self.ledger.close()

    def _require_app(self, work: Work) -> None:
        digest = bundle_digest(work.fab)
        if digest not in self._policy.code.apps:
            raise Refused(Refusal.APP_NOT_ALLOWED, f"the bundle {digest} is not in code.apps")
        if code_digest() not in self._policy.code.fedsafe:
            raise Refused(
                Refusal.CODE_NOT_ALLOWED,
                f"this client runs fedsafe {fedsafe.__version__} with code {code_digest()}, not in code.fedsafe",
            )

    def _beside_an_app(self, work: Work, request: Request) -> RecordDict:
        """Let an uploaded app ask for what this message asks for, and send that, whatever the app makes of it."""
        if request.joins or self._is_over(request.run):
            return self._answered(work, request)
        if request.stage is not None:
            raise Refused(Refusal.APP_NOT_ALLOWED, "an app with code of its own, in a secure sum")
        answered: list[RecordDict] = []

        def train() -> RecordDict:
            if not answered:
                answered.append(self._answered(work, request))
            return answered[0]

        isolated = Isolated(self._policy.isolation, hidden=secret_paths(self.folder))
        if request.experiment is None:
            unpack(work.message, self._agreed(request).experiment.parts.layout)
        isolated.run(work.fab, work.message, train)
        if not answered:
            raise Refused(Refusal.FAILED, "the uploaded app ended without asking for anything")
        return answered[0]

    def _answered(self, work: Work, request: Request) -> RecordDict:
        if request.stage is not None:
            return self._staged(work.message, request, request.stage)
        if self._is_over(request.run):
            return self._repeated(work.message, request)
        ready = self._agreed(request)
        if request.joins:
            self._secure.require_keys(ready.experiment)
            return self._joined(request, ready.experiment)
        if request.kind == TRAIN and ready.experiment.secure is not None:
            raise Refused(
                Refusal.SECURE_AGGREGATION_REQUIRED,
                "an update in the clear, and the experiment that was agreed to sums them behind masks",
            )
        return self._released(work.message, request, ready)

    def _staged(self, message: Message, request: Request, stage: StageRequest) -> RecordDict:
        """One stage of a secure sum."""
        if self._is_over(request.run):
            raise Refused(Refusal.ROUND_ALREADY_RELEASED, f"all rounds of run {request.run} are answered")
        ready = self._agreed(request)
        said = self._secure.answer(message, request, ready)
        self.metrics.replies.labels(kind=request.kind, repeated="yes" if said.again else "no").inc()
        if stage.stage == TRAINS and not said.again:
            self._measure(request, ready, read_instruction(message, ready.experiment.parts.layout))
        if stage.stage in ("reveal", ENDS):
            self._forget_if_over(request.run, ready)
        return pack_stage(ready.experiment.client, said.words)

    def _is_over(self, run: str) -> bool:
        """Whether all that was planned in a run is stored, and its key deleted."""
        return (
            self.ledger.agreement(run) is not None and not self._keys.has(run) and self.ledger.answered(run)
        )

    def _repeated(self, message: Message, request: Request) -> RecordDict:
        """What is asked for again in a run that is over, from what is stored: nothing is made any more."""
        if request.experiment is not None:
            config = self._read(request.run, request.experiment)
            experiment = compose_experiment(config, self._policy, self._own)
            if request.joins:
                return self._joined(request, experiment)
            layout = experiment.parts.layout
        else:
            layout = flat_layout(message)
        unpack(message, layout)
        require_instruction(message, layout)
        instruction = read_instruction(message, layout)
        plan, round = self._plan_of(request.run), instruction.round
        digest = inputs_digest(plan, instruction, read_correction(message, layout))
        budget = self._policy.budget.record
        stored = self.ledger.release(request.run, request.kind, round, digest, most=0, apart=1, budget=budget)
        if stored is None:
            raise Refused(Refusal.ROUND_ALREADY_RELEASED, f"{request.kind} {round} has no reply, and no key")
        return self._again(request, round, stored)

    def _plan_of(self, run: str) -> PrivacyPlan:
        agreement = self.ledger.agreement(run)
        if agreement is None:
            raise LedgerError(f"run {run[:12]} was not agreed to")
        return agreement.plan

    def _forget_if_over(self, run: str, ready: Ready) -> None:
        """Delete the key of a run that has nothing left to release: who found it could take the noise out."""
        planned = planned_releases(ready.experiment.plan, ready.experiment.client)
        made = {kind: len(self.ledger.released(run, kind)) for kind in planned}
        if made == planned and self.ledger.answered(run):
            self._ready.pop(run, None)
            self._secure.forget(run, ready.experiment)
            self._keys.forget(run)
            self._say("over", run=run)

    def _read(self, run: str, text: str) -> Config:
        """A configuration, held to the policy and to what was agreed to in its run."""
        config = read_experiment(text, self._policy)
        known = self.ledger.agreement(run)
        if known is not None and known.experiment != config_digest(config):
            raise Refused(Refusal.EXPERIMENT_NOT_ALLOWED, f"another experiment was agreed to in run {run}")
        return config

    def _agreed(self, request: Request) -> Ready:
        """The experiment of a run, held to policy, ledger and records; each time, since any of them may change."""
        text = request.experiment if request.experiment is not None else self._kept_experiment(request.run)
        config, known = self._read(request.run, text), self.ledger.agreement(request.run)
        ready = self._ready.get(request.run)
        if ready is None:
            experiment = compose_experiment(config, self._policy, self._own)
            key = self._keys.key(request.run, agreed=known is not None)
            agreement = Agreement(
                run=request.run,
                plan=experiment.plan,
                experiment=experiment.digest,
                epsilon=experiment.epsilon,
                key=key_fingerprint(key),
                data=data_fingerprint(key, own_rows(experiment)),
                versions={**package_versions(), "code": code_digest()},
            )
            if known is None:
                self.ledger.require_paid(agreement, self._policy.budget.record)
            self._keys.keep_experiment(request.run, text)
            self.ledger.agree(agreement)
            ready = self._prepared(experiment, key)
            self._ready[request.run] = ready
            self.status.curves[request.run] = experiment.plan.spending()["record"]
            while len(self._ready) > _KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(request.run)
        return ready

    def _kept_experiment(self, run: str) -> str:
        text = self._keys.experiment(run)
        if text is None:
            raise Refused(
                Refusal.MESSAGE_NOT_UNDERSTOOD, f"run {run} was not joined here: its experiment is not known"
            )
        return text

    def _prepared(self, experiment: Experiment, key: bytes) -> Ready:
        parts = experiment.parts
        runtime = client_runtime(parts, experiment.plan, key)
        objective = objective_of(parts.config.client, parts.task)
        return Ready(experiment, runtime, RoundMetrics(parts.module, parts.task, objective))

    def _joined(self, request: Request, experiment: Experiment) -> RecordDict:
        self._say("joined", run=request.run, plan=experiment.plan.hash, planned_epsilon=experiment.epsilon)
        said: dict[str, Any] = {
            "client": experiment.client,
            "plan": experiment.plan.hash,
            "fedsafe": fedsafe.__version__,
            "code": code_digest(),
            "ledger": DURABLE,
        }
        return RecordDict({JOINED: ConfigRecord(said)})

    def _released(self, message: Message, request: Request, ready: Ready) -> RecordDict:
        experiment, kind = ready.experiment, request.kind
        layout, plan = experiment.parts.layout, experiment.plan
        unpack(message, layout)
        require_instruction(message, layout)
        instruction = read_instruction(message, layout)
        correction = read_correction(message, layout)
        round = instruction.round
        try:
            require_as_planned(experiment.parts, plan, kind, instruction, correction)
        except PlanViolation as error:
            raise Refused(Refusal.OUTSIDE_PLAN, str(error)) from error
        stored = self.ledger.release(
            request.run,
            kind,
            round,
            inputs_digest(plan, instruction, correction),
            most=most_releases(kind, round, plan, experiment.client),
            apart=least_apart(kind, plan),
            budget=self._policy.budget.record,
        )
        if stored is not None:
            self._forget_if_over(request.run, ready)
            return self._again(request, round, stored)
        content = self._made(message, request, ready)
        sha256 = self._replies.store(request.run, kind, round, content)
        self.ledger.replied(request.run, kind, round, sha256)
        self._replies.forget_before(request.run, kind, self.ledger.released(request.run, kind))
        self._measure(request, ready, instruction)
        self.metrics.replies.labels(kind=kind, repeated="no").inc()
        self._forget_if_over(request.run, ready)
        return content

    def _again(self, request: Request, round: int, sha256: str) -> RecordDict:
        content = self._replies.read(request.run, request.kind, round, sha256)
        if content is None:
            raise Refused(
                Refusal.ROUND_ALREADY_RELEASED,
                f"{request.kind} {round} was answered, and its reply is not here any more: a new one could differ",
            )
        self._say("sent again", run=request.run, kind=request.kind, round=round)
        self.metrics.replies.labels(kind=request.kind, repeated="yes").inc()
        return content

    def _made(self, message: Message, request: Request, ready: Ready) -> RecordDict:
        return made(message, request, ready)

    def _measure(self, request: Request, ready: Ready, instruction: Instruction) -> None:
        """How the model that came does on this client's own validation records: shown here, never sent."""
        figures: dict[str, float] = {}
        if request.kind == TRAIN:
            figures = ready.metrics(instruction.parameters)
            if figures:
                self.status.measured(request.run, instruction.round, figures)
        self.metrics.round.set(instruction.round)
        self._say("released", run=request.run, kind=request.kind, round=instruction.round)

    def _refuse(self, reason: Refusal, detail: str, run: str) -> None:
        self.ledger.refuse(reason, detail, run)
        self.status.refusals[reason.value] += 1
        self.metrics.refusals.labels(reason=reason.value).inc()
        # The detail is in the audit file, which stays here; logs are often collected elsewhere.
        self._say("refused", run=run, reason=reason.value, details=AUDIT)

    def _show(self) -> None:
        budget = self._policy.budget.record
        self.metrics.spent.set(self.ledger.spent(budget).epsilon)
        self.metrics.budget.set(budget.epsilon)
        self.status.write(self.ledger)


def json_line(event: str, **fields: Any) -> str:
    """A structured line of the log."""
    return json.dumps({"time": round(time.time(), 3), "event": event, **fields})
