"""A table of results on CIFAR-10: every family in a form for small images, by one recipe.

./launch.sh study experiments/table_cifar10.py --budget=standard
./launch.sh study experiments/table_cifar10.py --budget=standard --arms='ResNet*'
./launch.sh study experiments/table_cifar10.py --budget=full

The standard budget is for two CPU cores: some networks are narrower, others keep the strides that they have for
photographs, and 4 epochs take minutes to hours a row. The full one is for a GPU, with the networks of the papers.
"""

import dataclasses
import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.config_files import load_config
from cnnjax.study import Panel, Study

SMALL = "small_images=True"
# Name -> network of the full budget, and that for a CPU, '' for the same.
NETWORKS: dict[str, tuple[str, str]] = {
    "perceptron": ("perceptron", ""),
    "MLP": ("mlp(features=(1024, 1024))", "mlp(features=(512, 512))"),
    "LeNet-5": ("lenet5", ""),
    "LeNet-5, tanh": ("lenet5_tanh", ""),
    "Caffe's LeNet": ("lenet_caffe", ""),
    "AlexNet": (f"alexnet({SMALL})", f"alexnet({SMALL}, features=(32, 64, 96, 96, 64), hidden=(256, 256))"),
    "Network in Network": ("nin_cifar10", ""),
    "ZFNet": (f"zfnet({SMALL})", f"zfnet({SMALL}, features=(32, 64, 96, 96, 64))"),
    "VGG-A": ("vgg_a(head='gap')", "vgg_a(head='gap', features=(32, 64, 96, 128, 128))"),
    "VGG-A, batch norm": ("vgg_a_bn(head='gap')", "vgg_a_bn(head='gap', features=(32, 64, 96, 128, 128))"),
    "GoogLeNet": (f"googlenet({SMALL})", "googlenet_torchvision"),
    "PReLU-net": (
        f"prelunet_small({SMALL}, head='gap')",
        f"prelunet_small({SMALL}, head='gap', stage_sizes=(2, 2, 2), features=(16, 32, 64, 128))",
    ),
    "BN-Inception": (f"bn_inception({SMALL})", "bn_inception"),
    "Inception-v3": (f"inception_v3({SMALL})", ""),
    "ResNet-18": (f"resnet18({SMALL})", f"resnet18({SMALL}, features=16)"),
    "SE-ResNet-18": (f"resnet18({SMALL}, se=16)", f"resnet18({SMALL}, features=16, se=4)"),
    "plain-20": ("cifar_plain20", ""),
    "ResNet-20": ("cifar_resnet20", ""),
    "plain-56": ("cifar_plain56", ""),
    "ResNet-56": ("cifar_resnet56", ""),
    "SE-ResNet-20": ("cifar_resnet20(se=4)", ""),
    "SqueezeNet": (f"squeezenet1_1({SMALL})", ""),
    "pre-activation ResNet-20": ("cifar_preresnet110(stage_sizes=(3, 3, 3))", ""),
    "Wide ResNet-16-2": ("wide_resnet16_8", "wide_resnet16_8(width=2)"),
    "Inception-v4": (f"inception_v4({SMALL})", ""),
    "Inception-ResNet-v2": (f"inception_resnet_v2({SMALL})", ""),
    "ResNeXt-29": ("resnext29_8x64d", "resnext29_8x64d(groups=4, width=4)"),
    "DenseNet-40": ("densenet40_12", "densenet40_12(growth_rate=4)"),
    "DenseNet-BC-100": ("densenet_bc100_12", ""),
    "Xception": (f"xception({SMALL})", "xception"),
    "MobileNet": (f"mobilenet_v1({SMALL})", f"mobilenet_v1({SMALL}, width=0.5)"),
    "airbench94": ("airbench94", ""),
}
SEVERAL = (  # networks of up to the size of ResNet-20, which get three seeds
    "perceptron", "MLP", "LeNet-5", "LeNet-5, tanh", "Caffe's LeNet", "plain-20", "ResNet-20", "SE-ResNet-20",
    "pre-activation ResNet-20",
)  # fmt: skip
BUDGETS: dict[str, tuple[dict[str, str], int]] = {  # settings that differ from the card, seeds of `SEVERAL`
    "quick": ({"train_split": "train[:2000]", "test_split": "test[:1000]", "duration": "2 epochs"}, 1),
    "standard": ({"duration": "4 epochs", "dtype": "bfloat16"}, 3),
    "full": ({"duration": "100 epochs", "dtype": "bfloat16"}, 3),
}
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog", "jpeg_compression")  # one of each group of CIFAR-10-C
METRICS = {
    "test_error": "test error",
    "ece": "calibration error",
    "corruption_error": "error on corrupted images",
    "parameters": "parameters",
    "macs": "multiplications per image",
    "year": "year",
    "minutes": "minutes of training",
    "images_per_second": "images/s in training",
}


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the metrics of a run."""
    from cnnjax.study.measure import table_row

    return table_row(folder, data_dir, corruptions=CORRUPTIONS, severities=(3,), corrupted_split="test[:1000]")


def arm(full: str, small: str, budget: str) -> Config:
    """Returns the config of a network for a budget."""
    config = load_config("cifar10_common", model=full if budget == "full" else small or full)
    return dataclasses.replace(config, **BUDGETS[budget][0])


def get_study(budget: str) -> Study:
    """Returns the table for a budget: 'quick' (minutes a row on two CPU cores), 'standard' (up to hours), or 'full'."""
    seeds = BUDGETS[budget][1]
    return Study(
        arms={name: arm(full, small, budget) for name, (full, small) in NETWORKS.items()},
        metrics=METRICS,
        claims=(),
        panels=(
            Panel("points", "test_error", "CIFAR-10: test error"),
            *(
                Panel("scatter", "test_error", f"CIFAR-10: test error and {METRICS[x]}", log=True, x=x)
                for x in ("parameters", "macs", "year", "minutes")
            ),
        ),
        seeds=1,
        seeds_of=dict.fromkeys(SEVERAL, seeds),
        measure=measure,
        remarks="""One recipe for all, configs/cifar10_common.py, so no network has the settings that suit it best.
        In the standard budget most networks are narrower than in their papers, and GoogLeNet (with batch normalization,
        as torchvision has it), BN-Inception and Xception have the strides of their first layers for photographs.
        After a few epochs, the table shows how fast networks learn rather than how well they end: the papers train for
        100 epochs and more. The error on corrupted images is the mean over Gaussian noise, defocus blur, fog and JPEG
        compression, one of each group of CIFAR-10-C, at severity 3, on the first 1,000 test images.

        The order is not that of the papers everywhere. AlexNet, SqueezeNet and PReLU-net have no batch normalization,
        learn slowly with the rate of the others, and end behind Caffe's LeNet, which does a fraction of their
        multiplications; VGG-A gains 4 points with it. Squeeze-and-excitation does not help yet, neither ResNet-18 nor
        ResNet-20. Shortcuts already gain 4 points at 20 layers.""",
    )
