"""PReLU networks on ImageNet, with He initialization (He et al. 2015, "Delving Deep into Rectifiers").

Status: not run here.

    ./launch.sh train imagenet_prelunet
    ./launch.sh train imagenet_prelunet:prelunet_small
    ./launch.sh evaluate runs/NAME --preprocess='resize(256)' --protocol='ten_crop(224)'

The paper's top-1/top-5 validation errors: A, whole images of several sizes, 24.02/6.51 % with ReLU and 22.97/6.28 %
with PReLU (Table 4); C 21.59/5.71 % (Table 6); the small network, ten crops, 33.82/13.34 % with ReLU (Table 2).

As in the paper (sec. 3): short sides of 256 to 512 from the first step on, crops of 224, flips, PCA color augmentation,
batch size 128, learning rates of 0.01, 0.001 and 0.0001 that change when the error plateaus, weight decay of 5e-4 (none
on the slopes of PReLU, 2.1), dropout, 80 epochs. Unlike it: channels are normalized to mean 0 and standard deviation 1,
where the paper subtracts a mean image from values of 0 to 255, because He initialization leaves the logits on the scale
of the input.
"""

from cnnjax.config import Config


def get_config(model: str = "prelunet_a") -> Config:
    return Config(
        model=model,
        dataset="imagenet2012",
        val_split="validation",
        test_split="validation",
        augment="random_resize(256, 512)|random_crop(224)|flip_lr|pca_color(0.1)",
        preprocess="resize(256)|center_crop(224)",
        duration="80 epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="plateau(factor=0.1, patience=5, lowest=0.01)",
        weight_decay=5e-4,
    )
