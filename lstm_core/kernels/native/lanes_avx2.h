/* Vectors of 8 floats. See `lanes_portable.h` for what each operation means. */
#define LANES 8
#define MAX_TILE_ROWS 3 /* 12 sums, 3 inputs and a weight fill the 16 registers */

typedef __m256 lanes;

INLINE __m256i
first_lanes(size_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE lanes lanes_all(float x) { return _mm256_set1_ps(x); }
INLINE lanes lanes_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void lanes_store(float *p, lanes x) { _mm256_storeu_ps(p, x); }
INLINE lanes lanes_load_some(const float *p, size_t count)
{
    return _mm256_maskload_ps(p, first_lanes(count));
}
INLINE void lanes_store_some(float *p, lanes x, size_t count)
{
    _mm256_maskstore_ps(p, first_lanes(count), x);
}
INLINE lanes lanes_fma(lanes a, lanes b, lanes c) { return _mm256_fmadd_ps(a, b, c); }
INLINE lanes lanes_add(lanes a, lanes b) { return _mm256_add_ps(a, b); }
INLINE lanes lanes_sub(lanes a, lanes b) { return _mm256_sub_ps(a, b); }
INLINE lanes lanes_mul(lanes a, lanes b) { return _mm256_mul_ps(a, b); }
INLINE lanes lanes_div(lanes a, lanes b) { return _mm256_div_ps(a, b); }
INLINE lanes lanes_at_least(lanes low, lanes x) { return _mm256_max_ps(low, x); }
INLINE lanes lanes_at_most(lanes high, lanes x) { return _mm256_min_ps(high, x); }
INLINE lanes
lanes_copysign(lanes size, lanes sign)
{
    lanes sign_bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign_bit, size), _mm256_and_ps(sign_bit, sign));
}
INLINE lanes
lanes_power(lanes shifted, int offset)
{
    __m256i n = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(offset + 127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(n, 23));
}
INLINE lanes
lanes_scale(lanes x, lanes n, lanes shifted, int offset)
{
    (void)n;
    lanes rest = _mm256_castsi256_ps(_mm256_set1_epi32((offset + 127) << 23));
    return _mm256_mul_ps(_mm256_mul_ps(x, lanes_power(shifted, -offset)), rest);
}
