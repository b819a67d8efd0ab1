"""Attacks on the aggregation by omniscient clients, and the rules under them.

=====================  =============================================================  =================================
``byzantine.attack``   what each adversary sends                                      options
=====================  =============================================================  =================================
``sign_flip``          its own update, reversed (Li et al., 2019)                     ``scale = 4.0``
``gaussian``           noise (Blanchard et al., 2017)                                 ``deviation = 1.0``
``alie``               the honest mean, a little off (Baruch et al., 2019)            ``deviations``: from n and f
``ipm``                the honest mean, reversed (Xie et al., 2020)                   ``scale = 0.1``
``mimic``              a copy of an extreme honest update (Karimireddy et al., 2022)  ``client``: found in each round
``min_max``            as far as the most distant honest pair (Shejwalkar and         ``direction = "deviation"``,
                       Houmansadr, 2021)                                              ``"sign"`` or ``"mean"``
``min_sum``            as far in sum as the most distant honest row (the same)        as ``min_max``
``model_replacement``  its own update, magnified (Bagdasaryan et al., 2020); with     ``boost``: n / f
                       ``byzantine.poison``
=====================  =============================================================  =================================

One of your own is a class whose instances are called with the honest rows, the number of adversaries, what they trained
and a generator: set ``byzantine.attack`` to ``"package.module:Class"``.
"""

from fedsafe.aggregation.attacks.attacked import Attacked, require_rows
from fedsafe.aggregation.attacks.base import Attack
from fedsafe.aggregation.attacks.choosing import ATTACKS, AttackSpec, attack_name, build_attack
from fedsafe.aggregation.attacks.mimic import Mimic
from fedsafe.aggregation.attacks.moments import Alie, InnerProductManipulation, alie_deviations
from fedsafe.aggregation.attacks.own_rows import Gaussian, ModelReplacement, SignFlip
from fedsafe.aggregation.attacks.widest import MinMax, MinSum

__all__ = [
    "ATTACKS",
    "Alie",
    "Attack",
    "AttackSpec",
    "Attacked",
    "Gaussian",
    "InnerProductManipulation",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "SignFlip",
    "alie_deviations",
    "attack_name",
    "build_attack",
    "require_rows",
]
