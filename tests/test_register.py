"""Code of one's own from outside the package: registered, trained with, kept in the run's folder, never run from it."""

import importlib
import pathlib
import re
import shlex
import textwrap
from collections.abc import Iterator

import pytest

import cnnjax
from cnnjax import cli, config, errors, losses, metrics, models, optim, register, sealed
from cnnjax.augment import MIXING, OPS
from cnnjax.data import catalog, readers, transforms

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
TINY = next(
    code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "register_model" in code
)
ALL = """
    import flax.linen as nn
    import jax.numpy as jnp
    import optax
    import cnnjax

    @cnnjax.register_augmentation("my_invert")
    def my_invert(key, image):
        return 1 - image

    @cnnjax.register_augmentation("my_crop", stage="host")
    def my_crop(image, rng, margin: int = 1):
        return image[margin:-margin, margin:-margin]

    @cnnjax.register_optimizer("my_sign")
    def my_sign(weight_decay, beta: float = 0.5):
        return optax.chain(weight_decay, optax.scale_by_sign())

    @cnnjax.register_schedule("my_ramp")
    def my_ramp(total):
        return lambda step: 1 - step / total

    @cnnjax.register_loss("my_absolute")
    def my_absolute(logits, target):
        return jnp.abs(nn.softmax(logits) - target).sum(axis=-1)
"""


@pytest.fixture(autouse=True)
def _tables_stay_as_they_are() -> Iterator[None]:
    tables: list[dict] = [
        *(models.MODELS, OPS, MIXING, transforms.HOST_OPS, optim.OPTIMIZERS, optim.SCHEDULES, losses.LOSSES),
        *(metrics.METRICS, catalog.DATASETS, readers.READERS, register._imports),
    ]
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


def write(folder: pathlib.Path, name: str, code: str) -> str:
    path = folder / name
    path.write_text(textwrap.dedent(code))
    return str(path)


