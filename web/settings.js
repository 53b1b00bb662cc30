import { app } from "../../scripts/app.js"

/** What can be switched off in ComfyUI's settings, under "Concept Erasure". tools/make_locales.py reads the texts. */

export const OFFERS = "ConceptErasure.OfferNames"
export const LINE = "ConceptErasure.SayWhatIsErased"

export const isOn = (id) => app.extensionManager?.setting?.get(id) ?? true

const TEXTS = {
  "ConceptErasure.OfferNames": {
    name: "Offer names while typing",
    tooltip: "Below the fields of the nodes that erase: names that begin with what is typed, and a concept's other names.",
  },
  "ConceptErasure.SayWhatIsErased": {
    name: "Say at the node what it will erase",
    tooltip: "A line at the bottom of each node that erases. A change counts for nodes that are placed or opened afterwards.",
  },
}

const setting = ([id, texts]) =>
  ({ id, ...texts, type: "boolean", defaultValue: true, category: ["Concept Erasure", "Fields", id.split(".")[1]] })

app.registerExtension({ name: "concepterasure.settings", settings: Object.entries(TEXTS).map(setting) })
