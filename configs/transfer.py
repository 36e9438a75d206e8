"""Transfer learning from CIFAR-10 or Imagenette to similar or different images, few or many.

Result here: test accuracy 77.0 % (similar_many), 91.2 % (different_many) from init=akamaster:resnet20 (seed 0).

    ./launch.sh train transfer
    ./launch.sh train transfer:similar_few --config.init=runs/SOURCE
    ./launch.sh train transfer:similar_many --config.init=runs/SOURCE
    ./launch.sh train transfer:different_few --config.init=runs/SOURCE
    ./launch.sh train transfer:different_many --config.init=runs/SOURCE
    ./launch.sh train transfer:imagenette
    ./launch.sh train transfer:imagenette_few --config.init=runs/IMAGENETTE

The data sets `imagenette_subset` and `hymenoptera` are built as experiments/howto/data.md says.

The first command trains the source network, a ResNet-20; SOURCE is its run. Similar images are photographs: 244 of ants
and bees, and those of Imagenette. Different images are Fashion-MNIST's gray clothes, 200 or 10,000 of them. The last
two commands train a ResNet-18 on Imagenette's photographs at 64x64, then on the ants and bees. The frozen layers follow
the rules of thumb of Stanford's course CS231n, "Transfer Learning": the more images, and the less similar to the
source, the more layers are trained. With many images, the layers below the head are unfrozen after the first epochs,
once the gradients of the new head are informative (Howard, Ruder 2018, arXiv:1801.06146, sec. 3.3), and the early
layers have a lower learning rate (sec. 3.2).

experiments/transfer.py compares what is trained. Its results: a ResNet-8 with 72 % on CIFAR-10 and a ResNet-18 of half
the width with 66 % on Imagenette, means of five seeds, from scratch / head / last block / all layers / gradual
unfreezing: similar_few 74 / 64 / 69 / 75 / 70 %, similar_many 46 / 50 / 60 / 64 / 64 %, different_few 68 / 54 / 69 / 70
/ 70 %, different_many 78 / 64 / 80 / 82 / 82 %, and imagenette_few 66 / 64 / 64 / 68 / 69 %; standard deviations of 0.4
to 5 %, on two CPU cores with jax 0.10.2: experiments/reports.
"""

from cnnjax.config import Config, pick_recipe

PHOTOGRAPHS = {"augment": "resize(32)|center_crop(32)|pad_crop(4)|flip_lr", "preprocess": "resize(32)|center_crop(32)"}
LARGER = {"augment": "random_resized_crop(64)|flip_lr", "preprocess": "resize(73)|center_crop(64)"}
CLOTHES = {"dataset": "fashion_mnist", "augment": "rgb|pad(32)|pad_crop(4)|flip_lr", "preprocess": "rgb|pad(32)"}
ANTS_AND_BEES = {"dataset": "hymenoptera", "test_split": "val", "duration": "40 epochs"}
IMAGENETTE = {"dataset": "imagenette_subset", "test_split": "val"}
GRADUAL = {"freeze": "^(?!head)", "unfreeze": "^stage3:10% .*:20%", "lr_factors": "^(conv1|norm1|stage1):0.1"}

QUADRANTS = {
    "source": {"dataset": "cifar10", "augment": "pad_crop(4)|flip_lr", "duration": "15 epochs", "batch_size": 128,
               "lr": 0.2, "weight_decay": 5e-4},
    "similar_few": PHOTOGRAPHS | ANTS_AND_BEES | {"freeze": "^(?!head)"},
    "similar_many": PHOTOGRAPHS | IMAGENETTE | GRADUAL | {"duration": "20 epochs"},
    "different_few": CLOTHES | {"train_split": "train[:200]", "duration": "40 epochs",
                                "freeze": "^(?!head|stage3_block3)"},
    "different_many": CLOTHES | GRADUAL | {"train_split": "train[:10000]", "duration": "5 epochs"},
    "imagenette": LARGER | IMAGENETTE | {"model": "resnet18", "duration": "30 epochs", "weight_decay": 5e-4},
    "imagenette_few": LARGER | ANTS_AND_BEES | {"model": "resnet18", "freeze": "^(?!head)"},
}  # fmt: skip


def get_config(quadrant: str = "source") -> Config:
    defaults = {
        "model": "cifar_resnet20",
        "batch_size": 32,
        "optimizer": "sgd(momentum=0.9, nesterov=True)",
        "lr": 0.05,
        "schedule": "one_cycle(peak='30%')",
        "weight_decay": 1e-4,
        "checkpoint_every": "5 epochs",
        "log_every": "1 epochs",
    }
    return Config(**defaults | pick_recipe(quadrant, QUADRANTS))
