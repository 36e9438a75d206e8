"""Settings: their types and ranges, how a person types them, and what every file in configs/ has to be."""

import dataclasses
import fractions
import json
import math
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from cnnjax import config, config_files
from cnnjax.config import FIELDS, Config
from cnnjax.errors import InputError
from cnnjax.training.recipe import parse_recipe

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# -------------------------------------------------------------------------------------------------------- the fields


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_default_of_its_type(name: str) -> None:
    assert type(FIELDS[name].default) is FIELDS[name].type
    assert type(getattr(Config(), name)) is FIELDS[name].type


def test_every_field_has_a_comment_that_the_command_line_shows() -> None:
    assert config.field_help().keys() == FIELDS.keys()


@pytest.mark.parametrize(("name", "hint"), [("modle", "did you mean 'model'?"), ("zzzzzz", "; valid, of ")])
def test_an_attribute_that_is_no_field_is_refused(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=re.escape(hint)):
        setattr(Config(), name, 1)


# Each is wrong in one way; the message names the field, the value and what was expected.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "config.model = 5: expected str, as in 'lenet5'"),
    ({"batch_size": "128"}, "config.batch_size = '128': expected int"),
    ({"batch_size": 128.0}, "config.batch_size = 128.0: expected int"),
    ({"batch_size": True}, "config.batch_size = True: expected int"),
    ({"lr": "0.1"}, "config.lr = '0.1': expected float"),
    ({"lr": None}, "config.lr = None: expected float"),
    ({"lr": True}, "config.lr = True: expected float"),
    ({"lr": -0.1}, "config.lr = -0.1: expected at least 0"),
    ({"lr": float("nan")}, "config.lr = nan: expected at least 0"),
    ({"weight_decay": -1.0}, "config.weight_decay = -1.0: expected at least 0"),
    ({"grad_clip_norm": -1.0}, "config.grad_clip_norm = -1.0: expected at least 0"),
    ({"ema": -0.1}, "config.ema = -0.1: expected at least 0 and less than 1"),
    ({"ema": 1.0}, "config.ema = 1.0: expected at least 0 and less than 1"),
    ({"batch_size": 0}, "config.batch_size = 0: expected at least 1"),
    ({"eval_batch_size": 0}, "config.eval_batch_size = 0: expected at least 1"),
    ({"grad_accum_steps": 0}, "config.grad_accum_steps = 0: expected at least 1"),
    ({"repeated_augment": 0}, "config.repeated_augment = 0: expected at least 1"),
    ({"repeated_augment": 3}, "config.batch_size = 128: expected a multiple of config.repeated_augment = 3"),
    ({"grad_accum_steps": 3}, "config.batch_size = 128: expected a multiple of config.grad_accum_steps = 3"),
    ({"keep_checkpoints": 0}, "config.keep_checkpoints = 0: expected at least 1"),
    ({"seed": -1}, "config.seed = -1: expected at least 0"),
    ({"dtype": "bfloat61"}, "config.dtype = 'bfloat61'; did you mean 'bfloat16'? valid: bfloat16, float32"),
    ({"cache": "gpu"}, "config.cache = 'gpu'; valid: auto, device, host"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_a_wrong_type_or_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        config.check(Config(**settings))


def test_an_int_does_for_a_float() -> None:
    checked = config.check(Config(lr=1, weight_decay=0))
    assert (checked.lr, type(checked.lr), type(checked.weight_decay)) == (1.0, float, float)


def test_the_default_config_is_right() -> None:
    parse_recipe(Config())


# ------------------------------------------------------------------------------------------------- a run's config.json


def test_a_saved_config_comes_back(tmp_path: pathlib.Path) -> None:
    saved = Config(model="mlp", lr=0.3, duration="7 steps")
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(saved)))
    assert config.load(tmp_path / "config.json") == saved
    assert config_files.read_config(
        str(tmp_path / "config.json"), ["--config.keep_checkpoints=5"]
    ) == dataclasses.replace(saved, keep_checkpoints=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a run's folder: it has no config.json"),
        (b"", "config.json is damaged"),
        (b'{"lr": 0.1', "config.json is damaged"),
        (b"\xff\xfe", "config.json is damaged"),
        (b"[1, 2]", "config.json is damaged"),
        (b'{"lrr": 0.1}', "lrr"),
        (b'{"lr": "0.1"}', "config.lr = '0.1': expected float"),
        (b'{"keep_checkpoints": 0}', "config.keep_checkpoints = 0: expected at least 1"),
    ],
)
def test_a_damaged_config_is_refused(content: bytes | None, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message)):
        config.load(path)


