"""Everything that moves messages: grids in this process and over Ray."""

from fedsafe.engine.grid import ClientApps, InlineGrid, LocalGrid

__all__ = ["ClientApps", "InlineGrid", "LocalGrid"]
