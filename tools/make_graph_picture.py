"""Run the first workflow in a real ComfyUI, and photograph its graph for README: docs/graph.webp.

    python tools/make_graph_picture.py

Needs Chromium and the extra "browser"; COMFYUI_PATH should name a ComfyUI from 0.33 on, for its newer look.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from get_chromium import chromium
from get_comfyui import ROOT, comfyui
from PIL import Image

sys.path[:0] = [str(ROOT / "tests" / one) for one in ("host", "browser")]

import graphs  # noqa: E402
from comfy_page import ComfyPage, extent, picture_of  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402

NAME, OUT = "01 Erase an object", ROOT / "docs" / "graph.webp"
VIEW = {"width": 1900, "height": 1300}  # pixels of the page: room for the graph at its full size
LEFT, TOP, MARGIN = 120, 120, 24  # pixels: where the graph stands in the page, and what is left around it
QUALITY = 88
QUIET = 10_000  # milliseconds until the host's notice of a finished run is gone
GAP = 34  # pixels between nodes
COLUMNS = (  # each one's width in pixels, and its nodes from the top
    (270, ("ErasureLoadToy", "RepeatLatentBatch", "ErasureSave")),
    (330, ("ErasureRECE",)),
    (330, ("ErasureCompare",)),
    (360, ("PreviewImage",)),
)
CLEAR = """() => {
  [...app.graph._groups].forEach((group) => app.graph.remove(group))
  app.graph._nodes.filter((node) => node.type === 'MarkdownNote').forEach((node) => app.graph.remove(node))
}"""
HEIGHTS = {"ErasureSave": 300, "PreviewImage": 700}  # pixels, of those that are not as high as they open
PLACE = """([type, x, y, width, height]) => {
  const node = app.graph._nodes.find((node) => node.type === type)
  node.pos = [x, y]
  node.setSize([width, height ?? node.size[1]])
  app.canvas.setDirty(true, true)
}"""
SHOW = """([left, top]) => {
  const canvas = app.canvas.canvas.getBoundingClientRect()
  Object.assign(app.canvas.ds, { scale: 1, offset: [left - canvas.left, top - canvas.top] })
  app.canvas.setDirty(true, true)
}"""


def arrange(page: ComfyPage) -> None:
    """Put the nodes into narrow columns, without the note and the frames."""
    page.page.evaluate(CLEAR)
    x = 0
    for width, types in COLUMNS:
        y = 0
        for kind in types:
            page.page.evaluate(PLACE, [kind, x, y, width, HEIGHTS.get(kind)])
            page.page.wait_for_timeout(500)
            (height,) = (box["height"] for box in page.boxes() if box["type"] == kind)
            y += height + GAP
        x += width + GAP


def photograph(page: ComfyPage) -> Image.Image:
    """Return a picture of the graph after a run, cut out of the page."""
    page.page.set_viewport_size(VIEW)
    page.load(graphs.ui(NAME), NAME)
    page.run()
    page.wait(picture_of("PreviewImage"))
    page.says("As a LoRA")
    arrange(page)
    boxes = page.boxes()
    x, y = (min(box[side] for box in boxes) for side in "xy")
    page.page.evaluate(SHOW, [LEFT - x, TOP - y])
    page.page.wait_for_timeout(QUIET)
    width, height = extent(boxes)
    clip = {"x": LEFT - MARGIN, "y": TOP - MARGIN, "width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
    return Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        with ComfyServer(comfyui(), Path(temporary, "ComfyUI")) as server:
            photograph(ComfyPage(server, browser, "vue", Path(temporary))).save(OUT, quality=QUALITY, method=6)
        browser.close()
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
