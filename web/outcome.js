import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { ComfyWidgets } from "../../scripts/widgets.js"
import { growToFit, inputOf, isOurs, widgetOf } from "./widgets.js"

/** What a node has done, or why it was refused, in a text at the node; it is not saved with the graph. */

const OUTCOME = "outcome"

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
  const height = heightOf(text, widget.element, node.size[0])
  widget.options.getMinHeight = () => height
  growToFit(node)
  node.setDirtyCanvas?.(true, true)
  setTimeout(() => growDrawnField(node, text), DRAWN)
}

/** What nodes have done in this session, by the graph and the node, and by what they were made from alone. */
const outcomes = new Map()

const valuesOf = (node) => (node.widgets ?? []).filter((one) => inputOf(node, one.name)).map((one) => one.value)

/** A node's values and those of all nodes before it, each once: what ComfyUI, too, knows a result by. */
function originOf(node) {
  const [before, found] = [new Map(), []]
  const visit = (one) => {
    if (!one) return null
    if (before.has(one)) return before.get(one)
    const place = before.size
    before.set(one, place)
    const inputs = (one.inputs ?? []).map((_, slot) => [visit(one.getInputNode(slot)), one.getInputLink(slot)?.origin_slot])
    found.push([place, one.comfyClass ?? one.type, valuesOf(one), inputs])
    return place
  }
  visit(node)
  return JSON.stringify(found)
}

const keysOf = (node) => {
  const origin = originOf(node)
  return [`${app.graph?.id} ${node.id} ${origin}`, origin]
}

function rememberOutcome(node, text) {
  for (const key of keysOf(node)) outcomes.set(key, text)
}

/** Another tab of the page, and back: the graph is the same, with nodes made anew. */
function restoreOutcome(node) {
  const text = outcomes.get(keysOf(node)[0])
  if (text) showOutcome(node, text)
}

/** The server says nothing of a node whose result it still has, from this graph or from another one. */
function followCache() {
  api.addEventListener("execution_cached", ({ detail }) => {
    for (const node of detail.nodes.map(nodeAt).filter(isOurs)) {
      const text = outcomes.get(keysOf(node)[1])
      if (text && widgetOf(node, OUTCOME)?.value !== text) showOutcome(node, text)
    }
  })
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
  if (!isOurs(nodeAt(id))) return
  for (const node of new Set([nodeAt(id), nodeAt(String(id).split(":")[0])])) {
    showOutcome(node, sentence.trim())
    withErrors.add(node)
  }
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
  name: "concepterasure.outcome",

  setup() {
    followErrors()
    followSubgraphs()
    followCache()
  },

  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("Erasure")) return
    const executed = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (output) {
      executed?.apply(this, arguments)
      if (output?.text) {
        showOutcome(this, output.text.join("\n"))
        rememberOutcome(this, output.text.join("\n"))
      }
      if (output?.saved) refreshLists()
    }
  },

  loadedGraphNode(node) {
    if (isOurs(node)) restoreOutcome(node)
  },
})
