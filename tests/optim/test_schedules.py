"""Learning-rate schedules against numbers written by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import optim
from cnnjax.config import Config
from tests.optim.reference import apply

HALF = 0.5 * (1 + np.cos(np.pi / 4))


# For 100 steps, 10 an epoch, and a peak of 2: the rate that the update of a step is made with, by step.
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", {0: 2, 99: 2}),
        ("constant(warmup='4 steps')", {0: 0.5, 1: 1, 2: 1.5, 3: 2, 4: 2, 99: 2}),
        ("piecewise(('50%', '75 steps'))", {0: 2, 49: 2, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        ("piecewise('2 epochs', factor=0.5, warmup='1 epoch')", {0: 0.2, 9: 2, 19: 2, 20: 1, 99: 1}),
        ("exponential(0.5)", {0: 2, 19: 2, 20: 1, 39: 1, 40: 0.5, 80: 0.125}),
        ("exponential(0.25, '20%', staircase=False)", {0: 2, 10: 1, 20: 0.5, 40: 0.125}),
        ("exponential(0.5, every='50 steps', warmup='1 epoch')", {0: 0.2, 9: 2, 49: 2, 50: 1}),
        ("plateau", {0: 2, 99: 2}),
        ("plateau(factor=0.5, patience=3, warmup='4 steps')", {0: 0.5, 3: 2, 99: 2}),
        ("cosine", {0: 2, 25: 2 * HALF, 50: 1, 75: 2 - 2 * HALF, 100: 0}),
        ("cosine(final=0.5)", {0: 2, 50: 1.5, 100: 1}),
        ("cosine(warmup='20%')", {0: 0.1, 9: 1, 19: 2, 20: 2, 40: 2 * HALF, 60: 1, 100: 0}),
        ("polynomial", {0: 2, 50: 0.5, 90: 0.02, 100: 0}),
        ("polynomial(power=1, warmup='20%')", {0: 0.1, 9: 1, 19: 2, 20: 2, 60: 1, 100: 0}),
        ("one_cycle", {0: 0.08, 15: 1.04, 30: 2, 65: 1, 100: 0}),
        ("one_cycle(peak='20 steps', start=0.5, final=0.1)", {0: 1, 10: 1.5, 20: 2, 60: 1.1, 100: 0.2}),
    ],
)
def test_the_rate_at_a_step(schedule: str, rates: dict[int, float]) -> None:
    rate = optim.build_schedule(optim.parse(Config(lr=2.0, schedule=schedule)), epoch=10, total=100)
    np.testing.assert_allclose([jnp.asarray(rate(jnp.int32(step))) for step in rates], list(rates.values()), atol=1e-6)


def test_the_optimizer_follows_the_schedule_that_is_logged() -> None:
    config = Config(optimizer="sgd", lr=0.5, schedule="one_cycle(peak='3 steps')")
    schedule = optim.build_schedule(optim.parse(config), epoch=1, total=10)
    p = {"kernel": jnp.zeros(1)}
    tx = optim.build(optim.parse(config), p, schedule)
    state, taken = tx.init(p), []
    for _ in range(10):
        updates, state = tx.update({"kernel": jnp.ones(1)}, state, p)
        taken.append(-float(apply(p, updates)["kernel"][0]))
    np.testing.assert_allclose(taken, [jnp.asarray(schedule(jnp.int32(step))) for step in range(10)], rtol=1e-6)


def test_two_boundaries_at_one_step_both_count() -> None:
    schedule = optim.build_schedule(
        optim.parse(Config(lr=1.0, schedule="piecewise(('50%', '10 steps'))")), epoch=1, total=20
    )
    assert [np.asarray(schedule(step)).item() for step in (9, 10)] == pytest.approx([1.0, 0.01])
