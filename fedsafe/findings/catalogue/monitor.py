"""What the monitor of a released model is worth, and what its answers and abstentions are."""

from fedsafe.findings.metric import Metric, share

MONITOR = (
    share(
        "monitor.false_alarm_rate",
        "lower",
        "Share of ordinary held-out inputs that the monitor raises an alarm for; its stated level is an anchor.",
        "Vovk, Gammerman and Shafer 2005",
    ),
    share(
        "monitor.auroc",
        "higher",
        "Probability that the monitor's score ranks an input from this domain above an ordinary one; 0.5 is chance.",
        "DeLong, DeLong and Clarke-Pearson 1988; Yang et al. 2022",
    ),
    share(
        "monitor.detection_rate",
        "higher",
        "Share of the inputs of this domain, or of the successful ones of this attack, that an alarm is raised for.",
        "Xu, Evans and Qi 2018; Tramer et al. 2020",
    ),
    share(
        "monitor.undetected_error_rate",
        "lower",
        "Share of the inputs that were right before this attack and are misread after it without an alarm.",
        "Tramer et al. 2020",
    ),
    share(
        "monitor.calibration_error",
        "lower",
        "Expected calibration error of the confidence in the predicted class, debiased, before or after scaling.",
        "Guo et al. 2017; Kumar, Liang and Ma 2019",
    ),
    share(
        "monitor.selective_risk",
        "lower",
        "Share of errors among the answers where the least confident inputs are not answered, at this coverage.",
        "Geifman and El-Yaniv 2017",
    ),
    Metric(
        name="monitor.risk_coverage_area",
        unit="share",
        low=0.0,
        high=1.0,
        direction="lower",
        description="Area under the curve of selective risk over coverage, between the best ranking and a random one.",
        citation="Geifman, Uziel and El-Yaniv 2019",
    ),
)
