"""DenseNet on ImageNet (Huang et al. 2017).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.66 to 2.24, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_densenet
    ./launch.sh train imagenet_densenet:densenet161
    ./launch.sh evaluate runs/NAME --preprocess='resize(256)' --protocol='ten_crop(224)'

The paper's top-1/top-5 validation errors, one crop and ten (Table 3): DenseNet-121 25.02/7.71 and 23.61/6.66, 169
23.80/6.85 and 22.08/5.92, 201 22.58/6.34 and 21.46/5.54 %, 161 22.33/6.15 and 20.85/5.30 % (an earlier version).

As in the paper (4.2) and its code: batch size 256, 90 epochs, a learning rate of 0.1 divided by ten after 30 and 60,
weight decay of 1e-4, Nesterov momentum, He initialization, and the augmentation of fb.resnet.torch.
"""

from cnnjax.config import Config


def get_config(model: str = "densenet121") -> Config:
    batch_size = 256
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(224)|color_jitter(0.4, 0.4, 0.4)|pca_color(0.1)|flip_lr",
        preprocess="resize(256)|center_crop(224)",
        duration="90 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 256,
        schedule="piecewise(('30 epochs', '60 epochs'))",
        weight_decay=1e-4,
        decay_mask=".*",
    )
