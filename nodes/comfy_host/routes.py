"""The pack's own routes on ComfyUI's server, which its page code asks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from inspect import signature
from typing import Any

from ...erasure_core.quoting import excerpt

PREFIX = "/concept_erasure/"


def serve(name: str, answer: Callable[..., Any]) -> None:
    """Answer POST at ``PREFIX`` and ``name``: a JSON object's members are the keywords of ``answer``.

    What it returns is sent as JSON; a dataclass in it as an object. See ``reply_to`` for what is refused. Does nothing
    where no server runs, and where another copy of the pack has the route already.
    """
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    path = PREFIX + name
    if server is None or any(getattr(route, "path", None) == path for route in server.routes):
        return
    from aiohttp import web  # which ComfyUI's server is made of

    async def handle(request):
        status, reply = await asyncio.to_thread(reply_to, answer, await request.read())
        return web.json_response(reply, status=status, dumps=lambda value: json.dumps(value, default=asdict))

    server.routes.post(path)(handle)


def reply_to(answer: Callable[..., Any], body: str | bytes) -> tuple[int, Any]:
    """Return the HTTP status and the reply to a request: what ``answer`` returns for the members of the JSON object.

    The status is 400, and the reply a sentence, for what is no JSON object, for members that are no keywords of
    ``answer``, and where it raises ``ValueError``.
    """
    try:
        return 200, answer(**_keywords(answer, body))
    except ValueError as error:
        return 400, {"error": str(error)}


def _keywords(answer: Callable[..., Any], body: str | bytes) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request holds no JSON: {error}") from error
    if not isinstance(members, dict):
        raise ValueError(f"the request must be a JSON object, got {excerpt(members)}")
    try:
        signature(answer).bind(**members)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return members
