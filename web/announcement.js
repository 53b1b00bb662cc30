import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { LINE, isOn } from "./settings.js"
import { after, ask, growToFit, inputOf, isOurs } from "./widgets.js"

/** A line at a node that says what it will erase and preserve, or what is wrong with the fields. */

const DELAY = 300 // milliseconds after a change
const [HEIGHT, MARGIN] = [40, 4] // pixels, of two lines
const STYLE = `
  .erasure-line { box-sizing: border-box; width: 100%; height: 100%; padding: 0 6px; overflow-y: auto; font: 12px/16px
    sans-serif; color: var(--descrip-text, #999); overflow-wrap: anywhere }
  .erasure-line.wrong { color: var(--error-text, #ff4444) }`

const erases = (node) => isOurs(node) && node.widgets?.some((widget) => inputOf(node, widget.name)?.erases)

function addLine(node) {
  const line = Object.assign(document.createElement("div"), { className: "erasure-line" })
  line.role = "status"
  const widget = node.addDOMWidget("announcement", "erasure_line", line, {
    serialize: false, margin: MARGIN, getMinHeight: () => HEIGHT, getMaxHeight: () => HEIGHT,
    getValue: () => "", setValue: () => {},
  })
  widget.serialize = false
  growToFit(node)
  return line
}

/** What nodes without anything to announce tell before they run. */
const HINTS = { ErasureLoadToy: "For KSampler: LATENT (64 x 64 pixels), and cfg 3." }

function follow(node) {
  const named = node.widgets.filter((widget) => inputOf(node, widget.name))
  const line = addLine(node)
  let asked = 0
  const announce = async () => {
    const mine = ++asked
    await new Promise((resolve) => setTimeout(resolve, DELAY))
    if (mine !== asked) return
    const values = Object.fromEntries(named.map((widget) => [widget.name, widget.value]))
    const linked = node.inputs.filter((input) => input.link != null).map((input) => input.name)
    const answer = await ask(api, "announcement", { values, linked })
    if (mine !== asked) return
    line.textContent = answer?.text ?? ""
    line.classList.toggle("wrong", answer?.wrong ?? false)
  }
  for (const widget of named) after(widget, announce)
  const connected = node.onConnectionsChange
  node.onConnectionsChange = function (...values) {
    announce()
    return connected?.apply(this, values)
  }
  const configured = node.onConfigure
  node.onConfigure = function (...values) {
    announce()
    return configured?.apply(this, values)
  }
  announce()
}

app.registerExtension({
  name: "concepterasure.announcement",

  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }))
  },

  nodeCreated(node) {
    if (!isOn(LINE)) return
    if (erases(node)) follow(node)
    else if (node.comfyClass in HINTS) addLine(node).textContent = HINTS[node.comfyClass]
  },
})
