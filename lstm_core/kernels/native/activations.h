/* Sigmoid, tanh and softmax on `lanes`. Included once for each instruction set.
 *
 * The same operations in the same order everywhere, so the bits depend on no vector's width. Against
 * the true value, wherever that is a normal float32: both within 3 ulp (2.5 and 2.6 found). Sigmoid
 * is at most 2^-126 off where it is smaller than that, and 0 below -89. Both saturate to 0, 1 and -1
 * exactly, infinity included; tanh keeps the sign of a zero; NaN gives NaN.
 *
 * Both reduce the argument, x = n ln 2 + r with |r| <= ln 2 / 2, and add 2^n to what a polynomial of
 * r gives. The polynomials are minimax, fitted in float64: their errors are 3e-9 and 1.4e-8 of the
 * result. There is one exponential in tanh because tanh(x) = expm1(2x) / (expm1(2x) + 2), which loses
 * no digits near zero, where (1 - e) / (1 + e) would.
 */

/* Added and taken off, it rounds to a whole number, which also stands in the lowest bits of the sum. */
#define ROUNDER 0x1.8p23f
#define LOG2_E 0x1.715476p0f
/* ln 2 in two parts, the first so short that n times it is exact, even without a fused multiply-add. */
#define LN2_HIGH 0x1.63p-1f
#define LN2_LOW -0x1.bd0106p-13f

/* Return e^-x. `offset` is that of `lanes_scale`: 64 for x from -105 to 40, -64 for x from 0 to 105. */
INLINE lanes
exp_minus(lanes x, int offset)
{
    lanes shifted = lanes_fma(x, lanes_all(-LOG2_E), lanes_all(ROUNDER));
    lanes n = lanes_sub(shifted, lanes_all(ROUNDER));
    lanes r = lanes_fma(n, lanes_all(LN2_HIGH), x);
    r = lanes_fma(n, lanes_all(LN2_LOW), r);
    lanes p = lanes_all(0x1.6a2256p-10f);
    p = lanes_fma(p, r, lanes_all(-0x1.123b04p-7f));
    p = lanes_fma(p, r, lanes_all(0x1.5558f8p-5f));
    p = lanes_fma(p, r, lanes_all(-0x1.555490p-3f));
    p = lanes_fma(p, r, lanes_all(0x1.fffffcp-2f));
    p = lanes_fma(p, r, lanes_all(-1.0f));
    p = lanes_fma(p, r, lanes_all(1.0f));
    return lanes_scale(p, n, shifted, offset);
}

INLINE lanes
sigmoid(lanes x)
{
    x = lanes_at_least(lanes_all(-105.0f), lanes_at_most(lanes_all(40.0f), x));
    return lanes_div(lanes_all(1.0f), lanes_add(lanes_all(1.0f), exp_minus(x, 64)));
}

INLINE lanes
tanh_(lanes x)
{
    lanes y = lanes_at_least(lanes_all(-10.0f), lanes_at_most(lanes_all(10.0f), x));
    /* Half of ln 2, since the exponent is 2 y: r is half of what is left of it. */
    lanes shifted = lanes_fma(y, lanes_all(2 * LOG2_E), lanes_all(ROUNDER));
    lanes n = lanes_sub(shifted, lanes_all(ROUNDER));
    lanes r = lanes_fma(n, lanes_all(-LN2_HIGH / 2), y);
    r = lanes_fma(n, lanes_all(-LN2_LOW / 2), r);
    lanes p = lanes_all(0x1.6bebdep-4f);
    p = lanes_fma(p, r, lanes_all(0x1.122886p-2f));
    p = lanes_fma(p, r, lanes_all(0x1.555676p-1f));
    p = lanes_fma(p, r, lanes_all(0x1.5554aep0f));
    p = lanes_fma(p, r, lanes_all(0x1.fffffep0f));
    p = lanes_fma(p, lanes_mul(r, r), lanes_add(r, r));
    lanes power = lanes_power(shifted, 0);
    lanes expm1 = lanes_fma(power, p, lanes_sub(power, lanes_all(1.0f)));
    return lanes_copysign(lanes_div(expm1, lanes_add(expm1, lanes_all(2.0f))), x);
}

INLINE lanes
activate_lanes(Activation activation, lanes x)
{
    switch (activation) {
    case ACTIVATION_RELU:
        return lanes_at_least(lanes_all(0.0f), x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_TANH:
        return tanh_(x);
    default:
        return x;
    }
}

/* In place. The sum runs from the first to the last, whatever the vector's width. */
static void
softmax(float *x, size_t size)
{
    float greatest = x[0];
    for (size_t i = 1; i < size; i++) {
        /* A NaN stays the greatest, and makes all of them NaN. */
        greatest = x[i] > greatest || x[i] != x[i] ? x[i] : greatest;
    }
    for (size_t i = 0; i < size; i += LANES) {
        size_t count = size - i < LANES ? size - i : LANES;
        lanes below = lanes_sub(lanes_all(greatest), lanes_load_some(x + i, count));
        below = lanes_at_most(lanes_all(105.0f), below);
        lanes_store_some(x + i, exp_minus(below, -64), count);
    }
    float sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum += x[i];
    }
    for (size_t i = 0; i < size; i++) {
        x[i] /= sum;
    }
}

static void
activate(Activation activation, float *x, size_t size)
{
    if (activation == ACTIVATION_SOFTMAX) {
        softmax(x, size);
    } else if (activation != ACTIVATION_LINEAR) {
        for (size_t i = 0; i < size; i += LANES) {
            size_t count = size - i < LANES ? size - i : LANES;
            lanes_store_some(x + i, activate_lanes(activation, lanes_load_some(x + i, count)), count);
        }
    }
}
