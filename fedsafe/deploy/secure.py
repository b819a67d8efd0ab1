"""The gate's part in secure sums: what it holds each stage to, and when it is charged.

The stage in which a client trains and masks is its release: it is written down in the ledger after everything that was
sent has been checked, and before anything is trained. The other stages release nothing of a record.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Message

from fedsafe.aggregation.secure import SecureParameters, VerifyingKey, confirmed_lists
from fedsafe.apps.agreed import inputs_digest, least_apart, most_releases, require_as_planned
from fedsafe.deploy.client_ledger import ClientLedger
from fedsafe.deploy.experiment import Experiment
from fedsafe.deploy.making import Ready, share
from fedsafe.deploy.policy import RecordBudget
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.deploy.requests import Request, require_instruction, unpack
from fedsafe.deploy.secure_part import Said, SecurePart, forget
from fedsafe.deploy.signing import read_peers, read_signing_key
from fedsafe.errors import ConfigError, PlanViolation, RoundAborted, SecureAggregationError
from fedsafe.federation.messages import TRAIN, Instruction, read_correction, read_instruction
from fedsafe.federation.secure_messages import TRAINS, StageRequest
from fedsafe.params import input_digest
from fedsafe.privacy.mechanisms import Grid

# Rounds whose answers are kept: a server asks again for the one that it was in.
_KEPT = 3


class SecureSums:
    """Answers stages for one client.

    Args:
        folder: Of the client, with its signing key and the others' certificates.
        ledger: Its own.
        budget: Of its policy.
    """

    def __init__(self, folder: Path, ledger: ClientLedger, budget: RecordBudget) -> None:
        self._folder, self._ledger, self._budget = folder, ledger, budget
        self._rounds = folder / "state" / "secure"

    def require_keys(self, experiment: Experiment) -> None:
        """Refuse to join where the first round could not be played.

        Raises:
            Refused: A key is missing, or too few clients have one.
        """
        if experiment.secure is not None:
            self._part("", experiment, experiment.secure)

    def answer(self, message: Message, request: Request, ready: Ready) -> Said:
        """This client's answer to one stage; empty words where the server has ended the round.

        Raises:
            Refused: It is not answered.
        """
        stage, experiment = request.stage, ready.experiment
        if stage is None or experiment.secure is None:
            raise Refused(
                Refusal.OUTSIDE_PLAN,
                "a stage of secure aggregation, and the experiment that was agreed to has none",
            )
        plan = experiment.plan
        if stage.plan != plan.hash:
            raise Refused(
                Refusal.OUTSIDE_PLAN, f"plan {stage.plan[:12]}, this client agreed to {plan.hash[:12]}"
            )
        if not most_releases(TRAIN, stage.round, plan, experiment.client):
            raise Refused(
                Refusal.OUTSIDE_PLAN, f"round {stage.round} of secure aggregation: the plan has none"
            )
        part = self._part(request.run, experiment, experiment.secure)
        if stage.stage == "advertise":
            older = self._ledger.released(request.run)[:-_KEPT]
            forget(self._rounds, experiment.client, request.run, older)
        digest = self._inputs(message, stage, ready) if stage.stage == TRAINS else b""

        def values() -> Grid:
            # Nothing is known of this round here, and yet the ledger has its reply: an old state was put back.
            if self._release(request, stage, experiment, digest) is not None:
                raise Refused(
                    Refusal.ROUND_ALREADY_RELEASED,
                    f"round {stage.round} was answered, and its state is older",
                )
            return share(message, ready)

        try:
            said = part.answer(stage, values)
        except RoundAborted as error:
            self._ledger.ended(request.run, stage.round, str(error))
            return Said(words=b"", again=False)
        except SecureAggregationError as error:
            raise Refused(Refusal.SECURE_ROUND_REFUSED, str(error)) from error
        if stage.stage == "confirm":
            # Where an older state was put back, this is what remembers which list was signed.
            self._ledger.confirmed(request.run, stage.round, confirmed_lists(said.words).hex())
        if stage.stage == TRAINS and self._release(request, stage, experiment, digest) is None:
            self._ledger.replied(request.run, TRAIN, stage.round, hashlib.sha256(said.words).hexdigest())
        return said

    def forget(self, run: str, experiment: Experiment) -> None:
        """Forget the secrets of a run that is over."""
        if experiment.secure is not None:
            forget(self._rounds, experiment.client, run, range(1, experiment.plan.rounds + 1))

    def _release(
        self, request: Request, stage: StageRequest, experiment: Experiment, digest: bytes
    ) -> str | None:
        plan = experiment.plan
        return self._ledger.release(
            request.run,
            TRAIN,
            stage.round,
            digest,
            most=most_releases(TRAIN, stage.round, plan, experiment.client),
            apart=least_apart(TRAIN, plan),
            budget=self._budget,
        )

    def _inputs(self, message: Message, stage: StageRequest, ready: Ready) -> bytes:
        """Digest of everything that the masked values depend on besides records and keys.

        Raises:
            Refused: The model is not the one that the round began with, or something else is not as planned.
        """
        layout, plan = ready.experiment.parts.layout, ready.experiment.plan
        unpack(message, layout)
        require_instruction(message, layout)
        instruction = read_instruction(message, layout)
        correction = read_correction(message, layout)
        try:
            require_as_planned(ready.experiment.parts, plan, TRAIN, instruction, correction)
        except PlanViolation as error:
            raise Refused(Refusal.OUTSIDE_PLAN, str(error)) from error
        _require_same(instruction, stage, plan.hash)
        inputs = inputs_digest(plan, instruction, correction)
        # Under another list of those who dealt shares the same values would be another release.
        return hashlib.sha256(inputs + hashlib.sha256(stage.said).digest()).digest()

    def _part(self, run: str, experiment: Experiment, parameters: SecureParameters) -> SecurePart:
        try:
            own, peers = read_signing_key(self._folder), read_peers(self._folder)
        except ConfigError as error:
            raise Refused(Refusal.SECURE_ROUND_REFUSED, str(error)) from error
        pinned = pinned_keys(experiment, peers.keys)
        known, client = pinned.get(experiment.client), experiment.client
        if known is None or peers.keys[_names(experiment)[client]] != own.public_key():
            raise Refused(
                Refusal.SECURE_ROUND_REFUSED,
                "peers.pem has not this client's signing key: the others would not take its words; send "
                "node.csr to who holds the authority's key, and get peers.pem anew",
            )
        if len(pinned) < parameters.minimum:
            raise Refused(
                Refusal.SECURE_ROUND_REFUSED,
                f"the keys of {len(pinned)} clients are pinned, and a sum is of {parameters.minimum} or more",
            )
        return SecurePart(
            folder=self._rounds,
            client=client,
            signing_key=own,
            pinned=pinned,
            parameters=parameters,
            run=run,
        )


def pinned_keys(experiment: Experiment, keys: Mapping[str, VerifyingKey]) -> dict[int, VerifyingKey]:
    """The keys of an experiment's clients, by number."""
    return {number: keys[name] for number, name in enumerate(_names(experiment)) if name in keys}


def _names(experiment: Experiment) -> tuple[str, ...]:
    return tuple(experiment.parts.federated.names or ())


def _require_same(instruction: Instruction, stage: StageRequest, plan: str) -> None:
    if instruction.round != stage.round or input_digest(instruction.parameters, plan) != stage.inputs:
        raise Refused(
            Refusal.OUTSIDE_PLAN, "the model or round that came is not the one that the secure sum began with"
        )
