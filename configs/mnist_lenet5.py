"""LeNet-5 on MNIST, or on Fashion-MNIST (:fashion_mnist).

./launch.sh train --config=configs/mnist_lenet5.py
./launch.sh train --config=configs/mnist_lenet5.py:fashion_mnist
"""

from cnnjax.config import Config

# A digit may not be mirrored, a piece of clothing may.
AUGMENT = {"mnist": "pad_crop(2)", "fashion_mnist": "flip_lr"}


def get_config(dataset: str = "mnist") -> Config:
    return Config(
        model="lenet5",
        dataset=dataset,
        augment=AUGMENT[dataset],
        duration="15 epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.05,
        schedule="one_cycle",
        weight_decay=5e-4,
        checkpoint_every="5 epochs",
        log_every="100 steps",
    )