# --------------------------------------------------------------------------------------------------------- durations


# With 10.5 steps an epoch and 1,000 in all.
@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("15 epochs", 158),
        ("1 epoch", 10),
        ("2.5 epochs", 26),
        ("64000 steps", 64_000),
        ("1e3 steps", 1000),
        ("1 step", 1),
        ("50%", 500),
        (" 12.5 % ", 125),
        ("100%", 1000),
        ("0.01 epochs", 1),
        ("0 epochs", 0),
        ("0 steps", 0),
        ("0%", 0),
    ],
)
def test_a_duration_is_steps(duration: str, steps: int) -> None:
    assert config.to_steps(duration, epoch=10.5, total=1000) == steps


@pytest.mark.parametrize(
    "duration",
    [
        "",
        *("200%", "3e9 steps", "1e300 epochs", "2e9 epochs"),
        "3",
        "epochs",
        "%",
        "50%%",
        "3epochs",
        "3 weeks",
        "three epochs",
        "-1 steps",
        "nan epochs",
        "inf steps",
        32000,
    ],
)
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    expected = f"{duration!r} is not a duration; expected '15 epochs', '64000", f"{duration!r} is too long"
    with pytest.raises(InputError, match="|".join(map(re.escape, expected))):
        config.to_steps(duration, epoch=10.5, total=1000)


@pytest.mark.parametrize("duration", ["50%", "0%", " 12.5 % "])
def test_the_whole_training_has_no_length_in_percent(duration: str) -> None:
    message = f"{duration!r} is a fraction of the training; expected a length, as in '15 epochs' or '64000 steps'"
    with pytest.raises(InputError, match=re.escape(message)):
        parse_recipe(Config(duration=duration))
    assert parse_recipe(Config(eval_every="50%")).config.eval_every == "50%"


# -------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ([], {}),
        (["--config.lr=0.2"], {"lr": 0.2}),
        (["--config.lr", "0.2"], {"lr": 0.2}),
        (["--config.lr=1"], {"lr": 1.0}),
        (["--config.lr=0.1", "--config.lr=0.2"], {"lr": 0.2}),
        (["--config.batch_size=32", "--config.seed", "3"], {"batch_size": 32, "seed": 3}),
        (["--config.optimizer=adam(b1=0.8, eps=1e-6)"], {"optimizer": "adam(b1=0.8, eps=1e-6)"}),
        (["--config.augment=flip_lr|pad_crop(4)"], {"augment": "flip_lr|pad_crop(4)"}),
        (["--config.test_split="], {"test_split": ""}),
        (["--config.train_split=train[:90%]"], {"train_split": "train[:90%]"}),
    ],
)
def test_settings_are_overridden_as_they_are_typed(flags: list[str], changed: dict[str, Any]) -> None:
    default = config_files.read_config("configs/digits_lenet5.py")
    assert config_files.read_config("configs/digits_lenet5.py", flags) == dataclasses.replace(default, **changed)


