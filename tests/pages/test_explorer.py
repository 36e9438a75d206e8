"""The page of a network: what is in it, and that its script computes what the network does."""

import base64
import json
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import cli, export, models, onnx, summarize
from cnnjax.errors import InputError
from cnnjax.pages import explorer, page
from tests.exported import images_of, logits, network
from tests.models import zoo
from tests.pages import structure
from tests.pages.browser import find_browser, told
from tests.primitives import FUNCTIONS, SHAPE, flat


def explorer_of(text: str = "lenet5", shape: tuple[int, ...] = (28, 28, 1), **changes: Any) -> explorer.Explorer:
    """The content of the page of a small network."""
    weights = np.ones((1, 3), np.float32)
    graph = onnx.network_graph(lambda x: x.astype(jnp.float32).mean((1, 2, 3))[:, None] * weights, shape, np.uint8)
    values = {"model": text, "params": 3, "graph": graph, "shape": shape, "classes": ["a", "b", "c"], "before": ""}
    return explorer.Explorer(**values | changes)


def test_the_page_holds_the_whole_network_and_requests_nothing(tmp_path: pathlib.Path) -> None:
    trained = network("lenet5", (28, 28, 1), drawn=True, preprocess="resize(32)|center_crop(28)")
    (path,) = export.write(trained, tmp_path / "net.html", log=lambda line: None)
    content = path.read_text()
    parsed = structure.check(content)
    (graph,), (weights,) = (parsed.all("script", id=name) for name in ("graph", "weights"))
    data, numbers = json.loads(graph.text), base64.b64decode(weights.text)
    assert (data["shape"], data["classes"], data["resize"]) == ([28, 28, 1], list("abcdefghij"), 32)
    assert data["nodes"][-1]["outputs"] == ["probabilities"]
    kernel = next(each for each in data["constants"] if each["name"] == data["nodes"][4]["inputs"][1])
    first = np.frombuffer(numbers, np.float32, 6 * 25, kernel["offset"]).reshape(kernel["shape"])
    variables: Any = trained.load_variables(None, "last", print).variables  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, variables["params"]["c1"]["kernel"].transpose(3, 2, 0, 1))
    assert f"{models.count_params(trained.model, (28, 28, 1)):,} parameters" in content
    assert len(content) < 600_000


@pytest.mark.parametrize(
    "text", ["cifar_resnet20(depth=8)", "sequential('conv(4, 3)|relu|lrn|conv(4, 3)|max_pool(2)|conv(4, 3)|gap|dense')"]
)
def test_the_receptive_fields_are_those_of_the_summary(text: str) -> None:
    trained = network(text, (12, 10, 3), zeros=True)
    parsed = structure.check(export.export_page(trained, "last", print))
    nodes = json.loads(parsed.all("script", id="graph")[0].text)["nodes"]
    seen = {node["outputs"][0]: node["field"] for node in nodes}
    rows = [row for row in summarize.layers(trained.model, (12, 10, 3)) if row.kind == "convolution"]
    for row in rows:
        low, high = (np.array(seen[f"{row.name}/Conv"][name]) for name in ("low", "high"))
        assert (tuple(high - low + 1), tuple(seen[f"{row.name}/Conv"]["jump"])) == (row.receptive_field, row.jump)
    merged = [field for name, field in seen.items() if re.search("block.*/Add", name)]
    assert None not in merged
    assert seen["logits"] is None


def test_names_are_shown_and_not_obeyed() -> None:
    content = explorer.html(explorer_of("<script>alert(1)</script>", classes=structure.HOSTILE, before="</script>"))
    parsed = structure.check(content)
    assert json.loads(parsed.all("script", id="graph")[0].text)["classes"] == list(structure.HOSTILE)
    assert "<script>alert" not in content


# What a page cannot show, and what is said of it.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "channels": ({"shape": (6, 6, 4)}, "a page shows images of 1 or 3 channels; this network takes 4"),
    "size": ({}, "the weights have .* bytes: a page has 8 at most; export to .onnx instead"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_page_cannot_show_is_said(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, said = WRONG[case]
    monkeypatch.setattr(explorer, "MAX_BYTES", 8)
    with pytest.raises(InputError, match=said):
        explorer.html(explorer_of(**changes))


# ------------------------------------------------------------------------------------------------------- in the browser

# Every layer is looked at, in all that one can do with it, and then the network is given the images.
WALK = """
for (const option of $("layers").options) {
  $("layers").value = option.value;
  showLayer();
  $("maps").lastChild.click();
  place = [1e9, 1e9].map((c) => Math.min(c, 3));
  showPlace();
}
$("side").value = 8;
$("where").click();
$("occlude").click();
"""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "width"), [("lenet5", 360), ("cifar_resnet20", 768), ("mobilenet_v1_025", 1440)])
def test_a_browser_computes_the_same_logits_and_shows_every_layer(
    text: str, width: int, tmp_path: pathlib.Path
) -> None:
    browser, shape = find_browser(), zoo.intended(text)
    trained, images = network(text, shape, drawn=True), images_of(2, shape)
    content = export.export_page(trained, "last", print)
    given = json.dumps({"shape": images.shape, "data": images.ravel().tolist()})
    script = f"<script>{WALK}\nconst answer = [...compute(networks[0].graph, {given}).get('logits').data];</script>"
    found = told(browser, content.replace("</main>", f"{script}</main>"), width, tmp_path)
    assert (found["errors"], found["requests"]) == ([], [])
    assert found["scroll"] <= width
    expected = np.asarray(logits(trained, images))
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(np.reshape(found["answer"], expected.shape), expected, atol=tolerance, rtol=0)


