"""Six hospitals behind gates that sum their updates behind masks, and a server that may say anything to them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flwr.app import Message, RecordDict
from hospitals import Hospital, composed, experiment, patients

from fedsafe.aggregation.secure import STAGES, SecureServer, SecureSum
from fedsafe.apps.packing import PACKED, pack_request
from fedsafe.deploy.certificates import issue_node, make_authority, new_key, write_certificate
from fedsafe.deploy.federation import Client, Federation
from fedsafe.deploy.signing import make_signing_key, naming, read_peers, write_peers
from fedsafe.errors import SecureAggregationError
from fedsafe.federation import SecureRounds
from fedsafe.federation.messages import instruction_content, pack_parameters
from fedsafe.federation.secure_messages import TRAINS, StageRequest, with_stage
from fedsafe.params import input_digest
from fedsafe.runs.compose import aggregator_of
from fedsafe.runs.secure import secure_parameters

NAMES = ("bree", "dale", "esgaroth", "north", "south", "wold")
ROWS = 25
SECURE = {
    "aggregation__secure": True,
    "aggregation__dropouts": 0.34,  # two of six
    "server__aggregator": {"name": "distributed_mean", "minimum": 3},
    "task__clients": dict.fromkeys(NAMES, 20),
    "privacy__client__epsilon": 8.0,
    "rounds": 2,
}


class Hospitals:
    """Their folders and gates, one run, and an honest server's side of it.

    Args:
        folder: For all of them.
        changes: To the experiment.
    """

    def __init__(self, folder: Path, **changes: object) -> None:
        clients = tuple(Client(name=name) for name in NAMES)
        self.federation = Federation(folder=folder, name="f", host="h", port=1, clients=clients)
        for path in ("server/nodes", "clients"):
            (folder / path).mkdir(parents=True)
        self.authority_key = new_key()
        self.authority = make_authority("f", self.authority_key)
        write_certificate(folder / "server" / "ca.pem", self.authority)
        self.text = ""
        self.members: dict[str, Hospital] = {}
        for seed, name in enumerate(NAMES):
            own = self.federation.client_folder(name)
            own.mkdir()
            write_certificate(own / "ca.pem", self.authority)
            (own / "patients.csv").write_text(patients(ROWS, seed))
            self.certify(name)
            self.members[name] = Hospital(own, name=name, text=self.text)
            self.text = self.text or experiment(own, **{**SECURE, **changes})
            self.members[name].text = self.text
        write_peers(self.federation)
        self.parts, self.plan = composed(self.text)
        self.parameters = secure_parameters(
            self.parts.config.aggregation, aggregator_of(self.parts, self.plan), self.parts.layout.total
        )
        self.inputs = input_digest(self.parts.initial, self.plan.hash)

    def certify(self, name: str) -> None:
        """A new signing key and its certificate."""
        key = naming(make_signing_key(self.federation.client_folder(name)))
        issued = issue_node(self.authority, self.authority_key, new_key().public_key(), name, more=key)
        write_certificate(self.federation.certificate(name), issued)

    def join(self) -> list[Message]:
        return [member.join() for member in self.members.values()]

    def ask(self, client: int, stage: str, said: bytes, round: int = 1, **changes: object) -> Message:
        """One stage of one client, packed as the server's app packs it."""
        asked = {"stage": stage, "round": round, "plan": self.plan.hash, "inputs": self.inputs, "said": said}
        content = RecordDict()
        if stage == TRAINS:
            arrays = pack_parameters(self.parts.initial, self.parts.layout)
            content = instruction_content(arrays, round=round, plan=self.plan.hash)
        content = with_stage(content, StageRequest(**{**asked, **changes}))  # type: ignore[arg-type]
        member = self.members[NAMES[client]]
        return member.deliver(pack_request(content, member.run), "train")

    def server(self, round: int = 1) -> SecureServer:
        pinned = dict(
            enumerate(read_peers(self.federation.client_folder("north")).keys[name] for name in NAMES)
        )
        run = self.members["north"].run
        rounds = SecureRounds(parameters=self.parameters, pinned=pinned, own_states=True, run=run)
        number = rounds.round_id(round, self.plan.hash, self.inputs)
        return SecureServer(pinned=pinned, parameters=self.parameters, round=number)

    def play(
        self,
        round: int = 1,
        *,
        until: str = "reveal",
        lost: Mapping[str, Sequence[int]] | None = None,
        heard: Callable[[str, int, Message], None] = lambda stage, client, reply: None,
    ) -> SecureSum | Mapping[int, bytes]:
        """A round, of which some clients are lost before a stage; up to what is asked in a later one if cut off."""
        server, gone = self.server(round), set()
        asked: Mapping[int, bytes] = dict.fromkeys(range(len(NAMES)), b"")
        for stage in STAGES:
            gone |= set((lost or {}).get(stage, ()))
            for client, said in asked.items():
                if client in gone:
                    continue
                reply = self.ask(client, stage, said, round)
                heard(stage, client, reply)
                if not reply.has_error():
                    try:
                        server.receive(words(reply), client)
                    except SecureAggregationError:
                        gone.add(client)
            asked = server.advance()
            if server.stage == "aborted":
                break
            if stage == until and stage != "reveal":
                return asked
        return server.result()

    def close(self) -> None:
        for member in self.members.values():
            member.gate.close()


def words(reply: Message) -> bytes:
    """What a gate said."""
    assert not reply.has_error(), reply.error.reason
    said = reply.content.config_records[PACKED]["said"]
    assert isinstance(said, bytes)
    return said
