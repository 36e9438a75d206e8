"""Descriptions inside our weight files: the network, its classes and the preprocessing that it was trained with.

A description is JSON: in a .safetensors file in its metadata, in a .pth or .pt file as a member of the zip archive that
PyTorch ignores.
"""

import dataclasses
import json
import pathlib
import zipfile

from cnnjax import config as configs
from cnnjax import spec
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.data.operations import parse_operations, required_statistics
from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from cnnjax.pretrained.formats import safetensors

KEY = "cnnjax"  # in the metadata of a .safetensors file
MEMBER = "cnnjax.json"  # in the archive of a .pth file
MAX_BYTES = 25_000_000  # as the header of a .safetensors file
MAX_VALUES = 1 << 18  # of one statistic: the whitening matrix of CIFAR images has 36 times as many

# Fields of the config that decide what a network computes for an image, and on which data set it is evaluated.
FIELDS = ("model", "normalize", "preprocess", "protocol", "average", "dtype", "dataset", "test_split")


@dataclasses.dataclass(frozen=True)
class Description:
    """A network and its preprocessing, as a weight file describes them.

    Attributes:
      config: a config with the `FIELDS` of the training; the others have their defaults.
      data: classes, image shape, and the statistics that the preprocessing needs.
    """

    config: Config
    data: DataInfo

    def to_json(self) -> str:
        """Returns the description as JSON, for a weight file, without the statistics of `left_out`."""
        names = {"mean", "std"} | self._required() - set(self.left_out())
        kept = {name: array.tolist() for name, array in self.data.statistic_arrays().items() if name in names}
        data = dataclasses.replace(self.data, statistics=kept)
        fields = {name: getattr(self.config, name) for name in FIELDS}
        return json.dumps({"config": fields, "data": data.to_dict()})

    def left_out(self) -> list[str]:
        """Returns the names of required statistics with more than `MAX_VALUES` values, which are not written."""
        arrays = self.data.statistic_arrays()
        return sorted(name for name in self._required() if name in arrays and arrays[name].size > MAX_VALUES)

    def missing(self) -> list[str]:
        """Returns the names of required statistics that the data description lacks."""
        return sorted(self._required() - self.data.statistics.keys())

    def _required(self) -> set[str]:
        """Returns the names of the statistics that the preprocessing takes, besides the mean and deviation."""
        operations = parse_operations(self.config.preprocess)
        return required_statistics(operations, normalization=spec.parse(self.config.normalize))


def read(path: pathlib.Path) -> Description | None:
    """Returns the description in a weight file, None if it has none. Raises InputError for a damaged one."""
    match formats.format_name(path):
        case "safetensors":
            text = safetensors.read_metadata(path).get(KEY, "")
        case "torch":
            text = _torch_text(path)
        case _:
            text = ""
    if not text:
        return None
    try:
        content = json.loads(text)
        fields = {name: content["config"][name] for name in FIELDS}
        config, data = configs.check(Config(**fields)), DataInfo.from_dict(content["data"])
        if not all(isinstance(name, str) for name in data.classes) or not all(type(side) is int for side in data.shape):
            raise TypeError("class names or sides of other types")
        return Description(config, data)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: its description of the network is damaged: {str(error)[:200]}") from None


def _torch_text(path: pathlib.Path) -> str:
    """Returns the description in a PyTorch file; '' if it has none. Raises InputError for one above `MAX_BYTES`."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(f"/{MEMBER}")]
            if not members:
                return ""
            if members[0].file_size > MAX_BYTES or members[0].compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{path}: {MEMBER} in it has over {MAX_BYTES:,} bytes or is compressed")
            return archive.read(members[0]).decode()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InputError(f"{path}: its description of the network is damaged: {error}") from None
