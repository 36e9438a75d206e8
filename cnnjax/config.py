"""Every setting of a run, once: its name, default, help and range."""

import dataclasses
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cnnjax import sealed
from cnnjax.errors import InputError, missing, nearest, unknown

MAX_INT = 2**31 - 1  # of a count; steps are int32 on the devices


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Declares a field of `Config`: its default, its help text and the values that `check` accepts.

    Args:
      default: default value, which also gives the type of the field.
      description: help text.
      minimum: smallest valid number; None for no limits.
      below: valid numbers are less than this; used only with `minimum`. By default MAX_INT + 1 for integers.
      choices: the valid strings; () for any.
    """
    if below is None:
        below = MAX_INT + 1 if type(default) is int else math.inf
    metadata = {"help": description, "minimum": minimum, "below": below, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Config:
    """The settings of a run, as plain data. `field_help` returns the meaning of each field.

    Strings like 'name(arg, key=value)' are call strings (see `cnnjax.spec`). A duration is a string with its unit, such
    as '15 epochs', '64000 steps' or, except for the field `duration`, '50%' of the whole training. Learning rates are
    for a step of the global batch, whatever the number of devices. Setting an unknown field raises InputError.
    """

    # Network and data.
    model: str = setting("lenet5", "network of `cnnjax models`, with any of its fields: 'lenet5(activation=\"tanh\")'")
    init: str = setting(
        "", "initial weights: a run's folder, a weight file or a name of `cnnjax weights`; '' is random"
    )
    init_match: str = setting(
        "", "with a weight file as init: 'order' matches arrays by order and shape, '' by name", choices=("", "order")
    )
    init_partial: bool = setting(
        False, "with init: load only the layers whose shapes match (False: a mismatch is an error)"
    )
    dataset: str = setting("digits", "data set of `cnnjax data list`, or any that TFDS prepared as array_record")
    train_split: str = setting("train", "training split, in TFDS syntax: 'train[:90%]'")
    val_split: str = setting("", "validation split: scored during training, selects the best checkpoint; '' for none")
    fold: str = setting("", "cross-validation: '2/5' validates on the second fifth of train_split, trains on the rest")
    test_split: str = setting("test", "test split: scored once, after training; '' for none")

    # Input pipeline.
    augment: str = setting("", "operations on training images, in order: 'pad_crop(4)|flip_lr|cutout(8)'")
    preprocess: str = setting("", "operations on evaluation images: 'resize(256)|center_crop(224)'")
    protocol: str = setting("single", "test protocol, the views of each image that are scored: 'flip', 'ten_crop(224)'")
    average: str = setting(
        "probabilities", "what is averaged over the views of an image", choices=("probabilities", "logits")
    )
    normalize: str = setting("mean_std", "input normalization, after the operations; uses training-split statistics")
    cache: str = setting(
        "auto",
        "where the training split is kept: 'device' memory, 'host' (read on demand), or 'auto' by its size",
        choices=("auto", "device", "host"),
    )
    steps_per_call: int = setting(
        0, "training steps per device call, for a split in device memory; 0: 1 on a CPU, else up to 32", minimum=0
    )

    # Length and batch size.
    duration: str = setting("10 epochs", "length of the training: '10 epochs' or '64000 steps'")
    early_stop: str = setting("", "'early_stop(patience=10)' stops after 10 evaluations without improvement")
    batch_size: int = setting(128, "images per step, over all devices", minimum=1)
    repeated_augment: int = setting(
        1,
        "repeated augmentation: copies of each image per batch, each augmented differently; with N an epoch keeps "
        "its number of steps but shows 1/N of the images",
        minimum=1,
    )
    eval_batch_size: int = setting(500, "views per evaluation batch; does not change results", minimum=1)
    grad_accum_steps: int = setting(
        1, "gradient-accumulation steps: micro-batches per batch, to save memory; augmented as one batch", minimum=1
    )

    # Loss and optimizer.
    loss: str = setting("cross_entropy", "loss of an example: 'cross_entropy(label_smoothing=0.1)'")
    distill: str = setting("", "distillation: 'distill(\"runs/TEACHER\", temperature=4.0, weight=0.9)'; '' for none")
    aux_weight: float = setting(
        0.3, "weight of the losses of auxiliary classifiers, where the network has any", minimum=0
    )
    optimizer: str = setting("sgd(momentum=0.9)", "optimizer, with at most one wrapper: 'adamw|lookahead'")
    sam_rho: float = setting(
        0.0, "radius of sharpness-aware minimization (a second gradient per step); 0 for none", minimum=0
    )
    lr: float = setting(0.1, "peak learning rate", minimum=0)
    schedule: str = setting("constant", "learning-rate schedule: 'one_cycle', 'cosine(warmup=\"5 epochs\")'")
    weight_decay: float = setting(0.0, "weight decay of the parameters that match decay_mask", minimum=0)
    decay_mask: str = setting("kernel$", "regular expression: parameter paths that decay ('.*' for all)")
    lr_factors: str = setting("", "learning-rate factors by parameter path: 'bias$:2 ^conv1:0'; decay is unaffected")
    freeze: str = setting("", "regular expression: parameter paths that stay frozen ('^(?!head)': all but a head)")
    freeze_stats: bool = setting(True, "frozen BatchNorm layers use their running statistics, and keep them")
    unfreeze: str = setting("", "when frozen parameters start to train: '^stage3:2 epochs ^stage2:50%'")
    grad_clip_norm: float = setting(0.0, "largest global norm of the gradient; 0 for no clipping", minimum=0)
    ema: float = setting(
        0.0,
        "decay of the exponential moving average of the weights, used in evaluation; 0 for none",
        minimum=0,
        below=1,
    )
    dtype: str = setting(
        "float32", "type of the computation; parameters and statistics stay float32", choices=("float32", "bfloat16")
    )
    matmul_precision: str = setting(
        "",
        "precision of float32 products: '' is JAX's default, 'float32' on a CPU, 'tensorfloat32' on a GPU and "
        "'bfloat16' on a TPU; 'float32' is exact; 'tensorfloat32', 'bfloat16' round factors to 11, 8 bits. Sums are "
        "float32",
        choices=("", "float32", "tensorfloat32", "bfloat16"),
    )
    seed: int = setting(0, "seed of initialization, data order, augmentation and dropout", minimum=0, below=2**63)

    # Devices. These fields, `cache`, `eval_batch_size` and those below may change when a run is resumed.
    mesh: str = setting(
        "", "device mesh: 'data=4,model=2' splits batches by 4 and large fully connected layers by 2; '': batches only"
    )
    zero_1: bool = setting(False, "shard the optimizer state along `data`, to save memory (ZeRO, stage 1)")

    # Logging and checkpoints.
    eval_every: str = setting(
        "1 epochs", "how often val_split is scored and a checkpoint saved; 'plateau' and early_stop follow it"
    )
    checkpoint_every: str = setting("1 epochs", "how often a checkpoint is saved")
    keep_checkpoints: int = setting(2, "newest checkpoints to keep, besides the best", minimum=1)
    log_every: str = setting(
        "50 steps", "how often the mean training metrics are written; evaluations and checkpoints do so, too"
    )

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets a field, without checking its value. Raises InputError for an unknown field."""
        if name not in FIELDS:
            raise unknown_field(name)
        object.__setattr__(self, name, value)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}

