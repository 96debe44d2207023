/* Slots of two bfloat16 each, over the vectors of `lanes_avx512.h`. */
#define BFLOAT16

/* c + a[2i] * b[2i] + a[2i + 1] * b[2i + 1]. Subnormal numbers count as zeros. */
INLINE lanes
slot_fma(lanes a, lanes b, lanes c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

INLINE size_t num_slots(size_t num_inputs) { return (num_inputs + 1) / 2; }

/* Round to the nearest, ties to even; an odd number of inputs is filled up with a zero. */
INLINE void
fill_slots(float *slots, const float *x, size_t num_inputs)
{
    for (size_t k = 0; k < num_inputs; k += 2 * LANES, slots += LANES) {
        size_t left = num_inputs - k;
        size_t low = left < LANES ? left : LANES;
        size_t high = left < 2 * LANES ? left - low : LANES;
        lanes pairs = (lanes)_mm512_cvtne2ps_pbh(lanes_load_some(x + k + low, high),
                                                 lanes_load_some(x + k, low));
        lanes_store_some(slots, pairs, num_slots(low + high));
    }
}
