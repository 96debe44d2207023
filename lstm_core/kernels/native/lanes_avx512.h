/* Vectors of 16 floats. See `lanes_portable.h` for what each operation means. */
#define LANES 16
#define MAX_TILE_ROWS 6 /* 24 sums, 4 weights and an input fill the 32 registers */

typedef __m512 lanes;

INLINE __mmask16
first_lanes(size_t count)
{
    return (__mmask16)((1u << count) - 1);
}

INLINE lanes lanes_all(float x) { return _mm512_set1_ps(x); }
INLINE lanes lanes_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void lanes_store(float *p, lanes x) { _mm512_storeu_ps(p, x); }
INLINE lanes lanes_load_some(const float *p, size_t count)
{
    return _mm512_maskz_loadu_ps(first_lanes(count), p);
}
INLINE void lanes_store_some(float *p, lanes x, size_t count)
{
    _mm512_mask_storeu_ps(p, first_lanes(count), x);
}
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }
INLINE lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
INLINE lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
INLINE lanes lanes_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
INLINE lanes lanes_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
INLINE lanes lanes_at_least(lanes low, lanes x) { return _mm512_max_ps(low, x); }
INLINE lanes lanes_at_most(lanes high, lanes x) { return _mm512_min_ps(high, x); }
INLINE lanes
lanes_copysign(lanes size, lanes sign)
{
    __m512i sign_bit = _mm512_set1_epi32(INT32_MIN);
    /* 0xd8: the third operand chooses bit by bit between the first two. */
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
        _mm512_castps_si512(size), _mm512_castps_si512(sign), sign_bit, 0xd8));
}
INLINE lanes
lanes_power(lanes shifted, int offset)
{
    __m512i n = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(offset + 127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(n, 23));
}
INLINE lanes
lanes_scale(lanes x, lanes n, lanes shifted, int offset)
{
    (void)shifted, (void)offset;
    return _mm512_scalef_ps(x, n);
}
