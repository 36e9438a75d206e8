"""VGG-A, or a deeper one, on CIFAR-10, without batch normalisation, by the paper's optimiser.

    ./launch.sh train --config=configs/cifar10_vgg.py
    ./launch.sh train --config=configs/cifar10_vgg.py:vgg_d

There is no paper's number. Ours, of a short run (VGG-A, 20,000 of the images, 5 epochs in batches of 64, seed 0): loss
2.3 -> 1.1, test accuracy 60.0 % (CPU, jax 0.10.2). experiments/deep_vgg.py shows which starts let D learn at all.

32x32 images end in maps of 1x1, so that one full connection behind dropout stands in for three. The optimiser is that
of Simonyan & Zisserman 2015, sec. 3.1: momentum of 0.9, decay of 5e-4, a rate of 0.01 that is divided by ten when the
validation error stops improving. The start is He's, as the network has it.
"""

from cnnjax.config import Config


def get_config(model: str = "vgg_a") -> Config:
    return Config(
        model=f"{model}(head='gap')",
        dataset="cifar10",
        train_split="train[:45000]",
        val_split="train[45000:]",
        augment="pad_crop(4)|flip_lr",
        duration="74 epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="plateau(factor=0.1, patience=5, lowest=0.001)",
        weight_decay=5e-4,
    )
