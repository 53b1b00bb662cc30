"""The inputs of nodes that draw as KSampler does."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy_host.sampling import SAMPLERS, SCHEDULERS
from .inputs import seed_input
from .schema import advanced

MOST_SEED = 2**64 - 1


def sampler_inputs(seed_tooltip: str) -> list:
    """Return the inputs of KSampler that say how pictures are drawn, with its ranges; the first is the seed."""
    return [
        seed_input(MOST_SEED, seed_tooltip),
        io.Int.Input("steps", default=20, min=1, max=10_000, tooltip="As in KSampler."),
        io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance, as in KSampler."),
        advanced(io.Combo.Input("sampler_name", options=SAMPLERS, tooltip="As in KSampler.")),
        advanced(io.Combo.Input("scheduler", options=SCHEDULERS, tooltip="As in KSampler.")),
    ]
