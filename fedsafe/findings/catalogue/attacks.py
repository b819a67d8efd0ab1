"""What attackers can do to a model, or learn from it."""

from fedsafe.findings.metric import Metric, share

ROBUSTNESS = (
    share(
        "robustness.noise_accuracy",
        "higher",
        "Accuracy with Gaussian noise on the perturbable features, clipped to their public bounds.",
        "Hendrycks and Dietterich 2019",
    ),
    share(
        "robustness.attacked_accuracy",
        "higher",
        "Accuracy under this attack; a stronger attack can only lower it.",
        "Madry et al. 2018",
    ),
    share(
        "robustness.unbounded_accuracy",
        "none",
        "What is still right where attacked features may be anything within their public bounds; for images about 0.",
        "Carlini et al. 2019",
    ),
    share(
        "robustness.flipped_accuracy",
        "higher",
        "Accuracy where an attacker changes the categories of this many columns.",
        "Yang et al. 2020",
    ),
    Metric(
        name="robustness.median_distance",
        unit="encoded units",
        low=0.0,
        direction="higher",
        description="Median Euclidean distance from an example that is right to the nearest error that was found.",
        citation="Carlini and Wagner 2017",
    ),
)

PRIVACY = (
    Metric(
        name="privacy.epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="Accounted epsilon of the run's claim, at the claim's delta.",
        citation="Dwork and Roth 2014",
    ),
    Metric(
        name="privacy.group_epsilon",
        unit="epsilon",
        low=0.0,
        direction="lower",
        description="Accounted epsilon for a person who holds two records.",
        citation="Dwork and Roth 2014",
    ),
)

MEMBERSHIP = (
    share(
        "membership.auc",
        "lower",
        "Probability that an attack scores a training record above another record; 0.5 is chance.",
        "Yeom et al. 2018; DeLong, DeLong and Clarke-Pearson 1988",
    ),
    share(
        "membership.true_positive_rate",
        "lower",
        "Share of the training records that an attack finds, at this false positive rate.",
        "Carlini et al. 2022",
    ),
    Metric(
        name="membership.advantage",
        unit="share",
        low=-1.0,
        high=1.0,
        direction="lower",
        description="True less false positive rate of the rule that calls a loss below the training mean a member's.",
        citation="Yeom et al. 2018",
    ),
)
