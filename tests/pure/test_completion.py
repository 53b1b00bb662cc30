"""Names that are offered while one types, and the sentence on what a node will erase and preserve."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from types import ModuleType, SimpleNamespace

import pytest
from pure.pack_modules import Pack, stand_in

from erasure_core.concepts.common import COMMON, EVERYDAY_CAPTIONS, common_concepts
from erasure_core.concepts.completion import Completion, completions
from erasure_core.concepts.name_lists import name_list


@pytest.fixture(scope="module")
def pack() -> Iterator[Pack]:
    with stand_in() as imported:
        yield imported


def names(before: str, after: str = "", **more) -> list[str]:
    return [one.name for one in completions(before, after, **more)]


def test_everyday_names_come_first_and_artists_by_any_word() -> None:
    assert names("ca")[:3] == ["car", "cat", "cake"]
    assert names("van g")[0] == "Van Gogh" and "Vincent Van Gogh" in names("van g")
    assert names("GOGH") == ["Van Gogh", "Vincent Van Gogh"]
    assert names("surrea")[0] == "surrealism" and set(names("surrea")) >= {"pop surrealism", "a surrealist painting"}
    assert {one.note for one in completions("ca", "", limit=1000)} >= {"everyday name", "artist", "medium", "word"}


@pytest.mark.parametrize("typed", ["", "c", "cat -> ", "# ca", "cat # ca", "qqqq", "dog\n"])
def test_nothing_is_offered(typed: str) -> None:
    assert completions(typed, "", listing=True) == []


def test_nothing_is_offered_within_a_word() -> None:
    assert completions("su", "rrealism") == [] and names("su", " -> art")


def test_a_name_that_is_whole_is_not_offered_again() -> None:
    assert "cat" not in names("cat") and "cat" not in names("Cat") and "cat" in names("ca")


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("monet -> art\nvan g", "\ncat", ("Van Gogh", "")),
        ("cat -> van g", "", ("cat -> Van Gogh", "")),
        ("van g", " -> art\ncat", ("Van Gogh", " -> art")),
        ("a village in the style of van g", "", ("a village in the style of Van Gogh", "")),
        ("  van g", "", ("  Van Gogh", "")),
    ],
)
def test_a_name_takes_the_place_of_what_is_typed(before: str, after: str, line: tuple[str, str]) -> None:
    first = completions(before, after)[0]
    assert (first.before, first.after) == line


def test_other_names_of_a_concept_become_lines_with_its_target() -> None:
    kitty = Completion("kitty -> dog", "another name for cat", "cat -> dog\nkitty -> dog", "")
    assert kitty in completions("cat", " -> dog", listing=True) and kitty in completions("cat -> dog", "", listing=True)
    assert kitty not in completions("cat -> dog", "", listing=False)
    assert kitty not in completions("cat -> dog", "\nKitty", listing=True), "it is listed"
    assert "kitty -> a kitty doll" not in names("cat -> a kitty doll", listing=True), "the target names it"
    assert not any("->" in one for one in names("cat -> do", listing=True)), "the target is not whole yet"


def test_every_listed_name_is_found_by_its_beginning() -> None:
    for name in (*name_list("artists")[::97], *name_list("movements")[::17], *name_list("mediums")[::17]):
        offered = {one.casefold() for one in names(name[:-1], limit=1000)}
        assert name.casefold() in offered, name


def test_a_long_line_is_completed_by_its_end() -> None:
    assert names("a word " * 20_000 + "van gog") == ["Van Gogh", "Vincent Van Gogh"]


def announced(pack: Pack, linked: tuple[str, ...] = (), **values) -> tuple[str, bool]:
    answer = pack.nodes("announcement").announcement(values, linked)
    return answer.text, answer.wrong


def test_a_node_counts_what_it_will_erase_and_preserve(pack: Pack) -> None:
    everyday = len([one for one in common_concepts(["cat"]) if one])
    captions = len(EVERYDAY_CAPTIONS)
    assert everyday == len(COMMON) - 1
    for values, text in (
        ({"concepts": "cat"}, "Erases 'cat' without a replacement."),
        ({"concepts": "cat -> dog"}, "Erases 1 concept."),
        ({"concepts": "cat\nfox"}, "Erases 2 concepts without a replacement."),
        (
            {"concepts": "cat -> dog\n# no\nfox", "preserve": "lion\nLion\n\nowl"},
            "Erases 2 concepts (1 without a replacement), preserves 2 prompts.",
        ),
        (
            {"concept": "cat", "preserve_common": True},
            f"Erases 'cat' without a replacement, preserves {everyday} prompts.",
        ),
        ({"concept": "cat", "preserve_common": True, "preserve": "a map"}, f"{everyday + 1} prompts."),
        ({"concepts": "cat", "preserve_list": "mediums"}, f"preserves {len(name_list('mediums'))} prompts."),
        ({"concepts": "cat", "preserve": "lion", "exactly": "lion\nowl"}, "preserves 2 prompts."),
        ({"concepts": "cat", "preserve": "lion", "exactly": ""}, "preserves 1 prompt."),
        ({"concepts": "zebra", "everyday_captions": False}, "Erases 'zebra' without a replacement."),
        ({"concepts": "zebra", "everyday_captions": True}, f"preserves {captions} built-in captions."),
        ({"concepts": "guitar", "everyday_captions": True}, f"preserves {captions - 1} built-in captions."),
        (
            {"concepts": "zebra", "everyday_captions": True, "preserve": f"lion\n{EVERYDAY_CAPTIONS[0]}"},
            f"preserves 2 prompts and {captions - 1} built-in captions.",
        ),
        ({"concepts": " "}, "Name what to erase, for example: van gogh -> art. The rest can stay as it is."),
    ):
        said, wrong = announced(pack, **values)
        assert said.endswith(text) and not wrong, said


def test_what_is_connected_is_not_counted(pack: Pack) -> None:
    assert announced(pack, ("concepts",), concepts="") == ("Erases the concepts that are connected.", False)
    assert announced(pack, ("statistics",), concepts="") == ("Erases the concepts of the statistics.", False)
    assert (
        announced(pack, ("model", "statistics"), concepts="cat -> dog")[0]
        == "Erases 1 concept and those of the statistics."
    )
    said, _ = announced(pack, ("preserve",), concepts="cat", preserve="", exactly="owl")
    assert said == "Erases 'cat' without a replacement, preserves 1 prompt and the prompts that are connected."
    said, _ = announced(pack, ("preserve",), concepts="zebra", preserve="", exactly="owl", everyday_captions=True)
    captions = f"{len(EVERYDAY_CAPTIONS)} built-in captions"
    assert (
        said
        == f"Erases 'zebra' without a replacement, preserves 1 prompt, {captions} and the prompts that are connected."
    )
    assert (
        announced(pack, ("everyday_captions",), concepts="cat -> dog", everyday_captions=True)[0] == "Erases 1 concept."
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"concepts": "cat => dog"}, "unknown separator '=>'"),
        ({"concepts": "cat\ncat"}, "line 2 of concepts, 'cat', lists 'cat' a second time"),
        ({"concept": "cat\ndog"}, "this node erases one concept at a time"),
        ({"concepts": "cat", "preserve": "cat"}, "preserve lists 'cat', which is to be erased"),
        ({"concepts": "cat", "exactly": "dog -> fox"}, "exactly lists 'dog -> fox', which says what to draw instead"),
        ({"concepts": "c\x00t"}, "which is not text"),
    ],
)
def test_what_is_wrong_is_said(pack: Pack, values: dict[str, str], sentence: str) -> None:
    said, wrong = announced(pack, **values)
    assert sentence in said and wrong


def test_warnings_stand_behind_the_count(pack: Pack, caplog: pytest.LogCaptureFixture) -> None:
    said, wrong = announced(pack, concepts="cat, dog", preserve="a fox")
    assert (
        said.startswith("Erases 'cat, dog' without a replacement, preserves 1 prompt. ")
        and "'cat, dog'" in said
        and not wrong
    )
    said, _ = announced(pack, concepts="cat", preserve="a cat on a mat")
    assert "preserve lists 'a cat on a mat', which names 'cat'" in said
    assert not caplog.messages, "the console is told when the node runs"


def test_what_a_node_erases_is_marked_for_the_page(pack: Pack) -> None:
    inputs = {one.id: one.extra_dict for one in pack.nodes("rece").ErasureRECE.define_schema().inputs}
    assert [name for name, extra in inputs.items() if extra.get("erases")] == ["concepts"]
    completed = {name: extra["completed"]["listing"] for name, extra in inputs.items() if "completed" in extra}
    assert completed == {"concepts": True, "preserve": False, "exactly": False}


JUNK = (None, True, 5, -1, 1e300, "", "cat", "c\x00t", "\ud800", "cat\ndog -> fox", [], ["cat"], [[]], {}, {"cat": 1})


@pytest.mark.parametrize(
    ("question", "body", "sentence"),
    [
        ("announcement", "", "the request holds no JSON"),
        ("announcement", "[" * 100_000, "the request holds no JSON"),
        ("announcement", "[]", "the request must be a JSON object, got []"),
        ("announcement", "{}", "missing a required argument: 'values'"),
        ("announcement", '{"values": {"preserve": "cat"}, "linked": []}', "values names neither concepts nor concept"),
        ("announcement", '{"values": {}, "linked": []}', "values names neither concepts nor concept"),
        ("announcement", '{"values": [], "linked": []}', "values must be an object of values by their names, got []"),
        ("announcement", '{"values": {"concept": "cat"}, "linked": 1}', "linked must be a list of names, got 1"),
        ("announcement", '{"values": {"concept": "cat"}, "linked": [{}]}', "linked must be a list of names"),
        ("completions", '{"before": "", "after": "", "nonsense": 1}', "got an unexpected keyword argument 'nonsense'"),
        ("completions", '{"before": 1, "after": ""}', "before must be text, got 1"),
        ("completions", '{"before": "", "after": "", "limit": "x"}', "limit must be a whole number, got"),
    ],
)
def test_a_request_that_makes_no_sense_gets_a_sentence(pack: Pack, question: str, body: str, sentence: str) -> None:
    status, answer = pack.nodes("comfy_host.routes").reply_to(answers(pack)[question], body)
    assert status == 400 and sentence in answer["error"]


def answers(pack: Pack) -> dict[str, Callable]:
    return {"completions": completions, "announcement": pack.nodes("announcement").announcement}


@pytest.mark.parametrize("question", ["completions", "announcement"])
def test_junk_is_answered(pack: Pack, question: str) -> None:
    """As a refusal or as an answer, but by no traceback."""
    usual = {
        "completions": {"before": "cat", "after": "", "listing": True, "limit": 3},
        "announcement": {"values": {"concepts": "cat"}, "linked": []},
    }[question]
    fields = ("concepts", "concept", "preserve", "exactly", "preserve_common", "preserve_list", "everyday_captions")
    requests = [{**usual, name: junk} for name in usual for junk in JUNK]
    if question == "announcement":
        requests += [{**usual, "values": {"concepts": "cat", name: junk}} for name in fields for junk in JUNK]
        requests += [{**usual, "linked": [name], "values": {name: junk}} for name in fields for junk in JUNK]
    for request in requests:
        status, answer = pack.nodes("comfy_host.routes").reply_to(answers(pack)[question], json.dumps(request))
        assert status == 200 or answer["error"], request
        json.dumps(answer, default=asdict)


def test_without_a_server_there_is_no_route(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server", raising=False)
    pack.nodes("page").serve_page()
    server = ModuleType("server")
    monkeypatch.setitem(sys.modules, "server", server)
    pack.nodes("page").serve_page()
    server.PromptServer = SimpleNamespace()  # as before one has been made
    pack.nodes("page").serve_page()


def test_another_copy_of_the_pack_keeps_its_routes(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second route of the same path would keep ComfyUI from starting."""
    routes = [SimpleNamespace(path=f"/concept_erasure/{name}") for name in ("completions", "announcement")]
    server = ModuleType("server")
    server.PromptServer = SimpleNamespace(instance=SimpleNamespace(routes=routes))
    monkeypatch.setitem(sys.modules, "server", server)
    pack.nodes("page").serve_page()
    assert len(routes) == 2
