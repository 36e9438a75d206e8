"""AlexNet on ImageNet (Krizhevsky et al. 2012), its variants in Caffe, and ZFNet (Zeiler & Fergus 2014).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 8.58 to 2.33, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_alexnet
    ./launch.sh train imagenet_alexnet:alexnet_caffe
    ./launch.sh train imagenet_alexnet:caffenet
    ./launch.sh train imagenet_alexnet:zfnet
    ./launch.sh evaluate runs/NAME --preprocess='resize(256)|center_crop(256)' --protocol='ten_crop(227)'

Top-1/top-5 validation errors: AlexNet 40.7/18.2 % with ten crops (its paper's Table 2, one network); ZFNet 38.3/16.4 %
(its paper's Table 2); in Caffe, AlexNet 42.9/19.8 % and CaffeNet 42.6/19.6 % with the center crop (BVLC's readme.md).

As in the papers: random crops and flips of the central 256x256, pixel values of 0 to 255, Gaussian initialization with
standard deviation 0.01, dropout, a learning rate of 0.01 divided by ten when the validation error stops improving, 90
epochs (AlexNet, sec. 5) or 70 (ZFNet, sec. 3). Caffe divides the rate every 100,000 of 450,000 steps; biases have twice
the rate and no weight decay (bvlc_alexnet/solver.prototxt, train_val.prototxt). Unlike them: the mean color is
subtracted instead of a mean image; ZFNet's filters are not renormalized, and its weight decay, which the paper does not
give, is AlexNet's.
"""

from cnnjax.config import Config


def get_config(model: str = "alexnet") -> Config:
    zfnet, caffe = model.startswith("zfnet"), model.startswith(("alexnet_caffe", "caffenet"))
    batch_size, side = 256 if caffe else 128, 224 if zfnet else 227
    config = Config(
        model=model,
        dataset="imagenet2012",
        val_split="validation",
        test_split="validation",
        augment=f"resize(256)|center_crop(256)|random_crop({side})|flip_lr|pca_color(0.1)",
        preprocess=f"resize(256)|center_crop({side})",
        normalize="caffe",
        duration="70 epochs" if zfnet else "90 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="plateau(factor=0.1, patience=5, lowest=0.001)",
        weight_decay=5e-4,
    )
    if caffe:
        config.augment = f"resize((256, 256))|random_crop({side})|flip_lr"
        config.preprocess = f"resize((256, 256))|center_crop({side})"
        config.duration = "450000 steps"
        config.schedule = "piecewise(('100000 steps', '200000 steps', '300000 steps', '400000 steps'))"
        config.lr_factors = "bias$:2"
    return config
