/* What one core can do at most: multiply-adds on registers, and floats read from memory of a size. */
#include <stddef.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
/* Enough to hide how long one multiply-add takes, and few enough for 16 registers. */
#define NUM_CHAINS 12
/* Unrolled, so that what they index stays in registers. */
#define EACH_CHAIN _Pragma("GCC unroll 12") for (int i = 0; i < NUM_CHAINS; i++)

typedef float lanes __attribute__((vector_size(WIDTH)));

/* Run independent chains of multiply-adds, and return how many FLOPs they were. */
double
limits_multiply_add(size_t count, float *sink)
{
    lanes chains[NUM_CHAINS];
    lanes factor = {0};
    lanes term = {0};
    factor += *sink;
    term += *sink;
    EACH_CHAIN {
        chains[i] = term + (float)i;
    }
    for (size_t k = 0; k < count; k++) {
        EACH_CHAIN {
            chains[i] = chains[i] * factor + term;
        }
        /* Nothing may be worked out ahead. */
        __asm__ volatile("" : "+m"(*sink));
    }
    lanes sum = {0};
    EACH_CHAIN {
        sum += chains[i];
    }
    *sink = sum[0] * 0;
    return 2.0 * (double)count * NUM_CHAINS * (WIDTH / sizeof(float));
}

#if defined(__AVX512BF16__)
#include <immintrin.h>

/* Do the same with products of two bfloat16 each. */
double
limits_multiply_add_bfloat16(size_t count, float *sink)
{
    __m512 chains[NUM_CHAINS];
    __m512bh factor = (__m512bh)_mm512_set1_ps(*sink);
    EACH_CHAIN {
        chains[i] = _mm512_set1_ps(*sink + (float)i);
    }
    for (size_t k = 0; k < count; k++) {
        EACH_CHAIN {
            chains[i] = _mm512_dpbf16_ps(chains[i], factor, factor);
        }
        __asm__ volatile("" : "+m"(*sink));
    }
    __m512 sum = _mm512_setzero_ps();
    EACH_CHAIN {
        sum = _mm512_add_ps(sum, chains[i]);
    }
    *sink = sum[0] * 0;
    return 2.0 * (double)count * NUM_CHAINS * 32;
}
#endif

/* Read `num_bytes` from the first to the last, `times` times over. */
void
limits_read(const char *memory, size_t num_bytes, size_t times, float *sink)
{
    lanes sums[4] = {{0}};
    for (size_t time = 0; time < times; time++) {
        for (size_t at = 0; at + 4 * WIDTH <= num_bytes; at += 4 * WIDTH) {
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                sums[i] += *(const lanes *)(memory + at + i * WIDTH);
            }
        }
    }
    *sink = (sums[0] + sums[1] + sums[2] + sums[3])[0];
}
