"use strict";
// The viewer of feature maps: an image, a layer, a filter. What it shows stands in #gallery.
const gallery = JSON.parse(document.getElementById("gallery")?.textContent ?? "null");
const sprites = new Map();

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.onclick = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const brief = (number) => Number(number.toPrecision(3)).toLocaleString("en");

function quantity(number) {
  const [scale, prefix] = [[1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([s]) => number >= s) ?? [1, ""];
  return `${brief(number / scale)}${prefix}`;
}

async function sprite(text) {
  if (!sprites.has(text)) {
    const picture = new Image();
    picture.src = `data:image/png;base64,${text}`;
    sprites.set(text, picture.decode().then(() => picture));
  }
  return sprites.get(text);
}

// The map of the filter at `place` of the layer's list, for the image of that number.
function map(layer, image, place) {
  const [height, width] = layer.drawn;
  const canvas = element("canvas", { width, height });
  sprite(layer.sprites[image]).then((picture) => {
    const left = (place % layer.columns) * width;
    const top = Math.floor(place / layer.columns) * height;
    canvas.getContext("2d").drawImage(picture, left, top, width, height, 0, 0, width, height);
    canvas.dataset.drawn = "yes";
  });
  return element("div", { class: `map ${layer.fates?.[place] ?? ""}` }, canvas);
}

function range(layer, image, place) {
  const ends = layer.ranges[image][place];
  if (!ends) return "not finite";
  return ends[0] === ends[1] ? `all ${brief(ends[0])}` : `${brief(ends[0])} to ${brief(ends[1])}`;
}

// A kernel as one picture for each input: blue below 0, orange above.
function kernels(layer, place) {
  const { size: [height, width], of, scale, values } = layer.kernel;
  const bytes = Int8Array.from(atob(values), (letter) => letter.charCodeAt(0));
  const area = height * width;
  return of[place].map((input, number) => {
    const canvas = element("canvas", { width, height });
    const pixels = new ImageData(width, height);
    const from = (place * of[place].length + number) * area;
    for (let i = 0; i < area; i++) {
      const share = bytes[from + i] / 127;
      const color = share < 0 ? [0, 114, 178] : [213, 94, 0];
      color.forEach((c, k) => { pixels.data[4 * i + k] = 255 + (c - 255) * Math.abs(share); });
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    const name = layer === gallery.layers[0] && layer.kernel.inputs === 3 ? ["red", "green", "blue"][input] : `input ${input}`;
    return element("figure", {}, canvas, element("figcaption", {}, name));
  });
}

function facts(layer, place) {
  const fate = layer.fates?.[place];
  const rows = [
    ["values", range(layer, state.image, place)],
    ["share of zeros", layer.zeros?.[place] === undefined || layer.zeros[place] === null ? null
      : `${percent(layer.zeros[place])} of all clean test images`],
    ["state", fate ? gallery.words[fate] : null],
    ["costs", layer.flops === undefined ? null
      : `${quantity(layer.flops)} FLOPs (study) and ${quantity(layer.params)} parameters, an equal share of its layer's`],
  ];
  return element("dl", {}, ...rows.filter(([, text]) => text).flatMap(
    ([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

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
    `${layer.path || "output"}: ${layer.filters} maps of ${layer.size.join(" x ")}.`;
  document.getElementById("maps").classList.toggle("few-maps", layer.shown.length <= 12);
  document.getElementById("maps").replaceChildren(...layer.shown.map((filter, place) => element(
    "button", { type: "button", "aria-pressed": String(place === state.place), onclick: () => choose({ place }),
      title: layer.fates ? gallery.words[layer.fates[place]] : null },
    map(layer, state.image, place), element("b", {}, `${filter} `), range(layer, state.image, place))));
  const kernel = layer.kernel ? kernels(layer, state.place) : null;
  document.getElementById("filter").replaceChildren(
    element("h3", {}, `Filter ${layer.shown[state.place]} of ${layer.path || "output"}`),
    element("div", { class: "large" }, map(layer, state.image, state.place)),
    facts(layer, state.place),
    ...(kernel ? [element("h4", {}, kernel.length < layer.kernel.inputs
      ? `Its kernel, the ${kernel.length} strongest of ${layer.kernel.inputs} inputs (strongest weight ±${brief(layer.kernel.scale[state.place])})`
      : `Its kernel (strongest weight ±${brief(layer.kernel.scale[state.place])}; blue below 0, orange above)`),
      element("div", { class: "few" }, ...kernel)] : []),
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
  const told = document.getElementById("filter");  // below the maps on a narrow screen
  if (change.place !== undefined && told.getBoundingClientRect().top > innerHeight - 200) {
    told.scrollIntoView({ block: "start" });
  }
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
