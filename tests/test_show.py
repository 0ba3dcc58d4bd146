"""The live page: its one question, what it refuses, and a browser that asks it."""

import contextlib
import io
import json
import socket
import threading
import zlib

import browser
import commands
import cv2
import jax
import numpy as np
import pytest
import tiny_training
from report_runs import DEAD
from werkzeug.test import Client

from rice_jax import show, train
from rice_jax.config import to_json
from rice_jax.errors import UserError
from rice_jax.records import plain
from rice_jax.report import gallery
from rice_jax.run import Run
from rice_jax.show import server as serving
from rice_jax.train import state

CLASSES = list(tiny_training.CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose net has random weights, which no epoch has changed yet."""
    return begun(Run(tmp_path_factory.mktemp("run")))


def begun(run, factor=1.0):
    """A run whose net has random weights times a factor."""
    config = tiny_training.config()
    run.write_json("config.json", {"config": to_json(config), "data": None})
    params = state.random_params(train.build(config), (1, 16, 16, 3), seed=0)
    params = jax.tree.map(lambda array: np.asarray(array) * factor, params)
    train.begin(config, run, tiny_training.dataset(), params)
    run.write_json("dead_filters.json", DEAD)
    return run


@pytest.fixture(scope="module")
def look(run):
    return show.Looking(run)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "grain.png"
    path.write_bytes(tiny_training.Images(1)[0]["image"])
    return path


def probabilities(run, path):
    trained = train.load(run)
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    logits = trained.module.apply({"params": trained.params}, pixels[None] / np.float32(255))
    exponentials = np.exp(np.asarray(logits[0], np.float64))
    return exponentials / exponentials.sum()


@pytest.fixture(scope="module")
def client(look):
    return Client(serving.Application(show.page(look.name, look.classes), look))


HERE = {"Host": "127.0.0.1:8765"}


def test_an_image_gets_its_class_and_all_maps(run, client, image):
    answer = client.post("/see", data=image.read_bytes(), headers=HERE)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    told = json.loads(answer.data)
    expected = probabilities(run, image)
    (seen,) = told["images"]
    np.testing.assert_allclose(seen["probabilities"], expected, atol=1e-4)
    assert seen["predicted"] == CLASSES[int(expected.argmax())]
    (layer,) = told["layers"]
    assert (layer["path"], layer["filters"], len(layer["sprites"])) == ("conv1", 4, 1)
    assert layer["fates"] == ["clean", "alive", "proven", "alive"]
    assert layer["kernel"]["size"] == [3, 3]


def test_what_is_wrong_with_an_image_is_told(client):
    for content, reason in ((b"", "not a JPEG"), (b"GIF89a", "GIF"), (huge(), "million pixels")):
        answer = client.post("/see", data=content, headers=HERE)
        assert answer.status_code == 400
        assert reason in json.loads(answer.data)["error"]


def test_an_answer_that_is_no_number_is_told(image, tmp_path):
    look = show.Looking(begun(Run(tmp_path), np.nan))
    client = Client(serving.Application("", look))
    answer = client.post("/see", data=image.read_bytes(), headers=HERE)
    assert answer.status_code == 400
    assert json.loads(answer.data) == {"error": "the net's answer is no number"}


def huge():
    """A PNG of a few bytes that claims 10 billion pixels."""
    content = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Host": "localhost:8765"}, 200),
        ("GET", "/", {"Host": "evil.example"}, 400),  # its name made to lead here
        ("POST", "/see", {"Host": "evil.example:8765"}, 400),
        ("POST", "/see", {"Host": "127.0.0.1.evil.example"}, 400),
        ("POST", "/see", {"Origin": "http://evil.example"}, 403),
        ("POST", "/see", {"Origin": "null"}, 403),
        ("POST", "/see", {"Origin": "http://127.0.0.1:9999"}, 403),
        ("POST", "/see", {"Origin": "http://127.0.0.1:8765"}, 200),
        ("GET", "/see", {}, 405),
        ("POST", "/", {}, 405),
        ("GET", "/../etc/passwd", {}, 404),
        ("GET", "/config.json", {}, 404),
    ],
)
def test_only_pages_of_its_own_may_ask(method, path, headers, status):
    client = Client(serving.Application("<h1>", lambda content: {}))
    answer = client.open(path, method=method, headers=HERE | headers, data=b"x")
    assert answer.status_code == status
    assert (b"<h1>" in answer.data) == (status == 200 and path == "/")
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_what_is_sent_has_a_bound(monkeypatch):
    monkeypatch.setattr(serving, "MOST_BYTES", 10)
    client = Client(serving.Application("", lambda content: {"n": len(content)}))
    assert client.post("/see", data=b"x" * 10, headers=HERE).data == b'{"n": 10}'
    assert client.post("/see", data=b"x" * 11, headers=HERE).status_code == 413
    unknown = {"input_stream": io.BytesIO(b"x" * 99), "headers": HERE}  # no length is told
    assert client.post("/see", **unknown).status_code in (200, 413)


def test_a_port_in_use_is_one_line(run):
    with socket.socket() as other:
        other.bind((serving.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        done = commands.run("show", f"--workdir={run}", f"--port={port}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: port {port} is in use: give another, as --port=")


def test_a_run_without_a_net_gives_its_port_back(tmp_path):
    run = Run(tmp_path)
    run.write_json("config.json", {"config": to_json(tiny_training.config()), "data": None})
    with pytest.raises(UserError, match="no trained net"):
        show.server_of(run, 0)


# In a browser


@pytest.fixture(scope="module")
def served(look):
    """The page's address; the server ends with the module."""
    with running(serving.Application(show.page(look.name, look.classes), look)) as address:
        yield address


@contextlib.contextmanager
def running(application):
    """The address of an application, which ends with the context."""
    server = show.Server(application, show.port_taken(0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def tab(served):
    if browser.PROGRAM is None:
        pytest.skip("no Chromium is installed")
    with browser.started() as found:
        yield found


FOUND = "!document.getElementById('found').hidden && document.getElementById('class').innerText"
DRAWN = "document.querySelectorAll('#layers canvas[data-drawn]').length === 4"


@pytest.mark.parametrize("width", browser.WIDTHS)
def test_an_image_is_dropped_and_a_filter_clicked(tab, served, run, image, width):
    tab.open(served, width)
    expected = probabilities(run, image)
    tab.drop("#drop", image)
    tab.until(DRAWN)
    name, _, share = tab.value(FOUND).rstrip("%\u00a0").partition(", ")
    assert name == CLASSES[int(expected.argmax())]
    assert float(share) == pytest.approx(100 * expected.max(), abs=0.11)
    rows = tab.value("document.getElementById('probabilities').innerText").split("\n")
    assert len([row for row in rows if "%" in row]) == len(CLASSES)
    tab.click("#layers button:nth-child(3)")
    told = tab.value("document.getElementById('filter').innerText")
    assert "Filter 2 of conv1" in told
    assert "proven dead for every image" in told
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    asked = {url for url in tab.requests if not url.startswith(("data:", "blob:"))}
    assert asked == {f"{served}/", f"{served}/see"}
    assert not tab.complaints


def test_a_file_that_is_no_image_is_told_and_the_next_one_looked_at(tab, served, image, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    tab.open(served)
    tab.give("#file", tmp_path / "notes.txt")
    tab.until("document.getElementById('said').innerText.includes('not a JPEG')")
    assert tab.value("document.getElementById('found').hidden")
    tab.give("#file", image)
    tab.until(FOUND)


def test_what_goes_wrong_is_not_told_as_a_server_that_is_gone(tab, monkeypatch, tmp_path):
    """An image too large, and an error that nobody thought of; then a net without any map."""

    def look(content):
        if content == b"error":
            raise RuntimeError("nobody thought of this")
        answer = gallery.gallery([gallery.Specimen(np.zeros((8, 8, 3)), {}, [1.0, 0.0])], "ab", {})
        return plain(answer) | {"words": {}}

    monkeypatch.setattr(serving, "MOST_BYTES", 1 << 20)
    with running(serving.Application(show.page("mine", "ab"), look)) as address:
        tab.open(address)
        for content, said in (
            (b"x" * ((1 << 20) + 1), "larger than 1 MiB"),
            (b"error", "the server failed (500)"),
        ):
            (tmp_path / "image").write_bytes(content)
            tab.give("#file", tmp_path / "image")
            tab.until(f"document.getElementById('said').innerText.includes('{said}')")
        (tmp_path / "image").write_bytes(b"image")
        tab.give("#file", tmp_path / "image")
        tab.until(FOUND)
        assert tab.value("document.getElementById('class').innerText") == "a, 100.0\u00a0%"
        assert not [told for told in tab.complaints if "500" not in str(told)]


def test_a_camera_that_is_asked_for_twice_is_put_away(tab, served):
    """The first of two that were given stayed on, and no button ended it."""
    tab.open(served)
    tab.value(
        "(() => { const cameras = navigator.mediaDevices, usual = cameras.getUserMedia;"
        "window.tracks = []; window.asked_for = []; cameras.getUserMedia = (wanted) => {"
        "const given = usual.call(cameras, wanted); asked_for.push("
        "given.then((stream) => tracks.push(...stream.getTracks()))); return given; };"
        "find('camera').click(); find('camera').click(); })()"
    )
    tab.value("Promise.all(asked_for)")
    tab.until("find('video').srcObject !== null && !find('camera').disabled")
    tab.click("#camera")
    assert tab.value("tracks.map((track) => track.readyState)") == ["ended"]


def test_the_camera_gives_a_picture(tab, served):
    tab.open(served)
    tab.click("#camera")
    tab.until("document.getElementById('video').videoWidth > 0")
    tab.click("#take")
    tab.until(FOUND)
    tab.click("#camera")
    assert tab.value("document.getElementById('video').srcObject === null")
