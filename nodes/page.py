"""What the pack's page code (``web``) asks while a user types into the fields of its nodes."""

from __future__ import annotations

from ..erasure_core.concepts.completion import completions
from .announcement import announcement
from .comfy_host.routes import serve


def serve_page() -> None:
    """Answer the page's questions on ComfyUI's server, if one runs."""
    serve("completions", completions)
    serve("announcement", announcement)
