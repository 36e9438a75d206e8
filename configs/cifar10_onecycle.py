"""CIFAR-10 in 15 epochs: a CIFAR ResNet (or any other network) under a one-cycle schedule.

Result here: 88.89 % test accuracy with ResNet-20 (seed 0; two CPU cores, jax 0.10.2, November 2026).

    ./launch.sh train cifar10_onecycle

The result is the test accuracy after the last step, on 10,000 images. The run took 68 minutes, with cores shared with
other jobs (300 images/s when idle). The paper's recipe is cifar10_resnet.py.
"""

from cnnjax.config import Config


def get_config(model: str = "cifar_resnet20") -> Config:
    batch_size = 128
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4)|flip_lr",
        duration="15 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.2 * batch_size / 128,
        schedule="one_cycle(peak='30%')",
        weight_decay=5e-4,
        log_every="20 steps",
    )
