"""ResNets and plain networks on ImageNet, with the paper's plateau schedule (He et al. 2016).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 12.89 to 2.55, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_resnet
    ./launch.sh train imagenet_resnet:resnet18
    ./launch.sh train imagenet_resnet:plain34
    ./launch.sh evaluate runs/NAME --preprocess='resize(256)' --protocol='ten_crop(224)'
    ./launch.sh evaluate runs/NAME --preprocess='' --protocol='multiscale(224, 256, 384, 480, 640)'

The paper's top-1/top-5 validation errors with ten crops (Tables 2 and 3): plain-18 27.94, plain-34 28.54/10.02,
ResNet-18 27.88, 34 24.52/7.46, 50 22.85/6.71, 101 21.75/6.05, 152 21.43/5.71 %; with whole images of five sizes (Table
4): 50 20.74/5.25, 101 19.87/4.60, 152 19.38/4.49 %; with one crop (the authors' README): 50 24.7/7.8 %.
imagenet_resnet_torch.py is the recipe that later work mostly uses.

As in the paper (3.4): short sides of 256 to 480, crops of 224, flips, PCA color augmentation, a mean image, batch size
256, a learning rate of 0.1 divided by ten when the error plateaus, 600,000 steps, weight decay of 1e-4, no dropout, He
initialization. Unlike it: the mean image is that of the crops, and weight decay applies to every parameter, as in the
authors' later Torch code.
"""

from cnnjax.config import Config


def get_config(model: str = "resnet50") -> Config:
    batch_size = 256
    return Config(
        model=model,
        dataset="imagenet2012",
        val_split="validation",
        test_split="validation",
        augment="random_resize(256, 480)|random_crop(224)|flip_lr|pca_color(0.1)",
        preprocess="resize(256)|center_crop(224)",
        normalize="mean_image",
        duration="600000 steps",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9)",
        lr=0.1 * batch_size / 256,
        schedule="plateau(factor=0.1, patience=5)",
        weight_decay=1e-4,
        decay_mask=".*",
    )
