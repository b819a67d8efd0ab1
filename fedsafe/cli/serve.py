"""``fedsafe serve RUN``: the accepted model of a run, guarded, over HTTP."""

import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from fedsafe.errors import ConfigError


def serve_command(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", metavar="RUN")] = None,
    host: Annotated[
        str, typer.Option(metavar="H", help="Listen here; other machines only reach it with --keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen at this port; 0 for a free one.")] = 8000,
    round: Annotated[int | None, typer.Option(help="Whose model; the accepted one if left out.")] = None,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Serve a model that fails a `must`; its card says so.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who may ask: a name and a hash a line.")
    ] = None,
    new_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Add a key to --keys, print it, and stop: it is kept nowhere."),
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="The new key may see /metrics, which tells of all callers.")
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Of HTTPS; --private-key goes with it.")
    ] = None,
    private_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Of the certificate.")] = None,
    level: Annotated[float, typer.Option(help="False-alarm rate of the monitor.")] = 0.05,
    floor: Annotated[float, typer.Option(help="Least confidence of an answer.")] = 0.0,
    note_strange: Annotated[
        bool, typer.Option("--note-strange", help="Answer strange inputs too, and say so.")
    ] = False,
    note_flips: Annotated[
        bool,
        typer.Option("--note-flips", help="Answer where a protected column decides too, and say so."),
    ] = False,
    body: Annotated[int, typer.Option(help="Most bytes of a request.")] = 1 << 20,
    batch: Annotated[int, typer.Option(help="Most instances of a request.")] = 256,
    rate: Annotated[float, typer.Option(help="Instances a second of a key.")] = 5000.0,
    queue: Annotated[
        int, typer.Option(help="Instances that wait, from which on requests are refused with 429.")
    ] = 256,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The log of decisions; in RUN/private if left out.")
    ] = None,
    sync: Annotated[
        str, typer.Option(help="When the log is on the disk: batch, second or never.")
    ] = "second",
    watch: Annotated[
        bool, typer.Option("--watch", help="Watch the stream of decisions for drift, too.")
    ] = False,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Post alerts here, too, from warnings on.")
    ] = None,
) -> None:
    """Answer requests for decisions, until SIGTERM or Ctrl-C: what was asked is answered then, and the exit code is 0.

    A model that fails a requirement of severity `must` is refused with exit code 1.
    """
    if new_key is not None:
        _make_key(keys, new_key, operator)
        return
    if operator:
        raise ConfigError("--operator is of a new key: give --keys FILE --new-key NAME --operator")
    if run is None:
        raise ConfigError("name the run folder whose model is served: fedsafe serve RUN")
    from fedsafe.serve.decision import Policy
    from fedsafe.serve.decision_log import Sync
    from fedsafe.serve.keys import Keys
    from fedsafe.serve.limits import Limits
    from fedsafe.serve.opening import open_guard
    from fedsafe.serve.safety_card import measure, safety_card
    from fedsafe.serve.server import bind, encrypted, serve
    from fedsafe.serve.service import Service

    # What is wrong in the options is said before anything slow.
    known = None if keys is None else Keys.read(keys)
    limits = Limits(body=body, batch=batch, rate=rate, queue=queue)
    policy = Policy(
        floor=floor,
        strange="note" if note_strange else "abstain",
        flips="note" if note_flips else "abstain",
    )
    if sync not in get_args(Sync):
        raise ConfigError(f"--sync {sync!r}: use {', '.join(get_args(Sync))}")
    https = encrypted(certificate, private_key)
    with bind(host, port, keyed=known is not None) as listening:
        guard = open_guard(
            run,
            round=round,
            allow_failed=allow_failed,
            level=level,
            policy=policy,
            log=log,
            sync=cast("Sync", sync),
            stream=watch or None,
            labels=False,  # no route takes them
            webhook=webhook,
        )
        try:
            for failed in guard.release.failed:
                sys.stderr.write(f"fedsafe: served though it fails: {failed}\n")
            if known is not None and not https and host not in ("127.0.0.1", "localhost", "::1"):
                sys.stderr.write(
                    "fedsafe: keys go over the network as they are: give --certificate, or put TLS in front\n"
                )
            card = safety_card(guard, limits, measure(guard))
            service = Service(guard, keys=known, limits=limits, card=card, hosts=[host])
            shown = f"[{host}]" if ":" in host else host
            address = f"http{'s' if https else ''}://{shown}:{listening.getsockname()[1]}"

            def told() -> None:
                typer.echo(
                    f"{guard.release.name}, round {guard.release.round}: {address}/v1/predict   (Ctrl-C ends it)"
                )
                sys.stdout.flush()

            serve(service, listening, https=https, on_start=told)
        finally:
            guard.close()
    totals = guard.figures.totals
    typer.echo(f"ended: {totals[True]:,} answers and {totals[False]:,} abstentions, all in the log")


def _make_key(keys: Path | None, name: str, operator: bool) -> None:
    from fedsafe.serve.keys import new_key

    if keys is None:
        raise ConfigError("--new-key adds to a file: name it with --keys FILE")
    typer.echo(new_key(keys, name, operator=operator))
