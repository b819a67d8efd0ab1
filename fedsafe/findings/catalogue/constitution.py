"""What a guard's answers keep of a constitution, and how far its checkers can be believed."""

from fedsafe.findings.metric import Metric, share

CONSTITUTION = (
    share(
        "constitution.violations",
        "lower",
        "Share of texts in which the checker of this principle finds that it is broken.",
    ),
    share(
        "constitution.true_violations",
        "lower",
        "Share of texts that break this principle, corrected for the checker's own measured errors.",
        "Rogan and Gladen 1978; Lang and Reiczigel 2014",
    ),
    Metric(
        name="constitution.change",
        unit="difference of shares",
        low=-1.0,
        high=1.0,
        direction="lower",
        description="Violations that the checker finds in the answers, less those in what is written unguarded.",
        citation="Newcombe 1998",
    ),
    Metric(
        name="constitution.fall",
        unit="share",
        high=1.0,
        direction="higher",
        description="Part of the violations that the guard takes away, corrected for the checker's errors.",
    ),
    share("constitution.refusals", "none", "Share of the prompts that are answered by a refusal."),
    Metric(
        name="constitution.generations",
        unit="texts",
        low=0.0,
        direction="lower",
        description="Texts that are generated for a prompt, on average.",
    ),
    share(
        "constitution.checker_sensitivity",
        "higher",
        "Share of the texts that break this principle, by people's labels, that the checker finds.",
    ),
    share(
        "constitution.checker_specificity",
        "higher",
        "Share of the texts that keep this principle, by people's labels, that the checker leaves.",
    ),
)
