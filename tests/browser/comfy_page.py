"""ComfyUI's page, as far as the tests act on it."""

from __future__ import annotations

import json
import os
import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_server import ROOT, ComfyServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / "build" / "comfyui").expanduser()
FRONTEND = os.environ.get("FRONTEND_PATH") and str(Path(os.environ["FRONTEND_PATH"]).expanduser().resolve())
"""The folder of another frontend than the host's own: ``static`` of the package comfyui-frontend-package."""
READY = "(ids) => window.app?.graph && ids.every((id) => LiteGraph.registered_node_types[id])"
SLOW = 180_000  # milliseconds
BOXES = """(renderer) => {
  const title = LiteGraph.NODE_TITLE_HEIGHT
  const scale = app.canvas.ds.scale
  return app.graph._nodes.map((node) => {
    const shown = renderer == 'vue' && document.querySelector(`[data-node-id="${node.id}"]`)
    const [x, y] = node.pos
    const [width, height] = shown
      ? [shown.offsetWidth, shown.offsetHeight] : [node.size[0], Math.max(node.size[1], node.computeSize()[1]) + title]
    return { name: `${node.id} ${node.title}`, x, y: y - title, width, height, type: node.type }
  })
}"""
GROUPS = """() => app.graph._groups.map((group) => ({
  name: `group ${group.title}`, x: group.pos[0], y: group.pos[1], width: group.size[0], height: group.size[1] }))"""

LINE = """() => app.graph._nodes.flatMap((node) => node.widgets ?? [])
  .find((widget) => widget.name === 'announcement')?.element.textContent"""


def version() -> str:
    """The version of the ComfyUI that is tested."""
    return re.search(r'"(.+)"', (COMFYUI / "comfyui_version.py").read_text(encoding="utf-8"))[1]


def is_newer() -> bool:
    """Whether it has Nodes 2.0, advanced inputs, and searches nodes by their aliases."""
    return tuple(map(int, version().split(".")[:2])) >= (0, 33)


