"""Non-private local SGD with 100 of 1,000 clients, against pfl: wall time of a round, two workers and two processes.

    python benchmarks/local_sgd_pfl.py

pfl cannot be installed beside FedSafe, whose dp-accounting is newer than pfl allows. It gets an environment of its
own in ``benchmarks/.peers``, made here at the first use, which sees FedSafe's packages behind it: torch is the same.
"""

import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from comparing import HERE, Comparison, run_json, script
from our_rounds import WORKERS, our_rounds
from workloads import CLIENTS, COHORT, WORKS, stored

LEAST = {"mlp": 5.0, "cnn": 1.5}
ROUNDS = {"mlp": 10, "cnn": 5}
PEERS = HERE / ".peers"
# What pfl needs in another version than FedSafe.
_UNPINNED = ("dp-accounting==", "absl-py==")


def pfl_python() -> Path:
    """The interpreter of the environment with pfl, which is made if it is not there.

    Raises:
        RuntimeError: pfl could not be installed.
    """
    home = PEERS / "pfl"
    python = home / "bin" / "python"
    if (home / "ready").exists():
        return python
    venv.create(home, with_pip=True, clear=True)
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(found.stdout.strip()) / "fedsafe.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pinned = (HERE.parent / "constraints.txt").read_text().splitlines(keepends=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(line for line in pinned if not line.startswith(_UNPINNED))
        constraints.flush()
        command = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints.name]
        done = subprocess.run(
            [*command, "--requirement", HERE / "peers" / "pfl.txt"], capture_output=True, text=True
        )
    if done.returncode:
        raise RuntimeError(f"pfl could not be installed: {done.stderr.strip().splitlines()[-1]}")
    (home / "ready").touch()
    return python


def pfl_rounds(work: str, folder: Path, *, clients: int, cohort: int, rounds: int) -> list[float]:
    """Seconds of so many rounds in two processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={WORKERS}"]
    numbers = [str(number) for number in (clients, cohort, rounds + 1)]
    script_of_peer = str(HERE / "peers" / "pfl_local_sgd.py")
    found: list[float] = run_json([str(pfl_python()), *launch, script_of_peer, work, str(folder), *numbers])
    return found


def compare(name: str, *, clients: int, cohort: int, rounds: int) -> Comparison:
    """Seconds of a round on both: the peer first, then FedSafe."""
    with stored(*WORKS[name].data(clients)) as folder:
        theirs = pfl_rounds(name, folder, clients=clients, cohort=cohort, rounds=rounds)
        ours = our_rounds(name, folder, clients=clients, cohort=cohort, rounds=rounds, private=False)
    return Comparison(
        work=f"{name.upper()} as above, a whole round of local SGD without privacy, {cohort} of {clients:,} clients",
        peer="pfl, two processes",
        unit="s per round",
        ours=ours,
        theirs=theirs,
        least=LEAST[name],
    )


def measure(repeats: int) -> Sequence[Comparison]:
    return [
        compare(name, clients=CLIENTS, cohort=COHORT, rounds=min(ROUNDS[name], 2 * repeats)) for name in WORKS
    ]


if __name__ == "__main__":
    script(measure)
