"""Two clients and a server on loopback, with TLS and node keys, as ``fedsafe deploy init`` sets them up: two rounds.

A third SuperNode has a forged key and is turned away.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, field

import httpx
import pytest
from deployment import Deployment, free_ports
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest
from flwr.supercore.runtime import RuntimeHttpClient
from quiet_environment import QUIET
from small_federation import KEPT, NAMES, RECORDS

from fedsafe.deploy.certificates import new_key, write_key
from fedsafe.deploy.client_ledger import ClientLedger
from fedsafe.deploy.operator import control
from fedsafe.deploy.policy import read_policy
from fedsafe.errors import ConfigError
from fedsafe.runs import Run

# Nine processes import Flower, five of them torch too: on a machine that is busy this takes minutes.
pytestmark = pytest.mark.timeout(1200)


@dataclass
class Finished:
    federation: object
    started: subprocess.CompletedProcess
    checked: subprocess.CompletedProcess
    status: subprocess.CompletedProcess
    heard: list
    logs: dict
    codes: dict = field(default_factory=dict)

    @property
    def run(self):
        return Run(self.federation.server / "runs" / "run-1")


def forge(own, folder):
    """A copy of a client's folder whose key is another one, and whose SuperNode has a port of its own."""
    shutil.copytree(own, folder)
    (folder / "node.key").unlink()
    write_key(folder / "node.key", new_key(), ssh=True)
    script = (folder / "supernode.sh").read_text()
    (folder / "supernode.sh").write_text(re.sub(r"--port \d+", f"--port {free_ports(1)[0]}", script))
    return folder


def intrude(federation, folder):
    """What somebody on the server's machine hears who has not its secrets: for a run, for a task, for its papers."""
    (folder / "wrong.token").write_text("0" * 64)
    authority = federation.server / "ca.pem"
    heard = []
    with (
        pytest.raises(ConfigError) as refused,
        control(federation.port, authority, folder / "wrong.token") as client,
    ):
        client.StartRun(StartRunRequest())
    heard.append(str(refused.value))
    where = f"127.0.0.1:{federation.port}"
    for ask in (
        lambda client: client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-serverapp"])),
        lambda client: client.GetNodes(GetNodesRequest()),
    ):
        client = RuntimeHttpClient.from_server_address(where, False, authority.read_bytes(), [])
        with pytest.raises(httpx.HTTPStatusError) as refused:
            ask(client)
        client.close()
        heard.append(str(refused.value.response.status_code))
    return heard


@pytest.fixture(scope="module")
def finished(make, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed")
    federation = make(folder / "trial", port=free_ports(1)[0])
    with Deployment(federation, **QUIET) as deployment:
        forged = forge(federation.client_folder(NAMES[0]), folder / "forged")
        deployment.start_all()
        deployment.start_node(NAMES[0], folder=forged, named="forged")
        deployment.wait_until_connected()
        checked = deployment.command("check", str(federation.folder))
        started = deployment.command(
            "start", str(federation.folder), "--wait-for-replies", "300", timeout=1000
        )
        heard = intrude(federation, folder)
        status = deployment.command("status", str(federation.folder))
        deployment.until(
            lambda: deployment.processes["forged"].poll() is not None, "the forged node did not end"
        )
        logs = {name: deployment.log(name) for name in deployment.processes}
    codes = {name: process.returncode for name, process in deployment.processes.items()}
    return Finished(federation, started, checked, status, heard, logs, codes)


def test_everything_is_right_before_the_first_round(finished):
    assert finished.checked.returncode == 0, finished.checked.stdout + finished.checked.stderr
    assert "all 2 clients are connected" in finished.checked.stdout
    assert (
        f"{KEPT} records to train on, {RECORDS - KEPT} to judge the model on here" in finished.checked.stdout
    )


def test_two_rounds_are_trained_and_recorded(finished):
    assert finished.started.returncode == 0, (finished.started.stdout, finished.started.stderr, finished.logs)
    assert finished.run.end.status == "completed"
    assert finished.run.end.rounds == 2
    assert "finished: completed; round 2/2" in finished.started.stdout


def test_each_client_has_charged_its_own_ledger_what_was_planned_and_no_more(finished):
    planned = finished.run.claims[0]["epsilon"]
    for name in NAMES:
        folder = finished.federation.client_folder(name)
        ledger = ClientLedger.open(folder / "state", name)
        spent = ledger.spent(read_policy(folder / "policy.toml").budget.record)
        ledger.close()
        assert 0.0 < spent.epsilon <= planned + 1e-9


def test_the_status_says_what_there_is(finished):
    for name in NAMES:
        assert f"{name:<24}online" in finished.status.stdout
    assert "round 2/2" in finished.status.stdout


def test_a_forged_key_is_turned_away_and_both_logs_say_why(finished):
    assert "is not of this federation" in finished.logs["server"]
    assert "is not of this federation" in finished.logs["forged"]
    assert finished.codes["forged"] != 0


def test_whoever_has_not_the_servers_secrets_starts_nothing_and_is_given_nothing(finished):
    start, acquire, nodes = finished.heard
    assert "the server refused: 401" in start
    assert {acquire, nodes} <= {"401", "403"}


def test_nothing_was_started_without_tls(finished):
    assert "insecure" not in " ".join(finished.logs.values()).lower()


def test_every_process_ends_when_it_is_told_to(finished):
    assert {name: code for name, code in finished.codes.items() if code is None} == {}