# A run may be resumed with other values of these: they change where and how it is computed and logged, not the result.
# Where a plateau schedule or early stopping follows the evaluations, `workdir.changed_settings` compares `eval_every`.
RESUMABLE = (
    "mesh", "zero_1", "cache", "eval_batch_size", "eval_every", "checkpoint_every", "keep_checkpoints", "log_every",
)  # fmt: skip

# The same, and what may change if the steps done so far are unaffected: see `cnnjax.training.extend`.
EXTENDABLE = (*RESUMABLE, "duration")

# Names that config.json had before version 0.2.0 -> today's. `load` accepts both.
ALIASES = {
    "accumulate": "grad_accum_steps",
    "clip_norm": "grad_clip_norm",
    "dispatch": "steps_per_call",
    "keep": "keep_checkpoints",
    "repeats": "repeated_augment",
    "sam": "sam_rho",
    "staged": "init_partial",
    "zero": "zero_1",
}

# Names that users of other libraries type -> the field to use, as the error puts it.
HINTS = {
    "epochs": "duration, as in '10 epochs'",
    "num_epochs": "duration, as in '10 epochs'",
    "max_epochs": "duration, as in '10 epochs'",
    "steps": "duration, as in '64000 steps'",
    "max_steps": "duration, as in '64000 steps'",
    "learning_rate": "lr",
    "arch": "model",
    "network": "model",
    "bs": "batch_size",
    "wd": "weight_decay",
    "data": "dataset",
    "opt": "optimizer",
    "sched": "schedule",
    "lr_schedule": "schedule",
    "scheduler": "schedule",
    "momentum": "optimizer, as in 'sgd(momentum=0.9)'",
    "warmup": "schedule, as in 'cosine(warmup=\"5 epochs\")'",
    "label_smoothing": "loss, as in 'cross_entropy(label_smoothing=0.1)'",
    "dropout": "model, as in 'vgg16(dropout=0.5)'",
    "pretrained": "init, as in 'torchvision:resnet50.v1'",
    "teacher": "distill",
    "mixup": "augment, as in 'mixup(0.2)'",
    "cutmix": "augment, as in 'cutmix'",
    "precision": "dtype, or matmul_precision",
    "amp": "dtype, as in 'bfloat16'",
    **ALIASES,
}


def unknown_field(name: str) -> InputError:
    """Returns, without raising it, the error for an unknown config field. Suggests the field that is probably meant."""
    if name in HINTS:
        return InputError(f"unknown config field {name!r}; the field is {HINTS[name]}")
    return unknown("config field", name, FIELDS)


def pick_recipe(argument: str, table: Mapping[str, Any]) -> Any:
    """Returns table[argument], for config files with several recipes. Raises InputError that lists the valid keys."""
    if argument not in table:
        raise unknown("argument", argument, table)
    return table[argument]


