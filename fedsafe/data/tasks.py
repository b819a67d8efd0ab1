"""Names a task: one that is shipped, the user's own table, or a factory by import path.

The shipped tasks (records are training + evaluation; ``fedsafe data list`` prints the same with sources):

===============  ==========  ==================  ==================================  =======================
name             kind        records             natural holders                     options (default first)
===============  ==========  ==================  ==================================  =======================
adult            binary      32,561 + 16,281     none
digits           multiclass  1,258 + 539         none
breast-cancer    binary      398 + 171           none
mnist-writers    multiclass  60,000 + 10,000     539 writers (297 others evaluate)
heart            binary      690 + 230           4 hospitals
acs-states       binary      80,000 + 20,000     20 states
parkinsons       regression  4,817 + 1,058       34 patients (8 others evaluate)     target: total, motor;
                                                                                     split: patient, record
shakespeare      next_token  9,727 + 2,429       142 speakers                        length: 80; least: 1000
offensiveness    binary      32,836 + 9,411      261 annotators                      features: minilm-layers, minilm;
                                                                                     ties: drop, keep; seed: 0;
                                                                                     most: 128
pandalm          multiclass  2,208 + 789         3 annotators                        features: minilm, minilm-layers;
                                                                                     ties: keep, drop; seed: 0
===============  ==========  ==================  ==================================  =======================

``adult``, ``digits`` and ``breast-cancer`` come with FedSafe or scikit-learn. The others are looked for in the folder
that ``FEDSAFE_DATA_DIR`` names, then in the cache, then downloaded, and always checked against their checksums.
``offensiveness`` and ``pandalm`` are pairs of texts, and need the extra ``text``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsafe.data.catalogue.acs import SOURCE as ACS
from fedsafe.data.catalogue.acs import load_acs_states
from fedsafe.data.catalogue.adult import SOURCE as ADULT
from fedsafe.data.catalogue.adult import load_adult
from fedsafe.data.catalogue.breast_cancer import SOURCE as BREAST_CANCER
from fedsafe.data.catalogue.breast_cancer import load_breast_cancer
from fedsafe.data.catalogue.digits import SOURCE as DIGITS
from fedsafe.data.catalogue.digits import load_digits
from fedsafe.data.catalogue.heart import SOURCE as HEART
from fedsafe.data.catalogue.heart import load_heart
from fedsafe.data.catalogue.mnist import SOURCE as MNIST
from fedsafe.data.catalogue.mnist import load_mnist_writers
from fedsafe.data.catalogue.offensiveness import SOURCE as OFFENSIVENESS
from fedsafe.data.catalogue.offensiveness import load_offensiveness
from fedsafe.data.catalogue.pandalm import SOURCE as PANDALM
from fedsafe.data.catalogue.pandalm import load_pandalm
from fedsafe.data.catalogue.parkinsons import SOURCE as PARKINSONS
from fedsafe.data.catalogue.parkinsons import load_parkinsons
from fedsafe.data.catalogue.shakespeare import SOURCE as SHAKESPEARE
from fedsafe.data.catalogue.shakespeare import load_shakespeare
from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Kind, Source, Task
from fedsafe.data.deployed import NAME as DEPLOYED
from fedsafe.data.deployed import load_deployed
from fedsafe.data.options import plugin_path
from fedsafe.data.preference_files import NAME as PREFERENCES
from fedsafe.data.preference_files import load_preferences
from fedsafe.data.tables import load_table
from fedsafe.errors import ConfigError, DataError
from fedsafe.extensions import call


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A task that has a name.

    Args:
        load: Makes the task from its options.
        kind: Of the task.
        records: Training and evaluation records, with default options.
        source: Where the records come from.
        holders: Who holds the training records, if that is known.
        options: Keyword arguments of ``load`` that a configuration may set.
    """

    load: Callable[..., Task]
    kind: Kind
    records: tuple[int, int]
    source: Source
    holders: str = ""
    options: tuple[str, ...] = ()


