"""Names that are offered below the fields of the nodes while one types, and the line on what a node will do."""

from __future__ import annotations

import pytest
from comfy_page import ComfyPage

from erasure_core.concepts.common import EVERYDAY_CAPTIONS

NAMES = "#erasure-names"
OFFERED = f"() => [...document.querySelectorAll('{NAMES} li > span:first-child')].map((one) => one.textContent)"
CHOSEN = f"() => document.querySelector('{NAMES} [aria-selected=true] > span')?.textContent"
SEEN = f"""() => {{
  const {{ left, top, right, bottom }} = document.querySelector('{NAMES}').getBoundingClientRect()
  return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight
}}"""
CLOSED = f"() => document.querySelector('{NAMES}').hidden"
FIELDS = {"concepts", "concept", "preserve", "exactly", "names", "text"}
CAPTIONS = f"{len(EVERYDAY_CAPTIONS)} built-in captions"  # of the preset 'general', where none names a concept
SOON = 20_000  # milliseconds


def is_open(comfy: ComfyPage) -> None:
    comfy.wait(f"() => !({CLOSED})()", timeout=SOON)


ANSWERED = 500  # milliseconds, after which the offers are no longer those for the text before its last letter


def offers(comfy: ComfyPage, name: str) -> None:
    """Wait until a name is offered: what is offered before is for the text as it was some keys ago."""
    comfy.wait(f"(name) => !({CLOSED})() && ({OFFERED})().includes(name)", name, SOON)


def is_closed(comfy: ComfyPage) -> None:
    comfy.wait(CLOSED, timeout=SOON)


def type_into(comfy: ComfyPage, node: str, widget: str, text: str) -> None:
    comfy.focus(node, widget)
    comfy.page.keyboard.type(text, delay=30)
    comfy.page.wait_for_timeout(ANSWERED)


def alone(comfy: ComfyPage, node: str, place: tuple[int, int] = (300, 150)) -> None:
    """Show one node at its size, with empty fields: Nodes 2.0 keeps what an earlier node of this number held."""
    comfy.add(node)
    for field in FIELDS & comfy.values(node).keys():
        comfy.set(node, field, "")
    comfy.show(node, place)


