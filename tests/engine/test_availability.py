"""Models of who is there: exact on traces made by hand, right on average where chance decides, the same every time."""

import math

import numpy as np
import pytest

from fedsafe.engine import Availability
from fedsafe.engine.schedules import Diurnal
from fedsafe.engine.slowness import LognormalSpeed, ParetoSpeed
from fedsafe.engine.traces import Trace, read_trace
from fedsafe.errors import ConfigError, DataError

DAY = 86400.0


def trace(*rows, period=None):
    owners, starts, ends = zip(*rows, strict=True)
    return Trace(
        owners=np.array(owners), starts=np.array(starts, float), ends=np.array(ends, float), period=period
    )


def there(availability, seconds):
    exchange = availability.ask(range(availability.clients), kind="train", group="1", seconds=seconds)
    return np.flatnonzero(exchange.counted).tolist()


def fits(hits, expected) -> bool:
    """Whether a count of independent events is what these probabilities give, at five standard deviations."""
    deviation = math.sqrt((expected * (1.0 - expected)).sum())
    return abs(hits - expected.sum()) < 5.0 * deviation


def test_a_trace_is_from_each_start_until_just_before_its_end():
    of = Availability(clients=3, seed=0, schedule=trace((0, 0, 10), (1, 5, 20), (2, 7, 7)))
    assert [there(of, seconds) for seconds in (0, 4.9, 5, 9.9, 10, 19.9, 20)] == [
        [0], [0], [0, 1], [0, 1], [1], [1], [],
    ]  # fmt: skip


def test_whoever_goes_before_it_is_done_does_not_answer():
    of = Availability(
        clients=2, seed=0, schedule=trace((0, 0, 10), (1, 0, 20)), network=2.0, work={"train": [4.0, 4.0]}
    )
    assert there(of, 4.0) == [0, 1], "done at 10, when it goes"
    assert there(of, 4.1) == [1]
    assert there(of, 14.1) == []


def test_intervals_that_touch_or_overlap_are_one_and_a_period_has_no_seam():
    of = Availability(
        clients=2,
        seed=0,
        schedule=trace((0, 0, 5), (0, 5, 10), (1, 0, 3), (1, 2, 4), (1, 8, 10), period=10.0),
        network=3.0,
    )
    assert there(of, 4.0) == [0], "client 0 stays from 4 to 7, over where its intervals touch"
    assert there(of, 1.0) == [0, 1], "client 1 stays from 1 to 4, over where its intervals overlap"
    assert there(of, 9.0) == [0, 1], "both stay from 9 to 12, over the end of the period"
    assert there(of, 39.0) == [0, 1]
    assert there(of, 35.0) == [0]


def test_a_file_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "there.csv"
    path.write_text("client, start, end\n1,5,20\n0,0,10.5\n\n0,12,13\n")
    found = read_trace(path, 2)
    assert found.owners.tolist() == [0, 0, 1]
    assert found.starts.tolist() == [0.0, 12.0, 5.0]
    assert found.ends.tolist() == [10.5, 13.0, 20.0]
    assert found.span == 20.0
    same = trace((0, 0, 10.5), (0, 12, 13), (1, 5, 20))
    assert found.digest == same.digest != trace((0, 0, 10.5), (0, 12, 14), (1, 5, 20)).digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its header is client,start,end"),
        ("0,0,10\n1,0,10\n", "begins with '0,0,10': its header is client,start,end"),
        ("client,start,end\n0,0\n", "line 2: 2 fields"),
        ("client,start,end\n0,0,1\n1,a,2\n", "line 3: '1,a,2' is no client number and two times"),
        ("client,start,end\n0.5,0,1\n", "line 2: '0.5,0,1' is no client number"),
        ("client,start,end\n2,0,1\n", "line 2: client 2 is not one of 0 to 1"),
        ("client,start,end\n0,5,4\n", "line 2: from 5 to 4 is no interval"),
        ("client,start,end\n0,-1,4\n", "line 2: from -1 to 4 is no interval"),
        ("client,start,end\n0,0,nan\n", "line 2: from 0 to nan is no interval"),
        ("client,start,end\n0,0,101\n", "line 2: the end 101 is after the period 100"),
        ("client,start,end\n0,0,1\n", "no line for 1 of 2 clients, the first of them 1"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "there.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_trace(path, 2, 100.0)
    assert "\n" not in str(caught.value)
    assert "there.csv" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv", 2)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00client")
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path / "bytes.csv", 2)


