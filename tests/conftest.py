"""What every tier needs before torch is imported; the ComfyUI process of the host tier inherits it."""

import os

import pytest
from hypothesis import Phase, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 8)))

settings.register_profile("pack", deadline=None, print_blob=True)
settings.register_profile(  # a mutant dies at the first example that fails, the same in every run
    "mutants", deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("pack")

pytest.register_assert_rewrite("pure", "rece_prompt")  # helpers of tests, whose files are not called test_*.py
