/* The kernel on AVX2 with FMA: 8 lanes, 16 registers. */
#include "plan.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* Compiled for any machine, unlike what follows. */
static bool
is_supported(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define INLINE static inline __attribute__((always_inline))
#define OUTLINE __attribute__((noinline))
#include "lanes_avx2.h"
#include "kernel.h"

const InstructionSet lstm_native_avx2 = {
    .name = "avx2",
    .lanes = LANES,
    .long_macs = 8e6,
    .is_supported = is_supported,
    .input_sums = input_sums,
    .step = step,
    .dense = dense,
    .pointwise = pointwise,
    .is_finite = is_finite,
    .activate = activate,
};

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
