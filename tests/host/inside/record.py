"""What a check has found, as a line of JSON that ``tools/families_table.py`` reads; and memory. Linux only."""

import ctypes
import gc
import json
import os
from pathlib import Path

import comfyui_version
from pack.nodes.comfy_host.model import unet_keys
from pack.nodes.comfy_host.weights import stored

ROOT = Path(__file__).resolve().parents[3]
FULL = os.environ.get("FULL") == "1"


def record(family: str, model, **facts: bool | float) -> None:
    """Append ``facts`` about a MODEL to FAMILIES_LOG, build/families.jsonl without it."""
    keys = unet_keys(model)
    name = next(name for name in keys if name.endswith("attn2.to_k.weight"))
    write(family, "full" if FULL else "small", stored(model, keys[name]).precision, **facts)


def write(family: str, size: str, precision: str, **facts) -> None:
    """Append ``facts`` of a case."""
    line = {"family": family, "size": size, "precision": precision, "host": comfyui_version.__version__, **facts}
    path = Path(os.environ.get("FAMILIES_LOG") or ROOT / "build" / "families.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def settle() -> float:
    """Let go of what is free and forget the peak; returns the resident memory in megabytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(field: str) -> float:
    """A field of /proc/self/status in megabytes (10^6)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":")]
    return int(line.split()[1]) * 1024 / 1e6
