"""What is wrong on one client's side; it needs nothing but the client's own folder, and sends no record anywhere."""

from collections.abc import Iterator
from pathlib import Path

import fedsafe
from fedsafe.apps.code import code_digest
from fedsafe.data import Task
from fedsafe.data.deployed import own_task
from fedsafe.data.source_file import DataSource, read_source
from fedsafe.deploy.certificates import (
    certificate_key,
    common_name,
    key_digest,
    read_certificate,
    read_key,
    same_key,
)
from fedsafe.deploy.client_ledger import LEDGER, ClientLedger
from fedsafe.deploy.experiment import compose_experiment, read_experiment
from fedsafe.deploy.federation import SECRET, ClientFolder, read_client
from fedsafe.deploy.looking import Checked, Looking, private, reach, valid, versions
from fedsafe.deploy.policy import read_policy
from fedsafe.deploy.signing import PEERS, SIGNING, read_peers, read_signing_key
from fedsafe.errors import ConfigError, DataError


def check_client(folder: Path) -> Iterator[Checked]:
    """One client's side.

    Args:
        folder: The client's.

    Raises:
        ConfigError: It is no folder of a client.
    """
    own = read_client(folder)
    look = Looking(own.client)
    yield from versions(own.client)
    yield from look.at(lambda: _certificate(own))
    yield from look.at(lambda: private(folder / "node.key"))
    yield from look.at(lambda: private(folder / SECRET))
    host, _, port = own.server.rpartition(":")
    yield from look.at(lambda: reach(host.strip("[]"), int(port), folder / "ca.pem"))
    yield from look.at(lambda: _data(own))
    yield from look.at(lambda: _policy(own))
    yield from look.at(lambda: _peers(own))


def _certificate(own: ClientFolder) -> str:
    folder = own.folder
    if not (folder / "node.key").is_file():
        raise ConfigError(f"{folder / 'node.key'} is not there: fedsafe deploy key {folder}")
    key, path = read_key(folder / "node.key").public_key(), folder / "node.pem"
    if not path.is_file():
        raise ConfigError(
            f"{path} is not there: send {folder / 'node.csr'} to who holds the authority's key, and put here what "
            f"comes back; the key's digest is {key_digest(key)}"
        )
    certificate, authority = read_certificate(path), read_certificate(folder / "ca.pem")
    mend = f"fedsafe deploy key {folder}, and send node.csr to who holds the authority's key"
    left = valid(certificate, authority, path, mend)
    if not same_key(certificate_key(certificate, path), key):
        raise ConfigError(
            f"{path} is of another key than node.key: put here the certificate of the newest request"
        )
    if common_name(certificate.subject) != own.client:
        raise ConfigError(f"{path} is of {common_name(certificate.subject)!r}, and this is {own.client!r}")
    return f"its certificate holds for {left} days"


def _peers(own: ClientFolder) -> str:
    """The keys that are pinned for secure aggregation, and whether they do for the experiment."""
    policy = read_policy(own.folder / "policy.toml")
    config = read_experiment((own.folder / "experiment.toml").read_text(encoding="utf-8"), policy)
    own_wish = policy.secure
    wanted = (
        f"secure.required = {str(own_wish.required).lower()}, least_honest = {own_wish.least_honest}, "
        f"least_corrupt = {own_wish.least_corrupt}"
    )
    if not config.aggregation.secure:
        return f"the experiment sends each update by itself, which the policy lets it: {wanted}"
    private(own.folder / SIGNING)
    peers, key = read_peers(own.folder), read_signing_key(own.folder).public_key()
    if peers.keys.get(own.client) != key:
        raise ConfigError(
            f"{own.folder / PEERS} has not the key of {SIGNING}: fedsafe deploy key {own.folder}, send node.csr to who "
            f"holds the authority's key, and put here the {PEERS} that comes back"
        )
    task = config.task if isinstance(config.task, dict) else {}
    missing = [name for name in task.get("clients", {}) if name not in peers.keys]
    if missing:
        why = "; ".join(
            f"{name}: {peers.left_out.get(name, 'it has no certificate there')}" for name in missing
        )
        raise ConfigError(
            f"{own.folder / PEERS} pins no key of {why}: ask who holds the authority's key for a new one"
        )
    return (
        f"the keys of {len(peers.keys)} clients are pinned, {PEERS} is {peers.digest}: compare it; {wanted}"
    )


def _source(own: ClientFolder) -> DataSource:
    source = read_source(own.folder / "data.toml")
    if source.client != own.client:
        raise DataError(f"data.toml is of {source.client!r}, and this is {own.client!r}")
    return source


def _data(own: ClientFolder) -> str:
    source = _source(own)
    found = source.problems(source.read())
    if found:
        raise DataError(
            f"{len(found)} values are not as the schema says, the first: {found[0]}; fedsafe data check"
        )
    training, validation = source.load()
    return f"{len(training)} records to train on, {len(validation)} to judge the model on here, all as the schema says"


def _policy(own: ClientFolder) -> str:
    """That neither the policy nor the ledger would refuse the experiment."""
    policy = read_policy(own.folder / "policy.toml")
    if policy.client != own.client:
        raise ConfigError(f"policy.toml is of {policy.client!r}, and this is {own.client!r}")
    if code_digest() not in policy.code.fedsafe:
        raise ConfigError(
            f"policy.toml does not allow the code that is installed, fedsafe {fedsafe.__version__}: once it was "
            f"reviewed, add {code_digest()} to code.fedsafe"
        )
    if not policy.code.apps:
        raise ConfigError(
            "policy.toml allows no app: add the digest that the server's operator names to code.apps"
        )
    text = (own.folder / "experiment.toml").read_text(encoding="utf-8")
    source = _source(own)

    def task(spec: object) -> Task:
        training, validation = source.load()
        return own_task(
            spec,  # type: ignore[arg-type]
            client=own.client,
            schema=source.schema_path,
            own=training,
            validation=validation,
        )

    experiment = compose_experiment(read_experiment(text, policy), policy, task)
    budget, delta = policy.budget.record, experiment.plan.record.delta
    before = 0.0
    if (own.folder / "state" / LEDGER).exists():
        ledger = ClientLedger.open(own.folder / "state", own.client)
        try:
            spent = ledger.spent(budget)
        finally:
            ledger.close()
        before = spent.epsilon
        if before + experiment.epsilon > budget.epsilon or spent.delta + delta > budget.delta:
            raise ConfigError(
                f"the ledger has epsilon {before:.4g} of {budget.epsilon:g} for {budget.period_days:g} days, and the "
                f"experiment plans {experiment.epsilon:.4g}: it will be refused; only this client can change that"
            )
    return (
        f"the policy allows the experiment: epsilon {experiment.epsilon:.4g} at delta {delta:g} of {budget.epsilon:g}, "
        f"of which {before:.4g} is spent"
    )
