"""`push` and `pull`: what a Hub gets of a run or of weights, and what comes back, with a stand-in for its library."""

import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import cli, export, pretrained, sealed
from cnnjax.distributed import sharding
from cnnjax.hub import address, content
from cnnjax.runs import workdir
from tests.hub.fakes import Hub, Module

KEPT = pathlib.Path(__file__).parents[1] / "runs" / "kept" / "whitened" / "run"
ADDRESS, NAME = "hf:ada/digits", "ada/digits"
LOG_IN = "run `hf auth login`, or set HF_TOKEN"
RESULT = {"step": 32, "split": "test", "accuracy": 0.875, "loss": 0.5, "folder": "runs/x"}


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Stands in for huggingface_hub; its `hub` is empty."""
    found = Module(Hub(), tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "huggingface_hub", found)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run of two checkpoints, with a result, an evaluation, and files that have to stay at home."""
    folder = pathlib.Path(shutil.copytree(KEPT, tmp_path / "run"))
    sealed.write_json(folder / "result.json", RESULT)
    evaluation = folder / "evaluations" / "digits-test-step32"
    evaluation.mkdir(parents=True)
    scored = {"dataset": "digits", "split": "test", "step": 32, "accuracy": 0.75, "loss": 0.25}
    (evaluation / "metrics.json").write_text(json.dumps(scored))
    for name, table in (("metrics", "per_class"), ("robustness", "corruptions")):  # of other weights
        other = folder / "evaluations" / f"digits-test-step0-init=x-{name}"
        other.mkdir()
        (other / f"{name}.json").write_text(json.dumps({**scored, "step": 0, "init": "x"}))
        (other / f"{table}.csv").write_text("class\n")
    for name in ("mistakes.png", ".secret"):
        (evaluation / name).write_bytes(b"at home")
    for name in ("lock", "report.html", "notes.txt", "tensorboard/events", "damaged/00000003-0/x", "imports/net.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise SystemExit('was run')")
    return folder


