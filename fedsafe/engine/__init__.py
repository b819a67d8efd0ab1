"""Everything that moves messages: grids in this process and over Ray, and clients that are not always there."""

from flwr.serverapp import Grid

from fedsafe.engine.availability import Availability
from fedsafe.engine.availability_grid import AvailabilityGrid
from fedsafe.engine.grid import ClientApps, InlineGrid, LocalGrid

__all__ = ["Availability", "AvailabilityGrid", "ClientApps", "Grid", "InlineGrid", "LocalGrid"]
