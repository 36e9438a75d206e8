"""CIFAR-10 by one recipe for every family: AdamW, one cycle, label smoothing, shifts and flips.

Status: not run here for 30 epochs; experiments/reports/table_cifar10-standard.md has 22 networks after 4 epochs.

    ./launch.sh train cifar10_common
    ./launch.sh train "cifar10_common:vgg_a(head='gap')"

The recipe of experiments/table_cifar10.py, in which networks with and without normalization stand side by side: AdamW
and clipped gradients train both, where SGD would need a learning rate of its own for each.
"""

from cnnjax.config import Config


def get_config(model: str = "cifar_resnet20") -> Config:
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4)|flip_lr",
        duration="30 epochs",
        batch_size=128,
        loss="cross_entropy(label_smoothing=0.1)",
        optimizer="adamw",
        lr=0.002,
        schedule="one_cycle",
        weight_decay=0.05,
        grad_clip_norm=1.0,
        log_every="50 steps",
        checkpoint_every="1 epochs",
    )
