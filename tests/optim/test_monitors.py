"""Monitors of validation metrics: plateau and early stopping, against PyTorch and by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import optim, spec
from cnnjax.config import Config


def states_after(values: list[float], **settings: Any) -> list[dict[str, Any]]:
    """Returns the monitors' states after each value, which every metric has."""
    config, after = Config(**settings), []
    monitors = optim.build_monitors(spec.parse(config.schedule), config.early_stop)
    states = optim.init_monitors(monitors)
    for value in values:
        states = optim.update_monitors(monitors, states, {"loss": value, "accuracy": value, "top5": value})
        after.append(states)
    return after


UP_AND_DOWN = [1.0, 0.9, 0.9, 0.95, 0.89995, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, float("nan"), 0.4]
END = UP_AND_DOWN[5:]


# By PyTorch's ReduceLROnPlateau: the factor of the rate after each of the values.
@pytest.mark.parametrize(
    ("arguments", "values", "factors"),
    [
        ("patience=1, metric='loss'", UP_AND_DOWN, [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, *[1e-4] * 3]),
        ("patience=0, metric='loss', factor=0.5, cooldown=2", END, [1, 0.5, 0.5, 0.5, *[0.25] * 3, *[0.125] * 2]),
        ("patience=0, metric='loss', lowest=0.05", END[:5], [1, 0.1, 0.05, 0.05, 0.05]),
        ("patience=1, threshold=0.1", [0.5, 0.54, 0.54, 0.6, 0.6, 0.6], [1, 1, 0.1, 0.1, 0.1, 0.01]),
        ("patience=2", [0.1, 0.1, 0.1, 0.1, 0.2], [1, 1, 1, 0.1, 0.1]),
        ("patience=0, metric='top5'", [0.1, 0.2, 0.1], [1, 1, 0.1]),
    ],
)  # fmt: skip
def test_the_rate_falls_on_a_plateau(arguments: str, values: list[float], factors: list[float]) -> None:
    states = states_after(values, schedule=f"plateau({arguments})")
    np.testing.assert_allclose([state["plateau"]["factor"] for state in states], factors, rtol=1e-5)
    rate = optim.scaled_schedule(optax.constant_schedule(2.0), states[-1])
    assert np.asarray(rate(jnp.int32(0))).item() == pytest.approx(2 * factors[-1])


@pytest.mark.parametrize(
    ("arguments", "values", "stops"),
    [
        ("patience=1", [1.0, 0.9, 0.9], [False, False, True]),
        ("patience=2", [1.0, 1.1, 0.9, 0.9, 0.8, 0.8, 0.8], [False] * 6 + [True]),
        ("patience=2, threshold=0.2", [1.0, 0.9, 0.7, 0.6, 0.6], [False, False, False, False, True]),
        ("2, 'accuracy'", [0.1, 0.2, 0.2, 0.1], [False, False, False, True]),
        ("patience=1, threshold=1.0", [1.0, 0.5], [False, True]),
        ("patience=2", [float("nan")] * 2, [False, True]),
    ],
)
def test_a_run_ends_without_improvement(arguments: str, values: list[float], stops: list[bool]) -> None:
    config = Config(early_stop=f"early_stop({arguments})")
    states = states_after(values, early_stop=config.early_stop)
    assert [bool(optim.stop_reason(config.early_stop, state)) for state in states] == stops


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
@pytest.mark.parametrize(("patience", "cooldown", "threshold"), [(0, 0, 1e-4), (3, 2, 0.01), (1, 4, 0.1)])
def test_a_plateau_is_pytorchs(metric: str, patience: int, cooldown: int, threshold: float) -> None:
    torch = pytest.importorskip("torch")
    values = [float(np.float32(x)) for x in np.random.default_rng(patience).uniform(0.3, 1.0, 60)]
    scheduled = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        scheduled, "min" if metric == "loss" else "max", 0.7, patience, threshold, cooldown=cooldown, eps=0.0
    )
    expected = [plateau.step(value) or scheduled.param_groups[0]["lr"] for value in values]
    text = f"plateau(0.7, {patience}, {threshold}, {cooldown}, metric={metric!r})"
    got = [state["plateau"]["factor"] for state in states_after(values, schedule=text)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
