"""Original files of data sets, written by hand with a few images each, and comparisons with what was built."""

import gzip
import io
import pathlib
import pickle
import struct
import tarfile
import zlib

import numpy as np
import scipy.io
from PIL import Image

from cnnjax.data.build import load

SIZES = {"train": 10, "test": 4}
CIFAR = {"cifar10": (10, ["label"]), "cifar100": (100, ["coarse_label", "label"])}


def silent(line: str) -> None:
    del line


def pixels(split: str, shape: tuple) -> np.ndarray:
    return np.random.default_rng(len(split)).integers(0, 256, (SIZES[split], *shape), np.uint8)


def labels(split: str, classes: int) -> np.ndarray:
    return np.random.default_rng(len(split) + 1).integers(0, classes, SIZES[split]).astype(np.uint8)


def write_idx(folder: pathlib.Path, gz: bool = False) -> dict[str, tuple]:
    """MNIST's four files, written by hand from the format's description."""
    truth = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        truth[split] = pixels(split, (28, 28, 1)), labels(split, 10)
        for kind, array in (("images-idx3", truth[split][0][..., 0]), ("labels-idx1", truth[split][1])):
            sides = b"".join(int(side).to_bytes(4, "big") for side in array.shape)
            data = bytes([0, 0, 8, array.ndim]) + sides + array.tobytes()
            path = folder / f"{prefix}-{kind}-ubyte"
            path.with_name(path.name + ".gz" * gz).write_bytes(gzip.compress(data) if gz else data)
    return truth


def write_cifar(folder: pathlib.Path, name: str, form: str) -> dict[str, tuple]:
    """CIFAR's files, binary or as Python 2 pickled them, in the folder their archive has."""
    digits, kinds = name.removeprefix("cifar"), CIFAR[name][1]
    place = folder / {"bin": f"cifar-{digits}-b" + ("atches-bin" if digits == "10" else "inary"),
                      "py": f"cifar-{digits}-" + ("batches-py" if digits == "10" else "python")}[form]  # fmt: skip
    place.mkdir(parents=True)
    truth = {}
    for split in SIZES:
        image = pixels(split, (32, 32, 3))
        label = {kind: labels(split, 20 if kind == "coarse_label" else CIFAR[name][0]) for kind in kinds}
        truth[split] = image, label["label"]
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        names = names if digits == "10" else [split]
        for rows, file in zip(np.array_split(np.arange(SIZES[split]), len(names)), names, strict=True):
            planes = image[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
            if form == "bin":
                records = np.concatenate([*(label[kind][rows, None] for kind in kinds), planes], axis=1)
                (place / f"{file}.bin").write_bytes(records.tobytes())
            else:
                keys = {"label": b"labels" if digits == "10" else b"fine_labels", "coarse_label": b"coarse_labels"}
                batch = {b"data": planes} | {keys[kind]: label[kind][rows].tolist() for kind in kinds}
                (place / file).write_bytes(pickle.dumps(batch, protocol=2))
    return truth


def encoded(size: tuple[int, int], mode: str, kind: str, seed: int = 0, **options) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def png_of(height: int, width: int, depth: int = 8, color: int = 0, rows: bytes = b"") -> bytes:
    """A PNG by hand, whose header may claim any size."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
              for name, data in parts)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_tree(folder: pathlib.Path, splits: tuple[str, ...] = ("train", "val")) -> dict[str, bytes]:
    """Class folders of images of several sizes, modes and spellings; returns path -> bytes."""
    files = {}
    for split in splits:
        for i, name in enumerate(["ants/b.jpg", "ants/a.JPEG", "bees/c.PNG", "bees/d.png"]):
            mode, kind = [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("P", "PNG")][i]
            files[f"{split}/{name}".lstrip("/")] = encoded((20 + i, 30 - i), mode, kind, i)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


WNIDS = ("n03", "n01", "n02")  # in the order of the kit's numbers
TRUTH = (2, 1, 3, 3)


def write_imagenet(folder: pathlib.Path, broken: str = "") -> dict[str, tuple[bytes, int]]:
    """ImageNet's three archives of three classes; returns name -> (bytes, label), of both splits."""
    truth, train = {}, {}
    for label, wnid in enumerate(sorted(WNIDS)):
        mode = ("RGB", "L", "CMYK")[label]
        inside = {f"{wnid}_{i}.JPEG": encoded((9 + i, 12 - label), mode, "JPEG", i) for i in range(2)}
        inside = {name: data[:-60] if name == broken else data for name, data in inside.items()}
        train[f"{wnid}.tar"] = packed(inside)
        truth |= {name: (data, label) for name, data in inside.items()}
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(i, wnid, "a, b", 0) for i, wnid in enumerate(WNIDS, 1)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array([*rows, (4, "n99", "above", 3)], kinds)[:, None]})
    numbers = "".join(f"{number}\n" for number in TRUTH).encode()
    data = "ILSVRC2012_devkit_t12/data/"
    kit = {data + "meta.mat": meta.getvalue(), data + "ILSVRC2012_validation_ground_truth.txt": numbers}
    val = {f"ILSVRC2012_val_{i:08}.JPEG": encoded((8, 8 + i), "RGB", "JPEG", i) for i in (1, 2, 4, 3)}
    for name, one in val.items():
        truth[name] = one, sorted(WNIDS).index(WNIDS[TRUTH[int(name[15:23]) - 1] - 1])
    (folder / "ILSVRC2012_img_train.tar").write_bytes(packed(train))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(packed(val))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(packed(kit)))
    return truth


def assert_holds(root: pathlib.Path, name: str, truth: dict[str, tuple]) -> None:
    """The data set has exactly these images with these labels (TFDS keeps them in the order of a hash)."""
    for split, (image, label) in truth.items():
        data = load(name, split, str(root), silent)
        got, got_label = data.read(np.arange(len(data)))
        assert got_label.dtype == np.int32
        assert all(one.dtype == np.uint8 and one.shape == data.shape for one in got)
        assert sorted((a.tobytes(), int(b)) for a, b in zip(got, got_label, strict=True)) == sorted(
            (a.tobytes(), int(b)) for a, b in zip(image, label, strict=True)
        )


def everything(root: pathlib.Path, name: str, split: str = "train") -> tuple:
    data = load(name, split, str(root), silent)
    image, label = data.read(np.arange(len(data)))
    return np.stack(image), label


BIN, PY = "cifar-10-batches-bin", "cifar-10-batches-py"
