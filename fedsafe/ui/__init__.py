"""A local page over run folders, which only reads them: ``fedsafe ui``. No torch, Flower or Ray, even indirectly."""

from fedsafe.ui.listen import serve
from fedsafe.ui.server import create_app

__all__ = ["create_app", "serve"]
