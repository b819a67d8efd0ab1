"""What every section of a configuration is made of: strict values, and numbers with bounds."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedsafe.errors import ConfigError

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
# Beyond these, the public grid of the updates has no room for both a clip and its noise.
Clip = Annotated[float, Field(ge=1e-6, le=1e6)]
Noise = Annotated[float, Field(ge=0.1, le=1e5)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
Budget = Annotated[float, Field(gt=0.0)]
# Below 1e-12 the accountant's own tail mass decides, and asks for absurd noise.
Delta = Annotated[float, Field(ge=1e-12, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of a configuration: unknown keys are refused, and no value is converted to fit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def own_keys(where: str, models: dict[str, dict[str, Any]], default: str, values: Any) -> Any:
    """Fill in the defaults of the model that is named, and refuse the keys of another."""
    name = values.get("name", default) if isinstance(values, dict) else None
    own = models.get(name) if isinstance(name, str) else None
    if own is None:
        return values
    for key in values:
        owners = [other for other, keys in models.items() if key in keys]
        if owners and key not in own and values[key] is not None:
            raise ConfigError(
                f"{where}.{key} belongs to {' and '.join(owners)}, not to {name!r}: name "
                f"{' or '.join(owners)}, or leave it out"
            )
    return {**own, **{key: value for key, value in values.items() if value is not None}}
