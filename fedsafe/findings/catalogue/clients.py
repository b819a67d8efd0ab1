"""What a model is worth to clients who took part, and to others."""

from fedsafe.findings.metric import Metric, share

GENERALISATION = (
    share(
        "generalisation.accuracy",
        "higher",
        "Accuracy on records that were not trained on, of clients who took part or of clients who did not.",
        "Yuan et al. 2022",
    ),
    Metric(
        name="generalisation.accuracy_gap",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="lower",
        description="Accuracy for clients who took part, less that for clients who did not.",
        citation="Yuan et al. 2022",
    ),
    Metric(
        name="generalisation.r2",
        unit="share of variance",
        high=1.0,
        direction="higher",
        description="R squared on records that were not trained on, of clients who took part or who did not.",
        citation="Yuan et al. 2022",
    ),
    Metric(
        name="generalisation.r2_gap",
        unit="share of variance",
        direction="lower",
        description="R squared for clients who took part, less that for clients who did not.",
        citation="Yuan et al. 2022",
    ),
    share(
        "generalisation.worst_clients_score",
        "higher",
        "Mean score over the worst share of the clients who took part, or of those who did not: of a class, accuracy.",
    ),
)

PERSONALISATION = (
    share(
        "personalisation.mean_score",
        "higher",
        "Mean over the clients of the score on their own records, of the global model or of one of their own.",
        "Yu, Bagdasaryan and Shmatikov 2020",
    ),
    share(
        "personalisation.worst_decile_score",
        "higher",
        "Mean over the worst tenth of the clients of the score on their own records.",
        "Yu, Bagdasaryan and Shmatikov 2020",
    ),
    Metric(
        name="personalisation.gain",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="higher",
        description="Mean over the clients of the score of their own model, less that of the global one.",
        citation="Yu, Bagdasaryan and Shmatikov 2020",
    ),
)