class ComfyPage:
    """A page that shows one graph. ``errors`` are what it printed as errors since it was cleared."""

    def __init__(self, server: ComfyServer, browser: Browser, renderer: str, shots: Path):
        self.server, self.renderer, self.shots = server, renderer, shots
        shots.mkdir(parents=True, exist_ok=True)
        settings = {
            "Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": renderer == "vue",
            "Comfy.Graph.CanvasInfo": False, "Comfy.Minimap.Visible": False,
        }  # fmt: skip
        server.request("/settings", settings)
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": 1600, "height": 950})
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(server.url, timeout=SLOW)
        self.page.wait_for_function(READY, arg=list(server.object_info()), timeout=SLOW)
        self.page.wait_for_timeout(2000)

    def close(self) -> None:
        self.page.close()

    def clear(self) -> None:
        """Begin with an empty graph, of an id of its own: newer frontends keep widgets' values by graph and node."""
        self.page.keyboard.press("Escape")
        self.page.evaluate("() => { app.graph.clear(); app.graph.id = crypto.randomUUID() }")
        self.errors.clear()

    def load(self, graph: dict[str, Any], name: str) -> None:
        """Open a workflow, as the template browser does."""
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])
        self.page.wait_for_timeout(1500)
        self.page.keyboard.press("Escape")
        self.page.evaluate("() => app.canvas.setDirty(true, true)")
        self.page.wait_for_timeout(500)

    def shot(self, name: str) -> Path:
        """Write what is to be seen to a file."""
        path = self.shots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def fit(self) -> None:
        """Show the whole graph."""
        self.page.evaluate(
            """() => {
              const boxes = app.graph._nodes.map(({ pos, size }) => [...pos, pos[0] + size[0], pos[1] + size[1]])
              const [left, top] = [0, 1].map((side) => Math.min(...boxes.map((box) => box[side])))
              const [right, bottom] = [2, 3].map((side) => Math.max(...boxes.map((box) => box[side])))
              const scale = Math.min(1480 / (right - left + 60), 820 / (bottom - top + 160), 1)
              Object.assign(app.canvas.ds, { scale })
              app.canvas.ds.offset = [70 / scale - left + 20, 70 / scale - top + 90]
              app.canvas.setDirty(true, true)
            }"""
        )
        self.page.wait_for_timeout(1200)

    def boxes(self) -> list[dict[str, Any]]:
        """The rectangles of all nodes with their titles, in the graph's pixels."""
        return self.page.evaluate(BOXES, self.renderer)

    def groups(self) -> list[dict[str, Any]]:
        return self.page.evaluate(GROUPS)

    def missing(self) -> list[str]:
        """The nodes whose type the host does not know."""
        return self.page.evaluate(
            "() => app.graph._nodes.map((node) => node.type).filter((type) => !LiteGraph.registered_node_types[type])"
        )

    def set(self, node: str, widget: str, value: Any) -> None:
        """Set a widget of the first node of a type, as typing does."""
        self.page.evaluate(
            """([type, name, value]) => {
              const node = app.graph._nodes.find((node) => node.type === type)
              const widget = node.widgets.find((widget) => widget.name === name)
              widget.value = value
              widget.callback?.(value)
            }""",
            [node, widget, value],
        )

    def values(self, node: str) -> dict[str, Any]:
        """The widgets' values of the first node of a type."""
        return self.page.evaluate(
            """(type) => {
              const node = app.graph._nodes.find((node) => node.type === type)
              return Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value]))
            }""",
            node,
        )

    def add(self, node: str) -> None:
        self.page.evaluate(
            "(type) => { const node = LiteGraph.createNode(type); node.pos = [0, 1300]; app.graph.add(node) }", node
        )

    def switch(self, setting: str, on: bool) -> None:
        """Change one of the settings that the user sees."""
        shown = self.page.evaluate("(id) => app.ui.settings.settingsLookup[id]?.name ?? null", setting)
        assert shown, f"{setting} is no setting"
        self.page.evaluate("([id, on]) => app.extensionManager.setting.set(id, on)", [setting, on])

    def executed(self, node: str, text: list[str]) -> None:
        """Let the first node of a type have run, with what it has to say."""
        self.page.evaluate(
            "([type, text]) => app.graph._nodes.find((node) => node.type === type).onExecuted({ text })", [node, text]
        )

    def cached(self, node: str) -> None:
        """Let the server say that it still has the result of the first node of a type."""
        self.page.evaluate(
            """async (type) => {
              const { api } = await import("/scripts/api.js")
              const { id } = app.graph._nodes.find((node) => node.type === type)
              api.dispatchCustomEvent("execution_cached", { nodes: [String(id)] })
            }""",
            node,
        )

    def cut_off(self, sentence: str) -> int:
        """How many pixels of the text field that holds a sentence can only be scrolled to."""
        return self.page.evaluate(
            """(sentence) => {
              const shown = [...document.querySelectorAll("textarea")].find(
                (field) => field.value.includes(sentence) && field.clientHeight)
              return shown.scrollHeight - shown.clientHeight
            }""",
            sentence,
        )

    def show(self, node: str, place: tuple[int, int]) -> None:
        """Show the first node of a type at its size, with its corner at a place of the page."""
        self.page.evaluate(
            """([type, x, y]) => {
              const [left, top] = app.graph._nodes.find((node) => node.type === type).pos
              const canvas = app.canvas.canvas.getBoundingClientRect()
              Object.assign(app.canvas.ds, { scale: 1, offset: [x - canvas.left - left, y - canvas.top - top] })
              app.canvas.setDirty(true, true)
            }""",
            [node, *place],
        )
        self.page.wait_for_timeout(1000)

    def focus(self, node: str, widget: str) -> None:
        """Click into a text field of the first node of a type; the classic canvas opens a dialog for a single line."""
        element = self.page.evaluate_handle(
            """([type, name]) => {
              const node = app.graph._nodes.find((node) => node.type === type)
              const widget = node.widgets.find((widget) => widget.name === name)
              const drawn = [...document.querySelectorAll(`[data-node-id="${node.id}"] :is(input, textarea)`)]
              const own = drawn.find((one) => [one.ariaLabel, one.labels?.[0]?.textContent.trim()].includes(name))
              return own ?? (widget.element?.isConnected ? widget.element : [node, widget])
            }""",
            [node, widget],
        )
        if field := element.as_element():
            field.click()
            return
        x, y = element.evaluate(
            """([node, widget]) => {
              const [left, top] = app.canvas.ds.convertOffsetToCanvas([node.pos[0], node.pos[1] + widget.last_y])
              const canvas = app.canvas.canvas.getBoundingClientRect()
              return [canvas.left + left + node.size[0] / 2, canvas.top + top + 10]
            }"""
        )
        self.page.mouse.click(x, y)
        self.page.wait_for_selector(".graphdialog input")

    def line(self) -> str | None:
        """What the node says that it will do; None without a line."""
        return self.page.evaluate(LINE)

    def line_says(self, sentence: str) -> None:
        self.wait(f"(sentence) => ({LINE})()?.includes(sentence)", sentence, 20_000)

    def search(self, words: str) -> None:
        """Open the box that searches nodes, and type."""
        self.page.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        self.page.wait_for_timeout(1500)
        self.page.keyboard.type(words)
        self.page.wait_for_timeout(1500)

    def place(self, blueprint: str) -> None:
        """Search for a subgraph blueprint and put it into the empty graph.

        On newer hosts it follows the pointer until it is put down.
        """
        self.search(blueprint)
        self.says(blueprint)
        self.page.keyboard.press("Enter")
        self.wait("() => app.graph._nodes.length === 1")
        if self.page.evaluate("() => app.graph._nodes[0].flags.ghost ?? false"):
            self.page.mouse.move(500, 300)
            self.page.mouse.move(700, 200, steps=5)
            self.page.wait_for_timeout(500)
            self.page.mouse.down()
            self.page.mouse.up()

    def remove(self, node: str) -> None:
        self.page.evaluate("(type) => app.graph.remove(app.graph._nodes.find((node) => node.type === type))", node)

    def run(self) -> None:
        """Press Run."""
        self.page.evaluate("() => { app.queuePrompt(0, 1) }")

    def wait(self, condition: str, argument: Any = None, timeout: int = SLOW) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=timeout)

    def says(self, sentence: str) -> None:
        """Wait until a sentence is to be read on the page, in texts or in fields."""
        self.wait(
            """(sentence) => document.body.innerText.includes(sentence)
              || [...document.querySelectorAll('textarea')].some((area) => area.value.includes(sentence))""",
            sentence,
        )


