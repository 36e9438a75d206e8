"""ResNeXt on ImageNet (Xie et al. 2017, "Aggregated Residual Transformations").

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 14.20 to 2.29, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_resnext
    ./launch.sh train imagenet_resnext:resnext101_32x4d

The authors' top-1 validation errors, one crop (README.md of their code): 50 (32x4d) 22.2, 101 (32x4d) 21.2, 101 (64x4d)
20.4 %.

As in their code: the recipe of fb.resnet.torch (imagenet_resnet_torch.py), with 100 epochs and a learning rate divided
by ten after 30, 60 and 90 of them (opts.lua, train.lua).
"""

from cnnjax.config import Config


def get_config(model: str = "resnext50_32x4d") -> Config:
    batch_size = 256
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(224)|color_jitter(0.4, 0.4, 0.4)|pca_color(0.1)|flip_lr",
        preprocess="resize(256)|center_crop(224)",
        duration="100 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 256,
        schedule="piecewise(('30 epochs', '60 epochs', '90 epochs'))",
        weight_decay=1e-4,
        decay_mask=".*",
    )
