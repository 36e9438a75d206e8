"""GoogLeNet on ImageNet with auxiliary classifiers: the paper's recipe (2015), and Caffe's.

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.84 to 2.20, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_googlenet
    ./launch.sh train imagenet_googlenet:caffe
    ./launch.sh evaluate runs/NAME --preprocess='' --protocol='crop144(224)'

Top-5 validation errors of one network: 10.07 % with one crop, 7.89 % with 144 (the paper's Table 3); Caffe's quick
recipe has 31.3/11.1 % top-1/top-5 with the center crop (bvlc_googlenet/readme.md).

As in the paper (sec. 5, 6): auxiliary losses of weight 0.3, momentum 0.9, a learning rate that falls by 4 % every
eighth epoch, averaged weights, crops of 8 to 100 % of the area with aspect ratios of 3/4 to 4/3, color distortions. The
paper does not give batch size, learning rate, weight decay, initialization (Glorot) and number of epochs (250): these
are from bvlc_googlenet/solver.prototxt and readme.md. The strength of the distortions and of the averaging is ours.
Unlike it: steps are synchronous, and there is one interpolation method.
"""

from cnnjax.config import Config, pick_recipe

# Caffe's quick_solver.prototxt: 60 epochs, plain crops.
RECIPES = {
    "paper": {
        "augment": "random_resized_crop(224)|flip_lr|color_jitter(0.4, 0.4, 0.4)",
        "preprocess": "resize(256)|center_crop(224)",
        "duration": "250 epochs",
        "schedule": "exponential(factor=0.96, every='8 epochs')",
        "ema": 0.9999,
    },
    "caffe": {
        "augment": "resize((256, 256))|random_crop(224)|flip_lr",
        "preprocess": "resize((256, 256))|center_crop(224)",
        "duration": "2400000 steps",
        "schedule": "polynomial(power=0.5)",
        "lr_factors": "bias$:2",
    },
}


def get_config(recipe: str = "paper") -> Config:
    return Config(
        model="googlenet_aux",
        dataset="imagenet2012",
        test_split="validation",
        normalize="caffe",
        batch_size=32,
        aux_weight=0.3,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        weight_decay=2e-4,
        **pick_recipe(recipe, RECIPES),
    )
