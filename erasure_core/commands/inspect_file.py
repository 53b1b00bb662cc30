"""The command ``inspect``: what an erasure's file or a baked checkpoint holds."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..erasures.baked import baked_erasures, each_once
from ..erasures.erasure import Erasure
from ..erasures.erasure_file import KEY
from ..erasures.erasure_record import Origin
from ..erasures.low_rank import Delta, LowRank
from ..erasures.programs import readers_of
from ..files.tensor_file import TensorFile
from ..quoting import excerpt, shortened
from .options import as_path

LONGEST = 8  # entries of a setting that is a list, above which only their number is printed


def inspect(args: argparse.Namespace) -> None:
    """Print what an erasure's file or a baked checkpoint holds."""
    facts = facts_of(args.file)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else as_text(facts))


def facts_of(path: Path) -> dict[str, Any]:
    """Return what is known of a file: an erasure, or a checkpoint or diffusers folder with erasures in its weights."""
    from ..baking.open import files_of

    files = files_of(path)
    size = sum(file.header_size + file.data_size for file in files)
    if any(KEY in file.metadata for file in files):
        return {"file": str(path), "kind": "an erasure", "bytes": size, **_of_erasure(Erasure.load(path))}
    return {"file": str(path), "kind": "a checkpoint", "bytes": size, **_of_checkpoint(files)}


def as_text(facts: dict[str, Any]) -> str:
    """Return the facts as lines of text."""
    lines = [f"{excerpt(facts['file'], 300)}: {facts['kind']}, {facts['bytes'] / 1e6:,.1f} MB"]
    for made in facts["erasures"]:
        lines.append(f"erases {shortened(made['concepts'])}")
        lines.append(f"  by {made['method']} ({_settings(made['settings'])}), version {made['version']}")
        lines.append(f"  computed on the weights {made['fingerprint']}")
        lines += [f"  strength {made['strength']:g}"] if "strength" in made else []
        lines += [f"  {len(made['losses'])} steps, loss {made['losses'][-1]:.3g} at the end"] if made["losses"] else []
    if facts["kind"] == "a checkpoint":
        return "\n".join(lines if facts["erasures"] else [*lines, "no erasure was baked into it by this package"])
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["layers"].items())
    lines.append(f"changes {sum(facts['layers'].values())} weights: {kinds}; {facts['form']}")
    lines.append(
        f"norm of the changes {facts['norm']:.4g}, the largest {facts['largest']:.4g} in {facts['largest_in']}"
    )
    lines += [f"relative error of compression {facts['error']:.2g}"] if facts["error"] else []
    lines.append("can be rebased on other checkpoints" if facts["rebasable"] else _why_not_rebasable(facts["erasures"]))
    return "\n".join([*lines, f"as a LoRA {facts['programs']}"])


def _why_not_rebasable(erasures: Sequence[dict[str, Any]]) -> str:
    why = (
        "it was trained"
        if any(made["losses"] for made in erasures)
        else "its parts were computed on different weights, one on top of the other"
    )
    return f"cannot be rebased: {why}"


def _of_erasure(erasure: Erasure) -> dict[str, Any]:
    norms = {name: _norm(delta) for name, delta in erasure.deltas.items()}
    largest = max(norms, key=lambda name: norms[name], default="")
    return {
        "erasures": [_of_origin(origin) for origin in erasure.origins],
        "layers": dict(Counter(map(_kind, erasure.deltas))),
        "form": f"low-rank, rank {erasure.rank}" if erasure.rank else "whole weights",
        "norm": sum(norm**2 for norm in norms.values()) ** 0.5,
        "largest": norms.get(largest, 0.0),
        "largest_in": largest,
        "error": erasure.error,
        "rebasable": bool(erasure.maps),
        "programs": readers_of(erasure),
    }


def _of_checkpoint(files: Sequence[TensorFile]) -> dict[str, Any]:
    baked = each_once(baked_erasures(file.metadata) for file in files)
    return {"erasures": [{**_of_origin(origin), "strength": one.strength} for one in baked for origin in one.origins]}


def _of_origin(origin: Origin) -> dict[str, Any]:
    return {
        "concepts": [str(concept) for concept in origin.concepts],
        "method": origin.method,
        "settings": dict(origin.settings),
        "fingerprint": origin.fingerprint,
        "version": origin.version,
        "losses": list(origin.losses),
    }


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > LONGEST:
        return f"{len(value)} entries"
    return f"{value:g}" if isinstance(value, float) else excerpt(value)


def _kind(name: str) -> str:
    """Return the part and the last two words of a layer's name, such as ``unet attn2.to_k``."""
    part, _, path = name.partition(".")
    return f"{part} {'.'.join(path.split('.')[-3:-1])}"


def _norm(delta: Delta) -> float:
    """Return the Frobenius norm of a change; of factors it is that of the product of their small halves."""
    if not isinstance(delta, LowRank):
        return float(delta.change.double().norm())
    up, down = delta.up.double(), delta.down.double()
    return float(((up.T @ up) * (down @ down.T)).sum().clamp(min=0).sqrt())


def add_inspect(commands) -> None:
    command = commands.add_parser("inspect", help=inspect.__doc__)
    command.add_argument(
        "file", type=as_path, metavar="FILE", help="what erase or bake wrote: a .safetensors or a diffusers folder"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(command=inspect)
