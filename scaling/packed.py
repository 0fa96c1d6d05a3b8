"""How documents fill windows: a run's section `packing`, None for windows cut out of a stream of text.

Metadata conditioning then cooldown (MeCo, Gao et al. 2025, arXiv 2501.01956) is two domains of one source and two
phases of one mixture; optimizer and schedule go on unchanged:

    data.domains = {"plain": SOURCE, "named": SOURCE}
    data.mixture = ((0.0, {"named": 1.0}), (0.9, {"plain": 1.0}))
    packing.metadata = {"named": "docs.python.org"}

The cooldown then reads again what the first phase has read, without its names; with packing.documents =
{"named": (0.0, 0.9), "plain": (0.9, 1.0)} the two have no document in common. The paper names the host that each
document came from; here a domain has one name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from scaling import fields
from scaling.fields import check, static
from scaling.weighing import Mixer, Objective

METHODS = ("best_fit", "chop")
ATTENTION = ("document", "window")
LONGEST = 2**15 - 2  # tokens predicted a window: an int16 numbers the segments of one token more


@dataclasses.dataclass(frozen=True)
class Packing:
    """Windows of S + 1 tokens of documents. A token counts where its own document or its metadata predict it: the first
    token of a plain document does not, nor do metadata and padding. The training loss is the mean over what counts in
    a batch. A held-out loss is a mean over windows, packed likewise, of means over what counts in each: not comparable
    with that of windows cut out of a stream, whose tokens see other documents and are all predicted. `tokens` and
    `flops` of a curve count positions, whatever they hold; the diagnostic `predicted_share` says what share counts.

    `method`: best_fit (2404.10830), each document in one piece where a window can hold it, or chop: documents end to
    end, cut every S + 1 tokens. `attention`: a position sees those before it in its `document`, or in its `window`.
    `metadata`: by domain, the NAME of the "URL: NAME" and two newlines that each of its documents begins with, and
    each piece of a document that no window holds, since it sees nothing of the others (the paper's windows of 8192
    tokens rarely cut one). `documents`: by domain, the share of its training documents that it holds, (from, to), in
    order of their content's hash; all where not named.
    """

    method: str = static(choices=METHODS)
    attention: str = static(choices=ATTENTION)
    metadata: tuple[tuple[str, str], ...] = static(convert=fields.pairs)
    documents: tuple[tuple[str, tuple[float, float]], ...] = static(convert=fields.pairs)

    def __post_init__(self) -> None:
        for name, text in self.metadata:
            check(bool(text) and "\0" not in text, f"packing.metadata.{name}", text,
                  "text without the character 0, which ends documents", "name where the documents come from")
        for name, share in self.documents:
            check(0 <= share[0] < share[1] <= 1, f"packing.documents.{name}", share, "(from, to) with 0 <= from < to "
                  "<= 1", "use (0.0, 1.0) for all")


def check_packing(packing: Packing | None, mixer: Mixer | None, objective: Objective | None, names: Sequence[str],
                  sequence: int) -> None:
    """Refuse what the section asks of a run that cannot give it; `names` are the run's domains."""
    if packing is None:
        return
    check(mixer is None and objective is None, "packing", packing.method,
          "None with a mixer or an objective, which weigh whole windows", "drop one of them")
    check(sequence <= LONGEST, "data.sequence", sequence, f"at most {LONGEST} with packing", "shorten it")
    for field in ("metadata", "documents"):
        for name, _ in getattr(packing, field):
            fields.check_key(name, names, f"packing.{field}")
