"""Secure sums at the gate: what a whole round gives, and what a server that breaks the rules does not."""

import json
import shutil

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hospitals import experiment, refused
from secure_hospitals import NAMES, SECURE, Hospitals, words

from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.aggregation.secure.messages import Abort
from fedsafe.apps.packing import PACKED, pack_request
from fedsafe.deploy import secure as sums
from fedsafe.deploy.client_ledger import AUDIT
from fedsafe.deploy.signing import PEERS, write_peers
from fedsafe.errors import RoundAborted
from fedsafe.federation.messages import instruction_content, pack_parameters
from fedsafe.federation.secure_messages import SECURE as RECORD
from fedsafe.privacy.mechanisms import wrap

ALL = tuple(range(len(NAMES)))


@pytest.fixture
def hospitals(tmp_path):
    made = Hospitals(tmp_path / "f")
    assert not any(reply.has_error() for reply in made.join())
    yield made
    made.close()


@pytest.fixture
def shares(monkeypatch):
    """What each client would have sent without masks."""
    given, whole = {}, sums.share

    def share(message, ready):
        given[ready.experiment.client] = whole(message, ready)
        return given[ready.experiment.client]

    monkeypatch.setattr(sums, "share", share)
    return given


def test_a_round_gives_exactly_the_sum_of_those_whose_values_came(hospitals, shares):
    found = hospitals.play(1, lost={"mask": [1], "reveal": [4]})
    assert found.clients == (0, 2, 3, 4, 5)
    total = wrap(sum(shares[client] for client in found.clients), hospitals.parameters.modulus)
    assert np.array_equal(found.total, total)
    assert sorted(shares) == [0, 2, 3, 4, 5]
    # The stage in which it masks is a client's release, and nothing else is.
    for client, name in enumerate(NAMES):
        released = [] if client == 1 else ["release", "reply", "confirmed"]
        assert hospitals.members[name].kinds() == ["agreement", *released]
    later = hospitals.play(2, lost={"advertise": [1]})
    assert later.clients == (0, 2, 3, 4, 5)


def test_a_run_that_is_over_leaves_no_secret(hospitals):
    for round in (1, 2):
        hospitals.play(round)
    state = hospitals.members["north"].folder / "state"
    assert not list((state / "keys").iterdir())
    assert {path.read_bytes() for path in (state / "secure").iterdir()} == {b"over\n"}
    assert refused(hospitals.ask(3, "advertise", b"", 2)) == "round_already_released"


def test_the_same_request_gets_the_same_bytes_after_a_kill_and_is_charged_once(hospitals, shares):
    heard = {}

    def twice(stage, client, reply):
        heard[stage, client] = words(reply)

    found = hospitals.play(1, heard=twice)
    north = hospitals.members["north"]
    north.restart()
    before, given = north.kinds(), dict(shares)
    again = {}
    hospitals.play(1, heard=lambda stage, client, reply: again.update({(stage, client): words(reply)}))
    assert again == heard
    assert north.kinds() == before
    assert found.clients == ALL
    assert shares.keys() == given.keys()
    assert all(shares[client] is given[client] for client in given), "nobody trained again"


def test_a_gate_that_was_killed_before_its_answer_was_stored_masks_the_same_values_again(
    hospitals, monkeypatch
):
    asked = hospitals.play(1, until="share")
    north = hospitals.members["north"]
    with monkeypatch.context() as patched:
        patched.setattr("fedsafe.deploy.secure_part.KeptRound.keep", killed)
        with pytest.raises(KeyboardInterrupt):
            hospitals.ask(3, "mask", asked[3])
    assert north.kinds() == ["agreement", "release"]
    north.restart()
    first = words(hospitals.ask(3, "mask", asked[3]))
    assert north.kinds() == ["agreement", "release", "reply"]
    assert words(hospitals.ask(3, "mask", asked[3])) == first


def killed(*_):
    raise KeyboardInterrupt


def test_a_second_session_of_a_round_ends_without_a_sum(hospitals):
    """A server that says its first round failed, and begins again with fewer clients, is told nothing."""
    assert hospitals.play(1).clients == ALL
    reasons = set()

    def heard(stage, client, reply):
        if reply.has_error():
            reasons.add((stage, refused(reply)))

    with pytest.raises(RoundAborted):
        hospitals.play(1, lost={"advertise": [0]}, heard=heard)
    assert reasons == {("share", "secure_round_refused")}
    assert "second sum" in hospitals.members["north"].details()
    assert hospitals.play(2).clients == ALL


