"""The same networks in PyTorch, for `cnnjax bench --vs=PYTHON`: a script that the other Python runs.

It reads requests from its standard input and answers on its standard output, each a line of JSON; between them it
waits in a read and does nothing. It imports nothing of cnnjax or JAX.

    first, unasked                                   -> {"torch": version, "cuda": whether it has a GPU}
    {"do": "build", "model": a call string, "what": "train" or "forward", "batch": N, "input": [H, W, C],
     "dtype": "float32" or "bfloat16", "device": "cpu" or "cuda", "threads": N, "compile": whether by torch.compile}
                                                     -> {"params": N, "source": library}, or {"params": null}: no peer
    the same with "what": "loop", training with a DataLoader, or "input", the DataLoader alone ("params" is 0), and
     "data": {"folder": of `labels.npy` and either `images.npy`, uint8 [N, H, W, C], or the encoded files '0', '1'...,
              "augment": [[operation, arguments, named arguments], ...], "workers": N}
                                                     -> the same
    {"do": "run", "steps": N}                        -> {"seconds": of all of them}
    what fails                                       -> {"error": why}
"""

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import time
from typing import Any

torch: Any = None  # imported by main, so that what imports this file for its table needs no torch


# ---------------------------------------------------------------------------------------------- networks of our own


def perceptron() -> Any:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))


def lenet5(act: str = "ReLU", pool: str = "MaxPool2d", padding: int = 2) -> Any:
    nn = torch.nn
    layers = []
    for inputs, maps, pad in ((1, 6, padding), (6, 16, 0), (16, 120, 0)):
        layers += [nn.Conv2d(inputs, maps, 5, padding=pad), getattr(nn, act)(), getattr(nn, pool)(2)]
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.LazyLinear(84), getattr(nn, act)(), nn.Linear(84, 10))


def lenet5_tanh() -> Any:
    return lenet5("Tanh", "AvgPool2d", 0)


