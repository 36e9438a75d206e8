"""Networks of weight files: finds the network, its preprocessing, and the arrays of the file that fit."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from cnnjax import spec
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.catalog import DATASETS
from cnnjax.data.info import DataInfo
from cnnjax.data.operations import parse_normalization, parse_operations
from cnnjax.errors import InputError
from cnnjax.models import MODELS, create_model, with_num_classes
from cnnjax.pretrained import catalog, description, files
from cnnjax.pretrained.convert import ImportedVariables
from cnnjax.pretrained.description import Description
from cnnjax.pretrained.library import list_layers
from cnnjax.pretrained.network import LoadedNetwork, Log, no_variables, put_variables

MEASURED = ("mean_std", "centered", "mean_image", "pixel_mean_std", "gcn_zca")  # need statistics of the training images
SIDES = (28, 32, 64, 96, 128, 224, 227, 256)  # of images, tried for a file that does not say
MAX_CLASS_NAMES_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """Describes a weight file where it does not describe itself, and how its arrays are matched.

    Attributes:
      like: published weights with the same network, classes and preprocessing; '' for none.
      model: call string of the network; '' for that of `like` or of the file's own description.
      normalize: input normalization, as config.normalize; '' for that of `like` or of the description.
      preprocess: operations on each image, as config.preprocess; None for those of `like` or of the description.
      classes: names of the classes, in the order of the logits; as a text, names with commas between them, a file with
        a name per line, or a data set of ours.
      match: '' matches arrays by name, 'order' by order and shape.
      may_lack: arrays that the file may lack: '' for none, 'head' for those of the classifier, 'any' for all. Only for
        the initialization of a training.
    """

    like: str = ""
    model: str = ""
    normalize: str = ""
    preprocess: str | None = None
    classes: str | Sequence[str] = ()
    match: str = ""
    may_lack: str = ""

    def given(self) -> list[str]:
        """Returns the names of the options that have a value."""
        return [name for name, value in vars(self).items() if value or (name == "preprocess" and value is not None)]


def load_file(path: pathlib.Path, key: str, options: FileOptions, log: Log) -> LoadedNetwork:
    """Reads a weight file, and returns its network with these weights.

    If the file has another number of classes than expected, the network gets that number, with classes named '0', '1',
    ... unless `options` names them.

    Args:
      path: the weight file.
      key: the set of weights in the file, as in `formats.state_dicts.choose`; '' for the most usual.
      options: what the file does not say.
      log: receives a line about each prefix that was removed, each set of weights not used, and the like.

    Raises InputError if the network is not known, or the file is damaged or of another network.
    """
    if options.match not in ("", "order"):
        raise InputError(f"match = {options.match!r}: expected 'order', or '' to match by name")
    network, library = _expected_network(path, options, log), catalog.find(options.like).library if options.like else ""
    weights = files.open_file(path, key, log)
    network, match = _fit(network, weights, library, options)
    if options.may_lack:
        match = files.without_missing(match, network.model, network.data.shape, options.may_lack)
    for remark in match.remarks:
        log(f"{path.name}: {remark}")
    variables, absent = match.check(str(path)), frozenset(match.missing_allowed)
    return network.replace(load_variables=lambda mesh, step, log: put_variables(variables, mesh, step), absent=absent)


def _fit(
    network: LoadedNetwork, weights: files.WeightSet, library: str, options: FileOptions
) -> tuple[LoadedNetwork, ImportedVariables]:
    """Matches a file's arrays to a network, which gets the file's number of classes and of channels.

    If nothing else says the size of the images and the arrays do not fit, the `SIDES` are tried, too. Returns the
    network and the match, which may have mismatches. Raises InputError if the network does not take such images.
    """
    first, problem, layers = None, None, ()
    for shape in _candidate_shapes(network, options):
        if layers and any(len(size) == 4 for size in layers[0].arrays.values()) and shape[2] != network.data.shape[2]:
            break  # the kernel of a convolution has told how many channels there are
        data = _with_channels(dataclasses.replace(network.data, shape=(*shape[:2], network.data.shape[2])), shape[2])
        try:
            fitted, found = _fit_classes(network.replace(data=data), weights, library, options)
        except InputError:
            raise
        except (TypeError, ValueError) as error:  # such as a kernel larger than the feature maps
            size = "x".join(map(str, shape))
            problem = problem or InputError(f"{network.config.model!r} does not take images of {size}: {error}")
            continue
        if not found.mismatches:
            return fitted, found
        first = first or (fitted, found)
        layers = list_layers(fitted.model, fitted.data.shape)
        flattens = getattr(fitted.model, "head", "") == "fc" or any(layer.flattened for layer in layers)
        if not flattens and all(math.prod(layer.fc_input[:2]) == 1 for layer in layers):
            break  # other sizes of images would not change the arrays
    if first is None:
        raise problem or InputError(f"{network.config.model!r} fits no images")
    return first


def _candidate_shapes(network: LoadedNetwork, options: FileOptions) -> Iterator[tuple[int, int, int]]:
    """Yields the shapes of images to try: the expected one first, and only that if something says so."""
    (height, width, channels), config = network.data.shape, network.config
    yield height, width, channels
    if options.like or config.dataset:
        return
    sizes = [(height, width)] if config.preprocess else [(height, width), *((side, side) for side in SIDES)]
    for count in (channels, 4 - channels):
        yield from ((*size, count) for size in sizes if (*size, count) != network.data.shape)


def _with_channels(data: DataInfo, channels: int) -> DataInfo:
    """Returns `data` for images with this number of channels."""
    if channels == data.shape[2]:
        return data
    statistics = {name: [data.statistics[name][0]] * channels for name in ("mean", "std")}
    return dataclasses.replace(data, shape=(*data.shape[:2], channels), statistics=statistics)


def _fit_classes(
    network: LoadedNetwork, weights: files.WeightSet, library: str, options: FileOptions
) -> tuple[LoadedNetwork, ImportedVariables]:
    """Does the work of `_fit` for one size of images. Raises ValueError if the network does not take such images."""

    def match(network: LoadedNetwork) -> ImportedVariables:
        return files.match(network.model, network.data.shape, weights, library, options.match)

    found, data = match(network), network.data
    if channels := files.input_channels(found, network.model, data.shape):
        data = _with_channels(data, channels)
        found = match(network := network.replace(data=data))
    if count := files.num_classes(found):
        if options.classes:
            raise InputError(f"{len(data.classes)} class names are given, but the file has {count} classes")
        data = dataclasses.replace(data, classes=numbered_classes(count), has_class_names=False)
        model = with_num_classes(network.model, count)
        found = match(network := network.replace(data=data, model=model))
    return network, found


def numbered_classes(count: int) -> tuple[str, ...]:
    """Returns the names '0', '1', ... of `count` classes."""
    return tuple(str(number) for number in range(count))


# ------------------------------------------------------------------------------------------- which network is expected


def published_network(row: catalog.PublishedWeights) -> LoadedNetwork:
    """Returns the network, config and data description of published weights, without the weights."""
    return _network(_published(row))


def _expected_network(path: pathlib.Path, options: FileOptions, log: Log) -> LoadedNetwork:
    """Returns the network that `options` or the file's own description name, without weights.

    Raises InputError if neither does. Logs a line if it is not known how images are normalized.
    """
    described = _published(catalog.find(options.like)) if options.like else description.read(path)
    if described is None and not options.model:
        raise InputError(
            f"{path} does not name its network: give --model, as in --model=resnet18, or --like=NAME, one of `cnnjax "
            "weights`"
        )
    if described is None:
        model = create_model(options.model)
        variant = MODELS[spec.parse(options.model).name]
        shape, count = variant.input_shape, getattr(model, "num_classes", variant.num_classes)
        statistics = {"mean": [0.0] * shape[2], "std": [1.0] * shape[2]}
        data = DataInfo(numbered_classes(count), shape, statistics, has_class_names=False)
        described = Description(Config(model=options.model, normalize="none", dataset=""), data)
        if options.normalize and parse_normalization(options.normalize).name in MEASURED:
            raise InputError(
                f"normalize = {options.normalize!r} needs statistics of the training images, which {path} lacks: "
                "give them, as in 'constants((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))'"
            )
        if not options.normalize and not options.may_lack:
            log(f"{path.name}: unknown normalization, so images are passed with values in [0, 1]; set it "
                "with --normalize, as in 'imagenet', 'symmetric' or 'constants((0.5,), (0.25,))'")  # fmt: skip
    changes = {"model": options.model, "normalize": options.normalize}
    config = dataclasses.replace(described.config, **{name: text for name, text in changes.items() if text})
    data = described.data
    if options.preprocess is not None and options.preprocess != config.preprocess:
        parse_operations(options.preprocess)
        config = dataclasses.replace(config, preprocess=options.preprocess)
        base = MODELS[spec.parse(config.model).name].input_shape
        data = dataclasses.replace(data, shape=(*_preprocessed(base, options.preprocess)[:2], data.shape[2]))
    if options.classes:
        data = dataclasses.replace(data, classes=class_names(options.classes), has_class_names=True)
    parse_normalization(config.normalize)
    if missing := (described := Description(config, data)).missing():
        raise InputError(f"normalize = {config.normalize!r} needs {', '.join(missing)}, which {path} lacks")
    return _network(described)


def _published(row: catalog.PublishedWeights) -> Description:
    """Returns the config and data description of published weights."""
    if row.card:
        return Description(dataclasses.replace(row.card.config, preprocess=row.preprocess), row.card.data)
    data_set = catalog.DATA_SETS[row.classes]
    config = Config(
        model=row.model,
        dataset=data_set.name,
        test_split=data_set.split,
        preprocess=row.preprocess,
        normalize=row.normalize,
    )
    shape = _preprocessed(MODELS[spec.parse(row.model).name].input_shape, row.preprocess)
    statistics = {"mean": list(data_set.mean), "std": list(data_set.std)}
    return Description(config, DataInfo(tuple(data_set.classes), shape, statistics))


def _preprocessed(shape: tuple[int, int, int], preprocess: str) -> tuple[int, int, int]:
    """Returns the shape [height, width, channels] of a larger image after `preprocess`; without operations, `shape`."""
    if not (calls := parse_operations(preprocess).host):
        return shape
    larger = np.array([[2 * max(shape), 2 * max(shape), shape[2]]])
    ((height, width, channels),) = pipeline.group_by_shape(larger, calls)
    return int(height), int(width), int(channels)


def _network(described: Description) -> LoadedNetwork:
    """Returns the network of a description, without weights."""
    model = create_model(described.config.model, len(described.data.classes), described.config.dtype)
    return LoadedNetwork(described.config, described.data, model, no_variables)


def class_names(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Returns class names from `FileOptions.classes`. Raises InputError for a file that cannot be read, or no names."""
    if not isinstance(classes, str):
        return tuple(map(str, classes))
    if classes in DATASETS or classes in catalog.DATA_SETS:
        key = next((key for key, row in catalog.DATA_SETS.items() if classes in (key, row.name)), "")
        names = catalog.DATA_SETS[key].classes if key else DATASETS[classes].classes
    elif os.path.isfile(classes):  # unlike pathlib's, False for a text too long for a path
        path = pathlib.Path(classes)
        if path.stat().st_size > MAX_CLASS_NAMES_BYTES:
            raise InputError(f"{path} is not a list of class names: it has {path.stat().st_size:,} bytes")
        try:
            names = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a list of class names, one per line: {error}") from None
    else:
        names = classes.split(",")
    if not (names := tuple(name.strip() for name in names if name.strip())):
        raise InputError(f"classes = {classes!r}: expected names with commas between them, a file or a data set")
    return names
