"""``fedsafe ledger show|verify RUN``: what a run has spent, and whether its ledger can be believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedsafe.privacy.ledger import Ledger

ledger_app = typer.Typer(help="Read and check the privacy ledger of a run.", no_args_is_help=True)
_Run = Annotated[Path, typer.Argument(help="A run folder, with its private part.", metavar="RUN")]


@ledger_app.command("show")
def show_command(run: _Run) -> None:
    """Print the rounds and evaluations that were reserved, and planned and realised epsilon.

    What is printed is private: who took part when is what amplification relies on.
    """
    from fedsafe.privacy.chain import CANCELLED
    from fedsafe.privacy.choices import NOISE

    ledger = _open(run)
    for event in ledger.events:
        body = event.body
        if event.kind == "plan":
            what = f"plan {body['plan'][:12]}"
        elif event.kind == CANCELLED:
            what = f"event {body['of']} cancelled: no message of it had left"
        else:
            what = f"{len(body['cohort']):4d} clients reserved"
            what += f", noise multiplier {body[NOISE]:g} chosen" if NOISE in body else ""
        typer.echo(
            f"event {event.sequence:4d}  {event.kind:10s}  round {event.round:4d}  {what}  {event.hash[:12]}"
        )
    counts = [ledger.participations[client] for client in range(ledger.plan.clients)]
    cap = ledger.plan.record.max_participations
    typer.echo(
        f"participations: at most {max(counts)} of {cap} planned, mean {sum(counts) / len(counts):.2f}"
    )
    _echo_spend(ledger)
    ledger.close()


@ledger_app.command("verify")
def verify_command(run: _Run) -> None:
    """Check the chain, the record, and that the events stay inside the plan; a fault ends with an error.

    Every epsilon that the record says is found again from the plan and the events. Whoever holds the whole folder could
    write all of it anew, in agreement with itself: what shows that is a head of the chain that was noted elsewhere.
    """
    from fedsafe.errors import LedgerError
    from fedsafe.params import fingerprint
    from fedsafe.records import Round
    from fedsafe.runs.keys import read_key
    from fedsafe.runs.record_check import check_record
    from fedsafe.store import RunFolder

    ledger = _open(run)
    folder = RunFolder.open(run)
    lines = folder.record()
    rounds = [line for line in lines if isinstance(line, Round)]
    for line in rounds:
        ledger.require_at_least(line.ledger["sequence"], line.ledger["head"])
    recorded = {line.round: line.parameters_sha256 for line in rounds}
    for number in folder.checkpoints():
        tensors, metadata = folder.read_checkpoint(number)
        ledger.require_at_least(int(metadata["sequence"]), metadata["head"])
        if recorded.get(number, fingerprint(tensors["parameters"])) != fingerprint(tensors["parameters"]):
            raise LedgerError(
                f"the checkpoint of round {number} is not the one in the record: it was replaced; restore it"
            )
    ledger.verify_events()
    worded = check_record(lines, ledger, read_key(folder.private))
    typer.echo(
        f"the ledger holds: {len(ledger.events)} events, chain unbroken, {len(rounds)} record lines and "
        f"{len(folder.checkpoints())} checkpoints agree, every round inside plan {ledger.plan.hash[:12]}, every "
        "recorded epsilon found again"
    )
    if not worded:
        typer.echo(
            "the wording of the claims was not compared: another version of fedsafe wrote the record; verify with it"
        )
    _echo_spend(ledger)
    ledger.close()


def _open(run: Path) -> "Ledger":
    from fedsafe.errors import RecordError
    from fedsafe.privacy.ledger import Ledger
    from fedsafe.privacy.plan import PrivacyPlan
    from fedsafe.records import Start
    from fedsafe.runs.keys import key_fingerprint, read_key
    from fedsafe.store import RunFolder

    folder = RunFolder.open(run)
    lines = folder.record()
    if not lines or not isinstance(lines[0], Start):
        raise RecordError(f"{run} has no start line: the run never began")
    if not folder.private.is_dir():
        raise RecordError(
            f"{run} is a shared copy without private/: only the owner of the run can read its ledger"
        )
    plan = PrivacyPlan.from_numbers(lines[0].plan)
    fingerprint = key_fingerprint(read_key(folder.private))
    return Ledger.open(folder.private / "ledger.sqlite", plan, key_fingerprint=fingerprint)


def _echo_spend(ledger: "Ledger") -> None:
    from fedsafe.privacy.choices import filter_after, is_adaptive
    from fedsafe.report.formats import epsilon

    plan, realised = ledger.plan, ledger.realised()
    planned = plan.spend(plan.rounds)
    for unit, delta in (("record", plan.record.delta), ("client", plan.client.delta)):
        shown = [epsilon(spend[unit]) for spend in (planned, realised)]
        typer.echo(f"{unit:6s}  planned epsilon {shown[0]}, realised {shown[1]}, at delta {delta:g}")
    if is_adaptive(plan):
        budget = filter_after(plan, ledger.trained)
        typer.echo(
            f"adaptive regime: {budget.spent:.6g} of {budget.budget:.6g} of Rényi divergence at order {budget.order:g} "
            "spent by the chosen noise; epsilon is that of the whole budget"
        )