def cifar_resnet(depth: int) -> Any:
    """He et al. 2016, sec. 4.2: three stages of basic blocks, shortcuts without parameters (option A)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs: int, maps: int, stride: int) -> None:
            super().__init__()
            self.more, self.stride = maps - inputs, stride
            self.conv1, self.norm1 = nn.Conv2d(inputs, maps, 3, stride, 1, bias=False), nn.BatchNorm2d(maps)
            self.conv2, self.norm2 = nn.Conv2d(maps, maps, 3, 1, 1, bias=False), nn.BatchNorm2d(maps)

        def forward(self, x: Any) -> Any:
            y = nn.functional.relu(self.norm1(self.conv1(x)), inplace=True)
            if self.more:
                x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return nn.functional.relu(self.norm2(self.conv2(y)) + x, inplace=True)

    maps = 16
    layers = [nn.Conv2d(3, maps, 3, 1, 1, bias=False), nn.BatchNorm2d(maps), nn.ReLU(True)]
    for stage, width in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            layers.append(Block(maps, width, 2 if stage and not block else 1))
            maps = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, 10))


def densenet40_12(growth: int = 12) -> Any:
    """Huang et al. 2017, sec. 4.2: three blocks of twelve layers, without bottlenecks and compression."""
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self, maps: int) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(maps), nn.Conv2d(maps, growth, 3, 1, 1, bias=False)

        def forward(self, x: Any) -> Any:
            return torch.cat([x, self.conv(nn.functional.relu(self.norm(x), inplace=True))], dim=1)

    maps = 16
    layers = [nn.Conv2d(3, maps, 3, 1, 1, bias=False)]
    for block in range(3):
        if block:
            layers += [nn.BatchNorm2d(maps), nn.ReLU(True), nn.Conv2d(maps, maps, 1, bias=False), nn.AvgPool2d(2)]
        for _ in range(12):
            layers.append(Layer(maps))
            maps += growth
    layers += [nn.BatchNorm2d(maps), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(maps, 10))


# --------------------------------------------------------------------------------------------- networks of libraries

# By our call string: the library, its name there, and its arguments. 'torch' stands for the functions above.
_CIFAR = {f"cifar_resnet{depth}": ("torch", "cifar_resnet", {"depth": depth}) for depth in (20, 32, 44, 56, 110, 1202)}
_TORCHVISION = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50_v1_5": "resnet50",
    "resnet101_v1_5": "resnet101",
    "resnet152_v1_5": "resnet152",
    "wide_resnet50_2": "wide_resnet50_2",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "resnext101_64x4d": "resnext101_64x4d",
    "alexnet_owt": "alexnet",
    "vgg_a": "vgg11",
    "vgg_b": "vgg13",
    "vgg_d": "vgg16",
    "vgg_e": "vgg19",
    **{name: name for depth in (11, 13, 16, 19) for name in (f"vgg{depth}", f"vgg{depth}_bn")},
    **{f"densenet{depth}": f"densenet{depth}" for depth in (121, 161, 169, 201)},
    "squeezenet1_0": "squeezenet1_0",
    "squeezenet1_1": "squeezenet1_1",
}
_PYTORCHCV = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnet152": "resnet152",
    "mobilenet_v1": "mobilenet_w1",
    "mobilenet_v1_075": "mobilenet_w3d4",
    "mobilenet_v1_050": "mobilenet_wd2",
    "mobilenet_v1_025": "mobilenet_wd4",
    "xception": "xception",
    "nin_cifar10": "nin_cifar10",
    "wide_resnet28_10": "wrn28_10_cifar10",
    "resnext29_16x64d": "resnext29_16x64d_cifar10",
    "densenet_bc100_12": "densenet100_k12_bc_cifar10",
    "densenet_bc190_40": "densenet190_k40_bc_cifar10",
}
_TIMM = {
    "resnext101_32x4d": "resnext101_32x4d",
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext50_32x4d": "legacy_seresnext50_32x4d",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
}
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{name: ("torch", name, {}) for name in ("perceptron", "lenet5", "lenet5_tanh", "densenet40_12")},
    **_CIFAR,
    **{ours: ("torchvision", theirs, {"weights": None}) for ours, theirs in _TORCHVISION.items()},
    "googlenet_torchvision": ("torchvision", "googlenet", {"aux_logits": False, "init_weights": False}),
    **{ours: ("pytorchcv", theirs, {}) for ours, theirs in _PYTORCHCV.items()},
    **{ours: ("timm", theirs, {}) for ours, theirs in _TIMM.items()},
}
_FACTORIES = {"torchvision": "torchvision.models", "pytorchcv": "pytorchcv.model_provider", "timm": "timm"}
_declared: list[Any] = []  # torch forgets a library's operators with the object


def make(library: str, name: str, arguments: dict[str, Any]) -> Any:
    """A network with random weights, in training mode."""
    if library == "torch":
        return globals()[name](**arguments)
    _declare_operators()
    module = importlib.import_module(_FACTORIES[library])
    if library == "torchvision":
        return getattr(module, name)(**arguments)
    net = (module.get_model if library == "pytorchcv" else module.create_model)(name, **arguments)
    for part in net.modules():
        if hasattr(part, "final_pool"):  # pytorchcv's is for one size of images
            part.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def _declare_operators() -> None:
    """torchvision, which timm imports too, does not start without operators that it may have for another torch only.

    Networks for classification use none of them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations or _declared:
        return
    try:
        torch.ops.load_library(os.path.join(found.submodule_search_locations[0], "_C.so"))
    except OSError:
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _declared[0].define(name + "(Tensor a, Tensor b, float c) -> Tensor")


# ------------------------------------------------------------------------------------------------------- their batches

# An operation of ours as torchvision's, given its name for that, the image's sides and the operation's arguments.
TRANSFORMS: dict[str, Any] = {
    "resize": lambda t, sides, size: t.Resize(size),
    "center_crop": lambda t, sides, size: t.CenterCrop(size),
    "random_crop": lambda t, sides, size: t.RandomCrop(size),
    "random_resized_crop": lambda t, sides, size, **ranges: t.RandomResizedCrop(size, **ranges),
    "pad_crop": lambda t, sides, pad: t.RandomCrop(sides, padding=pad),
    "flip_lr": lambda t, sides, probability=0.5: t.RandomHorizontalFlip(probability),
}


