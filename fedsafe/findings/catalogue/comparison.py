"""How a model compares with the one that was accepted before it."""

from fedsafe.findings.metric import Metric

COMPARISON = (
    Metric(
        name="comparison.accuracy_change",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="higher",
        description="A share of examples, less that of the last accepted model on the same examples, in pairs.",
        citation="Newcombe 1998 (paired data); McNemar 1947",
    ),
    Metric(
        name="comparison.loss_change",
        unit="loss",
        direction="lower",
        description="Mean loss of an example, less that of the last accepted model on the same examples, in pairs.",
        citation="Student 1908",
    ),
)
