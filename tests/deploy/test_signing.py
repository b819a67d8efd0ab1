"""Signing keys of clients: who vouches for them, whom a client pins, and what checks say of them."""

import stat
import tomllib

import pytest
import tomli_w
from small_federation import EXPERIMENT, KEPT

from fedsafe.deploy.certificates import (
    issue_node,
    make_authority,
    new_key,
    read_certificate,
    write_certificate,
)
from fedsafe.deploy.check import check_server
from fedsafe.deploy.check_client import check_client
from fedsafe.deploy.federation import Client, read_federation
from fedsafe.deploy.policy import read_policy
from fedsafe.deploy.prediction import predict
from fedsafe.deploy.registration import add, make_request, revoke
from fedsafe.deploy.signing import (
    PEERS,
    SIGNING,
    let_in_keys,
    make_signing_key,
    naming,
    read_peers,
    read_signing_key,
    signing_key_of,
)
from fedsafe.errors import ConfigError

NAMES = ("east", "north", "south", "west")


@pytest.fixture
def secure(make, tmp_path):
    """A federation whose experiment sums behind masks."""
    path = tmp_path / "secure.toml"
    values = {
        **EXPERIMENT,
        "aggregation": {"secure": True},
        "server": {"aggregator": {"name": "distributed_mean", "minimum": 3}},
        "privacy": {**EXPERIMENT["privacy"], "client": {"epsilon": 8.0}},
    }
    path.write_text(tomli_w.dumps(values))
    clients = tuple(Client(name=name) for name in NAMES)
    return make(tmp_path / "trial", clients=clients, config=path, records=dict.fromkeys(NAMES, KEPT))


def wrong(checked):
    return [found.what for found in checked if not found.ok and "does not answer" not in found.what]


def test_every_client_pins_the_key_that_each_others_gate_has(secure):
    for name in NAMES:
        own = secure.client_folder(name)
        keys = read_peers(own).keys
        assert keys == {each: read_signing_key(secure.client_folder(each)).public_key() for each in NAMES}
        assert stat.S_IMODE((own / SIGNING).stat().st_mode) == 0o600
        assert read_policy(own / "policy.toml").secure.required
        assert not wrong(check_client(own))
    assert let_in_keys(secure) == keys
    checked = list(check_server(secure))
    assert not wrong(checked)
    assert any(read_peers(own).digest in found.what for found in checked)


def test_a_new_key_is_pinned_once_the_authority_has_signed_it(secure):
    own = secure.client_folder("north")
    digest = make_request(own)
    (said,) = wrong(check_client(own))[-1:]
    assert f"has not the key of {SIGNING}" in said
    list(add(secure, "north", request=own / "node.csr", digest=digest))
    for name in NAMES:
        assert read_peers(secure.client_folder(name)).keys["north"] == read_signing_key(own).public_key()
    assert (own / f"{SIGNING}.old").is_file()
    assert not wrong(check_client(own))


def test_who_is_turned_away_is_not_pinned_any_more(secure):
    revoke(secure, "south")
    assert (
        set(let_in_keys(secure))
        == set(read_peers(secure.client_folder("north")).keys)
        == {"east", "north", "west"}
    )
    (said,) = wrong(check_client(secure.client_folder("north")))
    assert "pins no key of south" in said
    assert any("certificates of south" in found for found in wrong(check_server(secure)))


def test_a_client_that_joins_later_is_pinned_by_all(secure):
    list(add(secure, "up-north", request=None, records=KEPT))
    federation = read_federation(secure.folder)
    assert {len(read_peers(federation.client_folder(name)).keys) for name in federation.names} == {5}


def test_a_file_of_keys_that_is_not_the_authoritys_is_refused(secure, tmp_path):
    own = secure.client_folder("north")
    whole = (own / PEERS).read_bytes()
    stranger = new_key()
    other = make_authority("trial", stranger)  # it says the same name
    forged = issue_node(
        other, stranger, new_key().public_key(), "eve", more=naming(make_signing_key(tmp_path))
    )
    write_certificate(tmp_path / "forged.pem", forged)
    (own / PEERS).write_bytes(whole + (tmp_path / "forged.pem").read_bytes())
    with pytest.raises(ConfigError, match="'eve' that is not this federation's"):
        read_peers(own)
    (own / PEERS).write_bytes(whole + whole)
    with pytest.raises(ConfigError, match="two certificates of 'east'"):
        read_peers(own)
    (own / PEERS).write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match="something else than certificates"):
        read_peers(own)
    (own / PEERS).unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_peers(own)


def test_a_certificate_of_before_there_were_signing_keys_is_left_out(secure):
    from fedsafe.deploy.registration import read_authority
    from fedsafe.deploy.signing import write_peers

    authority, key = read_authority(secure)
    plain = issue_node(authority, key, new_key().public_key(), "east")
    assert signing_key_of(plain) is None
    write_certificate(secure.certificate("east"), plain)
    write_peers(secure)
    peers = read_peers(secure.client_folder("north"))
    assert set(peers.left_out) == {"east"}
    assert "names no signing key" in peers.left_out["east"]
    assert read_certificate(secure.certificate("north")).subject is not None


def test_an_experiment_without_sums_is_checked_without_keys(make, tmp_path):
    plain = make(tmp_path / "plain")
    own = plain.client_folder("north")
    (own / PEERS).unlink()
    assert not wrong(check_client(own))
    assert not tomllib.loads((own / "policy.toml").read_text())["secure"]["required"]


def test_a_prediction_has_the_five_exchanges_and_the_bytes_of_a_round_behind_masks(secure, make, tmp_path):
    plain = predict(make(tmp_path / "plain"), train_seconds=0.1)
    found = predict(secure, train_seconds=0.1)
    assert found.seconds[0] == pytest.approx(plain.seconds[0] + 4 * 4.5)
    # Keys of four, shares of three and receipts are hundreds of bytes; a small model's masked values some more.
    assert found.traffic.down > 4 * found.parameters + 4 * 100
    assert found.traffic.up > 4 * found.parameters + 3 * 100
    assert found.traffic.overhead > 4 * plain.traffic.overhead


def test_a_server_whose_file_for_the_clients_is_not_what_it_lets_in_is_told(secure):
    whole = (secure.folder / PEERS).read_bytes()
    (secure.folder / PEERS).write_bytes(whole[whole.index(b"-----BEGIN", 10) :])
    assert any(
        "has other clients or keys than server/nodes" in found for found in wrong(check_server(secure))
    )
