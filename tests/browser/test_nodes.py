"""Single nodes in the browser: refusals, cancelling, searching, and what their own page code does."""

from __future__ import annotations

import uuid

import graphs
from comfy_page import ComfyPage, is_newer

FIRST, TRAINING = "01 Erase an object", "09 Learn to forget with AbO"


def test_a_typo_gives_its_sentence(comfy: ComfyPage) -> None:
    comfy.load(graphs.ui(FIRST), FIRST)
    comfy.set("ErasureRECE", "concepts", "cat => dog")
    comfy.run()
    comfy.page.wait_for_timeout(3000)
    comfy.shot("typo")
    comfy.says("the concept 'cat => dog' has the unknown separator '=>'; write 'cat -> dog'")


def test_what_fails_while_it_runs_gives_its_sentence(comfy: ComfyPage) -> None:
    comfy.load(graphs.ui(FIRST), FIRST)
    comfy.set("ErasureRECE", "concepts", "")
    comfy.run()
    comfy.says("no concept is named in concepts: write one, or one a line, for example 'van gogh -> art'")
    comfy.shot("empty")


def test_a_training_is_cancelled_and_run_again(comfy: ComfyPage) -> None:
    comfy.server.free()
    comfy.load(graphs.ui(TRAINING), TRAINING)
    comfy.set("ErasureAbO", "steps", 100_000)
    printed = len(comfy.server.log())
    comfy.run()
    comfy.server.wait_for_log("AbO, loss", since=printed)
    comfy.shot("training")
    comfy.server.cancel_all()
    comfy.set("ErasureAbO", "steps", 2)
    comfy.run()
    comfy.says("Erased cat -> dog in 2 steps as object")
    assert comfy.values("ErasureAbO")["seed"] == 0


def test_the_node_is_found_by_what_people_look_for(comfy: ComfyPage) -> None:
    """Hosts before 0.33 search names alone."""
    comfy.search("forget" if is_newer() else "erase concepts")
    comfy.says("Erase Concepts (RECE)")
    comfy.shot("search")
    comfy.page.keyboard.press("Escape")


def test_the_first_that_is_found_needs_no_training(comfy: ComfyPage) -> None:
    for words in ["erase", "forget", "remove concept"] if is_newer() else ["erase"]:
        comfy.clear()
        comfy.search(words)
        comfy.page.keyboard.press("Enter")
        comfy.wait("() => app.graph._nodes.length === 1")
        assert comfy.page.evaluate("() => app.graph._nodes[0].type") == "ErasureRECE"
        comfy.page.keyboard.press("Escape")


def test_numbers_shown_are_those_of_the_preset(comfy: ComfyPage) -> None:
    comfy.add("ErasureRECE")
    shown = comfy.values("ErasureRECE")
    assert (shown["preset"], shown["amplification"], shown["relative_ridge"]) == ("general", 1.8, 0.3)
    comfy.set("ErasureRECE", "preset", "published")
    shown = comfy.values("ErasureRECE")
    assert (shown["amplification"], shown["regularization"], shown["relative_ridge"]) == (1, 0.1, 0)
    comfy.set("ErasureRECE", "ridge", 0.5)
    assert comfy.values("ErasureRECE")["preset"] == "custom"


def test_what_a_node_has_done_can_be_read_whole(comfy: ComfyPage) -> None:
    """A node that was just placed is no higher than its fields."""
    sentence = "As a LoRA ComfyUI reads it, and so do diffusers, A1111, Forge and InvokeAI, as they read any other."
    for kind in ("ErasureSave", "ErasureLoadToy"):
        comfy.clear()
        comfy.add(kind)
        comfy.show(kind, (500, 300))
        comfy.executed(kind, ["/home/somebody/ComfyUI/output/loras/erasure/no-van-gogh_00001_.safetensors", sentence])
        comfy.page.wait_for_timeout(1500)
        comfy.shot(f"outcome of {kind}")
        assert comfy.cut_off(sentence) == 0


def test_what_a_node_has_done_stays_with_it(comfy: ComfyPage) -> None:
    """In another tab and back nodes are made anew; of a result that it still has the server says nothing."""
    comfy.load(graphs.ui(FIRST), FIRST)
    comfy.executed("ErasureRECE", ["Erased cat."])
    graph = comfy.page.evaluate("() => app.graph.serialize()")
    comfy.clear()
    comfy.load(graph, FIRST)
    assert comfy.values("ErasureRECE")["outcome"] == "Erased cat."
    (node,) = (one for one in graph["nodes"] if one["type"] == "ErasureRECE")
    node["widgets_values"][0] = "lion"
    comfy.load(graph, FIRST)
    assert "outcome" not in comfy.values("ErasureRECE"), "what was done was done with other values"


