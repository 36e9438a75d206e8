"""ResNets on ImageNet in 90 epochs: fb.resnet.torch, the basis of most recipes after 2016.

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 13.19 to 2.33, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_resnet_torch
    ./launch.sh train imagenet_resnet_torch:resnet18
    ./launch.sh train imagenet_resnet_torch:wide_resnet50_2
    ./launch.sh evaluate runs/NAME --preprocess='resize(256)' --protocol='ten_crop(224)'

Its top-1/top-5 validation errors, one crop (pretrained/README.md): ResNet-18 30.43/10.76, 34 26.73/8.74, 50 24.01/7.02,
101 22.44/6.21, 152 22.16/6.16 %; with ten crops 28.22/9.42, 24.76/7.35, 22.24/6.08, 21.08/5.35, 20.69/5.21 %. WRN-50-2
(Zagoruyko & Komodakis 2016): 21.9/6.03 % with one crop (pretrained/README.md of its code).

As in the original (datasets/imagenet.lua, train.lua, opts.lua): augmentation, Nesterov momentum, a learning rate
divided by ten every 30 epochs, weight decay on every parameter. Unlike it: mean, standard deviation and color axes are
those of all training images, and after ten failed tries a random crop becomes the largest central one.
"""

from cnnjax.config import Config


def get_config(model: str = "resnet50_v1_5") -> Config:
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
