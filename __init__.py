"""Concept erasure for ComfyUI. Nothing is imported before ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's way in."""
    from .nodes import ErasureExtension
    from .nodes.comfy_host.copies import warn_of_another_copy
    from .nodes.page import serve_page

    warn_of_another_copy()
    serve_page()
    return ErasureExtension()
