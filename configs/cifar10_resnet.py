"""CIFAR ResNets and plain nets as in their paper (He et al. 2016, "Deep Residual Learning", sec. 4.2).

Status: not run here.

    ./launch.sh train --config=configs/cifar10_resnet.py
    ./launch.sh train --config=configs/cifar10_resnet.py:cifar_resnet56

The paper's test errors: 8.75 % (20 layers), 7.51 % (32), 7.17 % (44), 6.97 % (56), 6.61 +- 0.16 % (110, five runs),
7.93 % (1202). 64,000 steps of ResNet-20 would take about eight hours on two CPU cores.

As in the paper: 45,000 training and 5,000 validation images, weight decay on every parameter, warm-up for networks of
110 layers and more. Unlike it: images are normalized by the mean and standard deviation of each channel instead of a
mean image, as in the authors' later Torch code.
"""

from cnnjax.config import Config


def get_config(model: str = "cifar_resnet20") -> Config:
    warmup = "400 steps" if "110" in model or "1202" in model else "0 steps"
    return Config(
        model=model,
        dataset="cifar10",
        train_split="train[:45000]",
        val_split="train[45000:]",
        augment="pad_crop(4)|flip_lr",
        duration="64000 steps",
        batch_size=128,
        lr=0.1,
        optimizer="sgd(momentum=0.9)",
        schedule=f"piecewise(('32000 steps', '48000 steps'), factor=0.1, warmup='{warmup}')",
        weight_decay=1e-4,
        decay_mask=".*",
    )
