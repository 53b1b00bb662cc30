"""Concept erasure for ComfyUI. Nothing is imported before ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's way in."""
    from .nodes import ErasureExtension

    return ErasureExtension()
