"""The server's side as an ordinary Flower ServerApp."""

from collections.abc import Callable

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedsafe.federation.messages import pack_parameters
from fedsafe.federation.outcome import RoundOutcome
from fedsafe.federation.strategy import NoisyAverage
from fedsafe.params import Vector


def make_server_app(
    strategy: NoisyAverage,
    initial: Vector,
    *,
    first_round: int,
    last_round: int,
    on_round: Callable[[RoundOutcome], bool],
) -> ServerApp:
    """A ServerApp that trains from ``initial`` and reports each round.

    Args:
        strategy: Runs the rounds.
        initial: The model before ``first_round``.
        first_round: Where to start.
        last_round: Where to end.
        on_round: Called with each outcome; False stops the run.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid,
            pack_parameters(initial, strategy.layout),
            num_rounds=last_round,
            first_round=first_round,
            on_round=on_round,
        )

    return app


def server_context() -> Context:
    """The context of a ServerApp that FedSafe calls itself."""
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
