"""How well a model can be explained."""

from fedsafe.findings.metric import Metric, share

INTERPRETABILITY = (
    Metric(
        name="interpretability.completeness_gap",
        unit="relative error",
        low=0.0,
        direction="lower",
        description="Error of the attributions' sum as the output's change, relative to that change.",
        citation="Sundararajan, Taly and Yan 2017",
    ),
    Metric(
        name="interpretability.infidelity",
        unit="squared output",
        low=0.0,
        direction="lower",
        description="Mean squared error with which the attribution predicts the output's change under noise.",
        citation="Yeh et al. 2019",
    ),
    Metric(
        name="interpretability.infidelity_normalised",
        unit="share of variance",
        low=0.0,
        direction="lower",
        description="Infidelity at the attribution's best scale, over the infidelity of attributing nothing.",
        citation="Yeh et al. 2019",
    ),
    share(
        "interpretability.top_feature_share",
        "none",
        "Share of the mean absolute attribution that the strongest column holds.",
        "Sundararajan, Taly and Yan 2017",
    ),
)

SURROGATE = (
    share(
        "surrogate.fidelity",
        "higher",
        "Share of the held-out inputs on which a small decision tree decides as the model does.",
        "Craven and Shavlik 1996",
    ),
    Metric(
        name="surrogate.kappa",
        unit="kappa",
        low=-1.0,
        high=1.0,
        direction="higher",
        description="Agreement of the tree with the model beyond chance, relative to the largest possible.",
        citation="Cohen 1960",
    ),
    Metric(
        name="surrogate.gain_over_majority",
        unit="share",
        high=1.0,
        direction="higher",
        description="Share of the majority rule's disagreements with the model that the tree mends.",
        citation="Goodman and Kruskal 1954",
    ),
    Metric(
        name="surrogate.r2",
        unit="share of variance",
        high=1.0,
        direction="higher",
        description="Share of the variance of the model's answers that a small decision tree explains, held out.",
        citation="Craven and Shavlik 1996",
    ),
    Metric(
        name="surrogate.rules",
        unit="rules",
        low=1.0,
        direction="none",
        description="Leaves of the decision tree: rules that a reader must follow.",
    ),
)

CONSISTENCY = (
    Metric(
        name="consistency.kendall",
        unit="rank correlation",
        low=-1.0,
        high=1.0,
        direction="higher",
        description="Rank correlation of two orders of the columns by mean absolute attribution.",
        citation="Kendall 1945",
    ),
    Metric(
        name="consistency.spearman",
        unit="rank correlation",
        low=-1.0,
        high=1.0,
        direction="higher",
        description="Correlation of the ranks of the columns by mean absolute attribution.",
        citation="Spearman 1904",
    ),
)
