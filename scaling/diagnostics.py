"""What evaluations look at beside losses: a run's section `diagnostics`, None for nothing."""

from __future__ import annotations

import dataclasses

from scaling.fields import check, static

MOST_SPECTRA = 1000


@dataclasses.dataclass(frozen=True)
class Diagnostics:
    """Rows of the table `diagnostics` at every evaluation, by name; scaling/training/diagnosing.py has the formulas.

    `layers`: for each parameter, by its path such as block_0/attention/query/kernel: gradient_norm.PATH,
    update_norm.PATH, effective_rate.PATH and rotation.PATH. Gradient and update are those of the step that follows the
    evaluation; after the last step, of the next batch at the last rate. `activations`: over all held-out windows,
    activation_max.MODULE, attention_logit_max.MODULE, logit_max and log_z_mean (2309.14322). `spectra`: how many of
    the largest singular values of every matrix, singular_value_1.PATH and on; 0 for none. A matrix with fewer has
    those it has.

    Steps cost what they cost without; benchmarks/diagnostics.py measures what an evaluation costs.
    """

    layers: bool = static()
    activations: bool = static()
    spectra: int = static()

    def __post_init__(self) -> None:
        check(0 <= self.spectra <= MOST_SPECTRA, "diagnostics.spectra", self.spectra, f"from 0 to {MOST_SPECTRA}",
              "use 0 for none, or 1 for the spectral norms")
        check(self.layers or self.activations or self.spectra > 0, "diagnostics", dataclasses.asdict(self),
              "something to look at", "switch one on, or use None for the section")
