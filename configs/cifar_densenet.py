"""DenseNet on CIFAR-10 or CIFAR-100 (Huang et al. 2017).

Status: not run here.

    ./launch.sh train cifar_densenet
    ./launch.sh train cifar_densenet:densenet_bc100_12
    ./launch.sh train cifar_densenet:densenet_bc190_40 --config.dataset=cifar100

The authors' test errors, CIFAR-10 and CIFAR-100 with crops and flips (README.md of their code): 40 layers, growth rate
12: 5.24/24.42 %; BC with 100 layers, growth rate 12: 4.51/22.27 %; BC with 190, growth rate 40: 3.46/17.18 %.

As in the paper (4.2): batch size 64, 300 epochs, a learning rate of 0.1 divided by ten at 50 % and 75 % of them, weight
decay of 1e-4 on every parameter, Nesterov momentum, He initialization. Without augmentation, the paper uses dropout of
0.2: --config.augment='' and 'densenet40_12(block_dropout=0.2)'.
"""

from cnnjax.config import Config


def get_config(model: str = "densenet40_12") -> Config:
    batch_size = 64
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4)|flip_lr",
        duration="300 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 64,
        schedule="piecewise(('50%', '75%'))",
        weight_decay=1e-4,
        decay_mask=".*",
    )
