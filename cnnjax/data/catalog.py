"""The data sets that can be built by name: their classes, splits, authors and original files.

Plain data, cheap to import. To add a data set: a row in `DATASETS` and, unless one fits, a reader in
`cnnjax.data.readers`. Other code may add rows to both tables.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """Describes an original file of a data set, as its authors publish it.

    Attributes:
        name: file name.
        urls: where to download it, tried in order.
        digest: 'md5:...', as published. Checked for downloads only: a user's own copy may be packed differently.
    """

    name: str
    urls: tuple[str, ...]
    digest: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Describes a data set of labeled images that can be built by name.

    Attributes:
        reader: key of `cnnjax.data.readers.READERS`: the function that reads the original files.
        shape: height, width and channels of the images; height and width are None if the images differ in size.
        splits: split name -> number of images.
        classes: class names in the order of the labels; () if only the original files name them.
        description: a sentence for listings.
        citation: reference to the publication; '' if there is none.
        homepage: URL; '' if there is none.
        files: original files to download; () if there is nothing to download, or if users have to bring the files.
        extra_labels: further labels of each image: feature name -> class names.
        has_boxes: whether each image has a box around what its label names: the feature "box".
    """

    reader: str
    shape: tuple[Any, Any, int]
    splits: dict[str, int]
    classes: tuple[str, ...]
    description: str
    citation: str = ""
    homepage: str = ""
    files: tuple[SourceFile, ...] = ()
    extra_labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    has_boxes: bool = False


def _names(text: str) -> tuple[str, ...]:
    """Splits a text at white space."""
    return tuple(text.split())


def _files(mirrors: tuple[str, ...], digests: dict[str, str]) -> tuple[SourceFile, ...]:
    """Builds a SourceFile for each file name -> digest in `digests`, with one URL per mirror: mirror + file name."""
    return tuple(SourceFile(name, tuple(m + name for m in mirrors), digest) for name, digest in digests.items())


_DIGITS = tuple("0123456789")

_FASHION = ("T-shirt/top", *_names("Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag"), "Ankle boot")

_CIFAR10 = _names("airplane automobile bird cat deer dog frog horse ship truck")

_CIFAR100 = _names(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail
    snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
    tulip turtle wardrobe whale willow_tree wolf woman worm"""
)

_CIFAR100_COARSE = _names(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2"""
)

_KRIZHEVSKY = "Alex Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009."
_TORONTO = "https://www.cs.toronto.edu/~kriz/"

DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        reader="digits",
        shape=(8, 8, 1),
        splits={"train": 1438, "test": 359},
        classes=_DIGITS,
        description="Handwritten digits of 43 people, 8x8 gray. Bundled with scikit-learn: nothing to download.",
        citation="E. Alpaydin and C. Kaynak. Optical Recognition of Handwritten Digits. UCI repository, 1998.",
        homepage="https://archive.ics.uci.edu/dataset/80",
    ),
    "digits_clutter": Dataset(
        reader="digits_clutter",
        shape=(64, 64, 1),
        splits={"train": 7190, "test": 1795},
        classes=_DIGITS,
        description="Those digits, one in each image, among fragments of others, 64x64 gray, with boxes. Made here.",
        citation="V. Mnih et al. Recurrent Models of Visual Attention. NeurIPS, 2014 (the task). Digits: see `digits`.",
        homepage="https://archive.ics.uci.edu/dataset/80",
        has_boxes=True,
    ),
    "mnist": Dataset(
        reader="idx",
        shape=(28, 28, 1),
        splits={"train": 60_000, "test": 10_000},
        classes=_DIGITS,
        description="Handwritten digits, 28x28 gray.",
        citation="Yann LeCun, Corinna Cortes and Christopher J. C. Burges. The MNIST database, 1998.",
        homepage="http://yann.lecun.com/exdb/mnist/",
        files=_files(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            {
                "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
            },
        ),
    ),
    "fashion_mnist": Dataset(
        reader="idx",
        shape=(28, 28, 1),
        splits={"train": 60_000, "test": 10_000},
        classes=_FASHION,
        description="Photographs of Zalando's articles, 28x28 gray.",
        citation="Han Xiao, Kashif Rasul and Roland Vollgraf. Fashion-MNIST. arXiv:1708.07747, 2017.",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        files=_files(
            (
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ),
            {
                "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
            },
        ),
    ),
    "cifar10": Dataset(
        reader="cifar10",
        shape=(32, 32, 3),
        splits={"train": 50_000, "test": 10_000},
        classes=_CIFAR10,
        description="Photographs of animals and vehicles, 32x32 RGB.",
        citation=_KRIZHEVSKY,
        homepage=_TORONTO + "cifar.html",
        files=_files((_TORONTO,), {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}),
    ),
    "cifar100": Dataset(
        reader="cifar100",
        shape=(32, 32, 3),
        splits={"train": 50_000, "test": 10_000},
        classes=_CIFAR100,
        extra_labels={"coarse_label": _CIFAR100_COARSE},
        description="Photographs of 100 classes in 20 superclasses, 32x32 RGB.",
        citation=_KRIZHEVSKY,
        homepage=_TORONTO + "cifar.html",
        files=_files((_TORONTO,), {"cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"}),
    ),
    "imagenet2012": Dataset(
        reader="imagenet",
        shape=(None, None, 3),
        splits={"train": 1_281_167, "validation": 50_000},
        classes=(),
        description="Photographs of 1,000 classes, of many sizes (ILSVRC 2012). Built from the original archives.",
        citation="Olga Russakovsky et al. ImageNet Large Scale Visual Recognition Challenge. IJCV 115, 2015.",
        homepage="https://image-net.org/",
    ),
}
