"""What an erasure withstands, beyond the attacks of ``attacks``."""

from __future__ import annotations

from . import finetune, harden, harden_abo, paraphrases
from .settings import Bench

PROBES = {"paraphrases": paraphrases, "finetune": finetune, "harden": harden, "harden-abo": harden_abo}


def jobs() -> list[dict]:
    return [{"probe": name, **job} for name, probe in PROBES.items() for job in probe.jobs()]


def measure(bench: Bench, probe: str, **job) -> dict:
    return PROBES[probe].measure(bench, **job)


def section(rows: list[dict]) -> str:
    return "\n\n".join(probe.section([row for row in rows if row["probe"] == name]) for name, probe in PROBES.items())
