"""How well a model predicts, on average and over the clients."""

from fedsafe.findings.metric import Metric, share

PERFORMANCE = (
    share("performance.accuracy", "higher", "Share of the examples whose class is predicted."),
    share("performance.balanced_accuracy", "higher", "Mean over the classes of the recall of each."),
    share(
        "performance.auc",
        "higher",
        "Probability that a positive example scores above a negative one, ties counted half.",
        "DeLong, DeLong and Clarke-Pearson 1988",
    ),
    Metric(
        name="performance.nll",
        unit="nats",
        low=0.0,
        direction="lower",
        description="Mean negative log-likelihood of the true class.",
    ),
    Metric(
        name="performance.brier",
        unit="squared probability",
        low=0.0,
        high=2.0,
        direction="lower",
        description="Mean squared error of the probability of class 1, or summed over several classes.",
        citation="Brier 1950",
    ),
    share(
        "performance.ece",
        "lower",
        "Expected calibration error over bins of equal mass, less the part that a finite sample adds.",
        "Naeini, Cooper and Hauskrecht 2015; Kumar, Liang and Ma 2019",
    ),
    share(
        "performance.worst_decile_accuracy",
        "higher",
        "Mean accuracy over the worst tenth of the clients' evaluation shards.",
    ),
    share(
        "performance.worst_clients_accuracy",
        "higher",
        "Mean accuracy over the worst share of the clients' evaluation shards.",
    ),
    Metric(
        name="performance.accuracy_spread",
        unit="share",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Standard deviation of accuracy over the clients' evaluation shards.",
    ),
    share(
        "performance.worst_decile_score",
        "higher",
        "Mean over the worst tenth of the clients of 1 less the absolute error over the target's range.",
    ),
    share(
        "performance.worst_clients_score",
        "higher",
        "Mean over the worst share of the clients of 1 less the absolute error over the target's range.",
    ),
    Metric(
        name="performance.score_spread",
        unit="share",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Standard deviation over the clients of 1 less the absolute error over the target's range.",
    ),
    share(
        "performance.jain_index",
        "higher",
        "How evenly the model serves the clients: 1 where all have one score, 1 over their number where one has all.",
        "Jain, Chiu and Hawe 1984",
    ),
    Metric(
        name="performance.r2",
        unit="share of variance",
        high=1.0,
        direction="higher",
        description="Share of the target's variance that is explained; 0 for always predicting its mean.",
        citation="Wright 1921",
    ),
    Metric(
        name="performance.mae",
        unit="target's unit",
        low=0.0,
        direction="lower",
        description="Mean absolute error, in the target's own unit.",
    ),
    Metric(
        name="performance.rmse",
        unit="target's unit",
        low=0.0,
        direction="lower",
        description="Root of the mean squared error, in the target's own unit.",
    ),
    Metric(
        name="performance.perplexity",
        unit="tokens",
        low=1.0,
        direction="lower",
        description="Exponential of the mean negative log-likelihood of a token.",
        citation="Jelinek et al. 1977",
    ),
)
