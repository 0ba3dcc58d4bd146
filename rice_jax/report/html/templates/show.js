"use strict";
// The live page: an image goes to /see, and what comes back is shown, all layers at once.
const find = (id) => document.getElementById(id);
let asked = 0;

async function ask(image) {
  const number = ++asked;
  find("said").textContent = "Looking ...";
  let answer;
  try {
    answer = await answered(image);
  } catch {
    answer = { error: "the server does not answer: is rice-jax show still running?" };
  }
  if (number !== asked) return;  // a later image has been asked about
  find("said").textContent = answer.error ?? (answer.made_of ? `The image was ${answer.made_of}; made plain 8-bit RGB.` : "");
  find("said").classList.toggle("wrong", Boolean(answer.error));
  find("found").hidden = Boolean(answer.error);
  if (!answer.error) present(answer);
}

// What the server says of an image; it would hang up on one that is too large.
async function answered(image) {
  const most = Number(find("drop").dataset.most);
  if (image.size > most) return { error: `larger than ${most / 2 ** 20} MiB` };
  const response = await fetch("/see", { method: "POST", body: image });
  const failed = { error: `the server failed (${response.status}): where rice-jax show runs it is told why` };
  return response.json().catch(() => failed);
}

function present(answer) {
  gallery = answer;
  sprites.clear();
  const [image] = gallery.images;
  find("picture").src = `data:image/jpeg;base64,${image.picture}`;
  const ranked = image.probabilities.map((share, i) => [share, gallery.classes[i]]).sort((a, b) => b[0] - a[0]);
  find("class").textContent = `${image.predicted}, ${percent(ranked[0][0])}`;
  find("probabilities").replaceChildren(...ranked.slice(0, 20).map(([share, name]) => {
    const bar = element("i", {});
    bar.style.width = `${100 * share}%`;
    return element("tr", {}, element("th", {}, name), element("td", { class: "share" }, bar), element("td", {}, percent(share)));
  }));
  find("layers").replaceChildren(...gallery.layers.flatMap((layer, i) => [
    element("h3", {}, layer.path || "output", element("small", {},
      ` ${maps(layer)}` + (layer.shown.length < layer.filters ? `, the ${layer.shown.length} strongest` : ""))),
    element("div", { class: "maps", "data-layer": i }, ...buttons(layer, 0, -1, (place) => pick(i, place)))]));
  find("filter").replaceChildren();
  if (gallery.layers.length) pick(0, 0, false);  // a net without convolutions has no maps
}

function pick(number, place, bringIt = true) {
  document.querySelectorAll("#layers [aria-pressed=true]").forEach((one) => one.setAttribute("aria-pressed", "false"));
  document.querySelectorAll(`#layers [data-layer="${number}"] button`)[place]?.setAttribute("aria-pressed", "true");
  find("filter").replaceChildren(...told(gallery.layers[number], 0, place));
  if (bringIt) bring(find("filter"));
}

find("file").onchange = (event) => { if (event.target.files[0]) ask(event.target.files[0]); event.target.value = ""; };
document.body.ondragover = (event) => { event.preventDefault(); find("drop").classList.add("over"); };
document.body.ondragleave = () => find("drop").classList.remove("over");
document.body.ondrop = (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
};
document.onpaste = (event) => { const [file] = event.clipboardData?.files ?? []; if (file) ask(file); };

find("camera").onclick = async () => {
  if (find("video").srcObject) return stop();
  find("camera").disabled = true;  // of two that are asked for, one could not be put away
  try {
    find("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    find("live").hidden = false;
    find("camera").textContent = "Put the camera away";
  } catch (error) {
    find("said").textContent = `No camera: ${error.message}`;
  }
  find("camera").disabled = false;
};

function stop() {
  find("video").srcObject?.getTracks().forEach((track) => track.stop());
  find("video").srcObject = null;
  find("live").hidden = true;
  find("camera").textContent = "Use the camera";
}

find("take").onclick = () => {
  const { videoWidth: width, videoHeight: height } = find("video");
  if (!width) return;
  const side = Math.min(width, height);  // the middle: the net sees squares
  const canvas = element("canvas", { width: side, height: side });
  canvas.getContext("2d").drawImage(find("video"), (width - side) / 2, (height - side) / 2, side, side, 0, 0, side, side);
  canvas.toBlob(ask, "image/jpeg", 0.95);  // without alpha
};
