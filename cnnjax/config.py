"""Every setting of a run, once: its name, its default, what it means."""

import dataclasses
import inspect
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from cnnjax.errors import InputError, nearest, unknown


@dataclasses.dataclass
class Config:
    """A run, as plain data. Strings like 'name(arg, key=value)' are call strings (`cnnjax.spec`).

    A duration is a string with its unit: '15 epochs', '64000 steps' or, of the whole training, '50%'.
    Learning rates are per step of the global batch, whatever the number of devices.
    """

    # what is learnt
    model: str = "lenet5"  # a network of `cnnjax models`, with any of its fields: 'lenet5(activation="tanh")'
    init: str = ""  # weights in place of random ones: a run's folder, a file, or one of `cnnjax weights`
    staged: bool = False  # of init, the layers whose arrays agree are taken, and others are new; else all have to agree
    dataset: str = "digits"  # a data set of `cnnjax data list`, or any that TFDS prepared as array_record
    train_split: str = "train"  # TFDS split syntax: 'train[:90%]'
    val_split: str = ""  # scored during training, and picks the best checkpoint; '' for none
    fold: str = ""  # of cross-validation: '2/5' scores the second fifth of train_split, and trains on the others
    test_split: str = "test"  # scored once, at the end; '' for none

    # what the network sees
    augment: str = ""  # operations on training images, in order: 'pad_crop(4)|flip_lr|cutout(8)'
    preprocess: str = ""  # operations on evaluation images: 'resize(256)|center_crop(224)'
    protocol: str = "single"  # the views of an image that are scored: 'flip', 'ten_crop(224)'
    average: str = "probabilities"  # 'probabilities' or 'logits': what of an image's views is averaged
    normalize: str = "mean_std"  # both, after the operations; statistics come from the training split
    cache: str = "auto"  # 'device': the whole split in device memory; 'host': read as it goes; 'auto': by its size
    dispatch: int = 0  # steps in one call of the device, from a split in its memory; 0: 1 on a CPU, else up to 32

    # how long, and how much at a time
    duration: str = "10 epochs"  # of the whole training
    early_stop: str = ""  # before: 'early_stop(patience=10)', in evaluations of val_split without improvement
    batch_size: int = 128  # images per step, over all devices
    repeats: int = 1  # times that an image is in its batch, each augmented anew; an epoch shows as many images as ever
    eval_batch_size: int = 500  # the same for scoring, counting all views of an image; it changes no result
    accumulate: int = 1  # parts a batch is cut into, to save memory; gradients are averaged over them

    # how it learns
    loss: str = "cross_entropy"  # of an example: 'cross_entropy(label_smoothing=0.1)'
    distill: str = ""  # from the run of a teacher: 'distill("runs/TEACHER", temperature=4.0, weight=0.9)'
    aux_weight: float = 0.3  # of the losses of a network's auxiliary classifiers, where it has any
    optimizer: str = "sgd(momentum=0.9)"  # of `cnnjax.optim`, as is the schedule; 'adamw|lookahead' wraps one
    sam: float = 0.0  # radius of sharpness-aware minimisation, which takes a second gradient; 0 for none
    lr: float = 0.1  # the peak of the schedule
    schedule: str = "constant"  # the rate over time: 'one_cycle', 'cosine(warmup="5 epochs")'
    weight_decay: float = 0.0  # on what `decay_mask` matches; an optimizer adds it where its definition has it
    decay_mask: str = "kernel$"  # regular expression: the parameters that decay, by path ('.*' for all)
    lr_factors: str = ""  # of the rate of some parameters, by path: 'bias$:2 ^conv1:0'; their decay stays as it is
    freeze: str = ""  # regular expression: the parameters that are not trained, by path: '^(?!head)' for all but a head
    freeze_stats: bool = True  # batch normalisations normalise by their statistics, and keep these, while frozen
    unfreeze: str = ""  # when some of these are trained after all: '^stage3:2 epochs ^stage2:50%'; till then at rate 0
    clip_norm: float = 0.0  # largest global norm of the gradient; 0 for none
    ema: float = 0.0  # decay of the moving average of the weights that is evaluated; 0 for none
    dtype: str = "float32"  # of the computation: 'float32' or 'bfloat16'; parameters and statistics are float32
    seed: int = 0  # of initialisation, data order, augmentation and dropout

    # where it is computed
    mesh: str = ""  # of devices: 'data=4,model=2' divides batches by 4 and large full connections by 2; '' is all data
    zero: bool = False  # True: the optimiser's state is divided along `data`, to save memory (ZeRO, stage 1)

    # what is kept and said (these, `mesh`, `zero`, `cache` and `eval_batch_size` may change when a run goes on)
    eval_every: str = "1 epochs"  # scores val_split, and saves a checkpoint
    checkpoint_every: str = "1 epochs"  # saves a checkpoint
    keep: int = 2  # newest checkpoints kept, beside the best
    log_every: str = "50 steps"  # writes the mean training metrics since the last time

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in FIELDS:
            raise InputError(f"Config has no field {name!r}; {nearest(name, FIELDS)}")
        object.__setattr__(self, name, value)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def choose(argument: str, table: Mapping[str, Any]) -> Any:
    """What the argument of a config file stands for in the file's table. Raises InputError naming what there is."""
    if argument not in table:
        raise unknown("argument", argument, table)
    return table[argument]


