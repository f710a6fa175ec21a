"""The published rules that compete when a study names none.

They are the ones that say something about training code in general. `DepthMuP` and `CompleteP` are
left out: both claim what `MuP` claims, for code that few have. The levels of `StepLaw` are left out
too: they hold for its optimizer, schedule and batch counted in tokens, none of which a space tells.
"""

from __future__ import annotations

from hpo.scaling.claims import TransferRule
from hpo.scaling.transfer_rules.horizon import PowerScheduler, TimeTransfer, TokenHorizon
from hpo.scaling.transfer_rules.language_models import DeepSeekLaw, KaplanLR, StepLaw
from hpo.scaling.transfer_rules.model_size import MuP
from hpo.scaling.transfer_rules.weight_decay import AdamWTimescale, WeightDecayTransfer
from hpo.scaling.transfer_rules.width_exponents import Alignment, ScalingExponents

#: Rules that compete by default. Those of one source share that source's weight.
PUBLISHED: tuple[TransferRule, ...] = (
    MuP(),
    ScalingExponents(alignment=Alignment.FULL),
    ScalingExponents(alignment=Alignment.NONE),
    KaplanLR(),
    TokenHorizon(),
    TimeTransfer(),
    PowerScheduler(),
    StepLaw(levels=False),
    DeepSeekLaw(),
    AdamWTimescale(),
    WeightDecayTransfer(),
)
