"""``fedsafe deploy init``: what each side gets, who can read it, and what is refused."""

import stat
import subprocess
import tomllib

import pytest
from cryptography.hazmat.primitives import serialization
from small_federation import KEPT, NAMES

from fedsafe.apps.code import code_digest
from fedsafe.deploy.bundle import bundle_digest, has_own_code
from fedsafe.deploy.certificates import (
    names_of,
    new_key,
    read_certificate,
    read_key,
    request_node,
    same_key,
    why_not,
)
from fedsafe.deploy.federation import SECRET, read_client, read_federation, require_name
from fedsafe.deploy.policy import read_policy
from fedsafe.deploy.registration import add, make_request, revoke
from fedsafe.deploy.thin_app import build_thin_app
from fedsafe.errors import ConfigError


@pytest.fixture(scope="module")
def trial(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("init") / "trial", host="fl.example.org")


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_client_gets_everything_and_nothing_of_anothers(trial):
    for name in NAMES:
        assert files_of(trial.client_folder(name)) == {
            *("ca.pem", "client.toml", "data.toml", "experiment.toml", "policy.toml", "schema.toml"),
            *("gate.sh", "gate.service", "supernode.sh", "supernode.service"),
            *("node.key", "node.pem", "node.pub", "records/patients.csv", SECRET),
            *("signing.key", "peers.pem"),
        }
    one, other = (trial.client_folder(name) for name in NAMES)
    assert not same_key(read_key(one / "node.key").public_key(), read_key(other / "node.key").public_key())
    assert (one / SECRET).read_bytes() != (other / SECRET).read_bytes()
    for path in one.rglob("*"):
        assert (
            path.is_dir()
            or NAMES[1] not in path.read_text(errors="replace")
            or path.name == "experiment.toml"
        )


def test_what_is_secret_is_its_owners_alone(trial):
    folders = [trial.folder / "ca", trial.server, trial.server / "state"]
    folders += [trial.client_folder(name) / "state" for name in NAMES]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    keys = [*trial.folder.rglob("*.key"), *trial.folder.rglob("*.secret")]
    assert len(keys) == 2 + 3 * len(NAMES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


def test_certificates_hold_for_the_host_and_the_clients(trial):
    authority = read_certificate(trial.folder / "ca" / "ca.pem")
    server = read_certificate(trial.server / "server.pem")
    assert why_not(server, authority, of="server") == ""
    assert {"fl.example.org", "127.0.0.1", "localhost"} <= set(names_of(server))
    for name in NAMES:
        assert why_not(read_certificate(trial.certificate(name)), authority) == ""


def test_commands_have_tls_and_the_nodes_key_and_never_less(trial):
    for name in NAMES:
        own = trial.client_folder(name)
        script, gate = (own / "supernode.sh").read_text(), (own / "gate.sh").read_text()
        for words in (
            '--superlink "fl.example.org:9092"',
            '--root-certificates "$DIR/ca.pem"',
            '--auth-supernode-private-key "$DIR/node.key"',
            "--isolation process",
            "--host 127.0.0.1",
        ):
            assert words in script
        port = read_client(own).runtime_port
        assert f"--port {port}" in script
        assert f"--runtime 127.0.0.1:{port}" in gate
    for path in trial.folder.rglob("*"):
        assert path.is_dir() or "--insecure" not in path.read_text(errors="replace")


def test_scripts_are_valid_shell_and_can_be_started(trial):
    scripts = list(trial.folder.rglob("*.sh"))
    assert len(scripts) == 1 + 2 * len(NAMES)
    for script in scripts:
        assert script.stat().st_mode & stat.S_IXUSR
        subprocess.run(["sh", "-n", script], check=True)


def test_clients_on_one_machine_have_ports_of_their_own(trial):
    owns = [read_client(trial.client_folder(name)) for name in NAMES]
    assert len({port for own in owns for port in (own.runtime_port, own.metrics_port)}) == 2 * len(NAMES)


def test_the_first_policy_allows_this_experiment_and_code_and_no_more(trial):
    fab = build_thin_app(trial.folder / "app")
    for name in NAMES:
        policy = read_policy(trial.client_folder(name) / "policy.toml")
        assert policy.client == name
        assert (policy.budget.record.epsilon, policy.budget.record.delta) == (3.0, 1e-5)
        assert policy.code.apps == [bundle_digest(fab)]
        assert policy.code.fedsafe == [code_digest()]
        assert policy.model.names == ["logistic"]
        assert policy.metrics.allowed == []
        assert policy.code.imports == []


def test_what_the_server_hands_to_flower_has_no_code_and_is_the_same_each_time(trial):
    fab = build_thin_app(trial.folder / "app")
    assert fab == build_thin_app(trial.folder / "app")
    assert not has_own_code(fab)
    assert len(fab) < 4096


def test_the_experiment_names_every_client_and_its_records(trial):
    values = tomllib.loads((trial.folder / "experiment.toml").read_text())
    assert values["task"]["clients"] == dict.fromkeys(NAMES, KEPT)
    assert values["federation"]["partition"] == {"name": "natural", "by": "client"}
    assert len(values["task"]["schema_sha256"]) == 64
    assert "engine" not in values


def test_public_evaluation_records_are_taken_along(make, tmp_path):
    (tmp_path / "judged.csv").write_text("age,smokes,ill\n50,no,no\n")
    trial = make(tmp_path / "trial", evaluation=tmp_path / "judged.csv")
    values = tomllib.loads((trial.folder / "experiment.toml").read_text())
    assert (trial.folder / values["task"]["evaluation"]).read_text() == (tmp_path / "judged.csv").read_text()
    assert "./public.csv:/federation/public.csv:ro" in (trial.folder / "compose.yaml").read_text()


def test_what_was_written_is_read_back(trial):
    found = read_federation(trial.folder)
    assert (found.name, found.host, found.port, found.names) == ("trial", "fl.example.org", 9092, NAMES)


def test_units_are_valid_for_systemd(trial, tmp_path):
    import shutil

    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    for unit in trial.folder.rglob("*.service"):
        copy = tmp_path / f"{unit.parent.name}-{unit.name}"
        copy.write_text(unit.read_text())
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if copy.name in line]
        assert said == [], said


