"""Network in Network on whitened CIFAR-10 or CIFAR-100 (Lin et al. 2014).

Status: not run here.

    ./launch.sh train cifar_nin
    ./launch.sh train cifar_nin:cifar100

The paper's test errors: CIFAR-10 10.41 %, 8.81 % with translated and flipped images (Table 1); CIFAR-100 35.68 %
without (Table 2).

As in the paper (sec. 4): global contrast normalization and ZCA whitening, batch size 128, dropout between the mlpconv
layers, a learning rate divided by ten, at most twice, when the error stops improving; it is measured on the last 10,000
training images. The weights are initialized from a Gaussian with standard deviation 0.05, as in the authors' files for
cuda-convnet. Learning rate, weight decay and number of steps are those of their Caffe release, from memory.
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
