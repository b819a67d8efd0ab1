"""What single updates and the models of a run give away: records rebuilt from updates, and clients recognised."""

from fedsafe.findings.metric import Metric, share

_CLIENTS = "Nasr, Shokri and Houmansadr 2019"

INVERSION = (
    Metric(
        name="inversion.psnr",
        unit="dB",
        direction="lower",
        description="Likeness of images rebuilt from an update, peak signal to noise; the mean image stands beside it.",
        citation="Geiping et al. 2020",
    ),
    Metric(
        name="inversion.gain_over_mean",
        unit="dB",
        direction="lower",
        description="How much nearer to the record what was rebuilt from an update is than the mean record; 0 or less "
        "is no gain.",
        citation="Geiping et al. 2020",
    ),
    Metric(
        name="inversion.ssim",
        unit="similarity",
        low=-1.0,
        high=1.0,
        direction="lower",
        description="Structural similarity of images rebuilt from an update with the true ones; 1 is the same image.",
        citation="Wang et al. 2004",
    ),
    Metric(
        name="inversion.row_error",
        unit="feature ranges",
        low=0.0,
        direction="higher",
        description="Root mean square error of rows rebuilt from an update, each feature over its public range.",
        citation="Zhu, Liu and Han 2019",
    ),
    share(
        "inversion.identified",
        "lower",
        "Share of the records rebuilt from an update that are nearer to the true record than to every decoy.",
        "Huang et al. 2021",
    ),
    share(
        "inversion.label_accuracy",
        "lower",
        "Share of the updates from whose last bias the label of their only record is read correctly.",
        "Zhao, Mopuri and Bilen 2020",
    ),
)

CLIENT_MEMBERSHIP = (
    share(
        "client_membership.auc",
        "lower",
        "Probability that this attack scores the right client above a wrong one; 0.5 is chance.",
        f"{_CLIENTS}; DeLong, DeLong and Clarke-Pearson 1988",
    ),
    share(
        "client_membership.true_positive_rate",
        "lower",
        "Share of the right clients that this attack finds, at this false positive rate.",
        f"{_CLIENTS}; Carlini et al. 2022",
    ),
)
