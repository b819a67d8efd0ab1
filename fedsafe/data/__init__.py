"""Tasks, their public schemas, and how records are spread over clients."""

from fedsafe.data.client_rows import ClientRows
from fedsafe.data.columns import Categorical, Label, Numeric
from fedsafe.data.dataset import Examples, Kind, Signature, Source, Target, Task
from fedsafe.data.federate import Federated, federate
from fedsafe.data.given import as_task
from fedsafe.data.inputs import ArraySchema, InputSchema, TokenSchema
from fedsafe.data.partition import partition
from fedsafe.data.preferences import Preferences
from fedsafe.data.schema import Schema, Split
from fedsafe.data.schema_file import parse_schema, read_schema
from fedsafe.data.tables import task_from_frame
from fedsafe.data.tasks import load_task

__all__ = [
    "ArraySchema",
    "Categorical",
    "ClientRows",
    "Examples",
    "Federated",
    "InputSchema",
    "Kind",
    "Label",
    "Numeric",
    "Preferences",
    "Schema",
    "Signature",
    "Source",
    "Split",
    "Target",
    "Task",
    "TokenSchema",
    "as_task",
    "federate",
    "load_task",
    "parse_schema",
    "partition",
    "read_schema",
    "task_from_frame",
]
