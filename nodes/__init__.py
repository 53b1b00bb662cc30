"""The nodes of the pack: thin, without maths. Only ``comfy_host`` knows ComfyUI's internals."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension

from .bake import ErasureBake
from .compare import ErasureCompare
from .erasures import ErasureApply, ErasureCombine, ErasureLoad, ErasureSave
from .purify import ErasurePurify
from .rece import ErasureRECE
from .red_team import ErasureRedTeam
from .report import ErasureReport
from .statistics import ErasureLoadConcepts, ErasureLoadStatistics, ErasureRestore, ErasureSaveStatistics
from .suggest import ErasureSuggestNames
from .toy import ErasureLoadToy
from .trained import ErasureAbO, ErasureDoCo, ErasureFewShot


class ErasureExtension(ComfyExtension):
    """The nodes of the pack, in the order in which ComfyUI lists them."""

    async def get_node_list(self):
        methods = [ErasureRECE, ErasureFewShot, ErasureDoCo, ErasureAbO]
        uses = [ErasureApply, ErasureCombine, ErasureSave, ErasureLoad, ErasureBake, ErasurePurify]
        proofs = [ErasureCompare, ErasureReport, ErasureRedTeam]
        many = [ErasureSuggestNames, ErasureLoadConcepts, ErasureRestore, ErasureSaveStatistics, ErasureLoadStatistics]
        return [*methods, *uses, *proofs, *many, ErasureLoadToy]