def test_a_day_has_its_high_and_its_low_and_the_mean_between_them():
    of = Diurnal(low=0.2, high=0.8, period=DAY, spread=0.0)
    for seconds, probability in ((0.0, 0.8), (DAY / 4, 0.5), (DAY / 2, 0.2), (DAY, 0.8), (7.5 * DAY, 0.2)):
        np.testing.assert_allclose(of.share(seconds, np.zeros(3), 0), probability)
    spread = Diurnal(low=0.2, high=0.8, period=DAY).share(0.0, np.zeros(20_000), 0)
    assert spread.min() < 0.21
    assert spread.max() > 0.79
    assert abs(spread.mean() - 0.5) < 5.0 * 0.3 / math.sqrt(2 * 20_000)


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (2 / 3, False), (1.5, False)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_diurnal_clients_answer_as_often_as_they_should_and_not_as_often_as_others_would(
    factor, right, dropout
):
    of = Availability(
        clients=400,
        seed=1,
        schedule=Diurnal(low=0.05, high=0.65, period=DAY),
        dropout=dropout,
        network=5.0,
    )
    times = [DAY * number / 7 for number in range(50)]
    counted = np.zeros(400)
    expected = np.zeros(400)
    all_of = []
    for number, seconds in enumerate(times):
        counted += of.ask(range(400), kind="train", group=str(number), seconds=seconds).counted
        all_of.append(of.present("train", seconds))
        expected += all_of[-1]
    assert fits(counted.sum(), factor * np.concatenate(all_of)) == right
    # Whoever should be there more often is: the phases are the clients' own.
    assert np.corrcoef(counted, expected)[0, 1] > 0.0
    assert of.missing("train", times) == pytest.approx(1.0 - expected.mean() / 50)


def test_the_time_of_day_of_each_client_is_its_own():
    of = Availability(clients=500, seed=1, schedule=Diurnal(low=0.0, high=1.0, period=DAY))
    first = of.present("train", 0.0)
    counted = sum(
        of.ask(range(500), kind="train", group=str(n), seconds=n * DAY).counted.astype(float)
        for n in range(40)
    )
    night, day = first < 0.1, first > 0.9
    assert fits(counted[day].sum(), np.repeat(first[day], 40))
    assert fits(counted[night].sum(), np.repeat(first[night], 40))
    assert not fits(counted[day].sum(), np.full(40 * day.sum(), first[night].mean()))


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (2 / 3, False), (1.5, False)])
def test_speeds_have_the_distribution_that_is_named(factor, right):
    many = 20_000
    lognormal = np.log(LognormalSpeed(0.5).factors(many, 3))
    assert abs(lognormal.mean()) < 5.0 * 0.5 / math.sqrt(many)
    assert (abs(lognormal.std() - factor * 0.5) < 5.0 * 0.5 / math.sqrt(2 * many)) == right
    pareto = ParetoSpeed(2.0).factors(many, 3)
    assert pareto.min() >= 1.0
    # P(factor > 2) = 2^-alpha.
    assert fits((pareto > 2.0).sum(), np.full(many, factor * 2.0**-2.0)) == right


def waits(counted, seconds, of, asked, at=0.0):
    exchange = of.ask(asked, kind="train", group="1", seconds=at)
    assert exchange.counted.tolist() == counted
    assert exchange.seconds == pytest.approx(seconds)


