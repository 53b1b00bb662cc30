"""The nodes of the pack: thin, without maths. Only ``host`` and ``host_toy`` know ComfyUI's internals."""

from comfy_api.latest import ComfyExtension

from .erasures import ErasureApply, ErasureCombine, ErasureLoad, ErasureSave
from .rece import ErasureRECE
from .toy import ErasureLoadToy


class ErasureExtension(ComfyExtension):
    async def get_node_list(self):
        return [ErasureRECE, ErasureApply, ErasureCombine, ErasureSave, ErasureLoad, ErasureLoadToy]
