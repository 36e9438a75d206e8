"""CIFAR-10 in 8 epochs: Jordan's airbench94 with Muon for its convolutions.

Result here: 93.89 % test accuracy in float32 and six views (seed 0; two cores, AMD EPYC, jax 0.10.2, November 2026).

    ./launch.sh train cifar10_muon
    ./launch.sh train cifar10_muon:float32

The first computes in bfloat16; the second is for CPUs without instructions for it, where float32 is faster. The recipe
is the author's later one (github.com/KellerJordan/cifar10-airbench, research/simple_muon.py). Its test accuracy, with
six views of each image: 94.0 %, the mean of 200 runs.

Our run has 93.47 % in two views and 92.77 % in one. It took 70 minutes on two cores with AVX2 shared with other jobs
(155 images/s when it had most of them), with optax 0.2.8. In two views this is 0.21 points less than cifar10_fast.py
gave with 24 % more images. One seed of each does not tell them apart.

Unlike the author's, a step is relative to the norm of each kernel, which is not rescaled. The network is the same
function, as a normalization follows each convolution.
"""

from cnnjax.config import Config


def get_config(dtype: str = "bfloat16") -> Config:
    batch_size, lr = 2000, 0.24
    sgd_lr = 0.000828 * batch_size  # the author states it for the sum of the losses of a batch
    return Config(
        model="airbench94",
        dataset="cifar10",
        augment="pad_crop(2, fill='reflect')|flip_alternating",
        protocol="six_view",
        average="logits",
        duration="8 epochs",
        batch_size=batch_size,
        eval_batch_size=2000,
        loss="cross_entropy(label_smoothing=0.2)",
        optimizer="muon_sgd(momentum=0.6, steps=3, sgd_momentum=0.85)",
        lr=lr,
        schedule="polynomial(power=1.0)",
        lr_factors=f"norm[12]/bias$:{64 * sgd_lr / lr:.6g} ^(whiten|head)/:{sgd_lr / lr:.6g}",
        weight_decay=0.00382 / lr,
        decay_mask="bias$|^head/",
        log_every="10 steps",
        dtype=dtype,
    )
