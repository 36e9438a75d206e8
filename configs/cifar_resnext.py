"""ResNeXt-29 on CIFAR-10 or CIFAR-100 (Xie et al. 2017, "Aggregated Residual Transformations").

Status: not run here.

    ./launch.sh train cifar_resnext
    ./launch.sh train cifar_resnext:resnext29_16x64d --config.dataset=cifar100

The paper's test errors, mean of ten runs, CIFAR-10 and CIFAR-100 (Table 7): 8x64d 3.65/17.77 %, 16x64d 3.58/17.31 %.

As in the authors' code (README.md, opts.lua, train.lua), which they found better than the paper's batch size of 256 and
blocks: batch size 128, 300 epochs, a learning rate divided by ten at 50 % and 75 % of them, weight decay of 5e-4 on
every parameter, Nesterov momentum.
"""

from cnnjax.config import Config


def get_config(model: str = "resnext29_8x64d") -> Config:
    batch_size = 128
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4)|flip_lr",
        duration="300 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 128,
        schedule="piecewise(('50%', '75%'))",
        weight_decay=5e-4,
        decay_mask=".*",
    )
