"""The numbers of docs/architecture.md come from a script: the rooms, and the way of a MODEL through them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rooms import modules, room_of

ROOT = Path(__file__).parents[2]


def test_the_rooms_are_counted_and_a_model_followed() -> None:
    command = [sys.executable, str(ROOT / "tools/rooms.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    rooms = {room_of(name) for name in modules(ROOT)} - {"erasure_core", "__main__"}
    assert f"in {len(rooms)} rooms" in printed and "0 upward at least, 0 circles" in printed
    assert "nodes > comfy_host" in printed and "closed_form" in printed
