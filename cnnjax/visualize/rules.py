"""Rules for the backward pass through a network: the gradient, guided backpropagation and the deconvnet.

All three send a signal from a layer back to the image, through transposed convolutions and the switches of the max
pools. They differ at the nonlinearities. For y = f(z) with a rectifier f, a backward signal g at y becomes at z:

    gradient   f'(z) g           Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR workshop 2014
    guided     f'(z) max(g, 0)   Springenberg et al.: Striving for Simplicity. ICLR workshop 2015, sec. 3.4
    deconvnet  max(g, 0)         Zeiler, Fergus: Visualizing and Understanding Conv. Networks. ECCV 2014, sec. 2.1

`with_rule` traces any JAX function of the images to a jaxpr, and evaluates that with another derivative for each
nonlinear operation, so no network needs a hook. `Rule` says what the papers leave open.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from cnnjax.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Rule:
    """The derivatives that a backward signal meets at nonlinear operations.

    Attributes:
      rectifies: rectifiers (ReLU, PReLU, GELU, ...) pass only the positive part of the signal. Squashing functions
        (tanh, sigmoid, step) pass all of it.
      has_slope: the signal is multiplied by the slope of the activation function.
      holds: denominators of normalizations (local response, group), gates of squeeze-and-excitation, and one factor of
        a square are constants, as the switches of max pools are. If False, the signal passes through them, too.
    """

    rectifies: bool
    has_slope: bool
    holds: bool


RULES = {
    "gradient": Rule(rectifies=False, has_slope=True, holds=False),
    "guided": Rule(rectifies=True, has_slope=True, holds=False),
    "deconvnet": Rule(rectifies=True, has_slope=False, holds=True),
}

# Names of the functions, jitted or with a custom derivative, that are activation functions.
RECTIFIERS = frozenset((
    "relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "silu", "mish", "gelu", "hard_silu", "hard_swish",
    "softplus", "squareplus",
))  # fmt: skip
SQUASHING = frozenset(("tanh", "logistic", "heaviside", "hard_tanh", "hard_sigmoid", "soft_sign"))

# Names of JAX primitives by what they do to a signal. Any other is an error.
CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"))
CUSTOM_CALLS = frozenset(("custom_jvp_call", "custom_vjp_call"))
SHAPES = frozenset((
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "neg", "optimization_barrier",
    "reduce_precision", "reshape", "rev", "sharding_constraint", "squeeze", "transpose",
))  # fmt: skip
PRODUCTS = frozenset(("convolution", "conv_general_dilated", "dot_general", "mul"))
SWITCHES = frozenset(("max", "max_pool", "reduce_max", "reduce_window_max"))  # the signal goes to where the maximum was
LINEAR = SHAPES | PRODUCTS | SWITCHES | {
    "add", "add_any", "concatenate", "cumsum", "div", "pad", "reduce_sum", "reduce_window_sum", "slice", "split",
    "stack", "sub", "sum_pool", "unstack",
}  # fmt: skip
LINEAR_IN_FIRST = frozenset(("dynamic_slice", "gather"))
DENOMINATORS = frozenset(("exp", "integer_pow", "log", "pow", "rsqrt", "sqrt"))  # of normalizations

SIGNAL, GATE, SQUARE, HELD = "signal", "gate", "square", "held"


@dataclasses.dataclass(frozen=True, eq=False)
class _Traced:
    """A value that depends on the images; values that do not are plain arrays.

    Attributes:
      value: the array.
      kind: SIGNAL; GATE, the output of a squashing function, which is held when it multiplies a signal; SQUARE, a sum
        of squares, as in variances; HELD, a constant for rules with `holds`.
    """

    value: jax.Array
    kind: str = SIGNAL


Value = _Traced | Any


def with_rule(function: Callable[[Any], Any], rule: str) -> Callable[[Any], Any]:
    """Returns a function with the values of `function` whose derivative follows a rule: for jax.vjp and jax.grad.

    For example, `jax.vjp(with_rule(f, "deconvnet"), images)[1]` projects feature maps back to pixels. The values are
    those of `function`, bit for bit. 'guided' and 'deconvnet' have no forward mode (jax.jvp).

    Args:
      function: from images, or maps, to an array or a tree of arrays. Anything else is closed over.
      rule: a key of RULES.

    Raises:
      InputError: an unknown rule, or when the result is called, an operation that the rule does not know.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    return function if rule == "gradient" else evaluated_with(function, RULES[rule])


