"""``fedsafe deploy check``: each thing that can be wrong is found where it is, with what to do about it."""

import socket
import stat
import tomllib
from contextlib import contextmanager

import pytest
import tomli_w
from small_federation import NAMES, records_of

from fedsafe.deploy import check as checking
from fedsafe.deploy.certificates import (
    issue_node,
    issue_server,
    make_authority,
    new_key,
    read_key,
    write_certificate,
    write_key,
)
from fedsafe.deploy.check import check
from fedsafe.deploy.client_ledger import LEDGER
from fedsafe.deploy.federation import read_federation
from fedsafe.deploy.policy import make_policy, read_policy
from fedsafe.deploy.registration import make_request, read_authority, revoke
from fedsafe.errors import ConfigError


@pytest.fixture
def trial(make, tmp_path):
    return make(tmp_path / "trial")


@pytest.fixture(autouse=True)
def reached(monkeypatch, request):
    """The server answers, except where a test is about that."""
    if "the_server" not in request.node.name:
        from fedsafe.deploy import check_client

        for module in (checking, check_client):
            monkeypatch.setattr(module, "reach", lambda host, port, authority: f"{host}:{port} answers")


def wrong(trial, role):
    return [found.what for found in check(trial.folder, role) if not found.ok]


def own_of(trial):
    return trial.client_folder(NAMES[0])


def test_a_new_federation_is_right_on_every_side(trial):
    found = list(check(trial.folder))
    assert [each for each in found if not each.ok] == []
    assert {each.role for each in found} == {"server", *NAMES}


def test_a_client_checks_its_folder_alone(trial, tmp_path):
    alone = tmp_path / "alone"
    own_of(trial).rename(alone)
    found = list(check(alone))
    assert {each.role for each in found} == {NAMES[0]}
    assert all(each.ok for each in found), [each.what for each in found]


def test_a_name_that_the_certificate_has_not(trial):
    path = trial.folder / "federation.toml"
    values = tomllib.loads(path.read_text())
    values["server"]["host"] = "fl.example.org"
    path.write_text(tomli_w.dumps(values))
    (said,) = wrong(trial, "server")
    assert "not for 'fl.example.org': fedsafe deploy renew" in said


def test_a_server_certificate_that_expired(trial):
    authority, key = read_authority(trial)
    server = read_key(trial.server / "server.key").public_key()
    write_certificate(
        trial.server / "server.pem", issue_server(authority, key, server, [trial.host], days=-1)
    )
    (said,) = wrong(trial, "server")
    assert "expired on" in said
    assert "fedsafe deploy renew" in said


def test_a_certificate_that_soon_expires(trial):
    authority, key = read_authority(trial)
    server = read_key(trial.server / "server.key").public_key()
    write_certificate(trial.server / "server.pem", issue_server(authority, key, server, [trial.host], days=5))
    assert any("expires in" in said for said in wrong(trial, "server"))


def test_a_certificate_of_another_key(trial):
    (trial.server / "server.key").unlink()
    write_key(trial.server / "server.key", new_key())
    assert any("is of another key than server.key" in said for said in wrong(trial, "server"))


def test_a_key_that_others_can_read(trial):
    (trial.server / "server.key").chmod(0o644)
    assert any("chmod 600" in said for said in wrong(trial, "server"))
    assert stat.S_IMODE((trial.server / "server.key").stat().st_mode) == 0o644, "only looked at"


def test_a_client_that_is_not_let_in(trial):
    revoke(trial, NAMES[1])
    (said,) = wrong(trial, "server")
    assert f"{NAMES[1]} is not let in" in said


def test_a_client_of_another_federation(trial):
    key = new_key()
    issued = issue_node(make_authority("elsewhere", key), key, new_key().public_key(), NAMES[0])
    write_certificate(trial.certificate(NAMES[0]), issued)
    assert any("another federation's authority signed it" in said for said in wrong(trial, "server"))


def test_an_experiment_for_other_clients(trial):
    path = trial.folder / "experiment.toml"
    values = tomllib.loads(path.read_text())
    values["task"]["clients"]["west"] = 40
    path.write_text(tomli_w.dumps(values))
    assert any("make task.clients the same" in said for said in wrong(trial, "server"))