def test_another_list_of_survivors_for_a_client_that_signed_one_is_refused(hospitals):
    asked = hospitals.play(1, until="mask")
    first = hospitals.ask(3, "confirm", asked[3])
    assert words(first)
    other = hospitals.play(1, until="mask", lost={"mask": [0]})
    assert other[3] != asked[3]
    assert refused(hospitals.ask(3, "confirm", other[3])) == "secure_round_refused"
    assert words(hospitals.ask(3, "confirm", asked[3])) == words(first)


def test_shares_of_another_list_are_not_masked_under(hospitals):
    asked = hospitals.play(1, until="share")
    assert words(hospitals.ask(3, "mask", asked[3]))
    other = hospitals.play(1, until="share", lost={"share": [0]})
    assert refused(hospitals.ask(3, "mask", other[3])) == "secure_round_refused"
    assert hospitals.members["north"].kinds() == ["agreement", "release", "reply", "refusal"]


def test_a_stage_is_what_it_is_called(hospitals, shares):
    """The release is charged by the name of the stage: under another one, deliveries would be masked uncharged."""
    asked = hospitals.play(1, until="share")
    north = hospitals.members["north"]
    for name in ("confirm", "reveal", "share"):
        assert refused(hospitals.ask(3, name, asked[3])) == "secure_round_refused"
    assert "sends Deliveries: it is Roster" in north.details()
    assert not shares
    assert "release" not in north.kinds()
    assert words(hospitals.ask(3, "mask", asked[3]))
    assert north.kinds().count("release") == 1


def test_a_list_that_was_signed_is_remembered_where_an_older_state_is_put_back(hospitals, tmp_path):
    asked = hospitals.play(1, until="mask")
    other = hospitals.play(1, until="mask", lost={"mask": [0]})
    north = hospitals.members["north"]
    state = north.folder / "state" / "secure"
    shutil.copytree(state, tmp_path / "old")
    first = words(hospitals.ask(3, "confirm", asked[3]))
    assert north.kinds()[-1] == "confirmed"
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "old", state)
    assert refused(hospitals.ask(3, "confirm", other[3])) == "round_already_released"
    assert "another list of survivors of round 1 was signed" in north.details()
    north.restart()
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "old", state)
    assert refused(hospitals.ask(3, "confirm", other[3])) == "round_already_released"
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "old", state)
    assert words(hospitals.ask(3, "confirm", asked[3])) == first


def test_the_end_of_a_round_is_written_down_once_with_the_reason_that_the_server_gives(hospitals):
    asked = hospitals.play(1, until="share")
    header = decode(asked[3])[0]
    end = encode(header, Abort(reason="too few were left"))
    north = hospitals.members["north"]
    for _ in range(2):
        assert words(hospitals.ask(3, "end", end)) == b""
    assert north.kinds() == ["agreement", "ended"]
    line = json.loads((north.folder / "state" / AUDIT).read_text().splitlines()[-1])
    assert (line["event"], line["round"]) == ("ended", 1)
    assert line["reason"].startswith("the server says that it has ended round 1")
    assert line["reason"].endswith("too few were left")
    north.restart()
    assert words(hospitals.ask(3, "end", end)) == b""
    assert north.kinds() == ["agreement", "ended"]
    assert refused(hospitals.ask(3, "mask", asked[3])) == "secure_round_refused"


def test_an_update_in_the_clear_is_refused(hospitals):
    hospitals.join()
    north = hospitals.members["north"]
    assert refused(north.ask(1)) == "secure_aggregation_required"
    arrays = pack_parameters(hospitals.parts.initial, hospitals.parts.layout)
    content = instruction_content(arrays, round=1, plan=hospitals.plan.hash)
    assert refused(north.deliver(pack_request(content, north.run), "train")) == "secure_aggregation_required"
    assert north.kinds() == ["agreement", "refusal", "refusal"]


def test_a_stage_where_updates_are_sent_by_themselves_is_outside_of_the_plan(hospitals):
    north = hospitals.members["north"]
    north.text, north.run = experiment(north.folder, task__clients=SECURE["task__clients"]), "b" * 32
    north.join()
    assert refused(hospitals.ask(3, "advertise", b"")) == "outside_plan"