def test_a_cached_result_is_told_only_where_it_comes_from_the_same_nodes(comfy: ComfyPage) -> None:
    graph = graphs.ui(FIRST)
    comfy.load(graph, FIRST)
    comfy.executed("ErasureRECE", ["Erased cat."])
    graph = comfy.page.evaluate("() => app.graph.serialize()") | {"id": str(uuid.uuid4())}
    comfy.clear()
    comfy.load(graph, "another graph")
    assert "outcome" not in comfy.values("ErasureRECE"), "nothing has run here yet"
    comfy.cached("ErasureRECE")
    assert comfy.values("ErasureRECE")["outcome"] == "Erased cat."
    comfy.clear()
    comfy.add("ErasureRECE")
    comfy.set("ErasureRECE", "concepts", "cat -> dog")
    comfy.cached("ErasureRECE")
    assert "outcome" not in comfy.values("ErasureRECE"), "it was erased from a model, which this node has not"


def test_seeds_stay(comfy: ComfyPage) -> None:
    for node in ("ErasureAbO", "ErasureDoCo", "ErasureFewShot", "ErasureCompare", "ErasureReport", "ErasureRedTeam"):
        comfy.add(node)
        assert comfy.values(node)["control_after_generate"] == "fixed"


def test_graphs_of_earlier_versions_keep_their_values(comfy: ComfyPage) -> None:
    name = "learn-to-forget-abo"
    comfy.load(graphs.earlier(name), name)
    shown = comfy.values("ErasureAbO")
    wanted = graphs.api(name)["6"]["inputs"]
    assert {key: shown[key] for key in wanted if key in shown} == {key: wanted[key] for key in wanted if key in shown}
    assert shown["preset"] == "object (toy)"


def test_a_graph_saved_before_an_input_existed_means_what_it_meant(comfy: ComfyPage) -> None:
    graph = graphs.earlier("erase-an-object")
    (node,) = (one for one in graph["nodes"] if one["type"] == "ErasureRECE")
    node["widgets_values"][3] = "custom"
    node["widgets_values"] = node["widgets_values"][:-1]  # relative_ridge, and nothing behind it
    comfy.load(graph, "custom")
    shown = comfy.values("ErasureRECE")
    assert (shown["preset"], shown["relative_ridge"], shown["everyday_captions"]) == ("custom", 0, False)


def test_blueprints_are_offered_and_placed(comfy: ComfyPage) -> None:
    """A subgraph of nodes of the pack, whose fields are those of the nodes within."""
    for name, fields in {
        "All in one - erase and compare": {"concepts", "preserve", "preset", "prompts", "cfg"},
        "All in one - erase and save": {"concepts", "preserve", "preset", "strength", "filename_prefix"},
    }.items():
        comfy.clear()
        comfy.place(name)
        comfy.shot(name)
        shown = comfy.page.evaluate("() => app.graph._nodes[0].widgets.map((widget) => widget.name)")
        assert fields <= {widget.split(": ")[-1] for widget in shown}, (name, shown)
        assert comfy.page.evaluate("() => app.graph._nodes[0].isSubgraphNode()")


def test_what_a_blueprint_has_done_is_shown_at_it(comfy: ComfyPage) -> None:
    comfy.place("All in one - erase and save")
    comfy.page.evaluate(
        """async () => {
          const { api } = await import("/scripts/api.js")
          const outer = app.graph._nodes[0]
          for (const [type, text] of [["ErasureRECE", "Erased cat."], ["ErasureSave", "A path."]]) {
            const inner = outer.subgraph.nodes.find((node) => node.comfyClass === type)
            api.dispatchCustomEvent("executed", { node: `${outer.id}:${inner.id}`, output: { text: [text] } })
          }
        }"""
    )
    comfy.show(comfy.page.evaluate("() => app.graph._nodes[0].type"), (400, 150))
    comfy.shot("outcome of a blueprint")
    assert comfy.cut_off("Erased cat.\nA path.") == 0


def test_an_error_in_a_blueprint_is_shown_at_its_node(comfy: ComfyPage) -> None:
    """The server names a node in a subgraph by the path to it."""
    comfy.search("All in one - erase and save")
    comfy.page.keyboard.press("Enter")
    comfy.wait("() => app.graph._nodes.length === 1")
    shown = comfy.page.evaluate(
        """async () => {
          const { api } = await import("/scripts/api.js")
          const outer = app.graph._nodes[0]
          const inner = outer.subgraph.nodes.find((node) => node.comfyClass === "ErasureRECE")
          const detail = { node_id: `${outer.id}:${inner.id}`, node_type: inner.type, exception_message: "A reason." }
          api.dispatchCustomEvent("execution_error", { traceback: [], executed: [], ...detail })
          return [inner, outer].map((node) => node.widgets.find((widget) => widget.name === "outcome")?.value)
        }"""
    )
    assert shown == ["A reason.", "A reason."]