def evaluated_with(function: Callable[[Any], Any], rule: Rule) -> Callable[[Any], Any]:
    """Returns a function with the values of `function` whose derivative follows any `rule`: see `with_rule`."""

    def ruled(x: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(x)
        outputs = _evaluate(closed.jaxpr, closed.consts, [_Traced(x)], rule)
        for output in outputs:
            if rule.holds and isinstance(output, _Traced) and output.kind == HELD:
                raise _unknown("a denominator without a numerator")
        return jax.tree.unflatten(jax.tree.structure(shapes), [_array(output) for output in outputs])

    return ruled


# ------------------------------------------------------------------------------------------- derivatives of the rules


@jax.custom_jvp
def _straight_through(z: jax.Array, y: jax.Array) -> jax.Array:
    """Returns y; to derivatives it is z."""
    del z
    return y


@_straight_through.defjvp
def _straight_through_jvp(primals: Any, tangents: Any) -> Any:
    """Passes the tangent of z, in the dtype of y."""
    y = primals[1]
    return y, tangents[0].astype(y.dtype)


@jax.custom_vjp
def _rectify_signal(y: jax.Array) -> jax.Array:
    """Returns y; a backward signal is replaced by its positive part."""
    return y


_rectify_signal.defvjp(lambda y: (y, None), lambda _, signal: (jnp.maximum(signal, 0),))


# ------------------------------------------------------------------------------------------------------- interpretation


def _array(value: Value) -> Any:
    """Returns the array of a value."""
    return value.value if isinstance(value, _Traced) else value


def _evaluate(jaxpr: core.Jaxpr, consts: Sequence[Value], operands: Sequence[Value], rule: Rule) -> list[Value]:
    """Evaluates a jaxpr, equation by equation; returns its outputs."""
    values: dict[core.Var, Value] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *operands], strict=True))

    def read(atom: Any) -> Value:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        outputs = _apply(equation, [read(atom) for atom in equation.invars], rule)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _run(equation: core.JaxprEqn, operands: Iterable[Value]) -> list[Any]:
    """Computes an equation as it stands, with JAX's derivative."""
    pairs = {
        atom: _array(value)
        for atom, value in zip(equation.invars, operands, strict=True)
        if not isinstance(atom, core.Literal)
    }
    names = core.DebugInfo("visualize", equation.primitive.name, ("",) * len(pairs), ("",) * len(equation.outvars))
    jaxpr = core.Jaxpr([], list(pairs), equation.outvars, [equation], debug_info=names)
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, []))(*pairs.values())


def _apply(equation: core.JaxprEqn, operands: list[Value], rule: Rule) -> list[Value]:
    """Computes an equation with the derivative of the rule."""
    name = equation.primitive.name
    traced = [operand for operand in operands if isinstance(operand, _Traced)]
    if not traced:
        return _run(equation, operands)
    if name in CALLS | CUSTOM_CALLS:
        return _call(equation, operands, traced[0], rule)
    if name == "scan":
        return _scan(equation, operands, rule)
    if name in SQUASHING:
        return _activation(name, equation, operands, traced[0], rule)
    if name == "max" and len(traced) == 1 and traced[0].kind not in (SQUARE, HELD):
        if not any(map(_is_zero, operands)):
            raise _unknown("max with a number other than 0")
        return _activation("relu", equation, operands, traced[0], rule)
    if name == "square" or (name == "integer_pow" and equation.params["y"] == 2):
        return [_square(traced[0], rule)]
    if name in DENOMINATORS or (name == "div" and not isinstance(operands[0], _Traced)):
        return [_held(_run(equation, operands)[0], rule)]
    if name in PRODUCTS | {"div"} and len(traced) == 2:
        return [_product(equation, operands, rule)]
    in_first = name in LINEAR_IN_FIRST and not any(isinstance(operand, _Traced) for operand in operands[1:])
    in_others = name == "select_n" and not isinstance(operands[0], _Traced)
    if name in LINEAR or in_first or in_others:
        return [_Traced(output, _kind_of_sum(name, traced, rule)) for output in _run(equation, operands)]
    raise _unknown(name)


def _call(equation: core.JaxprEqn, operands: list[Value], first: _Traced, rule: Rule) -> list[Value]:
    """Computes a call of an activation function, or of another function by its equations."""
    inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    inner, consts = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, [])
    custom = equation.primitive.name in CUSTOM_CALLS
    named = inner.eqns[:1] if custom else [equation]  # jax.nn's functions with their own derivatives are jitted inside
    name = "".join(call.params.get("name", "") for call in named)
    if name in RECTIFIERS | SQUASHING:
        return _activation(name, equation, operands, first, rule)
    if custom:
        raise _unknown(f"the function {name!r}, which has a derivative of its own")
    return _evaluate(inner, consts, operands, rule)