class Examples:
    """A map-style data set, as torchvision's CIFAR10 and ImageFolder are: arrays in memory, or files."""

    def __init__(self, folder: str, transform: Any) -> None:
        import numpy as np

        self.folder, self.transform, self.labels = folder, transform, np.load(os.path.join(folder, "labels.npy"))
        path = os.path.join(folder, "images.npy")
        self.images = np.load(path) if os.path.exists(path) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        if self.images is None:
            with Image.open(os.path.join(self.folder, str(index))) as file:
                image = file.convert("RGB")
        else:
            image = Image.fromarray(self.images[index].squeeze())
        return self.transform(image), int(self.labels[index])


def batches(request: dict[str, Any]) -> Any:
    """A DataLoader's batches, one epoch after the other without end, as the tutorials have it."""
    _declare_operators()
    transforms = importlib.import_module("torchvision.transforms")
    data, sides = request["data"], request["input"][:2]
    steps = []
    for name, arguments, named in data["augment"]:
        if name not in TRANSFORMS:
            raise ValueError(f"torchvision's side has no operation {name!r}; it has {', '.join(TRANSFORMS)}")
        steps.append(TRANSFORMS[name](transforms, sides, *arguments, **named))
    steps += [transforms.ToTensor(), transforms.Normalize([0.5], [0.25])]  # any numbers take as long
    loader = torch.utils.data.DataLoader(
        Examples(data["folder"], transforms.Compose(steps)), request["batch"], shuffle=True, drop_last=True,
        num_workers=data["workers"], persistent_workers=True, pin_memory=request["device"] == "cuda",
    )  # fmt: skip
    while True:
        yield from loader


# --------------------------------------------------------------------------------------------------------- the worker


def build(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The answer to a request to build, and the function that takes so many steps and returns their seconds."""
    what, device = request["what"], request["device"]
    stream: Any = batches(request) if what in ("input", "loop") else iter(())
    if what == "input":
        return {"params": 0, "source": "a DataLoader"}, timed(lambda: next(stream), device)
    if request["model"] not in PEERS:
        return {"params": None}, None
    torch.set_num_threads(request["threads"])
    height, width, channels = request["input"]
    library, name, arguments = PEERS[request["model"]]
    images = torch.randn(request["batch"], channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    net = make(library, name, arguments).to(device)
    with torch.no_grad():
        classes = net.eval()(images[:1]).shape[-1]  # layers that find out the size of their input do so here, too
    labels = torch.randint(classes, (request["batch"],), device=device)
    net = net.to(memory_format=torch.channels_last)
    params = sum(p.numel() for p in net.parameters())
    called = torch.compile(net) if request["compile"] else net
    half = request["dtype"] == "bfloat16"

    def precision() -> Any:
        return torch.autocast(device, dtype=torch.bfloat16) if half else contextlib.nullcontext()

    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def train(images: Any = images, labels: Any = labels) -> None:
        optimizer.zero_grad()
        with precision():
            loss = torch.nn.functional.cross_entropy(called(images), labels)
        loss.backward()
        optimizer.step()

    def loop() -> None:
        images, labels = (x.to(device, non_blocking=True) for x in next(stream))
        train(images.to(memory_format=torch.channels_last), labels)

    def forward() -> None:
        with torch.inference_mode(), precision():
            called(images)

    net.train(what != "forward")
    step = {"train": train, "forward": forward, "loop": loop}[what]
    version = importlib.import_module(library).__version__
    return {"params": params, "source": f"{library} {version}"}, timed(step, device)


def timed(step: Any, device: str) -> Any:
    """The function that takes so many steps, waits for the device and returns the seconds."""

    def run(steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return run


def main() -> None:
    """Answers requests until there are no more."""
    global torch
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    torch = importlib.import_module("torch")
    print(json.dumps({"torch": torch.__version__, "cuda": torch.cuda.is_available()}), file=answers, flush=True)
    run: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "build":
                answer, run = build(request)
            else:
                answer = {"seconds": run(request["steps"])}
        except Exception as error:  # whatever it is, the other side says it
            answer = {"error": " ".join((type(error).__name__ + ": " + str(error)).split())[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
