"""The service: decisions for instances, and for everything that is wrong its own status."""

import json

import pytest
from tiny_guard import EVERYTHING_ANSWERED, ask, guard, predict, raw, rows

from fedsafe.serve import Policy, read_log, verify_log
from fedsafe.serve.decision_log import DecisionLog
from fedsafe.serve.keys import Keys, new_key
from fedsafe.serve.limits import Limits
from fedsafe.serve.safety_card import safety_card
from fedsafe.serve.service import Service

KEY = b"k" * 32


def service(policy=EVERYTHING_ANSWERED, limits=None, **options):
    return Service(guard(policy), limits=limits, **options)


def test_every_instance_gets_the_decision_of_its_guard():
    given = rows(7)
    [answer] = ask(service(), predict(given))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    decisions = answer.json()["decisions"]
    assert [d["label"] for d in decisions] == ["yes" if 2 * r["a0"] + r["a1"] > 0 else "no" for r in given]
    assert all(d["answered"] and 0.5 <= d["confidence"] <= 1 for d in decisions)
    assert len({d["id"] for d in decisions}) == 7
    assert all(set(d["p_values"]) >= {"ood", "combined"} for d in decisions)


def test_requests_that_come_together_each_get_their_own():
    given = [rows(1 + n % 3, seed=n) for n in range(40)]
    answers = ask(service(), *[predict(each) for each in given], together=True)
    for each, answer in zip(given, answers, strict=True):
        labels = [d["label"] for d in answer.json()["decisions"]]
        assert labels == ["yes" if 2 * r["a0"] + r["a1"] > 0 else "no" for r in each]


def test_an_explanation_is_there_where_it_is_asked_for():
    made = service()
    plain, explained = ask(made, predict(rows()), predict(rows(), "/v1/explain"))
    assert "explanation" not in plain.json()["decisions"][0]
    moved = explained.json()["decisions"][0]["explanation"]
    assert set(moved) == {"a0", "a1", "a2", "sex"}
    assert abs(moved["a0"]) > abs(moved["a2"])


def test_abstaining_is_an_answer_with_reasons():
    [answer] = ask(
        service(Policy(floor=0.999999, strange="off", flips="off")),
        predict([rows()[0] | {"a0": 0.01, "a1": 0}]),
    )
    [decision] = answer.json()["decisions"]
    assert (answer.status_code, decision["answered"], decision["label"]) == (200, False, None)
    assert decision["reasons"] == ["confidence"]


WRONG = [
    (b"{", 400, "wrong_json"),
    (b"", 400, "wrong_json"),
    (b"\xff\xfe", 400, "wrong_json"),
    (b'{"instances": [NaN]}', 400, "wrong_json"),
    (b'{"instances": [{"a0": Infinity}]}', 400, "wrong_json"),
    (b'{"instances": [' + b"9" * 5000 + b"]}", 400, "wrong_json"),
    (b"[" * 100_000, 400, "wrong_json"),
    (b"[]", 422, "wrong_body"),
    (b"null", 422, "wrong_body"),
    (b'{"rows": []}', 422, "wrong_body"),
    (b'{"instances": []}', 422, "wrong_body"),
    (b'{"instances": {}}', 422, "wrong_body"),
    (b'{"instances": [1], "x": 1}', 422, "wrong_body"),
    (b'{"instances": [1]}', 422, "wrong_instance"),
    (b'{"instances": [[1, 2]]}', 422, "wrong_instance"),
    (b'{"instances": [{"a0": 1}]}', 422, "wrong_instance"),
    (b'{"instances": [{"a0": 1e999, "a1": 0, "a2": 0, "sex": "Male"}]}', 422, "wrong_instance"),
    (b'{"instances": [{"a0": 1, "a1": 0, "a2": 0, "sex": "\\ud800"}]}', 422, "wrong_instance"),
    (b'{"instances": [{"\\ud800": 1}]}', 422, "wrong_instance"),
]


@pytest.mark.parametrize(("body", "status", "code"), WRONG, ids=range(len(WRONG)))
def test_everything_wrong_has_its_own_status(body, status, code):
    [answer] = ask(service(), raw(body))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_field_that_is_wrong_is_named():
    [answer] = ask(service(), predict([rows()[0], rows()[0] | {"sex": "Mal"}]))
    [problem] = answer.json()["error"]["problems"]
    assert answer.status_code == 422
    assert (problem["instance"], problem["field"]) == (1, "sex")
    assert "Did you mean 'Male'?" in problem["message"]


def test_sizes_have_limits():
    made = service(limits=Limits(body=2000, batch=3, explained=1))
    statuses = [
        answer.status_code
        for answer in ask(
            made,
            predict(rows(3)),
            predict(rows(4)),
            predict(rows(2), "/v1/explain"),
            raw(b" " * 2001),
            (
                "POST",
                "/v1/predict",
                {"content": _pieces(300), "headers": {"content-type": "application/json"}},
            ),
            raw(b"{}", content_type="text/plain"),
            ("POST", "/v1/predict", {"content": b"{}"}),
            ("GET", "/v1/predict", {}),
            ("GET", "/v2", {}),
        )
    ]
    assert statuses == [200, 422, 422, 413, 413, 415, 415, 405, 404]


