"""Write docs/families.md from what the host tests found.

``families_table.py [build/families.jsonl]``; ``make test`` and ``make test-full`` append to that file. Of several lines
about the same, the last counts.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from erasure_core.drawing.table import table
from erasure_core.families.unets import titles

ROOT = Path(__file__).resolve().parent.parent
TITLES = titles()
TRACED = "traced"
PRECISIONS = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fn, scaled")

Key = tuple[str, str, str, str]
"""Family, size, precision and host."""


def found(lines: list[str]) -> dict[Key, dict]:
    """All that is known of each case."""
    cases: dict[Key, dict] = {}
    for line in lines:
        facts = json.loads(line)
        key = tuple(facts.pop(part) for part in ("family", "size", "precision", "host"))
        cases.setdefault(key, {}).update(facts)
    return cases


def page(cases: dict[Key, dict]) -> str:
    hosts = " and ".join(sorted({host for *_, host in cases}, key=_version))
    loaded = {key: facts for key, facts in cases.items() if key[1] != TRACED}
    return PAGE.format(hosts=hosts, families=_families(loaded), precisions=_precisions(loaded), traced=_traced(cases))


def _traced(cases: dict[Key, dict]) -> str:
    """Each family that was traced, on whatever host: the last one's layers."""
    rows, hosts = {}, {}
    for (family, size, _, host), facts in cases.items():
        if size == TRACED:
            short = dict.fromkeys(re.sub(r".*transformer_blocks\.N\.", "", layer) for layer in facts["layers"])
            layers = ", ".join(f"`{layer}`" for layer in short)
            hosts.setdefault(family, set()).add(host)
            reads = "its rows, normalised" if facts["normed"] else "itself"
            rows[family] = [family, layers, reads, ", ".join(f"`{leak}`" for leak in facts["leaks"])]
    lines = [[*row, ", ".join(sorted(hosts[family], key=_version))] for family, row in rows.items()]
    return table(("", "layers that text enters through", "they read the text", "and past them", "ComfyUI"), lines)


def _families(cases: dict[Key, dict]) -> str:
    rows = []
    for (family, size, _, host), facts in sorted(cases.items(), key=lambda case: _place(case[0])):
        if "saved_file" in facts:
            memory = [f"{facts[fact]:,}" if fact in facts else "-" for fact in ("megabytes", "megabytes_of_many")]
            rows.append([TITLES[family], size, host, *(_yes(facts, fact) for fact in FACTS), *memory])
    return table(("", "size", "ComfyUI", "closed form", "LoRA file", "text encoders", "MB", "MB, 32 concepts"), rows)


FACTS = ("closed_form", "saved_file", "text_encoders")


def _precisions(cases: dict[Key, dict]) -> str:
    errors: dict[str, dict[str, float]] = {}
    for (_, _, precision, host), facts in cases.items():
        if "rounding" in facts:
            errors.setdefault(precision, {})[host] = facts["rounding"]
    hosts = sorted({host for by_host in errors.values() for host in by_host}, key=_version)
    order = sorted(errors, key=lambda name: (PRECISIONS.index(name) if name in PRECISIONS else len(PRECISIONS), name))
    rows = [[name, *(f"{errors[name][host]:.2%}" if host in errors[name] else "-" for host in hosts)] for name in order]
    return table(("", *(f"ComfyUI {host}" for host in hosts)), rows)


def _place(key: Key) -> tuple:
    family, size, precision, host = key
    return list(TITLES).index(family), size != "full", _version(host), precision


def _version(host: str) -> tuple[int, ...]:
    return tuple(int(part) for part in host.split("."))


def _yes(facts: dict, fact: str) -> str:
    return "yes" if facts.get(fact) else "not run"


PAGE = """# Families and precisions

Which models the nodes work with, tested in ComfyUI {hosts}. The tests write checkpoints with random weights in the
original single-file layouts, load them with the stock loader, and erase with the node. A row stands here only if its
test passed. `tools/families_table.py` makes this page from the tests' results.

- **closed form** (RECE, UCE): every weight is the old one plus its change. The change is computed from the context that
  sampling uses, with CLIP skip, embeddings, and LoRAs on the text encoder. The concept comes near its replacement in
  every layer.
- **LoRA file**: the stock LoRA loader makes the same weights from it as the node, bit for bit, and skips nothing.
- **text encoders**: the same for changes of every text encoder, as few-shot makes them.
- **MB**: the most memory that the node took beyond the model, on a CPU, for one concept and for 32. With 32 the change
  has full rank.

{families}

*Small* has the family's own widths, with few blocks and layers. In both sizes the loader recognised the family by
itself.

## Where text enters

These are the layers that the node edits (N stands for any number). They were found by tracing small models with random
weights, built from ComfyUI's own classes, and compared with ComfyUI's code. "And past them" lists layers that text
reaches without being edited; the node warns of them. In the UNets of Stable Diffusion 1.x, 2.x and XL the node finds
the layers by name. Erasing was tested on Flux, SD 3, Qwen-Image, Z-Image, HunyuanVideo and HiDream, with their own
tokenizers and with stand-ins for their text encoders.

{traced}

## What rounding leaves

The change is computed in float32 and float64 from the merged weights. ComfyUI then rounds the edited weights to the
precision of the model (fp32, fp16, bf16 or fp8). The table shows how much of the change is lost, where the change acts,
over all weights of the small Stable Diffusion 1.x:

{precisions}

The node logs this number for every model, measured on eight of the weights, and warns above 10 %. A smaller change
loses a larger part of itself. In fp8 ComfyUI rounds at random (stochastic rounding).

GGUF weights are read with ComfyUI-GGUF's own dequantiser, which adds changes after unpacking, so nothing is rounded.
Quantised weights of other packs that are stored as integers (NF4) are refused.
"""


def main() -> None:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "families.jsonl"
    if not source.is_file():
        raise SystemExit(f"there is no {source}; run the host tests first: make test, or make test-full")
    cases = found(source.read_text(encoding="utf-8").splitlines())
    target = ROOT / "docs" / "families.md"
    target.write_text(page(cases), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
