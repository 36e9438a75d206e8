"""VGG, configurations A to E, on ImageNet (Simonyan & Zisserman 2015).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.37 to 2.31, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_vgg
    ./launch.sh train imagenet_vgg:vgg_a
    ./launch.sh train imagenet_vgg:vgg_e
    ./launch.sh evaluate runs/NAME --preprocess='' --protocol='multiscale(256, 384, 512)'

The paper's top-1/top-5 validation errors (Table 3), whole images with a short side of 256: A 29.6/10.4, B 28.7/9.9, C
28.1/9.4, D 27.0/8.8, E 27.3/9.0 %; trained with short sides of 256 to 512 and tested at 384: C 27.3/8.8, D 25.6/8.1, E
25.5/8.0 %. One crop of D, as released: 28.5/9.9 % (the README of He et al.'s deep-residual-networks).

As in the paper (sec. 3.1): scale jitter, the mean color subtracted from values of 0 to 255, SGD with batch size 256, a
learning rate of 0.01 divided by ten when the validation error stops improving, at most three times, weight decay of
5e-4, 74 epochs. Initialization is Glorot's, with which the authors later found that no pre-training is needed;
originally, A was initialized from a Gaussian with variance 0.01 and deeper networks from A. Unlike it: scale jitter
from the first step on, where the paper starts from networks trained with a short side of 384.
"""

from cnnjax.config import Config


def get_config(model: str = "vgg_d") -> Config:
    return Config(
        model=f"{model}(initializer='xavier')",
        dataset="imagenet2012",
        val_split="validation",
        test_split="validation",
        augment="random_resize(256, 512)|random_crop(224)|flip_lr|pca_color(0.1)",
        preprocess="resize(256)|center_crop(224)",
        normalize="caffe",
        duration="74 epochs",
        batch_size=256,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="plateau(factor=0.1, patience=5, lowest=0.001)",
        weight_decay=5e-4,
    )
