"""What masks need is checked before anything is loaded, and what they stand is in the claim."""

import pytest
import tiny_federation as tiny

from fedsafe.errors import ConfigError
from fedsafe.runs.compose import compose
from fedsafe.runs.config import make_config
from fedsafe.runs.planning import plan_and_claims
from fedsafe.runs.secure import secure_graph
from fedsafe.runs.stacked_runs import prepare_runs


def config(minimum=4, corrupt=0, **changes):
    return make_config(
        tiny.config(
            **{
                "aggregation__secure": True,
                "server__aggregator": {"name": "distributed_mean", "minimum": minimum, "corrupt": corrupt},
                "federation__cohort": {"rate": 1.0},
                "privacy__client__epsilon": 5.0,
                "rounds": 2,
                **changes,
            }
        )
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"minimum": 1}, "shows the update of a single honest client: raise minimum"),
        ({"minimum": 3, "corrupt": 2}, "shows the update of a single honest client: raise minimum"),
        ({"minimum": 13}, "needs 13 clients that stay, .* and has 12"),
        ({"aggregation__dropouts": 0.9}, "dropouts = 0.9 of secure aggregation leaves 2 of 12 clients"),
        ({"federation__cohort": {"rate": 0.3}}, "needs 4 clients that stay, .* and has 3"),
    ],
)
def test_rounds_that_could_give_no_sum_are_refused_before_any_data_is_loaded(changes, why, monkeypatch):
    def loads(spec):
        raise AssertionError("it is loaded")

    monkeypatch.setattr("fedsafe.runs.compose.load_task", loads)
    with pytest.raises(ConfigError, match=why):
        compose(config(**changes))


def test_a_run_without_masks_has_no_graph():
    assert secure_graph(config(aggregation__secure=False, minimum=13), 12) is None


def test_the_claim_says_how_many_colluders_the_masks_stand_and_that_they_know_their_shares():
    made = config()
    graph = secure_graph(made, 12)
    assert (graph.signatures, graph.threshold, graph.tolerates) == (9, 8, 4)
    claims = plan_and_claims(compose(made), key_from_seed=True).claims
    (masked,) = (text for text in claims[1]["assumptions"] if text.startswith("masks show the server"))
    assert "no more than 4 of a cohort of the expected size work with the server" in masked
    assert "their own shares of the noise, which reckons with none" in masked
    assert "the worst one counts" in masked
    assert not any(text.startswith("masks") for text in claims[0]["assumptions"])


def test_runs_that_train_together_say_that_they_sum_without_masks(caplog):
    prepare_runs([config()])
    assert "add up without masks, which gives the same sums to the last bit" in caplog.text
    caplog.clear()
    prepare_runs([config(aggregation__secure=False)])
    assert "masks" not in caplog.text
