import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { ComfyWidgets } from "../../scripts/widgets.js"
import { after, growToFit, inputOf, isOurs, widgetOf } from "./widgets.js"

const OUTCOME = "outcome"
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

const [LEAST, MOST, AROUND] = [50, 300, 30]

/** How high a text field must be, in pixels, to show its text whole in a node of that width. */
function heightOf(text, field, width) {
  const copy = document.createElement("textarea")
  copy.className = field?.className ?? ""
  Object.assign(copy.style, { position: "absolute", visibility: "hidden", height: "0", width: `${width - AROUND}px` })
  copy.value = text
  document.body.append(copy)
  const needed = copy.scrollHeight + AROUND
  copy.remove()
  return Math.min(Math.max(needed, LEAST), MOST)
}

const DRAWN = 200 // milliseconds

/** Nodes 2.0 draws a text field of its own, which gets the room that its text needs. */
function growDrawnField(node, text) {
  const fields = document.querySelectorAll(`[data-node-id="${node.id}"] textarea`)
  const field = [...fields].find((one) => one.value === text)
  if (!field) return
  field.style.minHeight = ""
  field.style.minHeight = `${Math.min(field.scrollHeight, MOST)}px`
}

/** What a node has done, in a text at the node; it is not saved with the graph. */
function showOutcome(node, text) {
  let widget = widgetOf(node, OUTCOME)
  if (!widget) {
    widget = ComfyWidgets.STRING(node, OUTCOME, ["STRING", { multiline: true }], app).widget
    widget.serialize = false
    widget.options.serialize = false
    widget.options.read_only = true
    if (widget.element) widget.element.readOnly = true
  }
  widget.value = text
  widget.options.getMinHeight = () => heightOf(text, widget.element, node.size[0])
  growToFit(node)
  node.setDirtyCanvas?.(true, true)
  setTimeout(() => growDrawnField(node, text), DRAWN)
}

/** The node that the server names by an id, or by a path such as "12:7" where it is in a subgraph. */
function nodeAt(path) {
  let graph = app.graph
  let node
  for (const id of String(path).split(":")) {
    node = graph?.getNodeById(Number(id))
    graph = node?.subgraph
  }
  return node
}

const within = new Map() // the subgraphs that have run: what their nodes have done, by their ids

/** What nodes in a subgraph have done is shown at the subgraph too. */
function followSubgraphs() {
  api.addEventListener("execution_start", () => within.clear())
  api.addEventListener("executed", ({ detail: { node: id, output } }) => {
    const [outer] = String(id).split(":")
    const graphNode = app.graph.getNodeById(Number(outer))
    if (outer === String(id) || !graphNode || !isOurs(nodeAt(id)) || !output?.text) return
    within.set(outer, { ...within.get(outer), [id]: output.text.join("\n") })
    showOutcome(graphNode, Object.values(within.get(outer)).join("\n"))
  })
}

const withErrors = new Set()

/** Why a node was refused or failed, at the node, until the next run. */
function showError(id, sentence) {
  const node = nodeAt(id)
  if (!isOurs(node)) return
  showOutcome(node, sentence.trim())
  withErrors.add(node)
}

function clearErrors() {
  for (const node of withErrors) showOutcome(node, "")
  withErrors.clear()
}

function showRefusals(nodeErrors) {
  for (const [id, { errors }] of Object.entries(nodeErrors ?? {})) {
    const refusal = errors.find((error) => error.type === "custom_validation_failed")
    if (refusal) showError(id, refusal.details.replace(`${refusal.extra_info?.input_name} - `, ""))
  }
}

function followErrors() {
  api.addEventListener("execution_start", clearErrors)
  api.addEventListener("execution_error", ({ detail }) => {
    showError(detail.node_id, detail.exception_message)
  })
  const queuePrompt = api.queuePrompt
  api.queuePrompt = async function (...values) {
    try {
      return await queuePrompt.apply(this, values)
    } catch (error) {
      showRefusals(error.response?.node_errors)
      throw error
    }
  }
}

/** Lists of files show what was saved, as after pressing R. */
const refreshLists = () => (app.reloadNodeDefs ? app.reloadNodeDefs() : app.refreshComboInNodes())

app.registerExtension({
  name: "concepterasure.nodes",

  setup() {
    followErrors()
    followSubgraphs()
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("Erasure")) return
    const executed = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (output) {
      executed?.apply(this, arguments)
      if (output?.text) showOutcome(this, output.text.join("\n"))
      if (output?.saved) refreshLists()
    }
  },

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