async def _pieces(count):
    for _ in range(count):
        yield b" " * 10


def test_a_caller_who_asks_too_much_is_told_when_to_come_again():
    made = service(limits=Limits(rate=5, batch=5))
    first, second, third = ask(made, predict(rows(4)), predict(rows(4)), predict(rows(1)))
    assert (first.status_code, second.status_code) == (200, 429)
    assert int(second.headers["retry-after"]) >= 1
    assert second.json()["error"]["code"] == "rate"
    assert third.status_code == 429


def test_junk_and_explanations_cost_a_caller_what_they_take():
    def asks(*requests, rate):
        made = service(limits=Limits(rate=rate, batch=10))
        return [(a.status_code, a.json().get("error", {}).get("code")) for a in ask(made, *requests)]

    junk = raw(b'{"instances": [' + b"0," * (40 << 9) + b"0]}")  # 40 KiB, and no instance
    assert asks(junk, junk, junk, rate=100) == [(422, "batch"), (422, "batch"), (429, "rate")]
    made = service(limits=Limits(rate=100, batch=10))
    read = []

    async def unread():
        read.append(1)
        yield b"{}"

    long = (
        "POST",
        "/v1/predict",
        {"content": unread(), "headers": {**junk[2]["headers"], "content-length": "65536"}},
    )
    assert [answer.status_code for answer in ask(made, junk, junk, long)] == [422, 422, 429]
    assert not read  # its price is known from its head
    explained = predict(rows(2), "/v1/explain")
    assert asks(explained, explained, rate=100)[1] == (429, "rate")
    assert asks(explained, rate=50) == [(422, "rate")]  # it would wait for ever
    braces = raw(b'{"instances": [' + b"{}," * 5000 + b"{}]}")
    assert asks(braces, rate=100) == [(422, "batch")]


def test_what_is_held_of_slow_bodies_leaves_room_for_others(tmp_path):
    import asyncio

    made = service(limits=Limits(body=1000, held=4000, seconds=0.3))

    async def slow():
        yield b" " * 900
        await asyncio.sleep(0.1)
        yield b" "

    async def run():
        asking = made._asking
        held = [asyncio.create_task(_asked(asking, slow(), "greedy")) for _ in range(4)]
        await asyncio.sleep(0.05)
        assert asking._held.total() < 2000
        answer = await _asked(asking, _whole(json.dumps({"instances": rows()}).encode()), "other")
        told = await asyncio.gather(*held)
        await asking.batcher.close()
        assert not asking._held
        return answer, told

    answer, told = asyncio.run(run())
    assert answer == 200
    assert sorted(told) == [400, 400, 429, 429]


async def _whole(content):
    yield content


async def _asked(asking, parts, caller):
    from fedsafe.serve.asking import Refused

    async def receive():
        part = await anext(parts, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    try:
        scope = {"headers": [(b"content-type", b"application/json")]}
        await asking.answer(scope, receive, caller, explain=False)
    except Refused as refused:
        return refused.status
    return 200


def test_a_column_that_is_given_twice_is_no_instance():
    content = json.dumps({"instances": rows()}).replace('"sex"', '"a0": 1, "sex"').encode()
    [answer] = ask(service(), raw(content))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_json")
    assert "'a0' twice" in answer.json()["error"]["message"]


def test_more_than_can_be_answered_is_shed_with_429_and_what_is_taken_is_answered(tmp_path):
    log = DecisionLog(tmp_path / "log", KEY, model="m")
    made = Service(guard(log=log), limits=Limits(queue=10, batch=10))
    answers = ask(made, *[predict(rows(1, seed=n)) for n in range(200)], together=True)
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert all("retry-after" in a.headers for a in answers if a.status_code == 429)
    log.close()
    verify_log(tmp_path / "log", KEY)
    logged = [line["id"] for line in read_log(tmp_path / "log") if line["kind"] == "decision"]
    told = [a.json()["decisions"][0]["id"] for a in answers if a.status_code == 200]
    assert sorted(logged) == sorted(told)


@pytest.fixture
def keyed(tmp_path):
    keys = {name: new_key(tmp_path / "keys", name) for name in ("a", "b")}
    return keys, service(keys=Keys.read(tmp_path / "keys"), limits=Limits(rate=5, batch=5))


def test_without_a_key_nothing_but_health_is_answered(keyed):
    keys, made = keyed
    paths = ["/v1/card", "/metrics", "/openapi.json", "/v1/health", "/v1/ready"]
    answers = ask(made, predict(rows()), *[("GET", path, {}) for path in paths])
    assert [answer.status_code for answer in answers] == [401, 401, 401, 401, 200, 200]
    assert answers[0].headers["www-authenticate"] == "Bearer"
    wrong = [
        {"authorization": "Bearer nonsense"},
        {"authorization": f"Basic {keys['a']}"},
        {"x-api-key": "fsk_é"},
    ]
    assert {a.status_code for a in ask(made, *[predict(rows(), headers=h) for h in wrong[:2]])} == {401}


def test_figures_of_all_callers_are_for_operators_alone(keyed, tmp_path):
    keys, _ = keyed
    operator = new_key(tmp_path / "keys", "watch", operator=True)
    made = service(keys=Keys.read(tmp_path / "keys"))
    given = [{"authorization": f"Bearer {key}"} for key in (keys["a"], operator)]
    ordinary, allowed = ask(made, *[("GET", "/metrics", {"headers": headers}) for headers in given])
    assert (ordinary.status_code, ordinary.json()["error"]["code"]) == (403, "operator")
    assert allowed.status_code == 200
    assert set(ask(made, ("GET", "/v1/ready", {}))[0].json()) == {"ready"}


def test_each_key_has_its_own_rate(keyed):
    keys, made = keyed
    bearer = {"authorization": f"Bearer {keys['a']}"}
    answers = ask(
        made,
        predict(rows(5), headers=bearer),
        predict(rows(5), headers=bearer),
        predict(rows(5), headers={"x-api-key": keys["b"]}),
        ("GET", "/v1/card", {"headers": bearer}),
    )
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200]