SHIPPED: Mapping[str, Shipped] = {
    "adult": Shipped(load=load_adult, kind="binary", records=(32_561, 16_281), source=ADULT),
    "digits": Shipped(load=load_digits, kind="multiclass", records=(1_258, 539), source=DIGITS),
    "breast-cancer": Shipped(
        load=load_breast_cancer, kind="binary", records=(398, 171), source=BREAST_CANCER
    ),
    "mnist-writers": Shipped(
        load=load_mnist_writers,
        kind="multiclass",
        records=(60_000, 10_000),
        source=MNIST,
        holders="539 writers",
    ),
    "heart": Shipped(load=load_heart, kind="binary", records=(690, 230), source=HEART, holders="4 hospitals"),
    "acs-states": Shipped(
        load=load_acs_states, kind="binary", records=(80_000, 20_000), source=ACS, holders="20 states"
    ),
    "parkinsons": Shipped(
        load=load_parkinsons,
        kind="regression",
        records=(4_817, 1_058),
        source=PARKINSONS,
        holders="34 patients",
        options=("target", "split"),
    ),
    "shakespeare": Shipped(
        load=load_shakespeare,
        kind="next_token",
        records=(9_727, 2_429),
        source=SHAKESPEARE,
        holders="142 speakers",
        options=("length", "least"),
    ),
    "offensiveness": Shipped(
        load=load_offensiveness,
        kind="binary",
        records=(32_836, 9_411),
        source=OFFENSIVENESS,
        holders="261 annotators",
        options=("features", "ties", "seed", "most"),
    ),
    "pandalm": Shipped(
        load=load_pandalm,
        kind="multiclass",
        records=(2_208, 789),
        source=PANDALM,
        holders="3 annotators",
        options=("features", "ties", "seed"),
    ),
}
_TABLE_KEYS = ("path", "schema", "evaluation_fraction", "seed")


def load_task(spec: str | Mapping[str, Any]) -> Task:
    """The task that a configuration names.

    Args:
        spec: One of

            * ``"adult"`` or ``{"name": "parkinsons", "split": "record"}``: a shipped task, with its options;
            * ``{"path": "my.csv", "schema": "my.schema.toml"}`` with, optionally, ``"evaluation_fraction"``
              (0.2) and ``"seed"`` (0): a CSV or Parquet file;
            * ``{"name": "preferences", "path": ..., "schema": ...}``: see :mod:`fedsafe.data.preference_files`;
            * ``{"name": "deployed", "schema": ..., "clients": {...}}``: see :mod:`fedsafe.data.deployed`;
            * the name of a task that an installed package offers as an entry point ``fedsafe.tasks``, or
              ``"package.module:factory"``; with options ``{"name": ..., **options}``: a callable that returns a
              :class:`Task`.

    Raises:
        ConfigError: If the name or a key is unknown, or the factory cannot be imported.
        DataError: If the records cannot be used, or the factory fails or returns something else than
            a task.
    """
    if isinstance(spec, str):
        return _named(spec, {})
    if not isinstance(spec, Mapping):
        raise ConfigError(f"task = {spec!r} is neither a name nor a table with `name` or `path`.")
    if spec.get("name") == PREFERENCES:
        return load_preferences(spec)
    if "path" in spec:
        return _table(spec)
    if spec.get("name") == DEPLOYED:
        return load_deployed(spec)
    if not isinstance(spec.get("name"), str):
        raise ConfigError(f"task = {dict(spec)!r} needs `name`, or `path` and `schema`.")
    return _named(spec["name"], {key: value for key, value in spec.items() if key != "name"})


def _table(spec: Mapping[str, Any]) -> Task:
    for key in spec:
        if key not in _TABLE_KEYS:
            hint = nearest(key, _TABLE_KEYS)
            raise ConfigError(f"task has the unknown key {key!r}.{hint} Keys: {', '.join(_TABLE_KEYS)}.")
    if "schema" not in spec:
        raise ConfigError(f"task names the file {spec['path']!r} but no `schema`: a public schema is needed.")
    for key in ("path", "schema"):
        if not isinstance(spec[key], str | Path):
            raise ConfigError(f"task.{key} = {spec[key]!r} is not a path.")
    fraction, seed = spec.get("evaluation_fraction"), spec.get("seed", 0)
    if fraction is not None and (isinstance(fraction, bool) or not isinstance(fraction, int | float)):
        raise ConfigError(f"task.evaluation_fraction = {fraction!r} is not a number in (0, 1).")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"task.seed = {seed!r} is not a whole number.")
    return load_table(Path(spec["path"]), Path(spec["schema"]), fraction, seed)


def _named(name: str, options: Mapping[str, Any]) -> Task:
    if name in SHIPPED:
        shipped = SHIPPED[name]
        for key in options:
            if key not in shipped.options:
                takes = f"takes {', '.join(shipped.options)}" if shipped.options else "takes no options"
                raise ConfigError(
                    f"The task {name!r} {takes}: got {', '.join(options)}.{nearest(key, shipped.options)}"
                )
        return shipped.load(**options)
    factory = plugin_path("task", name)
    if factory is not None:
        return _from_factory(factory, options)
    raise ConfigError(
        f"There is no task {name!r}.{nearest(name, SHIPPED)} Tasks: {', '.join(SHIPPED)}; or a table with `path` and "
        f"`schema`; or an import path, 'package.module:factory'."
    )


def _from_factory(name: str, options: Mapping[str, Any]) -> Task:
    task = call(name, "task", **options)
    if not isinstance(task, Task):
        raise DataError(f"The factory {name!r} returned {type(task).__name__}, not a fedsafe.data.Task.")
    return task
