"""What explains each failure: the paper, or the report of the fault in another project."""

SCALE = "Dwork and Roth (2014), appendix A: the standard deviation must be noise x sensitivity"
NORMAL = "Dwork and Roth (2014), appendix A: epsilon was computed for Gaussian noise"
CLIP_USED = (
    "Andrew et al. (2021), algorithm 1: the noise belongs to the clip that was used; Flower 1.42's adaptive clipping "
    "scales it to the next one"
)
REUSE = (
    "the difference of two releases with one noise is exact: FLSim's DPClient reseeds each client with one seed, pfl "
    "0.6 draws old seeds again after a restart; one stream, one input"
)
CLIP = "McMahan et al. (2018), section 3: the clip bounds one update over all tensors together"
PER_TENSOR = (
    "McMahan et al. (2018), section 3: a clip for each of k tensors lets an update be sqrt(k) times as long; Flower "
    "clips each ArrayRecord"
)
SEVERAL_RECORDS = (
    "McMahan et al. (2018), section 3: one clip for all that a client sends; Flower 1.42 clips each ArrayRecord of a "
    "reply alone, and its FedAvg loses the round of a reply with several"
)
UPLOADS = (
    "Duchi et al. (2013): under local privacy each upload is a release; any two updates lie 2 clips apart, so noise "
    "for 1 clip is half of what is due (Flower 1.42's LocalDpMod takes any sensitivity)"
)
ONE_CLIENT = "a claim about each client is no better than it is for the worst of them"
ROUNDS = "a claim about a run covers every round of it: the model of each is released"
BANDED = (
    "Choquette-Choo et al. (2023): all rounds are one Gaussian release only if C x noise is independent; noise of "
    "another shape, or one that forgets earlier rounds after a restart, is another mechanism"
)
SEPARATION = "Choquette-Choo et al. (2023): the sensitivity counts on a client's rounds lying so far apart"
SURVIVORS = (
    "Kairouz et al. (2021), Agarwal et al. (2021): the noise is that of the clients who survive, each with its share; "
    "below the planned number nothing may be released"
)
ROUNDED = (
    "Kairouz et al. (2021), proposition 22: rounding lengthens an update, by up to the square root of its size in "
    "units of the grid; the noise belongs to the rounded norm"
)
WRAPPED = "Kairouz et al. (2021), section 4: the modulus must hold the sum of all clients and their noise"
EACH = "Abadi et al. (2016), algorithm 1: each contribution is clipped before they are summed, not their sum"
WEIGHTS = (
    "McMahan et al. (2018), section 3: weights by examples need a cap and a fixed denominator; ten clients of which "
    "one holds half the data turn a claimed 4.4 into 33"
)
DIVISOR = (
    "McMahan et al. (2018), estimators f_f and f_c: dividing by how many took part lets one client move the average by "
    "up to 2 clips; the divisor must be a public constant"
)
NOT_FINITE = (
    "a NaN norm passes min(1, clip / norm): in Flower 1.42 (compute_clip_model_update) and Opacus 1.6 one such value "
    "reaches the model; bad values are removed by selection"
)
ZERO = "Flower issue 7631: clip / norm with a norm of zero raises ZeroDivisionError, and the round is lost"
LOST = "whether a round released anything must not depend on one client's update or records"
EMPTY = (
    "Opacus pull request 164, FL4Health pull request 114: an empty draw is a step like any other, and releases "
    "noise"
)
POISSON = (
    "Chua et al. (2024, arXiv 2403.17673): shuffled or fixed-size batches accounted as Poisson ones under-report "
    "epsilon (16.5 where .83 was shown, for Opacus's MNIST example)"
)
PREDICTED = (
    "amplification by sampling needs a draw that nobody can predict: the same draw came back after a restart"
)
METRICS = (
    "NIST SP 800-226: whatever leaves private records without noise is outside of the claim; counts and losses "
    "included"
)
EPSILON = (
    "privacy loss distributions (Doroshenko et al. 2022) of the numbers that the claim itself declares; replace-one "
    "doubles the sensitivity, and a fixed-size cohort of which one member is removed takes in another"
)
ACCOUNTANT = (
    "Dwork et al. (2010): epsilon composes over rounds. Flower's examples/opacus makes a new PrivacyEngine in each "
    "round, and logs one round's epsilon for ever (Flower issue 2216, Opacus issue 688)"
)
ADAPTIVE = (
    "Andrew et al. (2021), algorithm 1: C <- C exp(-eta (share unclipped - quantile)); Flower 1.42 uses the share that "
    "was clipped, and moves the wrong way"
)
MASKS = (
    "Bonawitz et al. (2017), section 4: each client masks its values with streams that nobody else has all of, fresh "
    "in each round; what arrives is uniform, and only the sum over the survivors can be unmasked"
)
ONCE = (
    "Bonawitz et al. (2017), section 6: a client helps with one list of survivors, which most clients have signed; two "
    "sums of the same values over other clients differ by what single clients sent"
)
