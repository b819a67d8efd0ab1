"""What is proven of a model, and how it stands up to inputs that are worse than those that it was judged on."""

from fedsafe.findings.metric import Metric, share

CERTIFIED = (
    share(
        "certified.accuracy",
        "higher",
        "Share of the examples that are right and proven to stay right under every change of this size.",
        "Gowal et al. 2018; Zhang et al. 2018",
    ),
    Metric(
        name="certified.mean_radius",
        unit="encoded units",
        low=0.0,
        direction="higher",
        description="Mean over the examples of the largest size of change that is proven harmless; 0 where wrong.",
        citation="Zhai et al. 2020",
    ),
    share(
        "certified.smoothed_accuracy",
        "higher",
        "The same of the smoothed classifier, which votes over noisy copies and is another one than the model.",
        "Cohen, Rosenfeld and Kolter 2019",
    ),
)

CORRUPTIONS = (
    share(
        "corruptions.accuracy",
        "higher",
        "Accuracy under one corruption, noise or shift of the inputs.",
        "Mu and Gilmer 2019; Hendrycks and Dietterich 2019",
    ),
    Metric(
        name="corruptions.absolute_error",
        unit="target's unit",
        low=0.0,
        direction="lower",
        description="Mean absolute error under one corruption, noise or shift of the inputs, in the target's unit.",
        citation="Hendrycks and Dietterich 2019",
    ),
    Metric(
        name="corruptions.mean_error",
        unit="share",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Mean over the corruptions of a suite of the share that is wrong.",
        citation="Mu and Gilmer 2019",
    ),
    Metric(
        name="corruptions.relative_error",
        unit="times the baseline's",
        low=0.0,
        direction="lower",
        description="Mean over the corruptions of the error over that of a named baseline (mCE); below 1 is better.",
        citation="Hendrycks and Dietterich 2019",
    ),
)
