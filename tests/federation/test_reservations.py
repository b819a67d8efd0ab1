"""A round that fails before a message exists costs nothing; one that fails after is spent."""

import pytest
from tiny_federation import config

from fedsafe.engine import InlineGrid
from fedsafe.federation import NoisyAverage
from fedsafe.privacy.chain import CANCELLED, read_events
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder


def models(path) -> list[str]:
    lines = RunFolder.open(path).record()
    return [line.parameters_sha256 for line in lines if hasattr(line, "parameters_sha256")]


def kinds(path) -> list[str]:
    return [event.kind for event in read_events(path / "private" / "ledger.sqlite")]


def breaking(monkeypatch, owner, method, *, at: int):
    """A method that fails at its ``at``-th call, before it does anything."""
    calls, real = [], getattr(owner, method)

    def broken(self, *arguments, **options):
        calls.append(method)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(owner, method, broken)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(config(privacy__noise_key="seed"), out=tmp_path_factory.mktemp("whole") / "run").path


def test_before_a_message_exists_the_reservation_is_taken_back(monkeypatch, tmp_path, whole):
    with monkeypatch.context() as patched:
        breaking(patched, NoisyAverage, "_addressed", at=2)
        with pytest.raises(KeyboardInterrupt):
            run(config(privacy__noise_key="seed"), out=tmp_path / "run")
    assert kinds(tmp_path / "run") == ["plan", "round", "round", CANCELLED]
    resume(tmp_path / "run")
    assert kinds(tmp_path / "run") == ["plan", "round", "round", CANCELLED, "round", "round"]
    assert models(tmp_path / "run") == models(whole)


def test_once_a_message_may_have_left_it_is_spent(monkeypatch, tmp_path, whole):
    with monkeypatch.context() as patched:
        breaking(patched, InlineGrid, "send_and_receive", at=2)
        with pytest.raises(KeyboardInterrupt):
            run(config(privacy__noise_key="seed"), out=tmp_path / "run")
    assert kinds(tmp_path / "run") == ["plan", "round", "round"]
    resume(tmp_path / "run")
    assert kinds(tmp_path / "run") == ["plan", "round", "round", "round"]
    assert models(tmp_path / "run") == models(whole)
