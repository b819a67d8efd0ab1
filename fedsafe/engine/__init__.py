"""Everything that moves messages: grids in this process and over Ray, and clients that are not always there."""

from flwr.serverapp import Grid

from fedsafe.engine.availability import Availability
from fedsafe.engine.availability_grid import AvailabilityGrid
from fedsafe.engine.devices import Device, require_device
from fedsafe.engine.grid import ClientApps, GridAround, InlineGrid, LocalGrid

__all__ = [
    "Availability",
    "AvailabilityGrid",
    "ClientApps",
    "Device",
    "Grid",
    "GridAround",
    "InlineGrid",
    "LocalGrid",
    "require_device",
]
