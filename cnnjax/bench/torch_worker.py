"""The same networks in PyTorch, for `cnnjax bench --vs=PYTHON`: a script that the other Python runs.

It reads requests from standard input and answers on standard output, each a line of JSON. It imports nothing of ours.

    at the start                                     -> {"torch": version, "cuda": whether there is a GPU}
    {"do": "build", "model": a call string, "what": "train" or "forward", "batch": N, "input": [H, W, C],
     "dtype": "float32" or "bfloat16", "device": "cpu" or "cuda", "threads": N, "compile": whether to torch.compile}
                                                     -> {"params": N, "source": library}; {"params": null}: no peer
    the same with "what": "loop" (training with a DataLoader) or "input" (the DataLoader alone; "params" is 0), and
     "data": {"folder": with `labels.npy` and either `images.npy`, uint8 [N, H, W, C], or encoded files '0', '1', ...,
              "augment": [[operation, arguments, keyword arguments], ...], "workers": N}  -> the same
    {"do": "run", "steps": N}                        -> {"seconds": total}
    a request that fails                             -> {"error": reason}
"""

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import time
from typing import Any

torch: Any = None  # imported by main: importing this file for its tables needs no torch


# --------------------------------------------------------------------------------- networks that no library has


def perceptron() -> Any:
    """Builds one fully connected layer with 10 outputs, for images of any size."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(10))


def lenet5(act: str = "ReLU", pool: str = "MaxPool2d", padding: int = 2) -> Any:
    """Builds LeNet-5 (LeCun et al. 1998) without the connection table and the RBF output.

    `act` and `pool` are classes of torch.nn; `padding` is that of the first convolution, 2 for images of 28x28.
    """
    nn = torch.nn
    layers = []
    for inputs, channels, pad in ((1, 6, padding), (6, 16, 0), (16, 120, 0)):
        layers += [nn.Conv2d(inputs, channels, 5, padding=pad), getattr(nn, act)(), getattr(nn, pool)(2)]
    return nn.Sequential(*layers[:-1], nn.Flatten(), nn.LazyLinear(84), getattr(nn, act)(), nn.Linear(84, 10))


def lenet5_tanh() -> Any:
    """Builds LeNet-5 with tanh and average pooling, for images of 32x32."""
    return lenet5("Tanh", "AvgPool2d", 0)


def cifar_resnet(depth: int) -> Any:
    """Builds a CIFAR ResNet (He et al. 2016, sec. 4.2): basic blocks, shortcuts without parameters (option A)."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int, stride: int) -> None:
            super().__init__()
            self.new_channels, self.stride = channels - inputs, stride
            self.conv1, self.norm1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
            self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)

        def forward(self, x: Any) -> Any:
            y = nn.functional.relu(self.norm1(self.conv1(x)), inplace=True)
            if self.new_channels:
                x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
            return nn.functional.relu(self.norm2(self.conv2(y)) + x, inplace=True)

    channels = 16
    layers = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True)]
    for stage, width in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            layers.append(Block(channels, width, 2 if stage and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def densenet40_12(growth: int = 12) -> Any:
    """Builds DenseNet-40 (Huang et al. 2017, sec. 4.2): three blocks of 12 layers, no bottleneck or compression."""
    nn = torch.nn

    class Layer(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, 1, 1, bias=False)

        def forward(self, x: Any) -> Any:
            return torch.cat([x, self.conv(nn.functional.relu(self.norm(x), inplace=True))], dim=1)

    channels = 16
    layers = [nn.Conv2d(3, channels, 3, 1, 1, bias=False)]
    for block in range(3):
        if block:
            transition = nn.Conv2d(channels, channels, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(True), transition, nn.AvgPool2d(2)]
        for _ in range(12):
            layers.append(Layer(channels))
            channels += growth
    layers += [nn.BatchNorm2d(channels), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(channels, 10))


# --------------------------------------------------------------------------------------------- networks of libraries

# Our name -> the library, the name there, and the arguments. 'torch' stands for the functions above.
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
_declared: list[Any] = []  # keeps the library object alive: torch drops its operators with it


def make_network(library: str, name: str, arguments: dict[str, Any]) -> Any:
    """Builds a network with random weights, in training mode. The library 'torch' is the functions of this file."""
    if library == "torch":
        return globals()[name](**arguments)
    _declare_operators()
    module = importlib.import_module(_FACTORIES[library])
    if library == "torchvision":
        return getattr(module, name)(**arguments)
    net = (module.get_model if library == "pytorchcv" else module.create_model)(name, **arguments)
    for module in net.modules():
        if hasattr(module, "final_pool"):  # pytorchcv's is for one image size
            module.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def _declare_operators() -> None:
    """Declares torchvision's detection operators if its compiled ones do not load, as with another version of torch.

    Without them torchvision, which timm imports, too, cannot be imported. Classification networks do not use them.
    """
    module = importlib.util.find_spec("torchvision")
    if module is None or not module.submodule_search_locations or _declared:
        return
    try:
        torch.ops.load_library(os.path.join(module.submodule_search_locations[0], "_C.so"))
    except OSError:
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _declared[0].define(name + "(Tensor a, Tensor b, float c) -> Tensor")


# ------------------------------------------------------------------------------------------------------------ batches

# Our operation -> torchvision's transform, from `torchvision.transforms`, the image's (H, W) and our arguments.
TRANSFORMS: dict[str, Any] = {
    "resize": lambda t, sides, size, filter="bilinear", **more: t.Resize(  # noqa: A006
        size, t.InterpolationMode("bilinear" if filter == "area" else filter), **more
    ),
    "center_crop": lambda t, sides, size: t.CenterCrop(size),
    "random_crop": lambda t, sides, size: t.RandomCrop(size),
    "random_resized_crop": lambda t, sides, size, **ranges: t.RandomResizedCrop(size, **ranges),
    "pad_crop": lambda t, sides, pad: t.RandomCrop(sides, padding=pad),
    "flip_lr": lambda t, sides, probability=0.5: t.RandomHorizontalFlip(probability),
}


class Examples:
    """A map-style data set of (transformed image, label), like torchvision's CIFAR10 or ImageFolder.

    `folder` holds labels.npy and either images.npy, kept in memory, or encoded files '0', '1', ...
    """

    def __init__(self, folder: str, transform: Any) -> None:
        import numpy as np

        self.folder, self.transform, self.labels = folder, transform, np.load(os.path.join(folder, "labels.npy"))
        path = os.path.join(folder, "images.npy")
        self.images = np.load(path) if os.path.exists(path) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Returns the transformed image and the label of an example. `transform` gets an RGB or gray PIL image."""
        from PIL import Image

        if self.images is None:
            with Image.open(os.path.join(self.folder, str(index))) as file:
                image = file.convert("RGB")
        else:
            image = Image.fromarray(self.images[index].squeeze())
        return self.transform(image), int(self.labels[index])


def batches(request: dict[str, Any]) -> Any:
    """Yields batches (images float32 [B, C, H, W], labels int64 [B]) of a shuffling DataLoader, without end.

    Raises ValueError for an augmentation of the request's "data" that torchvision does not have.
    """
    _declare_operators()
    transforms = importlib.import_module("torchvision.transforms")
    data, sides = request["data"], request["input"][:2]
    augment = []
    for name, arguments, keywords in data["augment"]:
        if name not in TRANSFORMS:
            raise ValueError(f"torchvision has no operation {name!r}; valid: {', '.join(TRANSFORMS)}")
        augment.append(TRANSFORMS[name](transforms, sides, *arguments, **keywords))
    augment += [transforms.ToTensor(), transforms.Normalize([0.5], [0.25])]  # the values do not change the time
    loader = torch.utils.data.DataLoader(
        Examples(data["folder"], transforms.Compose(augment)), request["batch"], shuffle=True, drop_last=True,
        num_workers=data["workers"], persistent_workers=True, pin_memory=request["device"] == "cuda",
    )  # fmt: skip
    while True:
        yield from loader


# ------------------------------------------------------------------------------------------------------------- worker


def build(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Returns the answer to a request to build, and a function: number of steps -> seconds (None without a peer)."""
    what, device = request["what"], request["device"]
    stream: Any = batches(request) if what in ("input", "loop") else iter(())
    if what == "input":
        return {"params": 0, "source": "a DataLoader"}, timer(lambda: next(stream), device)
    if request["model"] not in PEERS:
        return {"params": None}, None
    torch.set_num_threads(request["threads"])
    height, width, channels = request["input"]
    library, name, arguments = PEERS[request["model"]]
    images = torch.randn(request["batch"], channels, height, width, device=device)
    images = images.to(memory_format=torch.channels_last)
    net = make_network(library, name, arguments).to(device)
    with torch.no_grad():
        classes = net.eval()(images[:1]).shape[-1]  # initializes lazy layers, too
    labels = torch.randint(classes, (request["batch"],), device=device)
    net = net.to(memory_format=torch.channels_last)
    params = sum(p.numel() for p in net.parameters())
    forward_pass = torch.compile(net) if request["compile"] else net

    def precision() -> Any:
        if request["dtype"] == "bfloat16":
            return torch.autocast(device, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def train(images: Any = images, labels: Any = labels) -> None:
        optimizer.zero_grad()
        with precision():
            loss = torch.nn.functional.cross_entropy(forward_pass(images), labels)
        loss.backward()
        optimizer.step()

    def loop() -> None:
        images, labels = (x.to(device, non_blocking=True) for x in next(stream))
        train(images.to(memory_format=torch.channels_last), labels)

    def forward() -> None:
        with torch.inference_mode(), precision():
            forward_pass(images)

    net.train(what != "forward")
    step = {"train": train, "forward": forward, "loop": loop}[what]
    version = importlib.import_module(library).__version__
    return {"params": params, "source": f"{library} {version}"}, timer(step, device)


def timer(step: Any, device: str) -> Any:
    """Returns a function that calls `step()` a number of times, waits for the device, and returns the seconds."""

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def main() -> None:
    """Answers requests, each a line of JSON, until standard input ends. The module's docstring lists them."""
    global torch
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print; answers go to the duplicate
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
        except Exception as error:  # reported by the other process
            answer = {"error": " ".join((type(error).__name__ + ": " + str(error)).split())[:300]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
