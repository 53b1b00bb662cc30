"""Files of nodes in ComfyUI's folders, on a stand-in for it: where they are written, which are read, and when anew."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pure.pack_modules import Pack, dense, erasure_of, low_rank


def test_files_are_numbered_below_their_folder(pack: Pack, tmp_path: Path) -> None:
    files, erasure = pack.nodes("comfy_host.files"), erasure_of(pack, key=low_rank(pack, 6, 4))
    paths = [files.save_as_lora(erasure, prefix) for prefix in ("erasure/no-cat", "erasure/no-cat", "plain")]
    loras = tmp_path / "output" / "loras"
    assert paths == [
        loras / "erasure" / "no-cat_00001_.safetensors", loras / "erasure" / "no-cat_00002_.safetensors",
        loras / "plain_00001_.safetensors",
    ]  # fmt: skip
    (loras / "notes.txt").write_text("")
    assert files.lora_files() == [path.relative_to(loras).as_posix() for path in paths]
    assert (
        pack.core("erasures.erasure").Erasure.load(files.lora_path("plain_00001_.safetensors")).concepts
        == erasure.concepts
    )


@pytest.mark.parametrize(
    ("concepts", "name"),
    [
        ([("cat", "dog")], "cat-to-dog"),
        ([("van gogh", "")], "no-van-gogh"),
        ([("Mickey/Mouse: ../x", ""), ("dog", "cat"), ("fox", "")], "no-Mickey-Mouse-x-and-2-more"),
        ([("ゴッホ", "")], "no-ゴッホ"),
        ([("ゴ" * 90, "")], "no-" + "ゴ" * 37),
        ([], "erasure"),
    ],
)
def test_a_prefix_can_name_what_is_erased(pack: Pack, concepts: list[tuple[str, str]], name: str) -> None:
    one = erasure_of(pack, key=low_rank(pack, 6, 4))
    kind = pack.core("concepts.parse").Concept
    origins = [replace(one.origins[0], concepts=tuple(kind(*each) for each in concepts))] if concepts else []
    path = pack.nodes("comfy_host.files").save_as_lora(replace(one, origins=tuple(origins)), "a/%concepts%")
    assert path.name == f"{name}_00001_.safetensors" and path.parent.name == "a"


@pytest.mark.parametrize(
    "prefix",
    ["../escaped", "a/../../escaped", "../../x", "/tmp/escaped", "a/b/../../../escaped", "../loras-of-another/x"],
)
def test_a_prefix_that_leads_elsewhere_is_refused(pack: Pack, tmp_path: Path, prefix: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"leads out of .*; saving elsewhere is not allowed"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), prefix)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_prefix_on_another_drive_is_refused_too(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """There Windows has no path that both have in common, and raises an error of its own."""

    def different_drives(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", different_drives)
    with pytest.raises(ValueError, match=r"leads out of .*; saving elsewhere is not allowed"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), "/d/escaped")


@pytest.mark.parametrize("prefix", ["", "   ", "folder/", "..", ".", "folder/.."])
def test_a_prefix_that_names_no_file_is_refused(pack: Pack, tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="names no file; write for example"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), prefix)
    assert not list((tmp_path / "output").iterdir())


def test_what_cannot_be_written_is_said(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "output" / "loras").write_text("a file in the folder's place")
    with pytest.raises(ValueError, match="filename_prefix 'a/b': nothing could be written to"):
        pack.nodes("comfy_host.files").save_as_lora(erasure_of(pack, key=low_rank(pack, 6, 4)), "a/b")


def test_only_files_that_are_listed_can_be_named(pack: Pack, tmp_path: Path) -> None:
    files = pack.nodes("comfy_host.files")
    (tmp_path / "input" / "lists").mkdir()
    for name in ("concepts.txt", "lists/more.txt", "picture.png"):
        (tmp_path / "input" / name).write_text("cat")
    (tmp_path / "secret.txt").write_text("secret")
    assert [name for name in files.list_files() if name.endswith(".txt")] == ["concepts.txt", "lists/more.txt"]
    assert files.list_path("lists/more.txt").read_text() == "cat"
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), "picture.png", "", "lists/../concepts.txt"):
        with pytest.raises(ValueError, match=r"is not in .*; there are: concepts\.txt, lists/more\.txt"):
            files.list_path(name)
    with pytest.raises(ValueError, match="there are: none"):
        files.statistics_path("a.safetensors")


@pytest.mark.parametrize("kind", ["lora_path", "statistics_path", "list_path"])
@pytest.mark.parametrize("name", ["absent.safetensors", "half \ud83d", None, 5, ["a"], {"a": 1}])
def test_files_that_are_not_there(pack: Pack, kind: str, name: object) -> None:
    """Also while ComfyUI only asks whether a file has changed, before any input was checked."""
    with pytest.raises(ValueError, match="file '.*' is (in none of|not in)") as refused:
        getattr(pack.nodes("comfy_host.files"), kind)(name)
    assert str(refused.value).isprintable()


def test_a_digest_is_of_what_a_file_holds(pack: Pack, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("cat"), other.write_text("cat")
    digest = pack.nodes("comfy_host.files").digest
    before = digest(one)
    assert before == digest(other)
    one.write_text("dog")
    assert before != digest(one)


def test_another_file_of_the_same_name_is_read_anew(pack: Pack, tmp_path: Path) -> None:
    """ComfyUI keeps what a node gave until its inputs change, and the name of a file is all that it knows."""
    one, other = erasure_of(pack, key=low_rank(pack, 6, 4)), erasure_of(pack, key=dense(pack, 6, 4))
    loader = pack.nodes("erasures").ErasureLoad
    path = pack.nodes("comfy_host.files").save_as_lora(one, "a")
    before = loader.fingerprint_inputs(file=path.name)
    assert before == loader.fingerprint_inputs(file=path.name)
    other.save(path, overwrite=True)
    assert before != loader.fingerprint_inputs(file=path.name)
    statistics = pack.nodes("statistics").ErasureLoadStatistics
    kept = tmp_path / "output" / "erasure-statistics" / "a.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"one")
    before = statistics.fingerprint_inputs(file=kept.name)
    assert before == statistics.fingerprint_inputs(file=kept.name)
    os.utime(kept, ns=(1, 1))
    assert before != statistics.fingerprint_inputs(file=kept.name)
    with pytest.raises(ValueError, match="is not in"):
        statistics.fingerprint_inputs(file="../secret.safetensors")
