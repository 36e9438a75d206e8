"""The card of a repository, its README.md: what was trained on what, the numbers, how to use it, how it was made."""

import contextlib
import html
import json
import pathlib
from collections.abc import Iterator

from cnnjax import models, tables
from cnnjax.data.imagenet import readable
from cnnjax.errors import InputError, visible
from cnnjax.hub.address import Address
from cnnjax.hub.content import KINDS, MANIFEST, WEIGHTS, Manifest
from cnnjax.metrics import METRICS
from cnnjax.pages import evaluations, provenance
from cnnjax.pretrained import LoadedNetwork
from cnnjax.runs import workdir
from cnnjax.shell import command_line
from cnnjax.tables import Table

MAX_CLASSES = 20  # that are named
NAMES = frozenset(("evaluated on", "setting", "value", "software, device", "version"))  # columns of text


def write(manifest: Manifest, network: LoadedNetwork, source: pathlib.Path, address: Address, license_id: str) -> str:
    """Returns the card as Markdown, with the metadata of the Hub in front.

    Args:
      manifest: the files.
      network: the network in them.
      source: the run's folder or the weight file.
      address: the repository.
      license_id: identifier of the license, such as 'apache-2.0'; '' for none.
    """
    numbers = _numbers(source) if manifest.kind == "run" else Table((), ())
    sections = {
        "": [_summary(network)],
        "Results": tables.as_markdown(numbers) if numbers.rows else [],
        "Use": _use(manifest.kind, address) + ["", f"{manifest.describe()}; `{MANIFEST}` has the SHA-256 of each."],
        "Network": list(_network(network)),
        "Training": list(_training(network, source)) if manifest.kind == "run" else [],
    }
    body = [f"# {address.name}"]
    for title, lines in sections.items():
        body += ["", *([f"## {title}", ""] if title else []), *lines] if lines else []
    return "\n".join(["---", *_metadata(license_id), "---", "", *body, ""])


def _metadata(license_id: str) -> list[str]:
    """Returns the lines of YAML that the Hub reads."""
    lines = ["library_name: cnnjax", "pipeline_tag: image-classification", "tags: [cnnjax, jax, image-classification]"]
    return lines + [f"license: {json.dumps(license_id)}"] * bool(license_id)


def _summary(network: LoadedNetwork) -> str:
    """Returns the first sentence: the network, and the data set that it was trained on."""
    trained = f", trained on {_text(network.config.dataset)}" if network.config.dataset else ""
    return f"`{network.config.model}`{trained}, a network of cnnjax (JAX, Flax)."


def _numbers(folder: pathlib.Path) -> Table:
    """Returns a table of the metrics at the end of the run, and of each evaluation."""
    path = folder / "result.json"
    result = workdir.read_json(path) if path.exists() else {}
    scored = {f"{result['split']}, at the end of the training": result} if "split" in result else {}
    scored |= {evaluation.title: evaluation.content for evaluation in evaluations.read_evaluations(folder)}
    rows = [row for name, row in METRICS.items() if any(name in content for content in scored.values())]
    cells = [
        [_text(title), *(row.format(content[row.name]) if row.name in content else "-" for row in rows)]
        for title, content in scored.items()
    ]
    return Table(("evaluated on", *(row.heading for row in rows)), cells, NAMES)


def _use(kind: str, address: Address) -> list[str]:
    """Returns the commands that fetch and use it."""
    folder = f"{KINDS[kind].folder}/{address.name}"
    source = folder if kind == "run" else f"{folder}/{WEIGHTS}"
    lines = [("pull", str(address)), ("evaluate", source), ("predict", source, "photograph.jpg")]
    commands = [command_line(*words).replace("./launch.sh", "cnnjax", 1) for words in lines]
    python = [f"net = cnnjax.load({json.dumps(source)})", "net.predict(images)  # uint8 [N, H, W, C]"]
    return [
        "In an environment with cnnjax and its extra `hub`:",
        "",
        "```",
        *commands,
        "```",
        "",
        "```python",
        "import cnnjax",
        "",
        *python,
        "```",
    ]


def _network(network: LoadedNetwork) -> Iterator[str]:
    """Yields the lines of a list about the network, its images and its classes."""
    config, data = network.config, network.data
    with contextlib.suppress(InputError):  # a network may not take images of the size that its data set has
        yield f"- parameters: {models.count_params(network.model, data.shape):,}"
    yield f"- images: {' x '.join(map(str, data.shape))} (height, width, channels), of {_code(config.dataset)}"
    yield f"- operations on each image: {_code(config.preprocess)}; then normalize={_code(config.normalize)}"
    names = readable(data.classes)
    shown = ", ".join(map(_text, names[:MAX_CLASSES])) if data.has_class_names else "without names"
    more = f", and {len(names) - MAX_CLASSES:,} more" if len(names) > MAX_CLASSES and data.has_class_names else ""
    yield f"- classes: {len(names):,}: {shown}{more}"


def _training(network: LoadedNetwork, folder: pathlib.Path) -> Iterator[str]:
    """Yields the settings that differ from their defaults, the seed, and the software."""
    settings, path = provenance.changed_settings(network.config), folder / "versions.json"
    values = {row[0]: row[1] for row in settings.rows} | {"seed": str(network.config.seed)}
    rows = [[name, _code(value)] for name, value in values.items()]
    yield from tables.as_markdown(Table(("setting", "value"), rows, NAMES))
    if path.exists():
        versions = provenance.versions(workdir.read_json(path))
        yield ""
        yield from tables.as_markdown(Table(versions.headings, [list(map(_text, row)) for row in versions.rows], NAMES))


def _text(text: str) -> str:
    """Returns a user's text as one line, with all HTML and Markdown markup escaped."""
    line = " ".join(visible(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]" else sign for sign in html.escape(line, quote=False))


def _code(text: str) -> str:
    """Returns a setting as code; 'none' for ''."""
    line = " ".join(visible(text).split()).strip("'") or "none"
    return f"`{line}`" if "`" not in line else f"`` {line} ``"
