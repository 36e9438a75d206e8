"""Pre-activation ResNets on ImageNet (He et al. 2016, "Identity Mappings").

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 3.58 to 2.26, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_resnet_v2
    ./launch.sh train imagenet_resnet_v2:resnet152_v2

The paper's top-1/top-5 validation errors, one crop of 320x320 (Table 5): ResNet-152 v2 21.1/5.5, 200 v2 20.7/5.3 %, and
20.1/4.8 % when crops vary in aspect ratio, too (augment="random_resized_crop(224)|flip_lr|pca_color(0.1)").

As in the paper (appendix): the augmentation of imagenet_resnet.py, batch size 256, a learning rate of 0.1 divided by
ten after 30 and 60 epochs, weight decay of 1e-4, 90 epochs (from memory, as in fb.resnet.torch). Unlike it: weight
decay applies to every parameter, as in the authors' Torch code, and a mean color replaces the mean image, because
training and test sizes differ.
"""

from cnnjax.config import Config


def get_config(model: str = "resnet200_v2") -> Config:
    batch_size = 256
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resize(256, 480)|random_crop(224)|flip_lr|pca_color(0.1)",
        preprocess="resize(320)|center_crop(320)",
        normalize="centered",
        duration="90 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9)",
        lr=0.1 * batch_size / 256,
        schedule="piecewise(('30 epochs', '60 epochs'))",
        weight_decay=1e-4,
        decay_mask=".*",
    )
