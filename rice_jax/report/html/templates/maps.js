"use strict";
// Feature maps as elements of a page; `gallery` holds what feature_maps.json does, and more.
let gallery = null;
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

// What is neither nothing nor all is not rounded to it.
function percent(share) {
  const text = (100 * share).toFixed(1);
  const told = share > 0 && Number(text) === 0 ? "< 0.1" : share < 1 && Number(text) === 100 ? "> 99.9" : text;
  return `${told}\u00a0%`;
}

function brief(number) {
  const size = Math.abs(number);
  if (size >= 1e9 || (size > 0 && size < 1e-4)) return number.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return number.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function maps(layer) {
  return `${layer.filters.toLocaleString("en")} map${layer.filters === 1 ? "" : "s"} of ${layer.size.join(" x ")}`;
}

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

function facts(layer, image, place) {
  const fate = layer.fates?.[place];
  const rows = [
    ["values", range(layer, image, place)],
    ["share of zeros", layer.zeros?.[place] === undefined || layer.zeros[place] === null ? null
      : `${percent(layer.zeros[place])} of its values on all clean test images`],
    ["state", fate ? gallery.words[fate] : null],
    ["costs", layer.flops === undefined ? null
      : `${quantity(layer.flops)} FLOPs (study) and ${quantity(layer.params)} parameters, an equal share of its layer's`],
    ["to remove it", fate && layer.path ? `rice-jax prune with --filters=${layer.path}:${layer.shown[place]}` : null],
  ];
  return element("dl", {}, ...rows.filter(([, text]) => text).flatMap(
    ([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

// What there is to tell of a filter.
function told(layer, image, place) {
  const kernel = layer.kernel ? kernels(layer, place) : null;
  const strongest = kernel && `strongest weight ±${brief(layer.kernel.scale[place])}; blue below 0, orange above`;
  return [
    element("h3", {}, `Filter ${layer.shown[place]} of ${layer.path || "output"}`),
    element("div", { class: "large" }, map(layer, image, place)),
    facts(layer, image, place),
    ...(kernel ? [
      element("h4", {}, kernel.length < layer.kernel.inputs
        ? `Its kernel, the ${kernel.length} strongest of ${layer.kernel.inputs} inputs (${strongest})`
        : `Its kernel (${strongest})`),
      element("div", { class: "few" }, ...kernel)] : [])];
}

// A button for each map of a layer; `chosen` is the place that is pressed.
function buttons(layer, image, chosen, onclick) {
  return layer.shown.map((filter, place) => element(
    "button", { type: "button", "aria-pressed": String(place === chosen), onclick: () => onclick(place),
      title: layer.fates ? gallery.words[layer.fates[place]] : null },
    map(layer, image, place), element("b", {}, `${filter} `), range(layer, image, place)));
}

// What is told of a filter stands below the maps on a narrow screen.
function bring(element) {
  if (element.getBoundingClientRect().top > innerHeight - 200) element.scrollIntoView({ block: "start" });
}