def test_the_unit_that_talks_to_the_network_finds_no_records_and_the_gates_no_key_of_the_node(trial):
    own = trial.client_folder(NAMES[0])
    home = f"/opt/fedsafe/{NAMES[0]}"
    units = {
        role: [line.partition("=") for line in (own / f"{role}.service").read_text().splitlines()]
        for role in ("supernode", "gate")
    }
    supernode = {key: value for key, _, value in units["supernode"]}
    assert supernode["TemporaryFileSystem"] == home
    assert "ReadWritePaths" not in supernode
    there = {path.removeprefix(f"{home}/") for path in supernode["BindReadOnlyPaths"].split()}
    assert there == {"supernode.sh", "ca.pem", "node.key", SECRET}
    assert ("Environment", "=", "FLWR_HOME=/tmp/flwr") in units["supernode"]
    gate = {key: value for key, _, value in units["gate"]}
    assert gate["ReadWritePaths"] == f"{home}/state"
    assert gate["InaccessiblePaths"] == f"-{home}/node.key"


def test_keys_can_be_left_to_the_clients(make, tmp_path):
    trial = make(tmp_path / "trial", keys_at_clients=True)
    assert not list(trial.server.joinpath("nodes").iterdir())
    own = trial.client_folder("north")
    assert not (own / "node.key").exists()
    digest = make_request(own)
    said = list(add(trial, "north", request=own / "node.csr"))
    assert digest in said[0]
    certificate = read_certificate(trial.certificate("north"))
    assert same_key(certificate.public_key(), read_key(own / "node.key").public_key())
    assert (own / "node.pem").read_bytes() == trial.certificate("north").read_bytes()


def test_a_key_is_rotated_by_another_request(make, tmp_path):
    trial = make(tmp_path / "trial")
    own, before = trial.client_folder("north"), trial.certificate("north").read_bytes()
    make_request(own)
    assert (own / "node.key.old").exists()
    list(add(trial, "north", request=own / "node.csr"))
    assert trial.certificate("north").read_bytes() != before


