"""A device or a cluster that is not there is one clear line, before anything is started."""

import socket

import pytest
import torch

from fedsafe.engine import cluster, require_device
from fedsafe.engine.cluster import Resources, resources_for, start_ray
from fedsafe.errors import ConfigError, EngineError


def with_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)


def test_auto_takes_a_gpu_where_there_is_one_and_workers_share_them_evenly(monkeypatch):
    with_gpus(monkeypatch, 0)
    assert require_device("auto") == "cpu"
    assert resources_for("auto", None, 4) == Resources(device="cpu", gpus=0.0)
    with_gpus(monkeypatch, 1)
    assert require_device("auto") == "cuda"
    assert require_device("cpu") == "cpu"
    assert resources_for("auto", None, 4) == Resources(device="cuda", gpus=0.25)
    assert resources_for("cuda", 0.1, 4) == Resources(device="cuda", gpus=0.1)
    assert resources_for("cpu", None, 4) == Resources()
    with_gpus(monkeypatch, 8)
    assert resources_for("cuda", None, 4) == Resources(device="cuda", gpus=1.0)


@pytest.mark.parametrize(
    ("gpus", "device", "share", "said"),
    [
        (0, "cuda", None, r"engine.device = 'cuda', but there is no GPU here: set it to 'cpu' or 'auto'"),
        (0, "auto", 0.5, r"engine.gpus = 0.5 on the CPU"),
        (1, "cpu", 0.5, r"engine.gpus = 0.5 on the CPU"),
        (1, "cuda", 0.0, r"give each worker a part of a GPU"),
        (1, "cuda", 0.5, r"engine.gpus = 0.5 for each of 4 workers is more than the 1 GPUs there are"),
    ],
)
def test_what_cannot_be_had_is_one_line(monkeypatch, gpus, device, share, said):
    with_gpus(monkeypatch, gpus)
    with pytest.raises(ConfigError, match=said) as caught:
        resources_for(device, share, 4)
    assert "\n" not in str(caught.value)


@pytest.fixture
def refused():
    """An address of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen: nobody else can, either
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_an_address_where_nobody_listens_is_one_line_at_once(fedsafe, tiny_toml, tmp_path, refused):
    command = fedsafe("run", tiny_toml(engine__name="ray"), "--ray-address", refused, "--out", "run")
    assert command.code == 1
    assert command.err.startswith(
        f"fedsafe: engine.address = '{refused}': no Ray cluster can be joined there ("
    )
    assert command.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_address_where_something_else_listens_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)

    def refuse(**options):
        raise ConnectionError("Ray is trying to start\nat this address, but cannot")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(
            EngineError, match=r"no Ray cluster can be joined there \(Ray is trying"
        ) as caught:
            start_ray(2, address)
    assert "\n" not in str(caught.value)


def test_what_is_no_address_is_one_line(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"engine.address = 'headnode': give 'host:port'"):
        start_ray(2, "headnode")


def test_the_environment_alone_never_joins_a_cluster(monkeypatch):
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    asked = []
    monkeypatch.setattr(cluster.ray, "init", lambda **options: asked.append(options["address"]))
    assert start_ray(2)
    assert asked == ["local"]


def test_the_configuration_refuses_a_device_before_a_run_folder_exists(fedsafe, tiny_toml, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = fedsafe("run", tiny_toml(engine__device="cuda"), "--out", "run")
    assert command.code == 1
    assert command.err == (
        "fedsafe: engine.device = 'cuda', but there is no GPU here: set it to 'cpu' or 'auto'\n"
    )
    assert not (tmp_path / "run").exists()
