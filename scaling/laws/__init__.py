"""Scaling laws as data: formulas, inputs with units, parameters; one module a family.

`from scaling import laws`, then `laws.CHINCHILLA`, `laws.data_mixing(["p_web", "p_code"])`, `laws.law_named("m4")`.
"""

from scaling.laws.additive import mixture_additive, mixture_joint, mixture_term
from scaling.laws.annealing import ANNEALING, ANNEALING_SIZE, CPT, CPT_REPLAY_NEW, CPT_REPLAY_OLD, CPT_SIZE
from scaling.laws.capacity import capacity_noise
from scaling.laws.catalogue import FAMILIES, LAWS, law_named
from scaling.laws.compute import LOSS_IN_COMPUTE, LOSS_POWER_IN_COMPUTE, OPTIMAL_IN_COMPUTE, TUNED_IN_SIZE
from scaling.laws.convex_bound import CONVEX_BOUND
from scaling.laws.critical_batch import CRITICAL_BATCH, SIZE_STEPS_BATCH, STEPS_FOR_BATCH
from scaling.laws.derived import pooled, with_fixed
from scaling.laws.kaplan import (
    EARLY_STOP,
    HENIGHAN_COMPUTE,
    HENIGHAN_SIZE,
    KAPLAN_COMPUTE,
    KAPLAN_DATA,
    KAPLAN_SIZE,
    KAPLAN_SIZE_DATA,
    KAPLAN_SIZE_STEPS,
)
from scaling.laws.law import Family, Input, Law, Parameter, TableError
from scaling.laws.learning_curves import ACCURACY_CURVE, M1, M2, M3, M4, bnsl
from scaling.laws.learning_rate import (
    DEEPSEEK_BATCH,
    DEEPSEEK_LR,
    DEEPSEEK_SCALE,
    DEEPSEEK_TOKENS,
    STEP_LAW,
    STEP_LAW_BATCH,
)
from scaling.laws.mixing import (
    BIMIX,
    DATA_MIXING_TWO,
    LOSS_IN_SIZE,
    LOSS_IN_STEPS,
    bimix_domains,
    data_mixing,
    data_mixing_implicit,
)
from scaling.laws.mixture import (
    CMR_CRITICAL,
    CMR_DOMAIN_CHANGE,
    CMR_GENERAL_CHANGE,
    CMR_RATIO,
    D_CPT,
    D_CPT_CROSS_DOMAIN,
    D_CPT_L1,
    D_CPT_L4,
    D_CPT_L5,
    FORGETTING,
)
from scaling.laws.pass_until import PASS_UNTIL
from scaling.laws.repetition import CHINCHILLA_TIED, DATA_CONSTRAINED
from scaling.laws.routed import ROUTED
from scaling.laws.schedule import Schedules
from scaling.laws.selection import BETR_ACCURACY, DATA_FILTERING, INFINITE_COMPUTE, KEPT_SHARE, filtering_pools
from scaling.laws.size import AVERAGE_PARAMETERS, CHINCHILLA, CHINCHILLA_GAMMA, OVER_TRAINING, TOP_1_ERROR, WIDTH_DEPTH
from scaling.laws.sparsity import SPARSITY_RELU, SPARSITY_SILU
from scaling.laws.superposition import SUPERPOSITION
from scaling.laws.translation import ENCODER_DECODER

__all__ = [
    "ACCURACY_CURVE",
    "ANNEALING",
    "ANNEALING_SIZE",
    "AVERAGE_PARAMETERS",
    "BETR_ACCURACY",
    "BIMIX",
    "CHINCHILLA",
    "CHINCHILLA_GAMMA",
    "CHINCHILLA_TIED",
    "CMR_CRITICAL",
    "CMR_DOMAIN_CHANGE",
    "CMR_GENERAL_CHANGE",
    "CMR_RATIO",
    "CONVEX_BOUND",
    "CPT",
    "CPT_REPLAY_NEW",
    "CPT_REPLAY_OLD",
    "CPT_SIZE",
    "CRITICAL_BATCH",
    "DATA_CONSTRAINED",
    "DATA_FILTERING",
    "DATA_MIXING_TWO",
    "DEEPSEEK_BATCH",
    "DEEPSEEK_LR",
    "DEEPSEEK_SCALE",
    "DEEPSEEK_TOKENS",
    "D_CPT",
    "D_CPT_CROSS_DOMAIN",
    "D_CPT_L1",
    "D_CPT_L4",
    "D_CPT_L5",
    "EARLY_STOP",
    "ENCODER_DECODER",
    "FAMILIES",
    "FORGETTING",
    "HENIGHAN_COMPUTE",
    "HENIGHAN_SIZE",
    "INFINITE_COMPUTE",
    "KAPLAN_COMPUTE",
    "KAPLAN_DATA",
    "KAPLAN_SIZE",
    "KAPLAN_SIZE_DATA",
    "KAPLAN_SIZE_STEPS",
    "KEPT_SHARE",
    "LAWS",
    "LOSS_IN_COMPUTE",
    "LOSS_IN_SIZE",
    "LOSS_IN_STEPS",
    "LOSS_POWER_IN_COMPUTE",
    "M1",
    "M2",
    "M3",
    "M4",
    "OPTIMAL_IN_COMPUTE",
    "OVER_TRAINING",
    "PASS_UNTIL",
    "ROUTED",
    "SIZE_STEPS_BATCH",
    "SPARSITY_RELU",
    "SPARSITY_SILU",
    "STEPS_FOR_BATCH",
    "STEP_LAW",
    "STEP_LAW_BATCH",
    "SUPERPOSITION",
    "TOP_1_ERROR",
    "TUNED_IN_SIZE",
    "WIDTH_DEPTH",
    "Family",
    "Input",
    "Law",
    "Parameter",
    "Schedules",
    "TableError",
    "bimix_domains",
    "bnsl",
    "capacity_noise",
    "data_mixing",
    "data_mixing_implicit",
    "filtering_pools",
    "law_named",
    "mixture_additive",
    "mixture_joint",
    "mixture_term",
    "pooled",
    "with_fixed",
]
