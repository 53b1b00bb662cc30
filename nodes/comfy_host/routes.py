"""The pack's own routes on ComfyUI's server, which its page code asks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

PREFIX = "/concept_erasure/"


def serve(name: str, answer: Callable[..., Any]) -> None:
    """Answer POST at ``PREFIX`` and ``name``: a JSON object's members are the keywords of ``answer``.

    What it returns is sent as JSON; a dataclass in it as an object. A ``TypeError`` or ``ValueError`` that it raises is
    sent as a refusal. Does nothing where no server runs, and where another copy of the pack has the route already.
    """
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    path = PREFIX + name
    if server is None or any(getattr(route, "path", None) == path for route in server.routes):
        return
    from aiohttp import web  # which ComfyUI's server is made of

    async def handle(request):
        try:
            members = await request.json()
            reply = await asyncio.to_thread(lambda: answer(**members))
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(reply, dumps=lambda value: json.dumps(value, default=asdict))

    server.routes.post(path)(handle)