def test_names_are_offered_and_taken_with_the_keyboard(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRECE")
    type_into(comfy, "ErasureRECE", "concepts", "van g")
    offers(comfy, "Van Gogh")
    assert comfy.page.evaluate(OFFERED)[0] == "Van Gogh" and comfy.page.evaluate(SEEN)
    comfy.shot("names")
    assert comfy.page.evaluate(CHOSEN) is None, "so that Enter begins a line"
    offered = comfy.page.evaluate(OFFERED)
    for key, chosen in (("Down", 0), ("Down", 1), ("Up", 0), ("Up", None), ("Up", -1), ("Down", None), ("Down", 0)):
        comfy.page.keyboard.press(f"Arrow{key}")
        assert comfy.page.evaluate(CHOSEN) == (None if chosen is None else offered[chosen])
    comfy.page.keyboard.press("Enter")
    is_closed(comfy)
    comfy.page.keyboard.type(" -> art\ncat", delay=30)
    offers(comfy, "kitty")
    comfy.page.keyboard.press("Escape")
    is_closed(comfy)
    comfy.page.keyboard.type("\nfox")
    is_open(comfy)
    comfy.page.keyboard.press("Tab")
    is_closed(comfy)
    assert comfy.values("ErasureRECE")["concepts"] == "Van Gogh -> art\ncat\nfox"


def test_another_name_becomes_a_line_when_it_is_clicked(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRECE")
    type_into(comfy, "ErasureRECE", "concepts", "cat -> dog")
    offers(comfy, "kitty -> dog")
    comfy.page.locator(f"{NAMES} li", has_text="kitty -> dog").click()
    is_closed(comfy)
    assert comfy.values("ErasureRECE")["concepts"] == "cat -> dog\nkitty -> dog"
    comfy.line_says("Erases 2 concepts, preserves ")


@pytest.mark.parametrize("node", ["ErasureFewShot", "ErasureDoCo", "ErasureAbO", "ErasureReport"])
def test_a_field_of_one_line_offers_names_too(comfy: ComfyPage, node: str) -> None:
    """The classic canvas edits it in a dialog."""
    alone(comfy, node)
    type_into(comfy, node, "concept", "van go")
    offers(comfy, "Van Gogh")
    assert comfy.page.evaluate(SEEN)
    comfy.shot(f"names - {node}")
    comfy.page.keyboard.press("ArrowDown")
    comfy.page.keyboard.press("Tab")
    is_closed(comfy)
    comfy.page.keyboard.press("Enter")
    comfy.page.wait_for_timeout(500)
    assert comfy.values(node)["concept"] == "Van Gogh"


@pytest.mark.parametrize(
    ("node", "field"),
    [
        ("ErasureRECE", "preserve"),
        ("ErasureAbO", "preserve"),
        ("ErasureSuggestNames", "concepts"),
        ("ErasureRestore", "names"),
    ],
)
def test_other_fields_offer_names(comfy: ComfyPage, node: str, field: str) -> None:
    alone(comfy, node)
    type_into(comfy, node, field, "a village by van g")
    offers(comfy, "Van Gogh")
    comfy.page.keyboard.press("ArrowDown")
    comfy.page.keyboard.press("Enter")
    is_closed(comfy)
    assert comfy.values(node)[field] == "a village by Van Gogh"


def test_offers_for_another_text_are_not_taken(comfy: ComfyPage) -> None:
    """While one types on, and when the caret has been put elsewhere, the list is for the text as it was."""
    alone(comfy, "ErasureRECE")
    type_into(comfy, "ErasureRECE", "concepts", "a cat\nvan g")
    offers(comfy, "Van Gogh")
    comfy.page.route("**/concept_erasure/completions", lambda route: None)  # as if the answer took long
    try:
        comfy.page.keyboard.type("ogh x")
        comfy.page.keyboard.press("ArrowDown")
        comfy.page.keyboard.press("Enter")
        comfy.page.wait_for_timeout(500)
        assert comfy.values("ErasureRECE")["concepts"] == "a cat\nvan gogh x\n"
    finally:
        comfy.page.unroute("**/concept_erasure/completions")
    comfy.page.keyboard.type("monet")
    offers(comfy, "Claude Monet")
    comfy.page.keyboard.press("Control+Home")
    comfy.page.keyboard.press("ArrowDown")
    comfy.page.keyboard.press("End")
    comfy.page.keyboard.press("Tab")
    comfy.page.wait_for_timeout(500)
    assert comfy.values("ErasureRECE")["concepts"] == "a cat\nvan gogh x\nmonet"


def test_a_blueprint_offers_names_too(comfy: ComfyPage) -> None:
    comfy.place("All in one - erase and save")
    comfy.show(comfy.page.evaluate("() => app.graph._nodes[0].type"), (300, 150))
    field = comfy.page.locator("textarea:visible").first
    field.fill("van g")
    offers(comfy, "Van Gogh")
    assert comfy.page.evaluate(OFFERED)[0] == "Van Gogh" and comfy.page.evaluate(SEEN)
    comfy.shot("names - blueprint")


def test_the_list_is_not_cut_off_at_the_edge(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRestore", (1250, 760))
    type_into(comfy, "ErasureRestore", "names", "mar")
    is_open(comfy)
    comfy.shot("names at the edge")
    assert comfy.page.evaluate(SEEN)


def test_fields_of_others_offer_nothing(comfy: ComfyPage) -> None:
    alone(comfy, "CLIPTextEncode")
    type_into(comfy, "CLIPTextEncode", "text", "van g")
    comfy.page.wait_for_timeout(1000)
    assert comfy.page.evaluate(CLOSED)


def test_dialogs_of_others_offer_nothing(comfy: ComfyPage) -> None:
    """Also after one of ours has been open: the classic canvas has one kind of dialog for all fields."""
    alone(comfy, "ErasureDoCo")
    type_into(comfy, "ErasureDoCo", "concept", "van g")
    is_open(comfy)
    comfy.page.keyboard.press("Escape")
    is_closed(comfy)
    comfy.page.keyboard.press("Enter")
    comfy.page.wait_for_selector(".graphdialog", state="detached")
    comfy.remove("ErasureDoCo")
    alone(comfy, "SaveImage")
    type_into(comfy, "SaveImage", "filename_prefix", "van g")
    comfy.page.wait_for_timeout(1000)
    assert comfy.page.evaluate(CLOSED)


def test_a_node_says_what_it_will_do(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRECE")
    comfy.line_says("Name what to erase")
    type_into(comfy, "ErasureRECE", "concepts", "cat -> dog\nfox")
    comfy.line_says(f"Erases 2 concepts (1 without a replacement), preserves {CAPTIONS}.")
    comfy.page.keyboard.press("Escape")
    type_into(comfy, "ErasureRECE", "preserve", "lion\nowl")
    comfy.line_says(f"Erases 2 concepts (1 without a replacement), preserves 2 prompts and {CAPTIONS}.")
    comfy.shot("line")
    comfy.set("ErasureRECE", "preset", "object")
    comfy.line_says("Erases 2 concepts (1 without a replacement), preserves 2 prompts.")
    comfy.set("ErasureRECE", "concepts", "cat => dog")
    comfy.line_says("has the unknown separator '=>'; write 'cat -> dog'")
    comfy.shot("line - wrong")
    comfy.set("ErasureRECE", "concepts", "cat, dog")
    comfy.line_says("Erases 'cat, dog' without a replacement, preserves 2 prompts. ")


def test_a_connected_list_is_not_counted(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRECE")
    comfy.add("ErasureLoadConcepts")
    comfy.page.evaluate(
        """() => {
          const [erase, list] = app.graph._nodes
          list.connect(0, erase, erase.inputs.findIndex((input) => input.name === 'concepts'))
        }"""
    )
    comfy.line_says("Erases the concepts that are connected.")


def test_what_is_saved_has_no_line(comfy: ComfyPage) -> None:
    alone(comfy, "ErasureRECE")
    comfy.line_says("Name what to erase")
    saved = comfy.page.evaluate("() => app.graph.serialize().nodes[0].widgets_values")
    asked = comfy.page.evaluate("async () => (await app.graphToPrompt()).output['1']?.inputs ?? {}")
    assert len(saved) == len(comfy.values("ErasureRECE")) - 1 and "announcement" not in asked


def test_names_and_lines_can_be_switched_off(comfy: ComfyPage) -> None:
    comfy.switch("ConceptErasure.OfferNames", False)
    comfy.switch("ConceptErasure.SayWhatIsErased", False)
    try:
        alone(comfy, "ErasureRECE")
        type_into(comfy, "ErasureRECE", "concepts", "van gogh\ncat")
        comfy.page.wait_for_timeout(1000)
        assert comfy.page.evaluate(CLOSED) and comfy.line() is None
    finally:
        comfy.switch("ConceptErasure.OfferNames", True)
        comfy.switch("ConceptErasure.SayWhatIsErased", True)


def test_without_the_routes_the_fields_are_plain(comfy: ComfyPage) -> None:
    """As after an update, before ComfyUI has been started again."""
    comfy.page.route("**/concept_erasure/*", lambda route: route.fulfill(status=404))
    try:
        alone(comfy, "ErasureRECE")
        type_into(comfy, "ErasureRECE", "concepts", "van gogh\ncat")
        comfy.page.wait_for_timeout(1000)
        assert comfy.page.evaluate(CLOSED)
        assert comfy.values("ErasureRECE")["concepts"] == "van gogh\ncat"
        assert comfy.line() == ""
    finally:
        comfy.page.unroute("**/concept_erasure/*")
