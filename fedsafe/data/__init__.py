"""Tasks, their public schemas, and how records are spread over clients."""

from fedsafe.data.columns import Categorical, Label, Numeric
from fedsafe.data.dataset import Examples, Source, Task
from fedsafe.data.partition import partition
from fedsafe.data.schema import Schema, Split
from fedsafe.data.schema_file import parse_schema, read_schema
from fedsafe.data.tables import task_from_frame
from fedsafe.data.tasks import load_task

__all__ = [
    "Categorical",
    "Examples",
    "Label",
    "Numeric",
    "Schema",
    "Source",
    "Split",
    "Task",
    "load_task",
    "parse_schema",
    "partition",
    "read_schema",
    "task_from_frame",
]
