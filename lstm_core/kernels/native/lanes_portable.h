/* Vectors of 4 floats in the vector extension of GCC and Clang, for any machine. */
#define LANES 4
#if defined(__aarch64__)
#define MAX_TILE_ROWS 6
#else
#define MAX_TILE_ROWS 2 /* 8 sums, 4 weights, an input and a product, of 16 registers */
#endif

typedef float lanes __attribute__((vector_size(16)));
typedef int32_t int_lanes __attribute__((vector_size(16)));

INLINE lanes lanes_all(float x) { return (lanes){x, x, x, x}; }

INLINE lanes
lanes_load(const float *p)
{
    lanes x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void lanes_store(float *p, lanes x) { memcpy(p, &x, sizeof x); }

/* Touch `count` floats in memory; the other lanes of what is loaded are zeros. */
INLINE lanes
lanes_load_some(const float *p, size_t count)
{
    lanes x = lanes_all(0);
    memcpy(&x, p, count * sizeof *p);
    return x;
}

INLINE void lanes_store_some(float *p, lanes x, size_t count) { memcpy(p, &x, count * sizeof *p); }

/* a * b + c: rounded once where the machine has an instruction for that, else twice. */
INLINE lanes
lanes_fma(lanes a, lanes b, lanes c)
{
#if defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

INLINE lanes lanes_add(lanes a, lanes b) { return a + b; }
INLINE lanes lanes_sub(lanes a, lanes b) { return a - b; }
INLINE lanes lanes_mul(lanes a, lanes b) { return a * b; }
INLINE lanes lanes_div(lanes a, lanes b) { return a / b; }

INLINE lanes
choose(int_lanes where, lanes yes, lanes no)
{
    return (lanes)((where & (int_lanes)yes) | (~where & (int_lanes)no));
}

/* The greater (the lesser) of the two; a NaN of `x` stays one. */
INLINE lanes lanes_at_least(lanes low, lanes x) { return choose(low > x, low, x); }
INLINE lanes lanes_at_most(lanes high, lanes x) { return choose(high < x, high, x); }

/* The size of one with the sign of the other. */
INLINE lanes
lanes_copysign(lanes size, lanes sign)
{
    int_lanes sign_bit = (int_lanes)lanes_all(-0.0f);
    return choose(sign_bit, sign, size);
}

/* 2^(n + offset), at least 2^-126 and at most 2^127, for a whole n that ROUNDER was added to. Anything
 * where that is a NaN. */
INLINE lanes
lanes_power(lanes shifted, int offset)
{
    typedef uint32_t uint_lanes __attribute__((vector_size(16)));
    return (lanes)(((uint_lanes)shifted + (uint32_t)(offset + 127)) << 23);
}

/* x * 2^n, rounded once, with the overflow and underflow of IEEE 754: in two factors, 2^(n - offset)
 * and 2^offset, of which the first must be within `lanes_power` and not round. A NaN stays one. */
INLINE lanes
lanes_scale(lanes x, lanes n, lanes shifted, int offset)
{
    (void)n;
    int_lanes rest = {(offset + 127) << 23, (offset + 127) << 23, (offset + 127) << 23,
                      (offset + 127) << 23};
    return x * lanes_power(shifted, -offset) * (lanes)rest;
}
