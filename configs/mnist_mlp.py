"""MNIST without convolutions: a perceptron, 300 hidden units (1998), five wide layers (2010).

Result here: test error 7.59 % (perceptron), 1.85 % (mlp) (seed 0; two CPU cores, jax 0.10.2, November 2026).

    ./launch.sh train mnist_mlp
    ./launch.sh train mnist_mlp:perceptron
    ./launch.sh train mnist_mlp:deep_mlp

The papers' test errors: a linear classifier 12.0 %, 300 hidden units 4.7 % (LeCun et al. 1998, Fig. 9); five layers of
2,500 to 500 units, on images distorted differently in each epoch, 0.35 % (Ciresan et al. 2010, Table 1), all from
memory. Our test errors after the last step: perceptron 7.59 %, mlp 1.85 %, in one and two minutes on cores shared with
other jobs. deep_mlp has not been run.

As in the papers: the networks. Unlike them: cross-entropy with momentum and a one-cycle schedule instead of squared
errors and plain SGD, and only rotations, scaling and shearing, of the range in Ciresan's sec. 2 (from memory: 15
degrees, 15 %), without elastic deformations.
"""

from cnnjax.config import Config, pick_recipe

NETWORKS = {
    "perceptron": {"lr": 0.01},
    "mlp": {"lr": 0.05},
    "deep_mlp": {
        "augment": "pad(29)|rotate(15)|scale(0.85, 1.15)|shear(15)",
        "preprocess": "pad(29)",
        "lr": 0.01,
        "duration": "100 epochs",
    },
}


def get_config(model: str = "mlp") -> Config:
    fields = {"duration": "20 epochs"} | pick_recipe(model, NETWORKS)
    return Config(
        model=model,
        dataset="mnist",
        normalize="symmetric",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        schedule="one_cycle",
        log_every="100 steps",
        **fields,
    )