def test_the_server_waits_for_all_or_until_the_deadline():
    work = {"train": [1.0, 5.0, 30.0]}
    patient = Availability(clients=3, seed=0, work=work, network=2.0)
    waits([True, True], 7.0, patient, [0, 1])
    waits([True, True, True], 32.0, patient, [0, 1, 2])
    waits([], 0.0, patient, [])
    strict = Availability(clients=3, seed=0, work=work, network=2.0, deadline=7.0)
    waits([True, True], 7.0, strict, [0, 1])
    waits([True], 3.0, strict, [0])
    waits([True, False], 7.0, strict, [0, 2])
    assert (patient.allotted("train"), strict.allotted("train")) == (32.0, 7.0)
    assert patient.allotted("evaluate") == 2.0, "nothing is said of how long that takes but the network"
    assert patient.durations("train.own").tolist() == [3.0, 7.0, 32.0], "an action of Flower is of its kind"


def test_nobody_waits_for_who_is_not_there_and_an_empty_world_takes_the_longest_round():
    schedule = trace((0, 0, 100), (1, 0, 0), (2, 0, 0))
    of = Availability(clients=3, seed=0, schedule=schedule, work={"train": [1.0, 5.0, 30.0]})
    waits([True, False, False], 1.0, of, [0, 1, 2])
    waits([False, False], 30.0, of, [1, 2])


def test_who_drops_out_is_waited_for_until_the_deadline():
    values = {"clients": 60, "seed": 4, "dropout": 0.5, "work": {"train": np.arange(60.0)}}
    patient = Availability(**values)
    counted = patient.ask(range(60), kind="train", group="1", seconds=0.0).counted
    assert 10 < counted.sum() < 50
    gone = int(np.flatnonzero(~counted)[5])
    present = np.flatnonzero(counted)[:2].tolist()
    waits([True, True, False], float(max(*present, gone)), patient, [*present, gone])
    waits([True, True, False], 80.0, Availability(**values, deadline=80.0), [*present, gone])


def test_what_is_decided_of_a_client_depends_on_nobody_else_and_repeats():
    values = {
        "schedule": Diurnal(low=0.1, high=0.9, period=DAY), "dropout": 0.2, "slowness": LognormalSpeed(0.5),
        "work": {"train": [1.0] * 50}, "deadline": 1.5,
    }  # fmt: skip
    of = Availability(clients=50, seed=9, **values)
    asked = {"kind": "train", "group": "3", "seconds": 1000.0}
    whole = of.ask(range(50), **asked).counted
    assert (
        Availability(clients=50, seed=9, **values).ask(range(50), **asked).counted.tolist() == whole.tolist()
    )
    for client in (0, 17, 49):
        assert of.ask([client], **asked).counted.tolist() == [whole[client]]
    more = Availability(clients=70, seed=9, **{**values, "work": {"train": [1.0] * 70}})
    assert more.ask(range(50), **asked).counted.tolist() == whole.tolist()
    others = [
        Availability(clients=50, seed=8, **values).ask(range(50), **asked),
        of.ask(range(50), **{**asked, "group": "4"}),
        of.ask(range(50), **{**asked, "kind": "evaluate"}),
        of.ask(range(50), **asked, again=1),
    ]
    for other in others:
        assert other.counted.tolist() != whole.tolist()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dropout": 1.0}, "dropout = 1"),
        ({"network": -1.0}, "network = -1"),
        ({"deadline": 0.0}, "deadline = 0.0"),
        ({"work": {"train": [1.0]}}, "work has 1 entries for 'train' and 3 clients"),
    ],
)
def test_a_model_out_of_range_is_refused_in_one_line(values, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Availability(clients=3, seed=0, **values)
    assert "\n" not in str(caught.value)


def test_a_day_without_a_range_is_refused():
    with pytest.raises(ConfigError, match=r"low = 0\.9 to high = 0\.1"):
        Diurnal(low=0.9, high=0.1, period=DAY)


def test_a_model_that_lets_nobody_be_missing_says_so():
    assert Availability(clients=3, seed=0, network=3.0, deadline=3.0).certain
    for values in (
        {"dropout": 0.1},
        {"network": 3.0, "deadline": 2.9},
        {"work": {"evaluate": [1.0, 1.0, 5.0]}, "deadline": 4.0},
        {"schedule": trace((0, 0, 9), (1, 0, 9), (2, 0, 9))},
    ):
        assert not Availability(clients=3, seed=0, **values).certain