def test_a_key_that_the_server_knows_and_a_client_has_not_pinned_gets_no_share_of_its(hospitals):
    """A server cannot bring in a client, or another key for one, that only the authority may name."""
    hospitals.certify("bree")
    own = [hospitals.federation.client_folder(name) / PEERS for name in NAMES]
    old = own[4].read_bytes()
    write_peers(hospitals.federation)
    own[4].write_bytes(old)
    asked = hospitals.play(1, until="advertise")
    assert refused(hospitals.ask(4, "share", asked[4])) == "secure_round_refused"
    assert "not signed by the key that client 4 has pinned" in hospitals.members["south"].details()
    assert words(hospitals.ask(5, "share", asked[5]))


def test_a_client_that_is_not_pinned_makes_the_others_refuse_the_roster(hospitals):
    path = hospitals.federation.client_folder("south") / PEERS
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"-----BEGIN", 10) :])  # without the first, bree
    asked = hospitals.play(1, until="advertise")
    assert refused(hospitals.ask(4, "share", asked[4])) == "secure_round_refused"
    assert "no key is pinned" in hospitals.members["south"].details()


def test_keys_that_are_missing_or_not_this_clients_refuse_to_join(hospitals):
    north = hospitals.members["north"]
    hospitals.certify("north")
    assert refused(north.join()) == "secure_round_refused"
    assert "peers.pem has not this client's signing key" in north.details()
    (north.folder / PEERS).unlink()
    assert refused(north.join()) == "secure_round_refused"


def test_the_policy_says_how_many_honest_clients_a_sum_must_have(hospitals):
    north = hospitals.members["north"]
    for policy, reason in (
        ({"secure__least_honest": 3}, None),
        ({"secure__least_honest": 4}, "too_few_honest_clients"),
        ({"secure__required": True}, None),
        ({"secure__least_corrupt": 1}, "too_few_honest_clients"),
        ({"secure__least_corrupt": 0}, None),
    ):
        north.allow(**policy)
        reply = north.restart().join()
        assert (refused(reply) if reply.has_error() else None) == reason


def test_a_policy_that_wants_sums_takes_part_in_nothing_else(hospitals):
    north = hospitals.members["north"]
    north.allow(secure__required=True)
    north.restart()
    north.text, north.run = experiment(north.folder, task__clients=SECURE["task__clients"]), "b" * 32
    assert refused(north.join()) == "secure_aggregation_required"
    assert refused(north.ask(1)) == "secure_aggregation_required"


def test_a_round_or_model_that_the_plan_does_not_have(hospitals):
    hospitals.join()
    assert refused(hospitals.ask(3, "advertise", b"", 3)) == "outside_plan"
    assert refused(hospitals.ask(3, "advertise", b"", plan="0" * 64)) == "outside_plan"
    asked = hospitals.play(1, until="share")
    parts, north = hospitals.parts, hospitals.members["north"]

    def sent(shift):
        arrays = pack_parameters(parts.initial + np.float32(shift), parts.layout)
        whole = instruction_content(arrays, round=1, plan=hospitals.plan.hash)
        whole[RECORD] = ConfigRecord(
            {
                "stage": "mask",
                "round": 1,
                "plan": hospitals.plan.hash,
                "inputs": hospitals.inputs,
                "said": asked[3],
                "state": b"",
            }
        )
        return north.deliver(pack_request(whole, north.run), "train")

    assert refused(sent(0.25)) == "outside_plan"
    assert words(sent(0.0))


def test_nonsense_for_a_stage_is_not_understood(hospitals):
    north = hospitals.members["north"]
    sound = {"stage": "advertise", "round": 1, "plan": "p", "inputs": bytes(32), "said": b"", "state": b""}
    changes = [
        {"state": b"kept"},
        {"inputs": b"short"},
        {"stage": "unmask"},
        {"round": "1"},
        {"more": 1},
        {"said": None},
    ]
    for change in changes:
        record = {key: value for key, value in {**sound, **change}.items() if value is not None}
        content = {PACKED: ConfigRecord({"run": north.run}), RECORD: ConfigRecord(record)}
        assert refused(north.deliver(RecordDict(content), "train")) == "message_not_understood", change
    content = {PACKED: ConfigRecord({"run": north.run, "parameters": bytes(8)}), RECORD: ConfigRecord(sound)}
    assert refused(north.deliver(RecordDict(content), "train")) == "message_not_understood"
    content = {PACKED: ConfigRecord({"run": north.run}), RECORD: ConfigRecord(sound)}
    assert refused(north.deliver(RecordDict(content), "evaluate")) == "message_not_understood"
