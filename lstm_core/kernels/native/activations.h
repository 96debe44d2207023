/* Every activation on `lanes`, and on whole rows. Included once for each instruction set.
 *
 * Against the true value all are within 4 ulp, sigmoid and tanh within 3, wherever that is 2^-126 or
 * more; where it is smaller, at most 2^-126 off. Of silu and mish, which multiply x with something
 * smaller still, the border is 2^-118. All saturate exactly, infinity included; tanh keeps the sign of
 * a zero; NaN gives NaN.
 */

INLINE lanes above_zero(lanes x) { return lanes_at_least(lanes_all(0.0f), x); }
INLINE lanes below_zero(lanes x) { return lanes_at_most(lanes_all(0.0f), x); }
INLINE lanes absolute(lanes x) { return lanes_copysign(x, lanes_all(0.0f)); }

/* Return clip(x, 0, high) * scale. */
INLINE lanes
ramp(lanes x, float high, float scale)
{
    return lanes_mul(lanes_at_most(lanes_all(high), above_zero(x)), lanes_all(scale));
}

INLINE lanes hard_sigmoid(lanes x) { return ramp(lanes_add(x, lanes_all(3.0f)), 6.0f, 1 / 6.0f); }

/* clip(0.2 x + 0.5, 0, 1), with the sum before the product: it loses no digits where it is near 0. */
INLINE lanes hard_sigmoid_v1(lanes x) { return ramp(lanes_add(x, lanes_all(2.5f)), 5.0f, 0.2f); }

INLINE lanes
slope(lanes x, lanes alpha)
{
    return lanes_add(above_zero(x), lanes_mul(alpha, below_zero(x)));
}

INLINE lanes
selu(lanes x)
{
    lanes below = lanes_mul(lanes_all((float)(1.6732632423543772 * 1.0507009873554805)),
                            expm1_below_zero(x));
    return lanes_add(lanes_mul(lanes_all(1.0507009873554805f), above_zero(x)), below);
}

/* ln(1 + e^x) */
INLINE lanes
softplus(lanes x)
{
    lanes far = lanes_at_most(lanes_all(105.0f), absolute(x));
    return lanes_add(above_zero(x), log1p_(exp_minus(far, -64)));
}

INLINE lanes
softsign(lanes x)
{
    /* Below 1 where x is finite, and where it is not, which else were infinity by infinity. */
    x = lanes_at_least(lanes_all(-0x1p30f), lanes_at_most(lanes_all(0x1p30f), x));
    return lanes_div(x, lanes_add(lanes_all(1.0f), absolute(x)));
}

/* Return x * share, where share is 0 at minus infinity, and so is the product. */
INLINE lanes
share_of(lanes x, lanes share)
{
    return lanes_mul(lanes_at_least(lanes_all(-0x1p100f), x), share);
}

/* x tanh(softplus(x)) = x w / (w + 2) with w = e^x (e^x + 2) */
INLINE lanes
mish(lanes x)
{
    lanes e = exponential(lanes_at_most(lanes_all(20.0f), x));
    lanes w = lanes_mul(e, lanes_add(e, lanes_all(2.0f)));
    return share_of(x, lanes_div(w, lanes_add(w, lanes_all(2.0f))));
}

/* x times the normal distribution's integral: max(x, 0) - t q(t), where t = |x|, and q(t) = e^(-t^2 / 2)
 * p(u) / (t + 1), u = (t - 2.5) / (t + 2.5), is the integral beyond t; p is 4e-9 off. */
INLINE lanes
gelu(lanes x)
{
    lanes t = lanes_at_most(lanes_all(14.4f), absolute(x));
    lanes u = lanes_div(lanes_sub(t, lanes_all(2.5f)), lanes_add(t, lanes_all(2.5f)));
    lanes p = lanes_all(-0x1.07c8b0p-14f);
    p = lanes_fma(p, u, lanes_all(-0x1.dc1daep-13f));
    p = lanes_fma(p, u, lanes_all(-0x1.04598cp-25f));
    p = lanes_fma(p, u, lanes_all(0x1.4b4964p-10f));
    p = lanes_fma(p, u, lanes_all(0x1.50ba04p-10f));
    p = lanes_fma(p, u, lanes_all(-0x1.8c5406p-8f));
    p = lanes_fma(p, u, lanes_all(-0x1.1d1494p-7f));
    p = lanes_fma(p, u, lanes_all(0x1.7958dcp-5f));
    p = lanes_fma(p, u, lanes_all(-0x1.34f98ap-5f));
    p = lanes_fma(p, u, lanes_all(-0x1.77246ep-4f));
    p = lanes_fma(p, u, lanes_all(0x1.fa8810p-2f));
    p = lanes_div(lanes_mul(p, t), lanes_add(t, lanes_all(1.0f)));
    /* To 2^-7, so that the square is exact; what it leaves of t^2 / 2 is small. */
    lanes rough = lanes_sub(lanes_add(t, lanes_all(0x1.8p16f)), lanes_all(0x1.8p16f));
    lanes half = lanes_mul(lanes_all(0.5f), lanes_mul(rough, rough));
    lanes rest = lanes_mul(lanes_sub(t, rough), lanes_add(t, rough));
    lanes tail = exp_minus_both(half, lanes_mul(lanes_all(0.5f), rest));
    return lanes_sub(above_zero(x), lanes_mul(p, tail));
}

/* Apply one of those that are elementwise. */
INLINE lanes
activate_lanes(Activation activation, lanes x)
{
    switch (activation) {
    case ACTIVATION_CELU:
    case ACTIVATION_ELU:
        return lanes_add(above_zero(x), expm1_below_zero(x));
    case ACTIVATION_EXPONENTIAL:
        return exponential(x);
    case ACTIVATION_GELU:
        return gelu(x);
    case ACTIVATION_HARD_SIGMOID:
        return hard_sigmoid(x);
    case ACTIVATION_HARD_SIGMOID_V1:
        return hard_sigmoid_v1(x);
    case ACTIVATION_HARD_SILU:
        return share_of(x, hard_sigmoid(x));
    case ACTIVATION_LEAKY_RELU:
        return slope(x, lanes_all(0.2f));
    case ACTIVATION_LOG_SIGMOID:
        return lanes_sub(lanes_all(0.0f), softplus(lanes_sub(lanes_all(0.0f), x)));
    case ACTIVATION_MISH:
        return mish(x);
    case ACTIVATION_RELU:
        return above_zero(x);
    case ACTIVATION_RELU6:
        return lanes_at_most(lanes_all(6.0f), above_zero(x));
    case ACTIVATION_SELU:
        return selu(x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_SILU:
        return share_of(x, sigmoid(x));
    case ACTIVATION_SOFTPLUS:
        return softplus(x);
    case ACTIVATION_SOFTSIGN:
        return softsign(x);
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

/* Apply any of them to a row in place. */
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