def meanings() -> dict[str, str]:
    """Each field's comment above, for people who read the command line and not this file."""
    return dict(re.findall(r"^    (\w+): \w+ = .*?  # (.+)$", inspect.getsource(Config), re.MULTILINE))


# A run may go on with other values of these: they change what is said and kept, and where, not what is learnt.
FREE = ("mesh", "zero", "cache", "eval_batch_size", "eval_every", "checkpoint_every", "keep", "log_every")

_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "cache": ("auto", "device", "host"),
    "average": ("probabilities", "logits"),
}
_AT_LEAST = {"dispatch": 0, "batch_size": 1, "repeats": 1, "eval_batch_size": 1, "accumulate": 1, "keep": 1, "seed": 0,
             "lr": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "ema": 0.0, "sam": 0.0, "aux_weight": 0.0}  # fmt: skip


def check(config: Config) -> Config:
    """Returns `config` if every field has its type and range; raises InputError naming the first that has not."""
    for name, field in FIELDS.items():
        value = getattr(config, name)
        if type(field.default) is float and type(value) is int:
            object.__setattr__(config, name, value := float(value))
        if type(value) is not type(field.default):
            raise InputError(
                f"config.{name} = {value!r}: expected {type(field.default).__name__}, as in {field.default!r}"
            )
        if name in _CHOICES and value not in _CHOICES[name]:
            raise InputError(f"config.{name} = {value!r}; {nearest(str(value), _CHOICES[name])}")
        if name in _AT_LEAST and not _AT_LEAST[name] <= value < float("inf"):
            raise InputError(f"config.{name} = {value!r}: expected at least {_AT_LEAST[name]}")
    if not config.train_split:
        raise InputError("config.train_split = '': expected a split, as in 'train'")
    if config.fold:
        number, _, folds = config.fold.partition("/")
        if not (number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) >= 2):
            raise InputError(f"config.fold = {config.fold!r}: expected one of at least two folds, as in '2/5'")
        if config.val_split:
            raise InputError(f"config.fold = {config.fold!r} is the validation split; leave val_split = '' with it")
    if config.ema >= 1:
        raise InputError(f"config.ema = {config.ema!r}: expected less than 1, as in 0.999")
    for name in ("accumulate", "repeats"):
        if config.batch_size % (parts := getattr(config, name)):
            raise InputError(f"config.batch_size = {config.batch_size}: expected a multiple of config.{name} = {parts}")
    return config


def load(path: pathlib.Path) -> Config:
    """The config in a run's config.json. Raises InputError when the file is missing or is not one."""
    try:
        return check(Config(**json.loads(path.read_text())))
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a run's folder: it has no {path.name}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def length(duration: str, *, epoch: float, total: int = 0) -> float:
    """The steps in a duration, with their fraction. `epoch`: steps per epoch; `total`: of the training.

    Raises InputError for anything but '<number> epochs', '<number> steps' or '<number>%'.
    """
    unit = {"epochs": epoch, "epoch": epoch, "steps": 1, "step": 1, "%": total / 100}
    text = str(duration).strip()  # inside a call string it may be a number
    number, _, word = (text[:-1], "", "%") if text.endswith("%") else text.partition(" ")
    try:
        value = float(number) * unit[word.strip()]
        if not 0 <= value < float("inf"):
            raise ValueError
    except (ValueError, KeyError):
        raise InputError(f"{duration!r} is not a duration; expected '15 epochs', '64000 steps' or '50%'") from None
    return value


def steps(duration: str, *, epoch: float, total: int = 0) -> int:
    """`length` in whole steps, at least 1 unless it is 0."""
    value = length(duration, epoch=epoch, total=total)
    return max(1, round(value)) if value else 0


def is_due(step: int, period: float) -> bool:
    """Whether a multiple of `period` (in steps) falls on this step, so that five epochs stay five epochs."""
    return step // max(period, 1) > (step - 1) // max(period, 1)
