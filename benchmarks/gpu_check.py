"""Everything that only a GPU can show, in at most six minutes on a machine without a network; writes one JSON.

python benchmarks/gpu_check.py --out gpu.json [--wheels FOLDER] [--comfyui FOLDER] [--seconds 340]
python benchmarks/gpu_check.py --out rehearsal.json --device cpu --small

It needs PyTorch, transformers and accelerate. Of what else is missing, diffusers among it, it installs the wheels in
FOLDER into a folder of its own. Nothing is left out silently: each part is ok, failed, or not run for a reason. The
exit code is 1 if a part failed, and 2 if the machine lacks something. ``benchmarks/gpu_page.py`` makes docs/gpu.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEEDED = {
    "torch": "torch", "transformers": "transformers", "accelerate": "accelerate", "diffusers": "diffusers",
    "safetensors": "safetensors", "numpy": "numpy", "PIL": "pillow",
}  # fmt: skip
"""What is imported, by the names that wheels have."""
SECONDS = 340


def install_missing(wheels: Path | None) -> list[str]:
    """Install the wheels of a folder for modules that are missing; returns what is missing still."""
    missing = {module: name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None}
    files = sorted(wheels.glob("*.whl")) if wheels and missing else []
    if files:
        folder = tempfile.mkdtemp(prefix="gpu-check-")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", folder]
        subprocess.run([*command, *map(str, files)], check=True)
        sys.path.append(folder)  # behind what is installed: a wheel never replaces the machine's own PyTorch
        importlib.invalidate_caches()
    return [name for module, name in missing.items() if importlib.util.find_spec(module) is None]


def device_facts(device) -> dict[str, Any]:
    import torch
    import transformers

    import erasure_core

    facts = {
        "type": device.type, "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "version": erasure_core.__version__,
        "name": platform.processor() or platform.machine(),
    }  # fmt: skip
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {"name": card.name, "gigabytes": round(card.total_memory / 1e9), "cuda": torch.version.cuda}
    return facts


def run_part(part, setting) -> dict[str, Any]:
    """What a part found, with its ``state``: ok, failed, or not run."""
    from gpu_parts import NotHere, freed

    began = time.monotonic()
    if began > setting.deadline:
        return {"state": "not run", "why": "no time was left"}
    try:
        with freed(setting):
            found = {"state": "ok", **part(setting)}
    except NotHere as reason:
        found = {"state": "not run", "why": str(reason)}
    except Exception as error:
        lines = traceback.format_exc(limit=-3)
        found = {"state": "failed", "why": f"{type(error).__name__}: {error}", "trace": lines}
    if found.get("within") is False:
        found |= {"state": "failed", "why": "beyond the bounds"}
    return {**found, "took": time.monotonic() - began}


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Run all parts, and return what is written."""
    import torch
    from gpu_parts import Setting, parts

    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"error: PyTorch {torch.__version__} finds no CUDA GPU; --device cpu --small rehearses")
    setting = Setting(device, options.small, options.comfyui, time.monotonic() + options.seconds)
    found: dict[str, Any] = {"device": device_facts(device), "small": options.small, "parts": {}}
    for name, part in parts():
        if options.only and not any(one in name for one in options.only):
            found["parts"][name] = {"state": "not run", "why": "--only left it out"}
            continue
        row = found["parts"][name] = run_part(part, setting)
        print(f"{name}: {row['state']} {row.get('why', '')}".rstrip(), file=sys.stderr, flush=True)
        write(found, options.out)  # whole so far, if the machine goes away
    return found


def write(found: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels for what is missing")
    parser.add_argument("--comfyui", type=Path, help="ComfyUI's tree, if it was carried along")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="no part begins after so many")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="layers of a few numbers: a rehearsal")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="only parts whose names have one of these in them")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    missing = install_missing(options.wheels)
    if missing:
        named = ", ".join(missing)
        print(
            f"error: this machine lacks {named}; put their wheels into a folder and name it by --wheels",
            file=sys.stderr,
        )
        write({"missing": missing, "parts": {}}, options.out)
        return 2
    found = check(options)
    write(found, options.out)
    return int(any(row["state"] == "failed" for row in found["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())
