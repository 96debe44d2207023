/* Exponentials and what is made of nothing else: sigmoid and tanh. Included once for each instruction
 * set.
 *
 * The same operations in the same order everywhere, so the bits depend on no vector's width. NaN gives
 * NaN. All of them reduce the argument, x = n ln 2 + r with |r| <= ln 2 / 2, and scale what a
 * polynomial of r gives by 2^n. The polynomials are minimax, fitted in float64; that of e^r is 3e-9 of
 * the result off, that of expm1 1.4e-8, that of log1p 1.1e-10.
 */

/* Added and taken off, it rounds to a whole number, which also stands in the lowest bits of the sum. */
#define ROUNDER 0x1.8p23f
#define LOG2_E 0x1.715476p0f
#define LN2 0x1.62e430p-1f
/* ln 2 in two parts, the first so short that n times it is exact, even without a fused multiply-add. */
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f

/* Return x + n ln 2, which is what is left of e^-x beside 2^n. */
INLINE lanes
exp_rest(lanes x, lanes n)
{
    lanes r = lanes_fma(n, lanes_all(LN2_HIGH), x);
    return lanes_fma(n, lanes_all(LN2_LOW), r);
}

/* Return e^-r for |r| <= ln 2 / 2. */
INLINE lanes
exp_minus_rest(lanes r)
{
    lanes p = lanes_all(0x1.6a2256p-10f);
    p = lanes_fma(p, r, lanes_all(-0x1.123b04p-7f));
    p = lanes_fma(p, r, lanes_all(0x1.5558f8p-5f));
    p = lanes_fma(p, r, lanes_all(-0x1.555490p-3f));
    p = lanes_fma(p, r, lanes_all(0x1.fffffcp-2f));
    p = lanes_fma(p, r, lanes_all(-1.0f));
    return lanes_fma(p, r, lanes_all(1.0f));
}

/* Return e^-x. `offset` is that of `lanes_scale`: 64 for x from -105 to 40, -64 for x from 0 to 105. */
INLINE lanes
exp_minus(lanes x, int offset)
{
    lanes shifted = lanes_fma(x, lanes_all(-LOG2_E), lanes_all(ROUNDER));
    lanes n = lanes_sub(shifted, lanes_all(ROUNDER));
    return lanes_scale(exp_minus_rest(exp_rest(x, n)), n, shifted, offset);
}

/* Return e^-(x + small) for x from 0 to 105: `small` has the digits that x had no room for. */
INLINE lanes
exp_minus_both(lanes x, lanes small)
{
    lanes shifted = lanes_fma(lanes_add(x, small), lanes_all(-LOG2_E), lanes_all(ROUNDER));
    lanes n = lanes_sub(shifted, lanes_all(ROUNDER));
    lanes r = lanes_add(exp_rest(x, n), small);
    return lanes_scale(exp_minus_rest(r), n, shifted, -64);
}

/* Return e^x, infinity from 88.8 and 0 below -104. */
INLINE lanes
exponential(lanes x)
{
    x = lanes_at_least(lanes_all(-105.0f), lanes_at_most(lanes_all(90.0f), x));
    lanes minus = lanes_sub(lanes_all(0.0f), x);
    lanes n = lanes_sub(lanes_fma(x, lanes_all(LOG2_E), lanes_all(ROUNDER)), lanes_all(ROUNDER));
    /* In two factors, since neither 2^130 nor 2^-150 is one. Only the second can round. */
    lanes shifted = lanes_fma(n, lanes_all(0.5f), lanes_all(ROUNDER));
    lanes rest = lanes_sub(n, lanes_sub(shifted, lanes_all(ROUNDER)));
    lanes p = lanes_mul(exp_minus_rest(exp_rest(minus, n)), lanes_power(shifted, 0));
    return lanes_mul(p, lanes_power(lanes_add(rest, lanes_all(ROUNDER)), 0));
}

/* Return e^2x - 1 for |x| <= 10. */
INLINE lanes
expm1_twice(lanes x)
{
    /* Half of ln 2, since the exponent is 2 x: r is half of what is left of it. n is so small that one
     * part of ln 2 will do. */
    lanes shifted = lanes_fma(x, lanes_all(2 * LOG2_E), lanes_all(ROUNDER));
    lanes n = lanes_sub(shifted, lanes_all(ROUNDER));
    lanes r = lanes_fma(n, lanes_all(-LN2 / 2), x);
    lanes p = lanes_all(0x1.6bebdep-4f);
    p = lanes_fma(p, r, lanes_all(0x1.122886p-2f));
    p = lanes_fma(p, r, lanes_all(0x1.555676p-1f));
    p = lanes_fma(p, r, lanes_all(0x1.5554aep0f));
    p = lanes_fma(p, r, lanes_all(0x1.fffffep0f));
    p = lanes_fma(p, lanes_mul(r, r), lanes_add(r, r));
    lanes power = lanes_power(shifted, 0);
    return lanes_fma(power, p, lanes_sub(power, lanes_all(1.0f)));
}

/* Return e^x - 1 where x is negative, else 0. */
INLINE lanes
expm1_below_zero(lanes x)
{
    x = lanes_at_least(lanes_all(-20.0f), lanes_at_most(lanes_all(0.0f), x));
    return expm1_twice(lanes_mul(x, lanes_all(0.5f)));
}

/* Return ln(1 + z) for z from 0 to 1: 2 artanh(z / (2 + z)), whose terms are all positive. */
INLINE lanes
log1p_(lanes z)
{
    lanes s = lanes_div(z, lanes_add(lanes_all(2.0f), z));
    lanes square = lanes_mul(s, s);
    lanes p = lanes_all(0x1.f17310p-4f);
    p = lanes_fma(p, square, lanes_all(0x1.b6e6dap-4f));
    p = lanes_fma(p, square, lanes_all(0x1.2508b0p-3f));
    p = lanes_fma(p, square, lanes_all(0x1.9996b0p-3f));
    p = lanes_fma(p, square, lanes_all(0x1.555558p-2f));
    lanes twice = lanes_add(s, s);
    return lanes_fma(lanes_mul(p, square), twice, twice);
}

/* Return 1 + e^-x, of which sigmoid(x) is the reciprocal. */
INLINE lanes
sigmoid_divisor(lanes x)
{
    x = lanes_at_least(lanes_all(-105.0f), lanes_at_most(lanes_all(40.0f), x));
    return lanes_add(lanes_all(1.0f), exp_minus(x, 64));
}

INLINE lanes sigmoid(lanes x) { return lanes_div(lanes_all(1.0f), sigmoid_divisor(x)); }

/* Return m = e^2x - 1, of which tanh(x) = m / (m + 2) loses no digits near zero, as (1 - e) / (1 + e)
 * would; clipped to where tanh is 1. */
INLINE lanes
tanh_expm1(lanes x)
{
    return expm1_twice(lanes_at_least(lanes_all(-10.0f), lanes_at_most(lanes_all(10.0f), x)));
}

INLINE lanes
tanh_(lanes x)
{
    lanes expm1 = tanh_expm1(x);
    return lanes_copysign(lanes_div(expm1, lanes_add(expm1, lanes_all(2.0f))), x);
}
