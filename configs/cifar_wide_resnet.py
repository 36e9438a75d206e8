"""Wide ResNets on CIFAR-10 or CIFAR-100 (Zagoruyko & Komodakis 2016).

Status: not run here.

    ./launch.sh train cifar_wide_resnet
    ./launch.sh train 'cifar_wide_resnet:wide_resnet28_10(block_dropout=0.3)'
    ./launch.sh train cifar_wide_resnet:wide_resnet16_8 --config.dataset=cifar100

The authors' test errors, median of five runs, CIFAR-10 and CIFAR-100 (README.md of their code): WRN-28-10 4.00/19.25 %,
with dropout 3.89/18.85 %; 40-4 4.53/21.18 %, 16-8 4.27/20.43 % (the paper's Table 5).

As in their train_cifar.sh and train.lua: reflection padding, Nesterov momentum, batch size 128, a learning rate divided
by five after 60, 120 and 160 of 200 epochs, weight decay of 5e-4 on every parameter, images normalized by the mean and
standard deviation of each channel.
"""

from cnnjax.config import Config


def get_config(model: str = "wide_resnet28_10") -> Config:
    batch_size = 128
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4, fill='reflect')|flip_lr",
        duration="200 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 128,
        schedule="piecewise(('60 epochs', '120 epochs', '160 epochs'), factor=0.2)",
        weight_decay=5e-4,
        decay_mask=".*",
    )
