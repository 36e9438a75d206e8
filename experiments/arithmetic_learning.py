"""Learning: what activations do to gradients, what a perceptron cannot do, and the algorithm, line by line.

./launch.sh study experiments/arithmetic_learning.py
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from cnnjax.augment import build_mixing
from cnnjax.config import Config
from cnnjax.models import create_model
from cnnjax.models.layers import ACTIVATIONS
from cnnjax.state import path_name
from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.training.init import init_state
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.step import train_step

LECTURES = "taught so in lectures"
SELU = "Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks. NIPS 2017"
PERCEPTRONS = "Minsky, Papert: Perceptrons. MIT Press 1969"
BITS = np.array([(0, 0), (0, 1), (1, 0), (1, 1)], np.float32)
XOR = np.array([0, 1, 1, 0])
RATE, STEPS = 0.5, 4


def elu_and_selu() -> Numbers:
    """Reads the slopes of ELU and SELU for positive inputs."""
    elu = functools.partial(jax.nn.elu, alpha=1.6733)
    slopes = {name: float(jax.grad(f)(1.0)) for name, f in (("ELU", elu), ("SELU", ACTIVATIONS["selu"]))}
    return {f"slope of {name} for positive inputs": slope for name, slope in slopes.items()}


def slopes() -> Numbers:
    """Reads the largest slopes of sigmoid and tanh, which are at 0."""
    sigmoid, tanh = (float(jax.grad(ACTIVATIONS[name])(0.0)) for name in ("sigmoid", "tanh"))
    return {
        "largest slope of the sigmoid": sigmoid,
        "largest slope of tanh": tanh,
        "powers of ten lost in 20 sigmoids, at least": -20 * math.log10(sigmoid),
    }


def separable(inputs: np.ndarray, targets: np.ndarray) -> bool:
    """Returns whether one threshold unit can map inputs [N, D] to targets [N] of 0 and 1, by linear programming."""
    sides = np.where(targets == 1, 1, -1)[:, None] * np.c_[inputs, np.ones(len(inputs))]
    result = scipy.optimize.linprog(np.zeros(sides.shape[1]), -sides, -np.ones(len(sides)), bounds=(None, None))
    return result.status == 0


def xor() -> Numbers:
    """Counts the functions of two bits that a threshold unit can compute, and computes XOR with two layers."""
    tables = [np.array([number >> bit & 1 for bit in range(4)]) for number in range(16)]
    # The hidden units are OR and AND; XOR is the first without the second.
    params = {
        "hidden1": {"kernel": np.ones((2, 2), np.float32), "bias": np.array([-0.5, -1.5], np.float32)},
        "output": {"kernel": np.array([[1], [-1]], np.float32), "bias": np.zeros(1, np.float32)},
    }
    network = create_model("mlp(features=(2,), activation='step')", num_classes=1)
    outputs = network.apply({"params": params}, BITS.reshape(4, 1, 2, 1), train=False)
    return {
        "functions of two bits that one unit can compute": sum(separable(BITS, table) for table in tables),
        "one unit can compute XOR": separable(BITS, XOR),
        "two layers compute XOR": np.array_equal(np.asarray(outputs)[:, 0], XOR),
    }


def written_out(weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Takes one step of mini-batch gradient descent: the algorithm, line by line, for a network of two layers."""
    sums = {name: np.zeros_like(value) for name, value in weights.items()}
    for image, label in zip(images.reshape(len(images), -1), labels, strict=True):
        # Forward: sigmoid units, then the softmax of their weighted sums.
        hidden = 1 / (1 + np.exp(-(image @ weights["hidden1/kernel"] + weights["hidden1/bias"])))
        scores = np.exp(hidden @ weights["output/kernel"] + weights["output/bias"])
        # Backward: what the outputs and the hidden units are wrong by.
        error = scores / scores.sum() - np.eye(len(scores))[label]
        back = (weights["output/kernel"] @ error) * hidden * (1 - hidden)
        sums["output/kernel"] += np.outer(hidden, error)
        sums["output/bias"] += error
        sums["hidden1/kernel"] += np.outer(image, back)
        sums["hidden1/bias"] += back
    return {name: value - RATE * sums[name] / len(images) for name, value in weights.items()}


