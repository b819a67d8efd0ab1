"""Reports of a run, made from its shareable record alone, without torch.

Importing this package is cheap: jinja2 and matplotlib are imported when a page is written.
"""

from fedsafe.report.html import render, write_report
from fedsafe.report.reading import Reading, read_run
from fedsafe.report.tables import ClosingRow, closing_table

__all__ = ["ClosingRow", "Reading", "closing_table", "read_run", "render", "write_report"]
