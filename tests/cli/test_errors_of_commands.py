"""Errors of the command line: one line that names the value and what was expected, and nothing is lost."""

import pathlib

import cv2
import numpy as np
import pytest

from cnnjax import cli

DIGITS = "--config=configs/digits_lenet5.py"


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is typed after `cnnjax`, and what the error must say. {run} is a finished run's folder, {tmp} an empty one.
WRONG = {
    "command": ("tran", "unknown command 'tran'; did you mean 'train'?"),
    "no config": ("train", "--config=FILE is missing"),
    "misspelled config": ("train --confg=x", "unknown flag '--confg=x'; did you mean '--config'?"),
    "config name": ("train digit_lenet5", "there is no config 'digit_lenet5'; did you mean 'digits_lenet5'?"),
    "config by name": ("train digits_lenet5 --config.lr 0.1 --config.bach_size 3", "unknown config field 'bach_size'"),
    "config twice": (f"train {DIGITS} digits_lenet5", "unexpected argument 'digits_lenet5'"),
    "config name last": ("train --config.lr 0.1 digits_lenet5", "--config=FILE is missing"),
    "config by name and workdir": ("train --workdir={tmp}/new digits_lenet5 --config.lr=x", "config.lr=x"),
    "sweep by name": ("sweep digits_lenet5 --trials=2", "the sweep has no space"),
    "sweep of no config": ("sweep digit_lenet5", "there is no config 'digit_lenet5'; did you mean 'digits_lenet5'?"),
    "bench by name": ("bench digits_lenet5 --config.lrr=3", "unknown config field 'lrr'"),
    "config file": ("train --config=configs/digit_lenet5.py", "did you mean 'configs/digits_lenet5.py'"),
    "config argument": (f"train {DIGITS}:x", "takes no argument, got 'x'"),
    "flag": (f"train {DIGITS} --wrkdir=x", "unknown flag '--wrkdir=x'; did you mean '--workdir'?"),
    "flag of train": ("train digits_lenet5 --reprot", "unknown flag '--reprot'; did you mean '--report'?"),
    "field": (f"train {DIGITS} --config.bach_size=3", "unknown config field 'bach_size'; did you mean 'batch_size'?"),
    "type": (f"train {DIGITS} --config.batch_size=many", "config.batch_size=many: expected a whole number"),
    "fraction": (f"train {DIGITS} --config.batch_size=64.5", "config.batch_size=64.5: expected a whole number, as in "),
    "number": (f"train {DIGITS} --config.lr abc", "config.lr=abc: expected a number, as in "),
    "truth": (f"train {DIGITS} --config.init_partial=Yes", "config.init_partial=Yes: expected True or False, as in "),
    "negative": (f"train {DIGITS} --config.batch_size=-8", "config.batch_size = -8: expected at least 1"),
    "choice": (f"train {DIGITS} --config.dtype=float16", "'float16'; did you mean 'bfloat16'?"),
    "model": (f"train {DIGITS} --config.model=lenet6", "unknown model 'lenet6'; did you mean 'lenet5'?"),
    "model field": (f"train {DIGITS} --config.model=lenet5(pol='max')", "has no argument 'pol'; did you mean 'pool'?"),
    "model value": (f"train {DIGITS} --config.model=cifar_resnet20(shortcut='C')", "valid: A, B, none"),
    "too small": (f"train {DIGITS} --config.augment=", "'lenet5' does not take images of (8, 8, 1)"),
    "augmentation": (
        f"train {DIGITS} --config.augment=resize(28)|fliplr",
        "unknown operation 'fliplr'; did you mean 'flip_lr'",
    ),
    "order": (f"train {DIGITS} --config.augment=flip_lr|resize(28)", "'resize' runs on the host"),
    "normalization": (
        f"train {DIGITS} --config.normalize=mean",
        "unknown normalization 'mean'; did you mean 'mean_std'",
    ),
    "optimizer": (f"train {DIGITS} --config.optimizer=adamx", "unknown optimizer 'adamx'; did you mean 'adam"),
    "schedule": (f"train {DIGITS} --config.schedule=cosin", "unknown schedule 'cosin'; did you mean 'cosine'?"),
    "loss": (f"train {DIGITS} --config.loss=entropy", "unknown loss 'entropy'"),
    "duration": (f"train {DIGITS} --config.duration=3", "'3' is not a duration; expected '15 epochs'"),
    "call string": (f"train {DIGITS} --config.model=lenet5(", "'lenet5(' is not a call string"),
    "protocol": (f"train {DIGITS} --config.protocol=flipp", "unknown protocol 'flipp'; did you mean 'flip'?"),
    "rate factors": (f"train {DIGITS} --config.lr_factors=bias", "'bias': expected PATTERN:FACTOR, as in 'bias$:2'"),
    "decay mask": (f"train {DIGITS} --config.decay_mask=kernal", "'kernal' matches no parameter"),
    "data set": (f"train {DIGITS} --config.dataset=digit", "no data set 'digit' in "),
    "split": (f"train {DIGITS} --config.test_split=tets", "'tets'; did you mean 'test'?"),
    "no split": (f"train {DIGITS} --config.train_split=", "config.train_split = '': expected a split"),
    "empty split": (f"train {DIGITS} --config.train_split=train[5:5]", "is empty"),
    "other config": (f"train {DIGITS} --workdir={{run}} --config.lr=7", "holds a run with another config: "),
    "not a run": (f"train {DIGITS} --workdir=tests", "tests is not empty and not a run's folder"),
    "workdir is a file": (f"train {DIGITS} --workdir=README.md", "README.md"),
    "workdir cannot be": (f"train {DIGITS} --workdir=/proc/here", "/proc/here"),
    "evaluate what": ("evaluate", "or a weight file, or several runs as --ensemble=DIR,DIR (see cnnjax"),
    "evaluate ensemble": ("evaluate --ensemble={run},{tmp}", "is not a run's folder: it has no config.json"),
    "evaluate protocol": ("evaluate {run} --protocol=tencrop(20)", "'tencrop'; did you mean 'ten_crop'?"),
    "evaluate no run": ("evaluate {tmp}", "is not a run's folder: it has no config.json"),
    "evaluate near a run": (
        "evaluate {run}/../finishd",
        "finishd does not exist; did you mean '{run}/../finished'?",
    ),
    "evaluate no file": ("evaluate mine.pth --model=resnet18", "error: mine.pth does not exist\n"),
    "visualize near a run": ("visualize {run}/../finishd", "finishd does not exist; did you mean '{run}/../finished'?"),
    "report near a run": ("report {run}/../finishd", "finishd does not exist; did you mean '{run}/../finished'?"),
    "resume near a run": ("train --workdir={run}/../finishd", "does not exist; did you mean '{run}/../finished'?"),
    "step": ("evaluate {run} --step=3", "no checkpoint of step '3'; valid: last, best, 2, 4"),
    "no best": ("evaluate {run} --step=best", "has no val_split; use --step=last"),
    "evaluate split": ("evaluate {run} --split=training", "'training'; did you mean 'train'?"),
    "evaluate data": ("evaluate {run} --dataset=digts", "did you mean 'digits'?"),
    "batch": ("evaluate {run} --batch_size=-1", "--batch_size=-1: expected at least 1"),
    "summary near a run": ("summary {run}/../finishd", "does not exist; did you mean '{run}/../finished'?"),
    "compare one": ("compare {run}", "1 run: expected 2 to 26 folders of runs"),
    "compare twice": ("compare {run} {run}/../finished", "is given twice, also as {run}: expected different runs"),
    "compare no run": ("compare {run} {tmp}", "{tmp} is not a run's folder: it has no config.json"),
    "predict what": ("predict", "the network is missing: expected a run's folder, a name of `cnnjax weights`"),
    "predict an image": ("predict x.png", "or a weight file, before the image x.png (see cnnjax predict --help)"),
    "predict two networks": ("predict {run} {run} x.png", "unexpected argument '{run}': the network is {run}"),
    "predict run and file": ("predict {run} --init=x.pth x.png", "unexpected argument '{run}': the network is x.pth"),
    "predict dashes behind flags": ("predict {run} --top=1 -- -x.png", "-x.png: there is no such file or folder"),
    "frames of weights": ("visualize cnnjax:lenet5.digits --steps=all", "--steps=all is for the checkpoints of a run"),
    "predict a folder": ("predict {tmp} x.png", "is not a run's folder: it has no config.json"),
    "evaluate two runs": ("evaluate {run} {tmp}", "unexpected argument '{tmp}': the network is {run} (see"),
    "evaluate run and flag": ("evaluate {run} --workdir={tmp}", "unexpected argument '{run}': the network is {tmp}"),
    "export two runs": ("export {run} --workdir={tmp} --to=x.pth", "unexpected argument '{run}': the network is {tmp}"),
    "train near a run": ("train {run}/../finishd", "finishd does not exist; did you mean '{run}/../finished'?"),
    "train a run": ("train {run}", "{run} is a run, not a config: resume it with --workdir={run}, or train it again"),
    "predict both": ("predict --workdir={run} --init={run} x.png", "and not both"),
    "predict no image": ("predict {run}", "no image is given: expected files or folders"),
    "predict not there": ("predict {run} {tmp}/x.png", "{tmp}/x.png: there is no such file or folder"),
    "predict behind a flag": ("predict {run} a.png --top=1 b.png", "a.png: there is no such file"),
    "predict dashes": ("predict {run} -- -x.png", "-x.png: there is no such file or folder"),
    "predict empty folder": ("predict {run} {tmp}", "{tmp}: there are no images (.jpg, .jpeg, "),
    "predict no run": ("predict {tmp} x.png", "is not a run's folder: it has no config.json"),
    "predict top": ("predict {run} --top=0 x.png", "--top=0: expected at least 1"),
    "predict protocol": ("predict {run} --protocol=tencrop(20) x.png", "'tencrop'; did you mean 'ten_crop'?"),
    "predict step": ("predict {run} --step=3 pyproject.toml", "no checkpoint of step '3'; valid: last, best"),
    "probe layer": ("probe {run} --layer=hidden", "'hidden'; did you mean 'hidden1'?"),
    "probe k": (
        "probe {run} --split=test[:9] --train_split=train[:9]",
        "k = 20: expected at least 1, and no",
    ),
    "probe data": ("probe {run} --dataset=digts", "did you mean 'digits'?"),
    "export to": ("export {run}", "--to=FILE is missing"),
    "export what": ("export {run} --to={tmp}/net.onx", "unknown format '.onx'; supported: .stablehlo, .onnx"),
    "export folder": ("export {run} --to={tmp}/no/net.pth", "the folder {tmp}/no"),
    "export input": ("export {run} --to={tmp}/net.stablehlo --input=9", "--input=9: expected height, width"),
    "export size": ("export {run} --to={tmp}/net.stablehlo --input=9x9", "does not take images of (9, 9, 1)"),
    "wrong flag": (
        "evaluate {run} --bach_size=3",
        "unknown flag '--bach_size=3'; did you mean '--batch_size'?",
    ),
    "stray word": ("models lenet5 vgg", "unexpected argument 'vgg' (see cnnjax models --help)"),
    "overrides without a config": (
        "configs --config.lr=1",
        "unexpected argument '--config.lr=1' without a config file",
    ),
    "sweep action": ("sweep shwo", "did you mean 'show'?"),
    "sweep timeout": (f"sweep {DIGITS} --space.lr=[1] --silence=0", "--stall_timeout=0.0: expected at least 0.01"),
    "cache": ("cache clear pixel", "unknown cache 'pixel'; did you mean 'pixels'?"),
    "shell": ("completion fish", "invalid choice: 'fish'"),
    "models": ("models resnet21", "unknown model 'resnet21'"),
    "data action": ("data bild", "invalid choice: 'bild'; did you mean 'build'? valid: build, "),
    "data": ("data build", "the data set's name is missing"),
    "flag of another action": ("data list --overwrite", "--overwrite is a flag of build; `data list` does not use it"),
    "count of another action": ("data remove mnist --count=3", "--count is a flag of preview; `data remove` does not"),
    "listed": ("data list nix", "unknown data set 'nix'"),
    "raw files": ("data build mnist --source={tmp}", "train-images-idx3-ubyte"),
    "no source": ("data build cifar10 --source={tmp}/no", "no"),
    "bench model": ("bench lenet6", "unknown model 'lenet6'; did you mean 'lenet5'?"),
    "bench call": ("bench lenet5(pol='max')", "has no argument 'pol'; did you mean 'pool'?"),
    "bench what": ("bench lenet5 --what=trian", "unknown --what 'trian'; did you mean 'train'?"),
    "bench batch": ("bench lenet5 --batch=0", "--batch=0: expected at least 1"),
    "bench repeats": ("bench lenet5 --repeats=0", "--repeats=0: expected at least 1"),
    "bench tolerance": ("bench lenet5 --tolerance=nan", "--tolerance=nan: expected at least 0"),
    "bench input": ("bench lenet5 --input=28", "--input=28: expected height, width and channels, as in 28x28x1"),
    "bench flag": ("bench lenet5 --bach=3", "unexpected argument --bach=3"),
    "bench field": ("bench lenet5 --config.lr=1", "--config.lr=1 without --config=FILE"),
    "bench config's flag": (f"bench {DIGITS} --bach=3", "unknown flag '--bach=3'; did you mean '--batch'?"),
    "bench config's field": (f"bench {DIGITS} --config.lrr=3", "unknown config field 'lrr'"),
    "bench two": (f"bench lenet5 {DIGITS}", "models and --config do not go together"),
    "bench no data": ("bench lenet5 --what=input", "--what=input needs --config=FILE"),
    "bench peer's step": (
        f"bench {DIGITS} --vs=python --what=input,train",
        "--what=input,train: with --config, --vs compares input and loop",
    ),
    "bench csv": ("bench lenet5 --csv={tmp}/no/new.csv", "there is no folder {tmp}/no"),
    "bench other csv": ("bench lenet5 --csv=README.md", "README.md has no column 'date'"),
    "bench no baseline": ("bench lenet5 --against={tmp}/no.csv", "no.csv: No such file or directory"),
    "bench profile": ("bench lenet5 --profile=README.md", "README.md"),
    "configs": ("configs configs/nix.py", "there is no config file 'configs/nix.py'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_gives_one_clear_line_and_loses_nothing(
    case: str, finished_run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed, message = WRONG[case]
    before = contents(finished_run)
    argv = typed.format(run=finished_run, tmp=tmp_path).split(" ")
    if argv[0] == "train" and "--workdir" not in typed:
        argv.append(f"--workdir={tmp_path / 'new'}")
    try:
        status = cli.main(argv)
    except SystemExit as error:  # argparse
        status = error.code
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert error.startswith("error: ")
    assert message.format(run=finished_run, tmp=tmp_path) in error
    assert len(error.strip().splitlines()) <= 2
    assert len(error) < 500
    assert contents(finished_run) == before
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_a_broken_image_is_named_with_its_path(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ant", "bee"):
        folder = tmp_path / "raw" / "train" / name
        folder.mkdir(parents=True)
        data = cv2.imencode(".png", np.full((9, 9, 3), 7, np.uint8))[1].tobytes()
        (folder / "1.png").write_bytes(data if name == "ant" else data[:40])
    assert cli.main(["data", "build", "insects", f"--source={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'out'}"]) == 1
    assert "bee/1.png" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/insects/*"))


def test_a_config_file_with_a_mistake_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from cnnjax.config import Config\ndef get_config():\n  c = Config()\n  c.lrr = 1\n  return c\n")
    assert cli.main(["configs", str(path)]) == 1
    assert "unknown config field 'lrr'; did you mean 'lr'?" in capsys.readouterr().err
