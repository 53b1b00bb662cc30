"""What every tier needs before torch is imported; the ComfyUI process of the host tier inherits it."""

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 8)))

settings.register_profile("pack", deadline=None, print_blob=True)
settings.load_profile("pack")
