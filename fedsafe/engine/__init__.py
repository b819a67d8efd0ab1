"""Everything that moves messages: grids in this process and over Ray."""

from flwr.serverapp import Grid

from fedsafe.engine.grid import ClientApps, InlineGrid, LocalGrid

__all__ = ["ClientApps", "Grid", "InlineGrid", "LocalGrid"]
