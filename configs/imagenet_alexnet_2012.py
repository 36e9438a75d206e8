"""AlexNet on ImageNet as its source code of 2012 trained it, in six stages (Krizhevsky et al. 2012).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 10.20 to 2.25, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_alexnet_2012
    ./launch.sh train imagenet_alexnet_2012:from_25 --config.init=runs/FROM_0
    ./launch.sh train imagenet_alexnet_2012:from_51 --config.init=runs/FROM_25
    ./launch.sh train imagenet_alexnet_2012:from_67 --config.init=runs/FROM_51
    ./launch.sh train imagenet_alexnet_2012:from_72 --config.init=runs/FROM_67
    ./launch.sh train imagenet_alexnet_2012:from_79 --config.init=runs/FROM_72
    ./launch.sh evaluate runs/FROM_79 --preprocess='resize(256)|center_crop(256)' --protocol='ten_crop(224)'

A stage starts from the weights of the one before it: FROM_0 is the run of the first command. Top-1/top-5 validation
errors: 40.66/18.21 %, as noted in the code; 40.7/18.2 % in the paper (Table 2, one network).

As in the code, which differs from the paper: see experiments/alexnet_paper_and_code.md. The network is
alexnet_2012, on images of 224x224. The learning rate of the weights is 0.01, 0.001 from epoch 25, 0.0001 from 51 and
0.00001 from 79, and that of the biases 0.02 to the end, after 91 epochs. The weights of conv1 have 0.00001 from epoch
67 and are frozen from 72. Weight decay is 0.0005 on weights and none on biases. Crops start at 0 to 32 pixels. The
noise on colors has a deviation of 0.1 / 1.1, and ends at epoch 67. As in the paper: flips, dropout, batches of 128,
momentum of 0.9, pixel values of 0 to 255.

Unlike the code: each image has a crop and a flip of its own, where the code has one for a group of images. Momentum
starts from 0 in every stage. The weight decay of conv1 does not shrink with its rate. The mean color is subtracted
instead of a mean image.
"""

from cnnjax.config import Config, pick_recipe

# Each stage has its own rate, so that factors give the biases 0.02 in all of them. The seed is that of the data order.
STAGES = {
    "from_0": {"duration": "25 epochs", "lr": 0.01, "lr_factors": "bias$:2"},
    "from_25": {"duration": "26 epochs", "lr": 1e-3, "lr_factors": "bias$:20", "seed": 1},
    "from_51": {"duration": "16 epochs", "lr": 1e-4, "lr_factors": "bias$:200", "seed": 2},
    "from_67": {"duration": "5 epochs", "lr": 1e-4, "lr_factors": "bias$:200 ^conv1:0.1", "seed": 3},
    "from_72": {"duration": "7 epochs", "lr": 1e-4, "lr_factors": "bias$:200", "freeze": "^conv1/kernel", "seed": 4},
    "from_79": {"duration": "12 epochs", "lr": 1e-5, "lr_factors": "bias$:2000", "freeze": "^conv1/kernel", "seed": 5},
}
WITH_NOISE = ("from_0", "from_25", "from_51")


def get_config(stage: str = "from_0") -> Config:
    settings = pick_recipe(stage, STAGES)
    return Config(
        model="alexnet_2012",
        dataset="imagenet2012",
        val_split="validation",
        test_split="validation",
        augment="resize(256)|center_crop(256)|random_crop(224)|flip_lr" + "|pca_color(0.0909)" * (stage in WITH_NOISE),
        preprocess="resize(256)|center_crop(224)",
        normalize="caffe",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        weight_decay=5e-4,
        **settings,
    )
