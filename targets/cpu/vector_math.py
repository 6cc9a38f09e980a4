"""Transcendental functions as float32 arithmetic that LLVM vectorizes (its own are one libm call per lane).

Each takes and returns a float32 expression. The operand is bound by a ``Let``, so that it is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx

_F32 = "float32"
# ln 2 in two parts: n * LN2_HIGH is exact for the |n| <= 2^9 that occur.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2.0) - _LN2_HIGH
# Below the first, exp is 0 in float32; above the second it is infinite.
_EXP_LOW, _EXP_HIGH = -104.0, 89.0
# Above this, e^x and the power of two next to it are normal float32 numbers.
_EXP_LOWEST_NORMAL = -86.0
# 1.5 * 2^23: a sum with it has no fractional bits, so adding it rounds to the nearest integer.
_ROUND_BY_ADDING = 12582912.0
# tanh is 1 in float32 beyond this.
_TANH_LIMIT = 9.1
# Abramowitz and Stegun 7.1.26: erf within 1.5e-7.
_ERF_P = 0.3275911
_ERF_COEFFICIENTS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def _const(value: float) -> tirx.Expr:
    return tirx.const(value, _F32)


def fma(a: tirx.Expr, b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
    """a * b + c rounded once, whatever LLVM decides about contraction."""
    return tirx.call_llvm_pure_intrin(_F32, "llvm.fma", a, b, c)


def round_half_even(x: tirx.Expr) -> tirx.Expr:
    """The nearest integer, ties to the even one; also of a vector.

    One instruction, where ``nearbyint`` is a call per lane.
    """
    return tirx.call_llvm_pure_intrin(x.ty, "llvm.roundeven", x)


def _let(name: str, value: tirx.Expr, body: Callable[[tirx.Expr], tirx.Expr]) -> tirx.Expr:
    var = tirx.Var(name, value.ty)
    return tirx.Let(var, value, body(var))


def _horner(x: tirx.Expr, coefficients: tuple[float, ...]) -> tirx.Expr:
    """sum(c[i] * x^i)."""
    result = _const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = fma(result, x, _const(coefficient))
    return result


def _clamp(x: tirx.Expr, low: float, high: float) -> tirx.Expr:
    """x within [low, high]; a NaN stays a NaN, which min and max would lose."""
    raised = tirx.Select(x < _const(low), _const(low), x)
    return tirx.Select(x > _const(high), _const(high), raised)


def _power_of_two(n: tirx.Expr) -> tirx.Expr:
    """2^n for an int32 n within the normal exponents."""
    return tirx.reinterpret(_F32, (n + 127) << 23)


def _reduced(x: tirx.Expr, body: Callable[[tirx.Expr, tirx.Expr], tirx.Expr]) -> tirx.Expr:
    """body(n, r) with x = n ln 2 + r, n an integer-valued float and |r| <= ln(2) / 2."""

    def with_n(n: tirx.Expr) -> tirx.Expr:
        r = fma(n, _const(-_LN2_LOW), fma(n, _const(-_LN2_HIGH), x))
        return _let("r", r, lambda r: body(n, r))

    return _let("n", round_half_even(x * _const(1.0 / math.log(2.0))), with_n)


def _expm1_of_reduced(r: tirx.Expr) -> tirx.Expr:
    """exp(r) - 1 by its Taylor series to r^8: relative error below 2e-9 for |r| <= ln(2) / 2."""
    return r * _horner(r, tuple(1.0 / math.factorial(i + 1) for i in range(8)))


def exp(x: tirx.Expr) -> tirx.Expr:
    """e^x: relative error below 2e-7; 0, infinity and NaN where float32 has them."""

    def scaled(n: tirx.Expr, r: tirx.Expr) -> tirx.Expr:
        # In two factors: 2^n itself is not a normal float32 at both ends of the range.
        def factors(exponent: tirx.Expr) -> tirx.Expr:
            half = exponent >> 1
            mantissa = _expm1_of_reduced(r) + _const(1.0)
            return mantissa * _power_of_two(half) * _power_of_two(exponent - half)

        return _let("exponent", tirx.Cast("int32", n), factors)

    return _let("x", _clamp(x, _EXP_LOW, _EXP_HIGH), lambda x: _reduced(x, scaled))


def exp_of_nonpositive(x: tirx.Expr) -> tirx.Expr:
    """e^x for x <= 0 at three quarters of the cost of ``exp``: 0 below -86, NaN of NaN."""
    shift = _const(_ROUND_BY_ADDING)

    def scaled(x: tirx.Expr, raised: tirx.Expr, shifted: tirx.Expr) -> tirx.Expr:
        n = shifted - shift
        r = fma(n, _const(-_LN2_LOW), fma(n, _const(-_LN2_HIGH), raised))
        # The low bits of the shifted number are those of n; what is above them is shifted out.
        power = tirx.reinterpret(_F32, (tirx.reinterpret("int32", shifted) << 23) + (127 << 23))
        series = _let("r", r, lambda r: _horner(r, tuple(1.0 / math.factorial(i) for i in range(8))))
        return tirx.Select(x < _const(_EXP_LOWEST_NORMAL), _const(0.0), series * power)

    def with_shifted(x: tirx.Expr, raised: tirx.Expr) -> tirx.Expr:
        shifted = fma(raised, _const(1.0 / math.log(2.0)), shift)
        return _let("shifted", shifted, lambda shifted: scaled(x, raised, shifted))

    def with_raised(x: tirx.Expr) -> tirx.Expr:
        low = _const(_EXP_LOWEST_NORMAL)
        return _let("raised", tirx.Select(x < low, low, x), lambda raised: with_shifted(x, raised))

    return _let("x", x, with_raised)


def sigmoid(x: tirx.Expr) -> tirx.Expr:
    """1 / (1 + e^-x)."""
    return _const(1.0) / (_const(1.0) + exp(_const(0.0) - x))


def silu(x: tirx.Expr) -> tirx.Expr:
    """x * sigmoid(x)."""
    return _let("silu_x", x, lambda x: x / (_const(1.0) + exp(_const(0.0) - x)))


def tanh(x: tirx.Expr) -> tirx.Expr:
    """(e^2x - 1) / (e^2x + 1), without cancellation near 0."""

    def ratio(n: tirx.Expr, r: tirx.Expr) -> tirx.Expr:
        def from_scale(scale: tirx.Expr) -> tirx.Expr:
            expm1 = fma(scale, _expm1_of_reduced(r), scale - _const(1.0))
            return _let("expm1", expm1, lambda e: e / (e + _const(2.0)))

        return _let("scale", _power_of_two(tirx.Cast("int32", n)), from_scale)

    doubled = _clamp(x, -_TANH_LIMIT, _TANH_LIMIT) * _const(2.0)
    return _let("doubled", doubled, lambda doubled: _reduced(doubled, ratio))


def erf(x: tirx.Expr) -> tirx.Expr:
    """The error function: absolute error below 6e-7."""

    def of_magnitude(x: tirx.Expr, a: tirx.Expr) -> tirx.Expr:
        def series(t: tirx.Expr) -> tirx.Expr:
            y = _const(1.0) - t * _horner(t, _ERF_COEFFICIENTS) * exp(_const(0.0) - a * a)
            return _let("y", y, lambda y: tirx.Select(x < _const(0.0), _const(0.0) - y, y))

        return _let("t", _const(1.0) / fma(_const(_ERF_P), a, _const(1.0)), series)

    return _let("erf_x", x, lambda x: _let("a", tirx.abs(x), lambda a: of_magnitude(x, a)))


def gelu(x: tirx.Expr) -> tirx.Expr:
    """x times the normal distribution function of x."""
    cdf = _const(0.5)
    return _let("gelu_x", x, lambda x: x * fma(cdf, erf(x * _const(math.sqrt(0.5))), cdf))


def gelu_tanh(x: tirx.Expr) -> tirx.Expr:
    """GELU with the tanh approximation of the distribution function."""

    def curve(x: tirx.Expr) -> tirx.Expr:
        inner = _const(math.sqrt(2.0 / math.pi)) * x * fma(_const(0.044715) * x, x, _const(1.0))
        return x * fma(_const(0.5), tanh(inner), _const(0.5))

    return _let("gelu_x", x, curve)
