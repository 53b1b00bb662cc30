"""Tests that ``test_inside.py`` runs where ComfyUI is on the path; the pack is ``pack`` there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hosting import load_comfy, load_pack  # noqa: E402

load_comfy()
load_pack()
