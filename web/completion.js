import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { OFFERS, isOn } from "./settings.js"
import { ask, inputOf, isOurs } from "./widgets.js"

/** Names to choose from below a field of ours while one types: arrows choose, Enter and Tab take, Escape closes. */

const DELAY = 120 // milliseconds after a key
const GAP = 2 // pixels between the field and the list
const STYLE = `
  .erasure-names { position: fixed; z-index: 100000; margin: 0; padding: 2px 0; list-style: none; overflow-y: auto;
    max-height: 300px; max-width: 480px; font: 12px sans-serif; color: var(--input-text, #ddd);
    background: var(--comfy-menu-bg, #353535); border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px }
  .erasure-names li { display: flex; gap: 16px; justify-content: space-between; padding: 3px 8px; cursor: pointer }
  .erasure-names li > span:last-child { color: var(--descrip-text, #999); white-space: nowrap }
  .erasure-names li[aria-selected=true] { background: var(--comfy-input-bg, #222) }`

let list // of names, in the page
let field = null // that the list belongs to, while it is open
let offers = []
let completed = {} // the text before and behind the caret that the offers complete
let chosen = -1
let asked = 0 // how often names were asked for: only the last answer counts
const dialogs = new WeakMap() // of the classic canvas: the node and the widget that each edits

/** The node and the widget that an element edits: of the classic canvas, of Nodes 2.0, or in the classic dialog. */
function edited(element) {
  const dialog = element.closest(".graphdialog")
  if (dialog) return dialogs.get(dialog) ?? []
  const graph = app.canvas?.graph ?? app.graph
  const box = element.closest("[data-node-id]")
  if (box) {
    const node = graph.getNodeById(box.dataset.nodeId)
    const label = element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent.trim()
    return [node, node?.widgets?.find((one) => one.element === element || [one.name, one.label].includes(label))]
  }
  const owns = (one) => one.element === element
  const node = graph?._nodes.find((node) => node.widgets?.some(owns))
  return [node, node?.widgets.find(owns)]
}

/** What the field of a node of ours, or of a subgraph that shows one of ours within, offers; nothing for other fields. */
function completedBy(element) {
  if (!["TEXTAREA", "INPUT"].includes(element.tagName)) return null
  const [node, widget] = edited(element)
  if (!widget) return null
  const within = node.isSubgraphNode?.() ? node.subgraph.nodes : [node]
  const name = widget.name.split(": ").at(-1)
  return within.filter(isOurs).map((one) => inputOf(one, name)?.completed).find(Boolean)
}

function close() {
  asked += 1
  if (!field) return
  field.removeAttribute("aria-activedescendant")
  field = null
  list.hidden = true
}

const around = ({ value, selectionStart, selectionEnd }) =>
  ({ before: value.slice(0, selectionStart), after: value.slice(selectionEnd) })

/** Whether the offers are for the field as it is; while one types on they are not, until new ones come. */
function areFor(element) {
  const { before, after } = around(element)
  return field === element && before === completed.before && after === completed.after
}

async function offer(element, { listing }) {
  const mine = ++asked
  await new Promise((resolve) => setTimeout(resolve, DELAY))
  if (mine !== asked) return
  const text = around(element)
  const caret = element.selectionStart === element.selectionEnd
  const names = caret && (await ask(api, "completions", { ...text, listing }))
  if (mine !== asked) return
  close()
  if (names?.length && document.activeElement === element) open(element, names, text)
}

function open(element, names, text) {
  field = element
  offers = names
  completed = text
  list.replaceChildren(...names.map(row))
  list.hidden = false
  const { left, top, bottom } = element.getBoundingClientRect()
  const { offsetWidth: width, offsetHeight: height } = list
  const above = bottom + GAP + height > window.innerHeight && top > height
  list.style.left = `${Math.max(0, Math.min(left, window.innerWidth - width))}px`
  list.style.top = `${above ? top - GAP - height : Math.max(0, Math.min(bottom + GAP, window.innerHeight - height))}px`
  for (const [name, value] of Object.entries({ autocomplete: "list", controls: list.id }))
    element.setAttribute(`aria-${name}`, value)
  choose(-1)
}

function row({ name, note }, index) {
  const item = document.createElement("li")
  item.id = `${list.id}-${index}`
  item.role = "option"
  item.append(...[name, note].map((text) => Object.assign(document.createElement("span"), { textContent: text })))
  item.addEventListener("pointerdown", (event) => {
    event.preventDefault() // so that the field keeps the focus
    if (areFor(field)) take(index)
  })
  return item
}

function choose(index) {
  chosen = index
  for (const [place, item] of [...list.children].entries()) item.ariaSelected = String(place === index)
  list.children[index]?.scrollIntoView({ block: "nearest" })
  if (index < 0) field.removeAttribute("aria-activedescendant")
  else field.setAttribute("aria-activedescendant", list.children[index].id)
}

/** Puts the line with the chosen name in place of the caret's line, so that undoing gives the old one back. */
function take(index) {
  const { before, after } = offers[index]
  const element = field
  const { value, selectionStart } = element
  const start = value.lastIndexOf("\n", selectionStart - 1) + 1
  const end = value.indexOf("\n", selectionStart)
  element.setSelectionRange(start, end < 0 ? value.length : end)
  if (!document.execCommand("insertText", false, before + after)) {
    element.setRangeText(before + after)
    element.dispatchEvent(new Event("input", { bubbles: true }))
  }
  element.setSelectionRange(start + before.length, start + before.length)
  close()
}

const KEYS = {
  ArrowDown: () => choose(chosen + 1 < offers.length ? chosen + 1 : -1),
  ArrowUp: () => choose((chosen < 0 ? offers.length : chosen) - 1),
  Enter: () => chosen >= 0 && take(chosen),
  Tab: () => chosen >= 0 && take(chosen),
  Escape: close,
}

function onKey(event) {
  const { key, target } = event
  const offered = key === " " && event.ctrlKey && isOn(OFFERS) && completedBy(target)
  if (offered) offer(target, offered)
  else if (field !== target || !KEYS[key] || event.isComposing) return
  else if ((key !== "Escape" && !areFor(target)) || KEYS[key]() === false) return
  event.preventDefault()
  event.stopImmediatePropagation()
}

function onInput({ target }) {
  const offered = isOn(OFFERS) && completedBy(target)
  if (offered) offer(target, offered)
}

/** The classic canvas edits a field of one line in a dialog that does not say whose it is. */
function remember(node) {
  for (const widget of node.widgets ?? []) {
    if (!inputOf(node, widget.name)?.completed || !widget.onClick) continue
    const click = widget.onClick
    widget.onClick = function (...values) {
      const result = click.apply(this, values)
      const opened = [...document.querySelectorAll(".graphdialog")].at(-1)
      if (opened) dialogs.set(opened, [node, widget])
      return result
    }
  }
}

app.registerExtension({
  name: "concepterasure.completion",

  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }))
    list = Object.assign(document.createElement("ul"), { id: "erasure-names", className: "erasure-names", hidden: true })
    list.role = "listbox"
    document.body.append(list)
    document.addEventListener("input", onInput, true)
    document.addEventListener("keydown", onKey, true)
    document.addEventListener("focusout", close, true)
    document.addEventListener("wheel", (event) => list.contains(event.target) || close(), { capture: true, passive: true })
  },

  nodeCreated(node) {
    if (isOurs(node)) remember(node)
  },
})
