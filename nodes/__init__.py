"""The nodes of the pack: thin, without maths. Only the ``host`` modules know ComfyUI's internals."""

from comfy_api.latest import ComfyExtension

from .erasures import ErasureApply, ErasureCombine, ErasureLoad, ErasureSave
from .learned import ErasureAbO, ErasureDoCo, ErasureFewShot
from .rece import ErasureRECE
from .toy import ErasureLoadToy


class ErasureExtension(ComfyExtension):
    async def get_node_list(self):
        learned = [ErasureFewShot, ErasureDoCo, ErasureAbO]
        return [ErasureRECE, *learned, ErasureApply, ErasureCombine, ErasureSave, ErasureLoad, ErasureLoadToy]