def test_the_argument_of_a_config_file_follows_a_colon() -> None:
    for argument, model in (("", "cifar_resnet20"), (":mlp(hidden=(30,))", "mlp(hidden=(30,))")):
        assert config_files.read_config(f"configs/cifar10_onecycle.py{argument}").model == model


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.lrr=1", "unknown config field 'lrr'; did you mean 'lr'?"),
        ("--config.model.depth=3", "unknown config field 'model.depth'; did you mean 'model'?"),
        ("--config.lr=abc", "config.lr=abc"),
        ("--config.batch_size=1.5", "config.batch_size=1.5"),
        ("--config.keep_checkpoints=True", "config.keep_checkpoints=True"),
        ("--config.lr", "Missing value for flag --config.lr"),
        ("--config.lr=-1", "config.lr = -1.0: expected at least 0"),
        ("--config.dtype=float61", "valid: bfloat16, float32"),
        ("--lr=1", "unknown flag '--lr=1'; settings are given as --config.lr=1"),
        ("--color=1", "unknown flag '--color=1'; valid: --config"),
        ("--confg=x", "did you mean '--config'?"),
        ("lr=1", "unexpected argument 'lr=1'; settings are given as --config.FIELD=VALUE"),
    ],
)
def test_a_wrong_flag_is_refused(flag: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        config_files.read_config("configs/digits_lenet5.py", [flag])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "there is no config file"),
        ("", "it has no get_config()"),
        ("def get_config(): return 3", "get_config() returned a int, expected a cnnjax.config.Config"),
        ("def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def get_config(:", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("from cnnjax.config import Config\nget_config = lambda: Config(lrr=1)", "lrr"),
        ("from cnnjax.config import Config\nget_config = lambda: Config(lr='x')", "config.lr = 'x': expected float"),
    ],
)
def test_a_wrong_config_file_is_refused(source: str | None, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wrong.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(InputError, match=re.escape(message)):
        config_files.read_config(str(path))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("configs/digits_lenet.py", "did you mean 'digits_lenet5'?"),
        ("configs/digits_lenet5.py:x", "takes no argument, got 'x'"),
        ("configs", "there is no config 'configs'; "),
        *(
            (name, f"there is no config {name.partition(':')[0]!r}; `cnnjax configs` lists all")
            for name in (".", "/", "", ":modern")
        ),
        ("pyproject.toml", "pyproject.toml gives no config: expected a .py file with get_config()"),
    ],
)
def test_a_location_that_is_no_config_file_is_refused(location: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        config_files.read_config(location)


# ---------------------------------------------------------------------------------------------------------- configs/


def test_config_files_load_in_milliseconds_and_without_jax() -> None:
    code = """if True:
        import sys, time
        from cnnjax import config_files
        config_files.read_config(sys.argv[1])
        start = time.process_time()
        for path in sys.argv[1:]:
            config_files.read_config(path)
        assert time.process_time() - start < 0.05 * len(sys.argv), time.process_time() - start
        print(*sorted({"jax", "flax", "optax", "numpy", "tensorflow_datasets"} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code, *CONFIGS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


@pytest.mark.parametrize("percent", range(1, 101))
@pytest.mark.parametrize("total", [10, 14, 96, 1000])
def test_rounding_makes_no_event_late(percent: int, total: int) -> None:
    period = config.parse_duration(f"{percent}%", epoch=1, total=total)
    exact = max(fractions.Fraction(percent * total, 100), fractions.Fraction(1))
    steps = [step for step in range(1, total + 1) if config.is_due(step, period)]
    assert steps == [math.ceil(i * exact) for i in range(1, math.floor(total / exact) + 1)]


@pytest.mark.parametrize(("period", "due"), [(1, 12), (5, 2), (3.5, 3), (0.1, 12), (101.09, 0), (2.4, 5)])
def test_a_period_falls_due_as_often_as_it_fits(period: float, due: int) -> None:
    steps = [step for step in range(1, 13) if config.is_due(step, period)]
    assert len(steps) == due
    assert all(step - 1 < round(i * max(period, 1), 9) <= step for i, step in enumerate(steps, 1))
