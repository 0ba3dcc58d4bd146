"use strict";
// The viewer of a run's page: an image, a layer, a filter. What it shows stands in #gallery.
gallery = JSON.parse(document.getElementById("gallery")?.textContent ?? "null");

function describe(image) {
  const sure = image.probabilities.length ? Math.max(...image.probabilities) : null;
  return image.predicted ? `${image.predicted} ${percent(sure)}` : "";
}

const state = { image: 0, layer: 0, place: 0 };

function show() {
  const layer = gallery.layers[state.layer];
  const image = gallery.images[state.image];
  const press = (id, chosen) => [...document.getElementById(id).children].forEach(
    (button, i) => button.setAttribute("aria-pressed", String(i === chosen)));
  press("images", state.image);
  press("layer-names", state.layer);
  const ranked = image.probabilities.map((p, i) => [p, gallery.classes[i]]).sort((a, b) => b[0] - a[0]);
  document.getElementById("answer").textContent =
    (image.label ? `${image.label}, ${image.kind}. ` : "") +
    (ranked.length ? `The net says ${ranked.slice(0, 5).map(([p, name]) => `${name} ${percent(p)}`).join(", ")}. ` : "") +
    `${layer.path || "output"}: ${maps(layer)}.`;
  document.getElementById("maps").classList.toggle("few-maps", layer.shown.length <= 12);
  document.getElementById("maps").replaceChildren(
    ...buttons(layer, state.image, state.place, (place) => choose({ place })));
  document.getElementById("filter").replaceChildren(
    ...told(layer, state.image, state.place),
    ...(gallery.images.length > 1 ? [element("h4", {}, "Its map of each image"),
      element("div", { class: "few" }, ...gallery.images.map((one, i) => element(
        "figure", {}, map(layer, i, state.place), element("figcaption", {}, `${one.label}, ${one.kind}`))))] : []));
}

// The choice stands in the address, so that a page that loads itself again shows the same.
function choose(change) {
  Object.assign(state, change.layer === undefined ? {} : { place: 0 }, change);
  const words = new URLSearchParams(state).toString();
  try { history.replaceState(null, "", `#${words}`); } catch { /* a sandboxed page has no address */ }
  show();
  if (change.place !== undefined) bring(document.getElementById("filter"));
}

if (gallery) {
  for (const [key, text] of new URLSearchParams(location.hash.slice(1))) {
    if (key in state && /^\d+$/.test(text)) state[key] = Number(text);
  }
  state.image = Math.min(state.image, gallery.images.length - 1);
  state.layer = Math.min(state.layer, gallery.layers.length - 1);
  state.place = Math.min(state.place, gallery.layers[state.layer].shown.length - 1);
  document.getElementById("images").append(...gallery.images.map((image, i) => element(
    "button", { type: "button", onclick: () => choose({ image: i }) },
    element("img", { src: `data:image/jpeg;base64,${image.picture}`, alt: `${image.label}, ${image.kind}` }),
    `${image.label}, ${image.kind}`, element("br"),
    element("span", { class: image.label && image.predicted !== image.label ? "wrong" : "" }, describe(image)))));
  document.getElementById("layer-names").append(...gallery.layers.map((layer, i) => element(
    "button", { type: "button", onclick: () => choose({ layer: i }) }, layer.path || "output")));
  show();
}
