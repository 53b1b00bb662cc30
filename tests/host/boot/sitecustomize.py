"""Hides the editable install of this project from the ComfyUI under test.

A user's ComfyUI has the pack in custom_nodes and nothing more, so `import erasure_core` must fail there.
"""

import sys

sys.meta_path[:] = [
    finder
    for finder in sys.meta_path
    if not getattr(finder, "__module__", "").startswith("__editable___comfyui_concept_erasure")
]