def test_another_schema_than_was_agreed(trial):
    with (trial.folder / "schema.toml").open("a") as file:
        file.write("# changed\n")
    assert any("was agreed" in said for said in wrong(trial, "server"))


def test_a_client_without_a_key(trial):
    (own_of(trial) / "node.key").unlink()
    assert any("fedsafe deploy key" in said for said in wrong(trial, NAMES[0]))


def test_a_new_key_whose_certificate_has_not_come_yet(trial):
    make_request(own_of(trial))
    assert any("is of another key than node.key" in said for said in wrong(trial, NAMES[0]))


@pytest.mark.parametrize(
    ("bad", "said"),
    [("50,often,no", "'smokes'"), ("50,,no", "'smokes'"), ("abc,no,no", "'age'"), ("50,no,perhaps", "'ill'")],
)
def test_a_record_that_is_not_as_the_schema_says(trial, bad, said):
    (own_of(trial) / "records" / "patients.csv").write_text(records_of(NAMES[0], bad=bad))
    found = wrong(trial, NAMES[0])
    assert any("row 7" in line and said in line and "fedsafe data check" in line for line in found)


def test_another_number_of_records_than_was_agreed(trial):
    path = own_of(trial) / "records" / "patients.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-10]) + "\n")
    assert any("were agreed" in said for said in wrong(trial, NAMES[0]))


def change_policy(trial, **budget):
    path = own_of(trial) / "policy.toml"
    values = read_policy(path).model_dump()
    values["budget"]["record"] |= budget
    path.write_text(make_policy(values).to_toml())


def test_a_policy_that_would_refuse_the_experiment(trial):
    change_policy(trial, epsilon=1.0)
    (said,) = wrong(trial, NAMES[0])
    assert "budget_spent" in said
    assert "planned epsilon" in said


def test_a_policy_that_allows_other_code_only(trial):
    path = own_of(trial) / "policy.toml"
    values = read_policy(path).model_dump()
    values["code"]["fedsafe"] = ["0" * 64]
    path.write_text(make_policy(values).to_toml())
    (said,) = wrong(trial, NAMES[0])
    assert "does not allow the code that is installed" in said


def test_a_policy_without_a_word_too_many(trial):
    path = own_of(trial) / "policy.toml"
    path.write_text(path.read_text() + "\n[surprise]\n")
    assert any("surprise" in said for said in wrong(trial, NAMES[0]))


def test_checking_leaves_no_ledger_behind(trial):
    assert wrong(trial, NAMES[0]) == []
    assert not (own_of(trial) / "state" / LEDGER).exists()


def test_the_server_that_does_not_answer(trial):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(ConfigError, match="does not answer"):
        checking.reach("127.0.0.1", port, trial.server / "ca.pem")


@contextmanager
def serving(folder):
    """The real server's TLS, with nothing behind it."""
    import threading

    from test_admission import behind
    from uvicorn import Server

    from fedsafe.deploy.superlink import secured

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(secured(behind, folder, "127.0.0.1", port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join(20)


def test_the_server_that_answers_is_held_to_its_certificate(trial, make, tmp_path):
    other = make(tmp_path / "other", name="elsewhere")
    with serving(trial.server) as port:
        assert "TLSv1.3" in checking.reach("127.0.0.1", port, trial.server / "ca.pem")
        with pytest.raises(ConfigError, match="a certificate that is not right here"):
            checking.reach("127.0.0.1", port, other.server / "ca.pem")


def test_the_command_prints_each_thing_and_ends_with_one_if_any_is_wrong(trial, fedsafe):
    done = fedsafe("deploy", "check", trial.folder, "--role", "server")
    assert done.code == 1, "nothing listens for the_server"
    lines = done.out.splitlines()
    assert sum(line.startswith("WRONG server: ") for line in lines) == 1
    assert any("does not answer" in line for line in lines)
    assert sum(line.startswith("ok    server: ") for line in lines) >= 5


def test_a_folder_that_is_none(tmp_path, fedsafe):
    done = fedsafe("deploy", "check", tmp_path)
    assert (done.code, "federation.toml cannot be read" in done.err) == (1, True)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_federation(tmp_path)
