"""The strategy: Poisson cohort, ledger, messages, merge, noise, the server's optimiser, evaluation by clients."""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedsafe.aggregation import (
    Aggregator,
    DistributedMean,
    Fold,
    OptimizerState,
    ServerOptimizer,
    Updates,
    require_update,
)
from fedsafe.errors import BudgetSpent, EngineError, FedSafeError, PlanViolation
from fedsafe.federation.answers import Answers, Expected
from fedsafe.federation.messages import (
    EVALUATE,
    TRAIN,
    Reply,
    instruction_content,
    pack_parameters,
    read_upload,
    unpack_parameters,
    with_correction,
)
from fedsafe.federation.outcome import RoundCost, RoundOutcome, Tries
from fedsafe.federation.scores import mean_score, merge_scores
from fedsafe.federation.secure_rounds import SecureExchange, SecureRounds
from fedsafe.federation.server_noise import server_stream
from fedsafe.params import Layout, input_digest
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.privacy.sampling import fixed_cohort, poisson_cohort
from fedsafe.rng import Stream
from fedsafe.store.checkpoints import content_digest


class NoisyAverage(Strategy):
    """One round: sample, reserve, send, merge, add noise, divide by a public constant, step; evaluate where planned.

    Args:
        plan: What may be released.
        aggregator: Turns replies into one update. One that remembers comes with its state restored.
        layout: Of the model.
        optimizer: The server's.
        ledger: Reserved before any message leaves.
        key: Secret of cohorts and noise.
        optimizer_state: State of the server's optimiser, when a run is resumed.
        present: The share of clients asked to evaluate after a round that is expected to answer, a public number. Given
            where clients may be absent; then a round that nobody answers is no failure.
        paired: Streams follow from the key and the round alone, whatever the plan and the model: a simulation that is
            compared with another under one key. No guarantee holds then.
        sizes: How many records each client has, a public number. Given where every client answers for itself: each
            reply is then held to it, and to what the rule can merge.
        secure: How updates are summed behind masks; None where each is sent by itself.
    """

    def __init__(
        self,
        *,
        plan: PrivacyPlan,
        aggregator: Aggregator,
        layout: Layout,
        optimizer: ServerOptimizer,
        ledger: Ledger,
        key: bytes,
        optimizer_state: OptimizerState | None = None,
        present: Callable[[int], float] | None = None,
        paired: bool = False,
        sizes: Sequence[int] | None = None,
        secure: SecureRounds | None = None,
    ) -> None:
        self.plan = plan
        self.aggregator = aggregator
        self.layout = layout
        self.optimizer = optimizer
        self.ledger = ledger
        self.optimizer_state = optimizer.initial(layout.total) if optimizer_state is None else optimizer_state
        self._key = key
        self._plan_hash = plan.hash
        self._present = present
        self._paired = paired
        self._sizes = sizes
        self._secure = secure
        self._parameters = np.zeros(layout.total, np.float32)
        self._digest = b""
        self._head = ledger.head
        self._nodes: Sequence[int] = ()
        self._messages: list[Message] = []
        self._asked: Sequence[int] = ()
        self._announced: Mapping[str, float] = {}
        self._answers = Answers((), ())
        # Why rounds that were planned were left out; None where none was.
        self.stopped: str | None = None

    def summary(self) -> None:
        """Nothing is logged: the run record says everything."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort, reserve its spend, and only then make the messages."""
        self._register(grid)
        self._parameters = unpack_parameters(arrays, self.layout)
        self._digest = self._inputs()
        cohort = self.ledger.within_cap(self._drawn(server_round), server_round)
        # Chosen from earlier rounds alone, and on the disk before a message leaves; the digest has it too.
        noise = self.aggregator.choose_noise()
        self._head = self.ledger.reserve(round=server_round, digest=self._digest, cohort=cohort, noise=noise)
        try:
            self._messages = self._addressed(server_round, arrays, cohort)
        except BaseException:
            # Nothing left. A release that was reserved by an earlier process may have, and stays spent.
            with suppress(PlanViolation):
                self.ledger.cancel()
            raise
        self.ledger.departs()
        return self._messages

    def _addressed(self, server_round: int, arrays: ArrayRecord, cohort: Sequence[int]) -> list[Message]:
        """A message for each client of a cohort."""
        self._asked, self._announced = cohort, self.aggregator.announce()
        shared = instruction_content(
            arrays, round=server_round, plan=self._plan_hash, announced=self._announced
        )
        messages = []
        for client in cohort:
            correction = self.aggregator.correction(client, self.layout.total)
            content = shared if correction is None else with_correction(shared, correction)
            messages.append(
                Message(
                    content,
                    dst_node_id=self._nodes[client],
                    message_type=TRAIN,
                    group_id=str(server_round),
                )
            )
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the folds, add noise, step. An absent client counts as zero, an empty cohort still moves."""
        fold = self.aggregator.zero(self.layout.total)
        self._answers = answers = Answers(self._messages, self._asked, self._folded, self._expected(fold))
        # As they arrive: what is kept of a reply is what the rule's fold keeps, and that may not depend on the order.
        for reply in answers.first_of(replies):
            try:
                fold = self.aggregator.merge(fold, reply.fold)
            except (EngineError, ValueError, TypeError, KeyError) as error:
                if not answers.by_themselves:
                    raise  # of a simulation: the rule is at fault
                answers.withdraw(reply, error)
        silent = self._present is not None and not answers.replies and not answers.error
        if self._messages and not silent and not answers.clients:
            said = answers.error or "nothing: no client replied"
            raise EngineError(f"every client of round {server_round} failed; the first said: {said}")
        return self._stepped(server_round, fold), None

    def _summed(self, server_round: int, grid: Grid, timeout: float) -> tuple[ArrayRecord | None, RoundCost]:
        """As :meth:`aggregate_train`, of a sum that is seen behind masks alone; no model where too few were left."""
        secure, rule = self._secure, self.aggregator
        if secure is None or not isinstance(rule, DistributedMean):
            raise EngineError(f"{rule.name} cannot be summed behind masks: use distributed_mean")
        exchange = SecureExchange(
            rounds=secure,
            number=server_round,
            plan=self._plan_hash,
            inputs=self._digest,
            nodes={client: self._nodes[client] for client in self._asked},
            content=self._messages[0].content if self._messages else RecordDict(),
        )
        found, cost = exchange.outcome(lambda sent: grid.send_and_receive(messages=sent, timeout=timeout))
        if found is None:
            return None, cost
        return self._stepped(
            server_round, rule.fold_of(found.total, len(found.clients), self.layout.total)
        ), cost

    def _stepped(self, server_round: int, fold: Fold) -> ArrayRecord:
        """The new model of a fold."""
        update = self.aggregator.finish(fold, self._stream("client noise", server_round))
        require_update(self.aggregator, update, self.layout.total)
        self.aggregator.advance(fold, self._stream("client noise", server_round))
        self._parameters, self.optimizer_state = self.optimizer.step(
            self._parameters, self.optimizer_state, update
        )
        return pack_parameters(self._parameters, self.layout)

    def _expected(self, nothing: Fold) -> Expected | None:
        """What a client's fold is held to; None in a simulation, whose workers are this program."""
        if self._sizes is None:
            return None
        rows = getattr(self.aggregator, "folds_rows", False)
        weighs = rows or getattr(self.aggregator, "folds_uploads", False)
        return Expected(
            like=nothing,
            sizes=self._sizes if weighs else None,
            numbers=rows,
            announced=self._announced,
        )

    def _folded(self, message: Message, client: int) -> Reply | None:
        """The fold of one client that sent its trained model; None for a message of another kind."""
        nothing = self.aggregator.zero(self.layout.total)
        try:
            upload = read_upload(message, self.layout)
            if upload is None:
                return None
            if not getattr(self.aggregator, "folds_uploads", False):
                raise EngineError(
                    f"a client sent its trained model, which {self.aggregator.name} does not fold"
                )
            if self._sizes is not None and upload.examples != self._sizes[client]:
                raise EngineError(
                    f"a client says that it trained on {upload.examples} records, in the plan it has "
                    f"{self._sizes[client]}"
                )
        except EngineError as error:
            return Reply(fold=nothing, clients=0, failures=1, error=str(error), cpu_seconds=0.0)
        row = upload.parameters.astype(np.float64) - self._parameters.astype(np.float64)
        # A rule that folds uploads does not ask whose they are.
        updates = Updates(
            clients=np.zeros(1, np.int64),
            rows=row[np.newaxis],
            examples=np.array([upload.examples], np.float64),
        )
        return Reply(
            fold=self.aggregator.add(nothing, updates), clients=1, failures=0, error="", cpu_seconds=0.0
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Where the plan says so: a cohort of its own, reserved before any message leaves."""
        evaluation = self.plan.evaluation
        if evaluation is None or not evaluation.due(server_round):
            return []
        self._register(grid)
        self._digest = input_digest(unpack_parameters(arrays, self.layout), self._plan_hash)
        stream = self._stream("evaluation cohort", server_round)
        cohort = poisson_cohort(stream, self.plan.clients, evaluation.rate).tolist()
        self._head = self.ledger.reserve_evaluation(round=server_round, digest=self._digest, cohort=cohort)
        self.ledger.departs()
        self._asked = cohort
        content = instruction_content(arrays, round=server_round, plan=self._plan_hash)
        self._messages = [
            Message(
                content,
                dst_node_id=self._nodes[client],
                message_type=EVALUATE,
                group_id=str(server_round),
            )
            for client in cohort
        ]
        return self._messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The mean score, with noise over a public constant: an absent client counts as the middle."""
        evaluation = self.plan.evaluation
        if evaluation is None or not evaluation.due(server_round):
            return None
        expected = None if self._sizes is None else Expected(like=merge_scores([]))
        answers = Answers(self._messages, self._asked, expected=expected)
        scores = merge_scores([reply.fold for reply in answers.first_of(replies)])
        score = mean_score(
            scores,
            answers.clients,
            self.plan.clients,
            evaluation,
            self._stream("evaluation client noise", server_round),
            1.0 if self._present is None else self._present(server_round),
        )
        return None if score is None else MetricRecord({"score": score})

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: object = None,
        *,
        first_round: int = 1,
        on_round: Callable[[RoundOutcome], bool] | None = None,
    ) -> Result:
        """Run rounds ``first_round`` to ``num_rounds``.

        Flower's own loop always counts from 1, which would make a resumed run release round 1 again.

        Args:
            grid: Carries the messages.
            initial_arrays: The model before ``first_round``.
            num_rounds: The last round.
            timeout: Seconds to wait for the replies of a round.
            train_config: Not used: everything is in the plan.
            evaluate_config: Not used: everything is in the plan.
            evaluate_fn: Not used: ``on_round`` judges the model.
            first_round: Where to start.
            on_round: Called with each outcome; False stops the run.

        Raises:
            BudgetSpent: A budget does not pay for the first round. Later that ends the run, and ``stopped`` says why.
            EngineError: Every client of a round failed, or three secure sums in a row were not unmasked.
        """
        self.stopped = None
        arrays, result, tries = initial_arrays, Result(), Tries()
        for current in range(first_round, num_rounds + 1):
            started = time.perf_counter()
            # Asked again, since a resumed run begins here.
            self.stopped = self.spent_before(current) if current > 1 else None
            if self.stopped is not None:
                break
            messages = self.configure_train(current, arrays, ConfigRecord(), grid)
            if self._secure is None:
                replies = grid.send_and_receive(messages=messages, timeout=timeout)
                updated, _ = self.aggregate_train(current, replies)
                failed = len(self._messages) - self._answers.clients
                cost = RoundCost(self._answers.cpu_seconds, failed, None)
            else:
                updated, cost = self._summed(current, grid, timeout)
            arrays = result.arrays = updated if updated is not None else arrays
            asked = self.configure_evaluate(current, arrays, ConfigRecord(), grid)
            answers = grid.send_and_receive(messages=asked, timeout=timeout) if asked else []
            scored = self.aggregate_evaluate(current, answers)
            self.stopped = self.spent_before(current + 1) if current < num_rounds else None
            outcome = RoundOutcome(
                round=current,
                parameters=self._parameters,
                optimizer_state=self.optimizer_state,
                aggregator_state=self.aggregator.state() if self.aggregator.remembers else None,
                head=self._head,
                cpu_seconds=cost.cpu_seconds,
                seconds=time.perf_counter() - started,
                failures=cost.failures,
                aborted=cost.aborted,
                refused=cost.refused,
                evaluation=None if scored is None else float(scored["score"]),  # type: ignore[arg-type]
                stopped=self.stopped,
            )
            if scored is not None:
                result.evaluate_metrics_clientapp[current] = scored
            if on_round is not None and not on_round(outcome):
                break
            tries.after(current, cost)
        return result

    def _register(self, grid: Grid) -> None:
        """Fix the population at the start: amplification counts on it."""
        if self._nodes:
            return
        nodes = sorted(grid.get_node_ids())
        if len(nodes) != self.plan.clients:
            raise EngineError(f"the plan is for {self.plan.clients} clients, {len(nodes)} are registered")
        self._nodes = nodes

    def _drawn(self, server_round: int) -> list[int]:
        """The cohort as sampled: clients that may not take part any more are still in it."""
        stream, level = self._stream("cohort", server_round), self.plan.client
        if level.cohort_size is not None:
            drawn = fixed_cohort(stream, self.plan.clients, level.cohort_size)
        else:
            drawn = poisson_cohort(stream, self.plan.clients, level.rate)
        return [int(client) for client in drawn]

    def _inputs(self) -> bytes:
        """Digest of everything that the round's releases depend on besides records: one stream meets one input."""
        digest = input_digest(self._parameters, self._plan_hash)
        if self.aggregator.remembers:
            digest = hashlib.sha256(digest + content_digest(self.aggregator.state()).encode()).digest()
        noise = self.aggregator.choose_noise()
        return digest if noise is None else hashlib.sha256(digest + repr(noise).encode()).digest()

    def spent_before(self, server_round: int) -> str | None:
        """Why the budget ends the run before a round; None if it does not.

        Asked once the round before is finished, so that its model is judged as the last one.
        """
        try:
            self.ledger.require_paid(server_round, self.aggregator.choose_noise())
        except BudgetSpent as spent:
            return str(spent)
        except FedSafeError:
            return None  # what is wrong with the choice is said when the round is asked for
        return None

    def _stream(self, purpose: str, server_round: int) -> Stream:
        digest = b"" if self._paired else self._digest
        return server_stream(self._key, purpose, server_round, digest)
