"""Network in Network on ImageNet, as in the authors' Caffe release (Lin et al. 2014).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.31 to 2.29, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_nin

Its top-1 validation accuracy with the center crop: 59.36 % (the release's page in Caffe's model zoo).

As in the release: a learning rate of 0.01 divided by ten after 200,000 and 400,000 of 450,000 steps, batch size 64,
weight decay of 5e-4. From memory, as in Caffe's AlexNet: biases have twice the learning rate and no weight decay.
Unlike it: Glorot initialization, because the release mixes Gaussians with standard deviations of 0.01 and 0.05, and the
network has one initializer for all layers.
"""

from cnnjax.config import Config


def get_config() -> Config:
    return Config(
        model="nin_imagenet(initializer='xavier')",
        dataset="imagenet2012",
        test_split="validation",
        augment="resize((256, 256))|random_crop(224)|flip_lr",
        preprocess="resize((256, 256))|center_crop(224)",
        normalize="caffe",
        duration="450000 steps",
        batch_size=64,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="piecewise(('200000 steps', '400000 steps'))",
        weight_decay=5e-4,
        lr_factors="bias$:2",
    )
