"""Network in Network on ImageNet, by the authors' release for Caffe (Lin et al. 2014).

    ./launch.sh train --config=configs/imagenet_nin.py

Its top-1 validation accuracy with the centre crop: 59.36 % (the release's page in Caffe's model zoo). Not run here yet.

A rate of 0.01 that is divided by ten after 200,000 and 400,000 of 450,000 steps, batches of 64 and decay of 5e-4 are
the release's; that biases learn twice as fast and do not decay is from memory, as in Caffe's AlexNet. Unlike it:
kernels start from Glorot's, for it has Gaussians of 0.01 and of 0.05, and the network's field means one for all.
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
