"""Transfer: a ResNet-20 that learnt CIFAR-10, and four sets of images, near or far and few or many.

    ./launch.sh train --config=configs/transfer.py
    ./launch.sh train --config=configs/transfer.py:similar_few --config.init=runs/SOURCE
    ./launch.sh train --config=configs/transfer.py:similar_many --config.init=runs/SOURCE
    ./launch.sh train --config=configs/transfer.py:different_few --config.init=runs/SOURCE
    ./launch.sh train --config=configs/transfer.py:different_many --config.init=runs/SOURCE

The first trains the source, and SOURCE is its run. Near it are photographs: of ants and bees, 244 of them, and
Imagenette's; far are Fashion-MNIST's grey clothes, 200 or 10,000 of them. What is frozen follows the rules of thumb of
Stanford's course CS231n, "Transfer Learning": the more images, and the farther from the source, the more is trained.
With many, the trunk joins after the first epochs, once the new head gives gradients that mean something (Howard, Ruder
2018, arXiv:1801.06146, sec. 3.3), and its early layers at a fraction of the rate (there, sec. 3.2).

There is no paper's number. experiments/transfer.py compares what is trained, on all four. Ours, of a ResNet-8 with 72 %
on CIFAR-10, means of five seeds, from scratch / head / last block / all layers: similar_few 74 / 64 / 69 / 75 %,
similar_many 46 / 48 / 62 / 64 %, different_few 68 / 54 / 70 / 72 %, different_many 78 / 63 / 80 / 82 %; deviations of 1
to 4 %, on a CPU with jax 0.10.2: experiments/reports/transfer-quick.md.
"""

from cnnjax.config import Config, choose

PHOTOGRAPHS = {"augment": "resize(32)|center_crop(32)|pad_crop(4)|flip_lr", "preprocess": "resize(32)|center_crop(32)"}
CLOTHES = {"dataset": "fashion_mnist", "augment": "rgb|pad(32)|pad_crop(4)|flip_lr", "preprocess": "rgb|pad(32)"}
GRADUAL = {
    "freeze": "^(?!head)",
    "unfreeze": "^stage3:10% .*:20%",
    "lr_factors": "^(conv1|norm1|stage1):0.1",
}

QUADRANTS = {
    "source": {"dataset": "cifar10", "augment": "pad_crop(4)|flip_lr", "duration": "15 epochs", "batch_size": 128,
               "lr": 0.2, "weight_decay": 5e-4},
    "similar_few": PHOTOGRAPHS | {"dataset": "hymenoptera", "test_split": "val", "duration": "40 epochs",
                                  "freeze": "^(?!head)"},
    "similar_many": PHOTOGRAPHS | GRADUAL | {"dataset": "imagenette_subset", "test_split": "val",
                                             "duration": "20 epochs"},
    "different_few": CLOTHES | {"train_split": "train[:200]", "duration": "40 epochs",
                                "freeze": "^(?!head|stage3_block3)"},
    "different_many": CLOTHES | GRADUAL | {"train_split": "train[:10000]", "duration": "5 epochs"},
}  # fmt: skip


def get_config(quadrant: str = "source") -> Config:
    settings = {
        "model": "cifar_resnet20",
        "batch_size": 32,
        "optimizer": "sgd(momentum=0.9, nesterov=True)",
        "lr": 0.05,
        "schedule": "one_cycle(peak='30%')",
        "weight_decay": 1e-4,
        "checkpoint_every": "5 epochs",
        "log_every": "1 epochs",
    }
    return Config(**settings | choose(quadrant, QUADRANTS))
