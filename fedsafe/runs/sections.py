"""What every section of a configuration is made of: strict values, and numbers with bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
# Beyond these, the public grid of the updates has no room for both a clip and its noise.
Clip = Annotated[float, Field(ge=1e-6, le=1e6)]
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