@pytest.fixture
def weights(tmp_path: pathlib.Path) -> pathlib.Path:
    """A weight file, as `cnnjax export` writes it."""
    path = tmp_path / "net.safetensors"
    export.write(pretrained.load(KEPT.with_name("run")), path, log=lambda line: None)
    return path


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def variables(source: pathlib.Path) -> list[np.ndarray]:
    mesh = sharding.make_mesh(jax.devices()[:1])
    loaded = pretrained.load(source).load_variables(mesh, "last", lambda line: None)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(loaded.variables)]


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Runs a command that fails with status 1, and returns its only line on stderr."""
    assert cli.main(list(map(str, words))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def succeeds(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert cli.main(list(map(str, words))) == 0
    return capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------- there and back


def test_a_run_comes_back_as_it_was_and_what_shows_the_data_stays_at_home(
    module: Module, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "imports")
    shown = succeeds(capsys, "push", run, ADDRESS)
    assert f"to {ADDRESS}, which only you and those you choose can see" in shown
    assert f"fetch it with: cnnjax pull {ADDRESS}\n" in shown
    assert module.hub.repositories[NAME].is_private

    shown = succeeds(capsys, "pull", ADDRESS)
    folder = tmp_path / "runs" / "digits"
    assert "cnnjax evaluate runs/digits\n" in shown
    fetched = files_of(folder)
    card = fetched.pop("README.md").decode()
    left = {name: data for name, data in files_of(run).items() if name not in fetched}
    assert {name: data for name, data in files_of(run).items() if name in fetched} == fetched
    assert sorted(left) == [
        "damaged/00000003-0/x", "evaluations/digits-test-step0-init=x-metrics/metrics.json",
        "evaluations/digits-test-step0-init=x-metrics/per_class.csv",
        "evaluations/digits-test-step0-init=x-robustness/corruptions.csv",
        "evaluations/digits-test-step0-init=x-robustness/robustness.json",
        "evaluations/digits-test-step32/.secret", "evaluations/digits-test-step32/mistakes.png",
        "lock", "notes.txt", "report.html", "tensorboard/events",
    ]  # fmt: skip
    for a, b in zip(variables(folder), variables(run), strict=True):
        np.testing.assert_array_equal(a, b)

    config = pretrained.load(run).config
    assert card.startswith("---\nlibrary_name: cnnjax\npipeline_tag: image-classification\n")
    assert f"`{config.model}`, trained on digits" in card
    assert "| test, at the end of the training | 0.5000 | 87.50% |" in card
    assert "| digits test, step 32 | 0.2500 | 75.00% |" in card
    assert "init" not in card
    assert "cnnjax pull hf:ada/digits\ncnnjax evaluate runs/digits\n" in card
    assert f"| batch_size | `{config.batch_size}` |" in card
    assert f"| seed | `{config.seed}` |" in card
    assert 'net = cnnjax.load("runs/digits")\n' in card
    assert f"{len(fetched)} files, 0.1 MB; `cnnjax.json` has the SHA-256 of each.\n" in card
    assert "license" not in card


def test_weights_come_back_as_they_were(
    module: Module, weights: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = succeeds(capsys, "push", weights, ADDRESS, "--public", "--license=mit")
    assert "1 file, 0.1 MB" in shown
    assert "which anybody can see" in shown
    module.token = ""  # whoever fetches needs none
    shown = succeeds(capsys, "pull", f"{ADDRESS}@{module.hub.repositories[NAME].head}", "--to=there")
    fetched = tmp_path / "there" / content.WEIGHTS
    assert f"cnnjax predict there/{content.WEIGHTS} photograph.jpg\n" in shown
    assert fetched.read_bytes() == weights.read_bytes()
    assert 'license: "mit"\n' in (tmp_path / "there" / "README.md").read_text()


def test_a_second_push_replaces_what_the_first_sent_and_nothing_else(
    module: Module, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "imports")
    succeeds(capsys, "push", run, ADDRESS)
    first = module.hub.repositories[NAME].head
    module.hub.add(NAME, module.hub.files("write", NAME) | {"photograph.png": b"added on the Hub"})
    card = tmp_path / "card.md"
    card.write_text("# Mine\n")
    succeeds(capsys, "push", run, ADDRESS, "--step=32", f"--card={card}")
    now = module.hub.files("write", NAME)
    assert now["photograph.png"] == b"added on the Hub"
    assert now["README.md"] == b"# Mine\n"
    assert {name.split("/")[1] for name in now if name.startswith("checkpoints/")} == {"00000032"}
    succeeds(capsys, "pull", f"{ADDRESS}@{first}", "--to=first")
    assert {path.name for path in (tmp_path / "first" / "checkpoints").iterdir()} == {"00000024", "00000032"}


def test_a_dry_run_shows_all_and_needs_neither_library_nor_network(
    run: pathlib.Path, weights: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    shutil.rmtree(run / "imports")
    for source, names in ((run, ["config.json", "result.json"]), (weights, [content.WEIGHTS])):
        shown = succeeds(capsys, "push", source, ADDRESS, "--dry-run")
        assert all(f"  {name}\n" in shown for name in names)
        assert "# digits\n" in shown
    extra = "huggingface_hub is not installed; pip install 'cnnjax[hub]' in this environment"
    assert fails(capsys, "push", run, ADDRESS) == extra
    assert fails(capsys, "pull", ADDRESS) == extra


def test_code_of_a_run_is_copied_and_named_but_not_run(
    module: Module, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds(capsys, "push", run, ADDRESS)
    shown = succeeds(capsys, "pull", ADDRESS)
    copy = pathlib.Path("runs/digits/imports/net.py")
    assert copy.read_bytes() == (run / "imports" / "net.py").read_bytes()
    assert f"it needs code of its own, which was not run: read {copy}, and give it as --import=FILE\n" in shown


# --------------------------------------------------------------------------------------------------------------- errors

OTHERS = {"README.md": b"", "model.safetensors": b"x", "pytorch_model.bin": b"x"}
WRONG = {  # words -> the error
    "push {run} lenet5": "'lenet5' is not an address on the Hugging Face Hub: expected hf:OWNER/NAME, as in "
    "hf:ada/lenet5",
    "push {run} ada/lenet5": "'ada/lenet5' is not an address on the Hugging Face Hub: expected hf:OWNER/NAME, did you "
    "mean 'hf:ada/lenet5'?",
    "pull https://huggingface.co/ada/lenet5": "'https://huggingface.co/ada/lenet5' is not an address on the Hugging "
    "Face Hub: expected hf:OWNER/NAME, did you mean 'hf:ada/lenet5'?",
    "push {run} hf:ada/digits@main": "hf:ada/digits@main: a push makes a new commit on the main branch; leave out "
    "'@main'",
    "push nowhere hf:ada/digits": "nowhere does not exist",
    "push {tmp} hf:ada/digits": "{tmp} is not the folder of a run that has started: it has no config.json",
    "push {run} hf:ada/digits --step=7": "{run} has no checkpoint of step '7'; valid: all, last, best, 24, 32",
    "push {weights} hf:ada/digits --step=last": "--step=last is only for a run, and {weights} is a weight file",
    "push {run} hf:ada/digits --card=no.md": "--card=no.md: expected a Markdown file: [Errno 2] No such file or "
    "directory: 'no.md'",
    "push {run} hf:adda/digits": "hf:adda/digits: your token may not do this: did you mean 'ada'? valid: academy, ada",
    "push {run} hf:ada/other": "hf:ada/other has files that `cnnjax push` did not write, such as model.safetensors: "
    "choose another name",
    "pull hf:ada/othr": "hf:ada/othr: there is no such repository, or your token may not read it; did you mean "
    "'hf:ada/other'? valid: hf:ada/other",
    "pull hf:nobody/net": "hf:nobody/net: there is no such repository, or your token may not read it",
    "pull hf:ada/other@v2": "hf:ada/other@v2: there is no such branch, tag or commit",
    "pull hf:ada/other": "hf:ada/other was not written by `cnnjax push`: it has no cnnjax.json; its weight files: "
    "model.safetensors (download one with `hf download`, and use it as in `cnnjax evaluate FILE --model=NAME`)",
    "export --init=hf:ada/other --to=x.safetensors": "hf:ada/other is on the Hugging Face Hub; fetch it first: cnnjax "
    "pull hf:ada/other",
    "pull hf:ada/other --to={run}": "{run} exists already; choose another folder with --to=DIR",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_typed_wrongly_is_one_line_and_sends_nothing(
    words: str, module: Module, run: pathlib.Path, weights: pathlib.Path, tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    module.hub.add("ada/other", OTHERS)
    before = files_of(tmp_path)
    places: dict[str, Any] = {"run": run, "tmp": tmp_path, "weights": weights}
    assert fails(capsys, *words.format(**places).split(" ")) == WRONG[words].format(**places)
    assert module.hub.sent == 0
    assert files_of(tmp_path) == before


def test_no_token_no_rights_and_no_network_are_one_line(
    module: Module, run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "imports")
    push = ("push", run, ADDRESS)
    module.token = ""
    assert fails(capsys, *push) == f"you are not logged in to the Hugging Face Hub: {LOG_IN}"
    assert fails(capsys, "pull", ADDRESS).startswith("hf:ada/digits: there is no such repository, or your token")
    module.token = "old"
    assert fails(capsys, *push) == f"{ADDRESS}: the Hub rejects your token, or requires one: {LOG_IN}"
    module.token = "read"
    assert fails(capsys, *push) == f"{ADDRESS}: your token may not do this: valid: academy, bob"
    module.token = "write"
    offline = type("OfflineModeIsEnabled", (ConnectionError,), {})
    reasons = {
        ConnectionError("no route\nto it"): "the Hub cannot be reached or read: ConnectionError: no route",
        offline("x"): "HF_HUB_OFFLINE is set in the environment; unset it to use the network",
    }
    for error, reason in reasons.items():
        module.broken = error
        assert fails(capsys, *push) == f"{ADDRESS}: {reason}"
        assert fails(capsys, "pull", ADDRESS) == f"{ADDRESS}: {reason}"
    assert module.hub.sent == 0


def test_a_run_that_trains_and_one_with_links_are_not_sent(
    module: Module, run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workdir.hold_lock(run, "training"):
        assert "is being trained at this moment" in fails(capsys, "push", run, ADDRESS)
    metrics = run / "evaluations" / "digits-test-step32" / "metrics.json"
    metrics.unlink()
    metrics.symlink_to("/etc/hostname")
    assert f"{metrics} is a link to /etc/hostname" in fails(capsys, "push", run, ADDRESS)
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert f"{run / 'checkpoints'} is a link" in fails(capsys, "push", run, ADDRESS)
    (run / "checkpoints").unlink()
    assert fails(capsys, "push", run, ADDRESS) == f"{run} has no checkpoint yet"
    assert module.hub.sent == 0


# ------------------------------------------------------------------------------------------------ what a stranger sends


@pytest.fixture
def pushed(module: Module, weights: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, bytes]]:
    """The files of a repository with weights."""
    succeeds(capsys, "push", weights, ADDRESS)
    yield dict(module.hub.files("write", NAME))
    assert not os.path.lexists("weights/digits")  # no test below may leave anything
    assert list(pathlib.Path().glob("weights/*")) == []


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", ".bashrc", "evil.py", "model.safetensors/x", ""]
)
def test_a_file_that_is_none_of_a_run_or_weights_is_not_taken(
    name: str, module: Module, pushed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in content.KINDS:
        listed = json.loads(pushed[content.MANIFEST])
        listed |= {"kind": kind, "files": listed["files"] | {name: {"bytes": 1, "sha256": "0"}}}
        module.hub.add(NAME, pushed | {content.MANIFEST: json.dumps(listed).encode(), name: b"x"})
        assert "nothing is copied" in fails(capsys, "pull", ADDRESS)


def test_a_changed_file_or_list_is_not_taken(
    module: Module, pushed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, listed = pushed[content.WEIGHTS], json.loads(pushed[content.MANIFEST])
    changed = {
        "differs from its digest in cnnjax.json; nothing was kept": [
            whole[:-1] + bytes([whole[-1] ^ 1]),
            whole[:-1],
            whole + b"x",
        ],
        "is of kind 'program', written by cnnjax 9": [json.dumps(listed | {"kind": "program", "cnnjax": "9"})],
        "its cnnjax.json is damaged": ["{", "[]", "null", '{"kind": "weights"}', json.dumps(listed | {"files": [1]})],
        "lists no model.safetensors, which a weights requires": [json.dumps(listed | {"files": {}})],
    }
    for message, contents in changed.items():
        for text in contents:
            name = content.WEIGHTS if isinstance(text, bytes) else content.MANIFEST
            module.hub.add(NAME, pushed | {name: text if isinstance(text, bytes) else text.encode()})
            assert message in fails(capsys, "pull", ADDRESS)


def test_a_damaged_cache_is_downloaded_again(
    module: Module, pushed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    succeeds(capsys, "pull", ADDRESS, "--to=first")
    damaged = [path for path in module.folder.iterdir() if path.read_bytes() == pushed[content.WEIGHTS]]
    assert len(damaged) == 1
    damaged[0].write_bytes(b"damaged")
    succeeds(capsys, "pull", ADDRESS, "--to=second")
    assert pathlib.Path("second", content.WEIGHTS).read_bytes() == pushed[content.WEIGHTS]


@pytest.mark.parametrize("text", ["hf:a/b", "hf:ada-l/net_1.5", "hf:a/b@refs/pr/1"])
def test_an_address_is_read_and_written(text: str) -> None:
    assert str(address.parse(text)) == text