def test_the_network_of_the_readme_trains_predicts_exports_and_says_what_it_needs(
    tmp_path: pathlib.Path, digits_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(TINY.strip().splitlines()) <= 16
    file = write(tmp_path, "my_net.py", TINY)
    train = ["train", f"--import={file}", "--config=digits_lenet5", "--workdir=run", "--config.duration=4 steps"]
    assert cli.main([*train, "--config.model=tiny(channels=16)"]) == 0
    assert (tmp_path / "run/imports/my_net.py").read_text() == TINY

    register._imports.clear()
    models.MODELS.pop("tiny")
    capsys.readouterr()
    for command in (["evaluate", "--workdir=run"], ["train", "--workdir=run"]):
        assert cli.main(command) == 1
        assert f"run needs --import={file}" in capsys.readouterr().err
    assert cli.main(["evaluate", "--workdir=run", f"--import={file}"]) == 0
    for name in ("tiny.stablehlo", "tiny.onnx", "tiny.html"):
        assert cli.main(["export", "--workdir=run", f"--import={file}", f"--to={name}"]) == 0

    register._imports.clear()
    models.MODELS.pop("tiny")
    write(tmp_path, "my_net.py", TINY + "\n# changed\n")
    capsys.readouterr()
    assert cli.main(["evaluate", "--workdir=run", f"--import={file}"]) == 1
    assert "is not the code that run was trained with: its copy is" in capsys.readouterr().err


def test_a_run_does_not_go_on_with_edited_code(
    tmp_path: pathlib.Path, digits_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--config=digits_lenet5", "--config.model=tiny(channels=2)", "--workdir=run", "--config.duration=2 steps"]
    for code in (TINY, TINY.replace("nn.relu", "nn.tanh")):
        register._imports.clear()
        models.MODELS.pop("tiny", None)
        file = write(tmp_path, "my_net.py", code)
        assert cli.main(["train", f"--import={file}", *flags]) == (code != TINY)
    assert "is not the code that run was trained with: its copy is" in capsys.readouterr().err
    assert (tmp_path / "run/imports/my_net.py").read_text() == TINY


def test_operations_optimizers_schedules_and_losses_register_from_one_file(
    tmp_path: pathlib.Path, digits_dir: str
) -> None:
    file = write(tmp_path, "mine.py", ALL)
    arguments = {
        "model": "mlp(features=(8,))",
        "augment": "my_crop(2)|my_invert",
        "preprocess": "my_crop(2)",
        "optimizer": "my_sign(beta=0.1)",
        "schedule": "my_ramp",
        "loss": "my_absolute",
        "duration": "4 steps",
    }
    flags = [f"--config.{name}={value}" for name, value in arguments.items()]
    train = ["train", f"--import={file}", "--config=digits_lenet5", f"--workdir={tmp_path / 'run'}"]
    assert cli.main([*train, *flags]) == 0


def test_what_people_register_is_checked() -> None:
    with pytest.raises(errors.InputError, match="there is a model 'lenet5' already"):
        register.register_model("lenet5", input_shape=(8, 8, 1))(lambda num_classes: None)
    with pytest.raises(errors.InputError, match="'my-loss': expected a name of letters"):
        register.register_loss("my-loss")(lambda logits, target: None)
    with pytest.raises(errors.InputError, match="stage = 'device'; valid: step, batch, host"):
        register.register_augmentation("x", stage="device")


@pytest.mark.parametrize(
    ("code", "error"),
    [(None, "there is no such file"), ("1 / 0", "ZeroDivisionError: division by zero"), ("def", "SyntaxError: ")],
)
def test_an_import_that_fails_is_one_line(
    code: str | None, error: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "mine.py") if code is None else write(tmp_path, "mine.py", code)
    assert cli.main(["configs", f"--import={file}"]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"error: --import={file}: ")
    assert error in line
    assert len(line.splitlines()) == 1


def test_a_data_set_registers(tmp_path: pathlib.Path) -> None:
    row = catalog.DATASETS["digits"]
    register.register_dataset("my_digits", row)
    assert catalog.DATASETS["my_digits"] is row


def test_flags_make_another_process_import_the_same(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path, "mine.py", "")
    register.import_code(file)
    register.import_code("json")
    assert register.flags() == [f"--import={file}", "--import=json"]
    command = register.command_line("evaluate", "--workdir=run", data_dir="my data")
    assert shlex.split(command)[1:] == ["evaluate", "--workdir=run", "--data_dir=my data", *register.flags()]
    assert "--data_dir" not in register.command_line("evaluate")


def test_files_of_one_name_are_all_kept(tmp_path: pathlib.Path) -> None:
    files = [tmp_path / folder / "net.py" for folder in "abc"]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"# {file}")
        register.import_code(str(file))
    register.import_code(write(tmp_path, "net-2.py", ""))
    register.keep_copies(tmp_path / "run")
    entries = sealed.read_json(tmp_path / "run" / "imports" / "imports.json")["imports"]
    assert [entry["name"] for entry in entries] == [*map(str, files), f"{tmp_path}/net-2.py"]
    for entry in entries:
        copy = tmp_path / "run" / "imports" / entry["file"]
        assert copy.read_text() == pathlib.Path(entry["name"]).read_text()
    register._imports.pop(files[1])
    with pytest.raises(errors.InputError, match=r"needs --import=.*b/net\.py; its copy is .*net-2\.py"):
        register.check_imports(tmp_path / "run")


def test_a_run_without_code_of_its_own_keeps_no_copies(tmp_path: pathlib.Path) -> None:
    register.keep_copies(tmp_path)
    assert not list(tmp_path.iterdir())
    assert config.Config().model == "lenet5"


def test_code_that_python_imports_is_kept_and_recognized(
    tmp_path: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "my_own_net.py", TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_own_net")
    config = cnnjax.load_config("digits_lenet5", model="tiny(channels=2)", duration="2 steps")
    cnnjax.train(config, "run", data_dir=digits_dir)
    assert (tmp_path / "run/imports/my_own_net.py").read_text() == TINY
    assert len(cnnjax.load("run").classes) == 10
    register._imports.clear()
    with pytest.raises(errors.InputError, match=r"run needs --import=my_own_net\.py"):
        cnnjax.load("run")


def test_a_network_from_outside_is_counted() -> None:
    exec(TINY, {"__name__": "notebook"})
    summary = cnnjax.summary("tiny")
    assert summary.params == 80 + 28 * 28 * 8 * 10 + 10
    assert summary.macs == 28 * 28 * 9 * 8 + 28 * 28 * 8 * 10
