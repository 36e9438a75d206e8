"""Makes the card of a weight file from the folders of the runs that differ in their seed alone."""

import datetime
import pathlib
from collections.abc import Callable, Sequence

from cnnjax import metrics, models, pretrained, sealed, spec
from cnnjax.config import RESUMABLE, Config
from cnnjax.data import download
from cnnjax.data.build import Split, load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import evaluate
from cnnjax.evaluation.recipe import with_views
from cnnjax.pretrained.cards import MIN_SEEDS, STACK, Card, Score
from cnnjax.runs import workdir

Log = Callable[[str], None]


def make_card(
    file: pathlib.Path,
    folders: Sequence[pathlib.Path],
    *,
    preprocess: str,
    about: str,
    license: str,  # noqa: A002
    url: str = "",
    data_dir: str = "",
    log: Log = print,
) -> Card:
    """Evaluates complete runs, and returns the card of the weights of the first.

    Args:
      file: the weight file of the first run.
      folders: runs of one config with different seeds.
      preprocess: operations on each image that the weight file names.
      about: network, data and recipe in a sentence.
      license: license of the weights.
      url: where the file will be; '' if it comes with the package.
      data_dir: folder of the data sets; '' for the default one.
      log: receives a line for each score.

    Raises InputError for fewer than two runs, incomplete ones, and runs that differ in more than their seed.
    """
    networks = [pretrained.load(folder) for folder in folders]
    config, seeds = networks[0].config, [network.config.seed for network in networks]
    if len(set(seeds)) < max(MIN_SEEDS, len(seeds)):
        raise InputError(f"a card needs at least {MIN_SEEDS} runs of different seeds, got the seeds {seeds}")
    results = [_result(folder, folders[0]) for folder in folders]
    examples = load(config.dataset, config.test_split, data_dir)
    scores = [
        score
        for folder, network in zip(folders, networks, strict=True)
        for score in _scores(folder, network, examples, log)
    ]
    versions = workdir.read_json(folders[0] / "versions.json")
    return Card(
        about=" ".join(about.split()),
        license=license,
        url=url,
        digest=download.digest_of(file, "sha256:"),
        params=models.count_params(networks[0].model, networks[0].data.shape),
        config=config,
        preprocess=preprocess,
        data=networks[0].data,
        images=len(examples),
        scores=tuple(scores),
        stack={name: str(versions[name]) for name in (*STACK, "python", "cnnjax") if name in versions},
        minutes=round(results[0]["seconds"] / 60, 1),
        date=f"{datetime.date.fromtimestamp((folders[0] / 'result.json').stat().st_mtime)}",
    )


def protocols(config: Config) -> list[str]:
    """Returns the protocols of a card: the config's own and, if the training mirrors images, 'flip'."""
    mirrors = any(call.name.startswith("flip") for call in spec.parse_pipeline(config.augment))
    return list(dict.fromkeys([config.protocol, *(["flip"] if mirrors else [])]))


def count_correct(network: pretrained.LoadedNetwork, examples: Split, protocol: str) -> int:
    """Returns the number of images of a split that the last checkpoint classifies correctly, by a test protocol."""
    network = network.replace(config=with_views(network.config, protocol=protocol))
    _, scores = evaluate.score(network, examples, sharding.make_mesh(), "last", lambda line: None)
    return int((metrics.predictions(scores.scores) == scores.labels).sum())


def _scores(folder: pathlib.Path, network: pretrained.LoadedNetwork, examples: Split, log: Log) -> list[Score]:
    """Evaluates a run by each protocol of its card."""
    scores = []
    for protocol in protocols(network.config):
        correct = count_correct(network, examples, protocol)
        log(f"{folder}: {correct:,} of {len(examples):,} test images are right, protocol {protocol}")
        scores.append(Score(network.config.seed, protocol, correct))
    return scores


def _result(folder: pathlib.Path, first: pathlib.Path) -> dict:
    """Returns result.json of a complete run. Raises InputError if its config differs in more than the seed."""
    if not (folder / "result.json").is_file():
        raise InputError(f"{folder}: its training is not complete")
    config = pretrained.load(first).config
    if changed := workdir.changed_settings(folder, config, (*RESUMABLE, "seed")):
        raise InputError(f"{folder} is not a run of the same config as {first}: {changed}")
    return sealed.read_json(folder / "result.json")