def test_without_keys_only_names_of_this_machine_are_answered():
    strange = [
        predict(rows(), headers={"host": host}) for host in ("evil.example", "127.0.0.1.evil.example:80", "")
    ]
    assert {answer.status_code for answer in ask(service(), *strange)} == {403}
    ours = [predict(rows(), headers={"host": host}) for host in ("localhost:8000", "[::1]:80", "127.0.0.1")]
    assert {answer.status_code for answer in ask(service(), *ours)} == {200}


def test_a_failure_inside_is_500_without_its_text_and_the_next_is_answered(monkeypatch, caplog):
    made = service()
    right = made.guard.predict

    def broken(*_, **__):
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(made.guard, "predict", broken)
    [answer] = ask(made, predict(rows()))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    monkeypatch.setattr(made.guard, "predict", right)
    assert ask(made, predict(rows()))[0].status_code == 200


def test_a_log_that_cannot_be_written_stops_decisions(tmp_path):
    log = DecisionLog(tmp_path / "log", KEY, model="m")
    made = Service(guard(log=log))
    log.close()
    [answer] = ask(made, predict(rows()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_log")
    assert str(tmp_path) not in answer.text


def test_the_figures_count_what_was_answered():
    made = service()
    ask(made, predict(rows(3)), raw(b"{"), ("GET", "/nothing/here", {}))
    [answer] = ask(made, ("GET", "/metrics", {}))
    assert 'fedsafe_service_requests_total{route="/v1/predict",status="200"} 1.0' in answer.text
    assert 'fedsafe_service_requests_total{route="/v1/predict",status="400"} 1.0' in answer.text
    assert 'fedsafe_service_requests_total{route="other",status="404"} 1.0' in answer.text
    assert "fedsafe_guard_decisions_total" in answer.text
    assert "/nothing/here" not in answer.text


def test_the_card_says_what_is_served_and_how_it_is_guarded():
    limits = Limits()
    made = guard()
    [answer] = ask(Service(made, limits=limits, card=safety_card(made, limits)), ("GET", "/v1/card", {}))
    card = answer.json()
    assert card["model"]["sha256"] == "ab" * 32
    assert card["monitor"]["false_alarm_rate"] == 0.05
    assert card["served_though_failed"] == []
    assert card["limits"]["queue"] == limits.queue
    assert json.dumps(card)


def test_it_stops_being_ready_before_it_ends():
    made = service()
    assert ask(made, ("GET", "/v1/ready", {}))[0].status_code == 200
    made.stopping = True
    health, ready = ask(made, ("GET", "/v1/health", {}), ("GET", "/v1/ready", {}))
    assert (health.status_code, ready.status_code) == (200, 503)


def test_it_ends_only_when_what_was_asked_is_answered_and_logged(tmp_path):
    import asyncio

    import httpx

    log = DecisionLog(tmp_path / "log", KEY, model="m", sync="never")
    made = Service(guard(log=log), linger=0.05)

    async def run():
        transport = httpx.ASGITransport(app=made)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            method, path, options = predict(rows(5))
            asked = asyncio.create_task(client.request(method, path, **options))
            await asyncio.sleep(0.01)
            await made.close()
            return await asked

    answer = asyncio.run(run())
    assert answer.status_code == 200
    verify_log(tmp_path / "log", KEY)
    assert sum(line["kind"] == "decision" for line in read_log(tmp_path / "log")) == 5
