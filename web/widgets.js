/** What the page code of the pack shares: its nodes, their inputs and their widgets. */

export const isOurs = (node) => node?.comfyClass?.startsWith("Erasure") ?? false

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** What an input of a node says of itself, by its name. */
export function inputOf(node, name) {
  const { required, optional } = node.constructor.nodeData?.input ?? {}
  return (required?.[name] ?? optional?.[name])?.[1]
}

/** Calls `act` each time that a widget's value has been changed. */
export function after(widget, act) {
  const before = widget.callback
  widget.callback = function (...values) {
    const result = before?.apply(this, values)
    act()
    return result
  }
}

/** Makes a node as large as its widgets need. */
export function growToFit(node) {
  const least = node.computeSize()
  node.setSize([Math.max(node.size[0], least[0]), Math.max(node.size[1], least[1])])
}

/** What the pack's server answers; nothing where it has no such route, as before a restart of ComfyUI. */
export async function ask(api, question, members) {
  const headers = { "Content-Type": "application/json" }
  const options = { method: "POST", headers, body: JSON.stringify(members) }
  try {
    const response = await api.fetchApi(`/concept_erasure/${question}`, options)
    return response.ok ? await response.json() : null
  } catch {
    return null
  }
}