# The second page is opened as a file, both networks see the first one's image, and every layer of the second is shown.
SECOND = """
var answer = null;
(async () => {
  await openFile(new File([SECOND], "other.html"));
  $("network").value = 1;
  $("network").dispatchEvent(new Event("change"));
  for (const option of $("layers").options) { $("layers").value = option.value; showLayer(); }
  hidden = [2, 2];
  predict();
  await openFile(new File(["<p>no network"], "wrong.html"));
  const shown = $("predictions").querySelectorAll("caption");
  answer = {
    images: networks.map((each) => [...imageFor(each).data]),
    logits: networks.map((each) => [...each.values.get("logits").data]),
    captions: [...shown].map((each) => each.textContent), layers: $("layers").options.length,
    told: $("told").textContent, trouble: $("trouble").textContent,
  };
})();
"""


@pytest.mark.slow
def test_two_networks_of_different_sizes_see_one_image(tmp_path: pathlib.Path) -> None:
    browser, texts = find_browser(), {"lenet5": (28, 28, 1), "mlp(features=(8,))": (14, 20, 3)}
    trained = [network(text, shape, drawn=True) for text, shape in texts.items()]
    first, second = [export.export_page(each, "last", print) for each in trained]
    escaped = json.dumps(second).replace("</", "<\\/")
    script = f"<script>const SECOND = {escaped};{SECOND}</script>"
    found = told(browser, first.replace("</main>", f"{script}</main>"), 360, tmp_path)
    assert (found["errors"], found["requests"]) == ([], [])
    assert found["scroll"] <= 360
    answer = found["answer"]
    assert answer["captions"] == list(texts)
    assert answer["layers"] > 0
    assert re.match("The networks (dis)?agree. With the gray square on the image. Computed in", answer["told"])
    assert answer["trouble"] == "wrong.html is not a network page written by cnnjax export."
    for each, shape, image, computed in zip(trained, texts.values(), answer["images"], answer["logits"], strict=True):
        pixels = np.array(image, np.uint8).reshape(1, *shape)
        np.testing.assert_allclose([computed], np.asarray(logits(each, pixels)), atol=1e-4, rtol=1e-4)
        rows, columns = [slice(round(2 * size / 28), round(7 * size / 28)) for size in shape[:2]]
        assert (pixels[0, rows, columns] == 128).all()
        assert (pixels == 128).sum() < pixels.size / 2


# The file is decoded at once: decoding takes its time on a busy machine.
TRANSPARENT = """
var answer = null;
window.createImageBitmap = async (file) => file;
(async () => {
  const picture = element("canvas", "", { width: WIDTH, height: HEIGHT }), before = Math.max(...imageFor(net).data) > 0;
  await showFile(picture);
  answer = [before, Math.max(...imageFor(net).data)];
})();
"""


@pytest.mark.slow
def test_a_transparent_picture_hides_the_one_before(tmp_path: pathlib.Path) -> None:
    browser = find_browser()
    content = export.export_page(network("perceptron", (8, 8, 1), zeros=True), "last", print)
    found = told(browser, content.replace("</main>", f"<script>{TRANSPARENT}</script></main>"), 360, tmp_path)
    assert (found["errors"], found["answer"]) == ([], [True, 0])


@pytest.mark.slow
def test_a_browser_computes_every_primitive(tmp_path: pathlib.Path) -> None:
    browser, images = find_browser(), images_of(3, SHAPE)
    cases, expected = {}, {}
    for name, function in FUNCTIONS.items():
        one = explorer_of(graph=onnx.network_graph(flat(function), SHAPE, np.uint8), shape=SHAPE)
        cases[name] = {"page": one.data(), "weights": one.weights()}
        expected[name] = np.asarray(flat(function)(jnp.asarray(images)))
    given = json.dumps({"shape": images.shape, "data": images.ravel().tolist()})
    script = (
        f"const images = {given}, cases = {json.dumps(cases)}, answer = {{}};"
        + """
for (const [name, { page, weights }] of Object.entries(cases)) {
  try {
    answer[name] = [...compute(decode(page, weights), images).get("logits").data];
  } catch (error) {
    answer[name] = String(error);
  }
}"""
    )
    kernels = (pathlib.Path(page.__file__).parent / "static" / "kernels.js").read_text()
    content = f"<html><head></head><script>{kernels}</script><script>{script}</script></html>"
    found = told(browser, content, 768, tmp_path)
    assert found["errors"] == []
    for name, values in expected.items():
        assert isinstance(found["answer"][name], list), (name, found["answer"][name])
        computed = np.reshape(found["answer"][name], values.shape)
        np.testing.assert_allclose(computed, values, atol=2e-5, rtol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnnjax:lenet5.digits", "cnnjax:lenet5.mnist"])
def test_the_example_is_a_digit_that_our_networks_know(name: str, tmp_path: pathlib.Path) -> None:
    assert cli.main(["export", f"--init={name}", f"--to={tmp_path / 'net.html'}"]) == 0
    script = '<script>const answer = document.getElementById("answer").textContent;</script></body>'
    content = (tmp_path / "net.html").read_text().replace("</body>", script)
    assert told(find_browser(), content, 360, tmp_path)["answer"] == "3"
