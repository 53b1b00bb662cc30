"""Check the sdist and the wheel in dist/: each holds every file of erasure_core, and no node of ComfyUI's.

    python -m build && python tools/check_dist.py

Files are those that git tracks.
"""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST, PACKAGE = ROOT / "dist", "erasure_core/"


def tracked() -> set[str]:
    """Return the files of the library, relative to the checkout."""
    listing = subprocess.run(["git", "ls-files", PACKAGE], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listing.stdout.splitlines())


def in_wheel(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def in_sdist(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    return {name for name in names if "/" in name and ".egg-info/" not in name}


def faults(files: set[str], held: set[str]) -> list[str]:
    """Return a sentence for each file of the library that is not held, and for each other file that is."""
    missing = [f"{name} is missing" for name in sorted(files - held)]
    others = [f"{name} should not be there" for name in sorted(held - files) if not name.startswith("docs/")]
    return missing + others


def main() -> None:
    wheels, sdists = sorted(DIST.glob("*.whl")), sorted(DIST.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise SystemExit(f"{DIST} must hold one wheel and one sdist, but holds {len(wheels)} and {len(sdists)}")
    files = tracked()
    for path, held in ((wheels[0], in_wheel(wheels[0])), (sdists[0], in_sdist(sdists[0]))):
        if wrong := faults(files, held):
            raise SystemExit(f"{path.name}:\n" + "\n".join(wrong))
        print(f"{path.name}: all {len(files)} files of the library, {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