def test_a_request_of_another_key_than_was_said_is_not_signed(make, fedsafe, tmp_path):
    trial = make(tmp_path / "trial")
    said = make_request(trial.client_folder("north"))
    before = {path: path.read_bytes() for path in trial.folder.rglob("*") if path.is_file()}
    forged = tmp_path / "forged.csr"
    forged.write_bytes(request_node(new_key(), "north").public_bytes(serialization.Encoding.PEM))
    for request in (forged, None):
        with pytest.raises(ConfigError, match="nothing was signed"):
            list(add(trial, "north", request=request, digest=said))
    assert before == {path: path.read_bytes() for path in trial.folder.rglob("*") if path.is_file()}
    request = trial.client_folder("north") / "node.csr"
    done = fedsafe("deploy", "add", trial.folder, "north", "--request", request, "--digest", said.upper())
    assert done.code == 0, done.err
    assert "as said" in done.out


def test_a_revoked_client_has_no_certificate_and_it_is_kept(make, tmp_path):
    trial = make(tmp_path / "trial")
    kept = revoke(trial, "north")
    assert kept.is_file()
    assert not trial.certificate("north").exists()
    with pytest.raises(ConfigError, match="is not let in"):
        revoke(trial, "north")


def test_a_client_joins_later(make, tmp_path):
    trial = make(tmp_path / "trial")
    with pytest.raises(ConfigError, match="say how many records"):
        list(add(trial, "west", request=None))
    list(add(trial, "west", request=None, records=70))
    found = read_federation(trial.folder)
    assert found.names == ("north", "south", "west")
    values = tomllib.loads((trial.folder / "experiment.toml").read_text())
    assert values["task"]["clients"] == {"north": KEPT, "south": KEPT, "west": 70}
    assert "west-gate:" in (trial.folder / "compose.yaml").read_text()
    assert read_certificate(found.certificate("west"))
    ports = {read_client(found.client_folder(name)).runtime_port for name in found.names}
    assert len(ports) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say who takes part"),
        (("--names", ""), "say who takes part"),
        (("--clients", "2", "--names", "a,b,c"), "give one of them, or the same number"),
        (("--clients", "2", "--hosts", "server"), "write NAME=VALUE"),
        (("--clients", "2", "--hosts", "elsewhere=10.0.0.1"), "neither server nor a client"),
        (("--clients", "2", "--hosts", "server=no host"), "is no host"),
        (("--names", "a,A"), "lower-case"),
        (("--names", "a,a"), "two clients have one name"),
        (("--clients", "2", "--records", "client-1=many"), "whole number"),
        (("--clients", "2", "--records", "client-9=5"), "is no client"),
        (("--clients", "2", "--records", "client-1=0"), "needs records"),
        (("--clients", "2", "--port", "70000"), "is no port"),
        (("--clients", "2", "--schema", "nothing.toml"), "cannot be read"),
        (("--clients", "2", "--evaluation", "nothing.csv"), "is not there"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(fedsafe, tmp_path, words, said):
    done = fedsafe("deploy", "init", "trial", *words)
    assert done.code == 1
    assert len(done.err.strip().splitlines()) == 1
    assert said in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_the_command_writes_a_federation_for_a_number_of_clients(fedsafe, tmp_path):
    done = fedsafe("deploy", "init", "trial", "--clients", 4, "--hosts", "server=10.0.0.1,client-2=10.0.0.2")
    assert done.code == 0, done.err
    found = read_federation(tmp_path / "trial")
    assert found.names == tuple(f"client-{k}" for k in range(1, 5))
    assert found.host == "10.0.0.1"
    assert "1000 stands for it" in done.out
    again = fedsafe("deploy", "init", "trial", "--clients", 4)
    assert (again.code, "is there already" in again.err) == (1, True)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "7", "a" * 64, "ü"])
def test_names_are_safe_in_paths_units_and_containers(name):
    with pytest.raises(ConfigError, match="cannot be a name"):
        require_name(name)