def _activation(name: str, equation: core.JaxprEqn, operands: list[Value], z: _Traced, rule: Rule) -> list[Value]:
    """Computes y = f(z), for an activation function f of this name, with the derivative of the rule."""
    y = _run(equation, operands)[0]
    if z.kind == HELD:
        return [_Traced(y, HELD)]
    if not rule.has_slope:
        y = _straight_through(z.value, y)
    if rule.rectifies and name in RECTIFIERS:
        y = _rectify_signal(y)
    return [_Traced(y, GATE if name in SQUASHING else SIGNAL)]


def _held(value: jax.Array, rule: Rule) -> _Traced:
    """Returns a value that is a constant for a rule with `holds`."""
    return _Traced(jax.lax.stop_gradient(value) if rule.holds else value, HELD)


def _square(x: _Traced, rule: Rule) -> _Traced:
    """Returns x * x, one factor of which may be held."""
    return _Traced(x.value * _held(x.value, rule).value, HELD if x.kind == HELD else SQUARE)


def _product(equation: core.JaxprEqn, operands: list[Value], rule: Rule) -> _Traced:
    """Computes a product or quotient of two traced values, one of which a rule may hold: a denominator, else a gate."""
    a, b = operands
    if a.kind == b.kind == HELD:
        return _held(_run(equation, operands)[0], rule)
    name = equation.primitive.name
    if a is b and name == "mul":
        return _square(a, rule)
    gates = [operand for operand in operands if operand.kind == GATE]
    if name == "div" or b.kind == HELD:
        operands = [a, _held(b.value, rule)]
    elif a.kind == HELD or gates == [a]:
        operands = [_held(a.value, rule), b]
    elif gates == [b]:
        operands = [a, _held(b.value, rule)]
    elif rule.holds:
        raise _unknown(f"{name} of two feature maps")
    return _Traced(_run(equation, operands)[0])


def _kind_of_sum(name: str, traced: Sequence[_Traced], rule: Rule) -> str:
    """Returns the kind of a linear function of these values, alone or with constants.

    What is held may multiply a signal, and not be added to one: it is then a nonlinear function of unknown purpose.
    """
    kinds = {value.kind for value in traced}
    if len(kinds) > 1 and HELD in kinds and rule.holds:
        raise _unknown(f"{name} of a signal and a denominator")
    kind = kinds.pop() if len(kinds) == 1 else SIGNAL
    return SIGNAL if kind == GATE and name not in SHAPES | {"mul", "add", "sub"} else kind


def _scan(equation: core.JaxprEqn, operands: list[Value], rule: Rule) -> list[Value]:
    """Computes a loop, jax.lax.scan, with the derivative of the rule in its body. What it carries is a signal."""
    params, body = equation.params, equation.params["jaxpr"]
    # Operands are constants, what is carried, and arrays with a slice for each turn. JAX versions count them in
    # different ways; in all, slices lack the first axis of their array.
    turns = [len(_shape(x)) > len(inner.shape) for x, inner in zip(equation.invars, body.in_avals, strict=True)]
    stacks = [len(_shape(x)) > len(inner.shape) for x, inner in zip(equation.outvars, body.out_avals, strict=True)]
    carried = len(operands) - sum(turns)
    fixed = carried - (len(stacks) - sum(stacks))
    consts, start, inputs = operands[:fixed], operands[fixed:carried], operands[carried:]
    moves = [isinstance(value, _Traced) for value in inputs]

    def step(carry: Any, slices: Any) -> Any:
        values = [_Traced(value) if moving else value for value, moving in zip(slices, moves, strict=True)]
        outputs = _evaluate(body.jaxpr, [*body.consts], [*consts, *map(_Traced, carry), *values], rule)
        arrays = [_array(output) for output in outputs]
        return arrays[: len(start)], arrays[len(start) :]

    options = {"length": params["length"], "reverse": params["reverse"]}
    carry, outputs = jax.lax.scan(step, [*map(_array, start)], [*map(_array, inputs)], **options)
    return [*map(_Traced, carry), *map(_Traced, outputs)]


def _shape(variable: Any) -> tuple[int, ...]:
    """Returns the shape of a variable of a jaxpr."""
    return variable.aval.shape


def _is_zero(value: Any) -> bool:
    """Returns whether a value is a constant 0; False for a traced one."""
    return not isinstance(value, Tracer) and bool(np.all(np.asarray(value) == 0))


def _unknown(what: str) -> InputError:
    """Returns the error for an operation on feature maps that no rule knows."""
    names = ", ".join(sorted(RECTIFIERS | SQUASHING))
    return InputError(
        f"no backward rule for {what}: expected linear operations, pools, products with a gate or by a denominator, "
        f"and jitted functions named as an activation ({names}); the rule 'gradient' works for any network"
    )
