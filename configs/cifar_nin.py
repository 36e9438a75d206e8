"""Network in Network on CIFAR-10, or on CIFAR-100 (:cifar100), whitened (Lin et al. 2014).

    ./launch.sh train --config=configs/cifar_nin.py
    ./launch.sh train --config=configs/cifar_nin.py:cifar100

The paper's test errors: CIFAR-10 10.41 %, 8.81 % with translated and mirrored images (Table 1); CIFAR-100 35.68 %
without (Table 2). Not run here yet.

As in the paper (sec. 4): global contrast normalisation and ZCA whitening, batches of 128, dropout between the mlpconv
layers, a rate that is divided by ten, twice at most, when the error stops improving, on the last 10,000 training images
here. Gaussian weights of 0.05 are the authors' for cuda-convnet. From memory: the rate, the decay and the length, of
their release for Caffe.
"""

from cnnjax.config import Config, pick_recipe

AUGMENT = {"cifar10": "pad_crop(4)|flip_lr", "cifar100": ""}


def get_config(dataset: str = "cifar10") -> Config:
    augment = pick_recipe(dataset, AUGMENT)
    return Config(
        model=f"nin_{dataset}",
        dataset=dataset,
        train_split="train[:40000]",
        val_split="train[40000:]",
        augment=augment,
        normalize="gcn_zca",
        duration="120000 steps",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.1,
        schedule="plateau(factor=0.1, patience=10, lowest=0.01)",
        weight_decay=1e-4,
    )