def overlaps(nodes: list[dict[str, Any]], groups: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The pairs of nodes that cover each other, and of nodes that a group's frame cuts."""
    cut = [(a["name"], b["name"]) for a, b in combinations(nodes, 2) if _meet(a, b)]
    cut += [
        (group["name"], node["name"])
        for group in groups
        for node in nodes
        if _meet(group, node) and not _in(group, node)
    ]
    return cut + [(a["name"], b["name"]) for a, b in combinations(groups, 2) if _meet(a, b)]


def extent(nodes: list[dict[str, Any]]) -> tuple[float, float]:
    """The width and the height of a graph."""
    sides = (("x", "width"), ("y", "height"))
    width, height = (max(n[at] + n[size] for n in nodes) - min(n[at] for n in nodes) for at, size in sides)
    return width, height


def _meet(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(
        a[side] < b[side] + b[size] and b[side] < a[side] + a[size] for side, size in (("x", "width"), ("y", "height"))
    )


def _in(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    return all(
        outer[side] <= inner[side] and inner[side] + inner[size] <= outer[side] + outer[size]
        for side, size in (("x", "width"), ("y", "height"))
    )


def picture_of(kind: str) -> str:
    """A condition: a node of this type shows a picture that has been loaded."""
    return (
        f"() => app.graph._nodes.some((node) => node.type === {json.dumps(kind)} && "
        "(node.imgs?.some((image) => image.naturalWidth > 0) "
        "|| Object.values(app.nodeOutputs ?? {}).some((output) => output?.images?.length)))"
    )
