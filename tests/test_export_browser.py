"""The docs' page that runs an exported net in a browser, without the runtime itself.

In its place the page gets one that hands the image to this process, and answers with its logits.
"""

import functools
import http.server
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from rice_jax import data

SIDE = 24
CLASSES = ["Basmati", "Karacadağ", "İpsala <b>"]
RUNTIME = """
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
export const InferenceSession = { create: async (file) => ({ run: async ({ images }) => {
  const about = new URLSearchParams({ file, type: images.type, dims: images.dims });
  const answer = await fetch(`run?${about}`, { method: "POST", body: images.data });
  return { logits: { data: new Float32Array(await answer.arrayBuffer()) } };
} }) };
"""


def the_page():
    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    [found] = [each.content for each in MarkdownIt().parse(text) if each.info == "html"]
    return found


class Files(http.server.SimpleHTTPRequestHandler):
    """A folder, and what was asked of the net."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, np.frombuffer(content, np.float32)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(np.float32(self.server.logits).tobytes())

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")  # a test writes them anew
        super().end_headers()

    def log_message(self, *_):
        """Nothing."""


def describe(site, averaged=1):
    """The JSON beside the net."""
    about = {"image_size": SIDE, "averaged": averaged, "classes": CLASSES}
    Path(site.folder, "net.onnx.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server of the page; `asked` is what it got, `logits` what it answers."""
    folder = tmp_path_factory.mktemp("site")
    runtime = folder / "node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs"
    runtime.parent.mkdir(parents=True)
    runtime.write_text(RUNTIME)
    Path(folder, "index.html").write_text(the_page())
    handler = functools.partial(Files, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.folder, server.asked, server.logits = folder, [], [0.0, 0.0, 0.0]
        describe(server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def lines(tab, site, file):
    """What the page says of a file."""
    site.asked.clear()
    tab.open(f"http://127.0.0.1:{site.server_port}/", 390)
    tab.until("typeof document.querySelector('input').onchange === 'function'")
    tab.give("input", file)
    tab.until("document.querySelectorAll('li').length > 0")
    return tab.value("[...document.querySelectorAll('li')].map((line) => line.textContent)")


def png(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(24, 24), (250, 250), (61, 97), (9, 5), (1, 30)], ids=str)
def test_it_gives_the_net_the_pixels_that_it_learned_from(shape, site, tab, tmp_path):
    photograph = png(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    tmp_path.joinpath("photo.png").write_bytes(photograph)
    lines(tab, site, tmp_path / "photo.png")
    [(asked, pixels)] = site.asked
    assert asked == f"/run?file=net.onnx&type=float32&dims=1%2C{SIDE}%2C{SIDE}%2C3"
    learned = data.decode(photograph, SIDE).astype(int)
    assert np.abs(255 * pixels.reshape(learned.shape) - learned).max() <= 1 + 1e-3


@pytest.mark.parametrize("block", [2, 3, 5, 24])
def test_it_averages_for_a_net_that_takes_averages(block, site, tab, tmp_path):
    """Squares of pixels from the upper left; what is left over at the other edges goes."""
    photograph = png(np.random.default_rng(1).integers(0, 256, (31, 47, 3), np.uint8))
    tmp_path.joinpath("photo.png").write_bytes(photograph)
    describe(site, averaged=block)
    try:
        lines(tab, site, tmp_path / "photo.png")
    finally:
        describe(site)
    [(asked, pixels)] = site.asked
    few = SIDE // block
    assert asked == f"/run?file=net.onnx&type=float32&dims=1%2C{few}%2C{few}%2C3"
    learned = data.decode(photograph, SIDE).astype(float)
    wanted = [
        [learned[y * block : (y + 1) * block, x * block : (x + 1) * block].mean((0, 1))]
        for y in range(few)
        for x in range(few)
    ]
    assert np.abs(255 * pixels - np.ravel(wanted)).max() <= 1 + 1e-3


def test_a_photograph_is_turned_upright(site, tab, tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", exif=exif, quality=95)
    tmp_path.joinpath("photo.jpg").write_bytes(file.getvalue())
    lines(tab, site, tmp_path / "photo.jpg")
    [(_, pixels)] = site.asked
    rows = pixels.reshape(SIDE, SIDE, 3).mean((1, 2))
    assert rows[:10].min() > 0.95
    assert rows[-10:].max() < 0.05


@pytest.mark.parametrize("logits", [[0.5, 2.0, -1.0], [900.0, 0.0, 899.0], [-800, -801, -802]])
def test_it_tells_each_class_and_how_probable_it_is(logits, site, tab, tmp_path):
    site.logits = logits
    tmp_path.joinpath("photo.png").write_bytes(png(np.zeros((5, 5, 3), np.uint8)))
    said = lines(tab, site, tmp_path / "photo.png")
    wanted = np.exp(np.float64(logits) - np.logaddexp.reduce(np.float64(logits)))
    order = np.argsort(-wanted)
    assert [each.rsplit(" ", 2)[0] for each in said] == [CLASSES[i] for i in order]
    shares = [float(each.split()[-2]) for each in said]
    assert shares == pytest.approx(100 * wanted[order], abs=0.051)
    assert not tab.value("document.querySelectorAll('li *').length")


def test_it_says_what_is_no_image(site, tab, tmp_path):
    tmp_path.joinpath("photo.png").write_bytes(b"no image")
    [said] = lines(tab, site, tmp_path / "photo.png")
    assert "decoded" in said
    assert not site.asked
