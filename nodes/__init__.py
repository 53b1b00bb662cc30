"""The nodes of the pack: thin, without maths. Only the ``host`` modules know ComfyUI's internals."""

from comfy_api.latest import ComfyExtension

from .compare import ErasureCompare
from .erasures import ErasureApply, ErasureCombine, ErasureLoad, ErasureSave
from .learned import ErasureAbO, ErasureDoCo, ErasureFewShot
from .purify import ErasurePurify
from .rece import ErasureRECE
from .red_team import ErasureRedTeam
from .report import ErasureReport
from .statistics import ErasureLoadConcepts, ErasureLoadStatistics, ErasureRestore, ErasureSaveStatistics
from .toy import ErasureLoadToy


class ErasureExtension(ComfyExtension):
    async def get_node_list(self):
        methods = [ErasureRECE, ErasureFewShot, ErasureDoCo, ErasureAbO]
        uses = [ErasureApply, ErasureCombine, ErasureSave, ErasureLoad, ErasurePurify]
        proofs = [ErasureCompare, ErasureReport, ErasureRedTeam]
        many = [ErasureLoadConcepts, ErasureRestore, ErasureSaveStatistics, ErasureLoadStatistics]
        return [*methods, *uses, *proofs, *many, ErasureLoadToy]