def mini_batches() -> Numbers:
    """Takes training steps, and the same steps written out in NumPy."""
    config = Config(model="mlp(features=(5,), activation='sigmoid')", optimizer="sgd(momentum=0.0)", lr=RATE)
    network = create_model(config.model, num_classes=3)
    shared = {"recipe": parse_recipe(config), "model": network, "schedule": lambda step: jnp.float32(RATE)}
    state = init_state(jax.random.key(0), shape=(2, 2, 1), **shared)
    functions = {"prepare": lambda key, image, *_: image, "mix": build_mixing([], 3)}
    step = jax.jit(functools.partial(train_step, **shared, **functions))

    def weights() -> dict[str, np.ndarray]:
        return {path_name(path): np.array(x, float) for path, x in jax.tree_util.tree_leaves_with_path(state.params)}

    rng, copy, agree = np.random.default_rng(0), weights(), 0
    for _ in range(STEPS):
        images, labels = rng.normal(size=(8, 2, 2, 1)).astype(np.float32), rng.integers(0, 3, 8).astype(np.int32)
        batch = {"image": images, "label": labels, "example": np.arange(8), "epoch": np.zeros(8, np.int32)}
        state, _ = step(state, batch, jax.random.key(0))
        copy = written_out(copy, images, labels)
        agree += all(np.allclose(value, copy[name], rtol=0, atol=1e-5) for name, value in weights().items())
    return {"steps of 4 after which all weights agree": agree}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about activations, perceptrons and the training step."""
    return (
        Fact(
            name="elu_and_selu",
            chapter="activations",
            statement="An ELU whose alpha is not 1 is a SELU.",
            source=LECTURES,
            numbers=(
                Number("slope of ELU for positive inputs", right=1, taught=1),
                Number("slope of SELU for positive inputs", right="1.0507", taught=1),
            ),
            compute=elu_and_selu,
            why=f"SELU also multiplies by lambda = 1.0507 ({SELU}, eq. 2). Without it, activations would not keep "
            "their variance.",
        ),
        Fact(
            name="largest_slopes",
            chapter="activations",
            statement="The sigmoid's slope is at most 1/4, so gradients vanish in a stack of sigmoids.",
            source=LECTURES,
            numbers=(
                Number("largest slope of the sigmoid", right=1 / 4, taught=1 / 4),
                Number("largest slope of tanh", right=1),
                Number("powers of ten lost in 20 sigmoids, at least", right="12.04"),
            ),
            compute=slopes,
            why="Twenty sigmoids divide a gradient by at least 4^20, or 10^12, if weights do not help. Tanh has "
            "a slope of 1 at 0 and need not lose anything.",
        ),
        Fact(
            name="xor",
            chapter="depth",
            statement="One threshold unit cannot compute XOR, but two layers can.",
            source=f"{PERCEPTRONS}; {LECTURES}",
            numbers=(
                Number("functions of two bits that one unit can compute", right=16 - 2),
                Number("one unit can compute XOR", right=False, taught=False),
                Number("two layers compute XOR", right=True, taught=True),
            ),
            compute=xor,
            why="A line separates 0s from 1s for all but XOR and its opposite. Two layers: hidden units are OR and "
            "AND, and the output is the first without the second.",
        ),
        Fact(
            name="mini_batches",
            chapter="training",
            statement="A step of mini-batch gradient descent moves each weight against the mean of the gradients of "
            "the batch's images.",
            source=LECTURES,
            numbers=[Number("steps of 4 after which all weights agree", right=STEPS, taught=STEPS)],
            compute=mini_batches,
            why="The training step of this package and the algorithm, written out in NumPy image by image, give the "
            "same weights to 0.00001.",
        ),
    )