def field_help() -> dict[str, str]:
    """Returns the help text of each field of `Config` by name."""
    return {name: field.metadata["help"] for name, field in FIELDS.items()}


def check(config: Config) -> Config:
    """Returns `config` if all values are valid. An int in a field of type float is converted in place.

    Does not parse call strings, durations or patterns. Raises InputError that names the first invalid field.
    """
    for name in FIELDS:
        _check_field(config, name)
    if not config.train_split:
        raise InputError("config.train_split = '': expected a split, as in 'train'")
    if config.fold:
        number, _, folds = config.fold.partition("/")
        if not (number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) >= 2):
            raise InputError(f"config.fold = {config.fold!r}: expected one of at least two folds, as in '2/5'")
        if config.val_split:
            raise InputError(
                f"config.fold = {config.fold!r} is the validation split; pass --config.val_split='' as well"
            )
    for name in ("grad_accum_steps", "repeated_augment"):
        if config.batch_size % (count := getattr(config, name)):
            raise InputError(f"config.batch_size = {config.batch_size}: expected a multiple of config.{name} = {count}")
    return config


def _check_field(config: Config, name: str) -> None:
    """Checks the type and range of one field. Converts an integer to float if that is the field's type."""
    value, field = getattr(config, name), FIELDS[name]
    if type(field.default) is float and type(value) is int and abs(value) <= sys.float_info.max:
        setattr(config, name, value := float(value))
    if type(value) is not type(field.default):
        raise InputError(f"config.{name} = {value!r}: expected {type(field.default).__name__}, as in {field.default!r}")
    minimum, below, choices = (field.metadata[key] for key in ("minimum", "below", "choices"))
    if choices and value not in choices:
        raise InputError(f"config.{name} = {value!r}; {nearest(str(value), choices)}")
    if minimum is not None and not minimum <= value < below:
        limits = f"at least {minimum}" + (f" and less than {below}" if below < math.inf else "")
        raise InputError(f"config.{name} = {value!r}: expected {limits}")


def current_name(setting: str) -> str:
    """Returns a setting with the current name of its field (see `ALIASES`): 'clip_norm' as 'grad_clip_norm'.

    An argument after a dot stays as it is, as in 'optimizer.momentum'.
    """
    field, dot, argument = setting.partition(".")
    return ALIASES.get(field, field) + dot + argument


def load(path: pathlib.Path) -> Config:
    """Reads a run's config.json, in which fields may have the names of older versions.

    Raises InputError if the file is missing or damaged.
    """
    remedy = "to change settings, start a new run with --config.FIELD=VALUE"
    try:
        values: dict[str, Any] = dict(sealed.read_json(path, remedy))
        return check(Config(**{current_name(name): value for name, value in values.items()}))
    except FileNotFoundError:
        if not path.parent.exists():
            raise InputError(missing(path.parent)) from None
        raise InputError(f"{path.parent} is not a run's folder: it has no {path.name}") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}") from error


def parse_duration(duration: str, *, epoch: float, total: int = 0) -> float:
    """Converts a duration such as '15 epochs', '64000 steps' or '50%' to a number of steps, which may be fractional.

    `epoch` is the number of steps per epoch. `total` is the number of steps of the whole training, 0 for the duration
    of the training itself. Raises InputError for anything else, such as more than MAX_INT epochs or steps or than 100%,
    or a percentage without `total`.
    """
    unit = {"epochs": epoch, "epoch": epoch, "steps": 1, "step": 1, "%": total / 100}
    text = str(duration).strip()  # inside a call string it may be a number
    number, _, word = (text[:-1], "", "%") if text.endswith("%") else text.partition(" ")
    try:
        count, most = float(number), 100 if word == "%" else MAX_INT
        if not 0 <= count < math.inf:
            raise ValueError
        value = count * unit[word.strip()]
    except (ValueError, KeyError):
        raise InputError(f"{duration!r} is not a duration; expected '15 epochs', '64000 steps' or '50%'") from None
    if count > most:
        raise InputError(f"{duration!r} is too long; expected at most {most:,}{'%' if word == '%' else ''}")
    if word == "%" and not total:
        raise InputError(
            f"{duration!r} is a fraction of the training; expected a length, as in '15 epochs' or '64000 steps'"
        )
    return value


def to_steps(duration: str, *, epoch: float, total: int = 0) -> int:
    """Converts a duration to a whole number of steps, at least 1, but 0 for a duration of 0.

    The arguments and errors are those of `parse_duration`; more than MAX_INT steps are an error, too.
    """
    value = parse_duration(duration, epoch=epoch, total=total)
    if value > MAX_INT:
        raise InputError(f"{duration!r} is too long: {value:.3g} steps, expected at most {MAX_INT:,}")
    return max(1, round(value)) if value else 0


def is_due(step: int, period: float) -> bool:
    """Returns whether an event that happens every `period` steps happens at step `step`.

    A period may be fractional: 2.5 gives the steps 3, 5, 8, 10. A period below 1 counts as 1.
    """

    def count(steps: int) -> int:
        return math.floor(steps / max(period, 1) * (1 + 1e-12))  # a period rounded up would make an event a step late

    return count(step) > count(step - 1)
