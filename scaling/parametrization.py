"""muP (Yang et al. 2022, arXiv 2203.03466): how a run's initial values, multipliers and rates go with its width.

With m = width / base width and E the width of a head, against the standard parametrization:

parameters             initial std    forward          rate, Adam-like  rate, SGD  rate, Muon
embedding, positions   1              1                1                m          -
hidden matrices        as there       1                1/m              1          1
readout                as at base     logits / m       1                m          -
scales, biases         as there       1                1                m          -

Attention logits have √E_base / E for 1/√E: heads of one width keep what they had, wider ones go as 1/E. At the base
every factor is exactly 1. A tied readout is the embedding and has the multiplier alone. Not covered: depth, batch,
horizon, and Adam's ε, which is to be small beside the gradients of the widest model.

Muon's step U Vᵀ √max(1, fan out / fan in) has a spectral norm that does not depend on width, which is what the spectral
condition ‖ΔW‖ ∝ √(fan out / fan in) asks of a hidden matrix (Yang et al. 2023, arXiv 2310.17813), so its rate stays.
SGD: hidden matrices have fan out / fan in over the base's, which is 1 in a transformer of one shape. The other methods
are refused: conda, galore and soap normalise in a rotated basis, for which no rule is known to us.

Rate times decay of hidden matrices goes as m^(optimizer.width_exponent - 1), in both conventions: 0 lets it fall as
1/m, 1 keeps it (the mup package; what independent decay means), ½ is the layer-wise rule (Fan et al. 2025, arXiv
2510.15262). So their λ goes as m^width_exponent where their rate goes as 1/m, and as m^(width_exponent - 1) with Muon,
whose rate stays. The readout decays by λ, vectors and embeddings not at all.
"""

from __future__ import annotations

from scaling.fields import check
from scaling.model import Base
from scaling.optimizer import Optimizer

ADAM_LIKE = ("adamp", "adamw", "ademamix", "adopt", "lion", "radam", "schedule_free", "sophia")  # steps of one size
WIDTH_RULES = (*ADAM_LIKE, "muon", "sgd")


def check_parametrization(base: Base | None, optimizer: Optimizer) -> None:
    """Raise ConfigError for a method without a width rule under muP, and for a decay that does not say how it goes with
    width or that acts on vectors too.
    """
    exponent, decays = optimizer.width_exponent, optimizer.weight_decay > 0
    if base is None:
        check(exponent is None, "optimizer.width_exponent", exponent, "None without model.base, from which "
              "widths count", "set model.base, or leave it out")
        return
    check(optimizer.name in WIDTH_RULES, "optimizer.name", optimizer.name,
          f"one of {', '.join(WIDTH_RULES)} with model.base, since no width rule of {optimizer.name} is known",
          "use one of these, or leave model.base out")
    check(optimizer.name != "muon" or optimizer.form == "original", "optimizer.form", optimizer.form,
          "'original' for muon with model.base, whose step has a spectral norm that does not go with width",
          "use 'original', or leave model.base out")
    check(not decays or optimizer.name != "sgd", "optimizer.weight_decay", optimizer.weight_decay,
          "0 for sgd with model.base, since no width rule of its decay is known", "use 0, or leave model.base out")
    check(not decays or exponent is not None, "optimizer.width_exponent", exponent,
          "how optimizer.weight_decay of hidden matrices goes with width, with model.base",
          "use 1 to keep rate times decay, 0 to let it fall as 1 / width, or 0.5 for arXiv 2510.15262")
    check(not decays or optimizer.decay_on == "matrices", "optimizer.decay_on", optimizer.decay_on,
          "'matrices' with model.base, where vectors do not decay", "use 'matrices'")
