import { app } from "../../scripts/app.js"
import { after, inputOf, isOurs, widgetOf } from "./widgets.js"

const CUSTOM = "custom"
const CONTROL = "control_after_generate"

/** The host's default is a new seed for each run, with which a training would start again each time. */
function fixSeed(node) {
  const control = widgetOf(node, CONTROL)
  if (control) control.value = "fixed"
}

/** The numbers of a node that has presets are those of its preset; a number that is changed makes it "custom". */
function showPreset(node, presets) {
  const preset = widgetOf(node, "preset")
  for (const [name, value] of Object.entries(presets[preset.value] ?? {})) {
    const widget = widgetOf(node, name)
    if (widget) widget.value = value
  }
}

function followPreset(node, presets) {
  const preset = widgetOf(node, "preset")
  after(preset, () => showPreset(node, presets))
  for (const name of Object.keys(Object.values(presets)[0])) {
    const widget = widgetOf(node, name)
    if (!widget) continue
    after(widget, () => {
      const shown = presets[preset.value]
      if (shown && shown[name] !== widget.value) preset.value = CUSTOM
    })
  }
  showPreset(node, presets)
}

/** A graph that was saved before an input existed means what the node did then. */
const BEFORE = { relative_ridge: 0, everyday_captions: false }

function fillMissing(node) {
  if (!Array.isArray(node.widgets_values)) return
  for (const widget of node.widgets.slice(node.widgets_values.length)) {
    if (widget.name in BEFORE) widget.value = BEFORE[widget.name]
  }
}

app.registerExtension({
  name: "concepterasure.nodes",

  nodeCreated(node) {
    if (!isOurs(node)) return
    fixSeed(node)
    const presets = presetsOf(node)
    if (presets) followPreset(node, presets)
  },

  loadedGraphNode(node) {
    if (!isOurs(node)) return
    fillMissing(node)
    const presets = presetsOf(node)
    if (presets) showPreset(node, presets)
  },
})

const presetsOf = (node) => inputOf(node, "preset")?.presets
