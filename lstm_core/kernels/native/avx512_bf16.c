/* The kernel on AVX-512 with an LSTM's products in bfloat16, summed up in float32. */
#include "plan.h"

#include <math.h>
#include <string.h>

#if defined(LSTM_NATIVE_HAS_BFLOAT16)
#include <immintrin.h>

/* Compiled for any machine, unlike what follows. */
static bool
is_supported(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma");
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bf16,fma")
#endif

#define INLINE static inline __attribute__((always_inline))
#define OUTLINE __attribute__((noinline))
#include "lanes_avx512.h"
#include "lanes_bfloat16.h"
#include "kernel.h"

const InstructionSet lstm_native_avx512_bf16 = {
    .name = "avx512_bf16",
    .is_bfloat16 = true,
    .lanes = LANES,
    .long_macs = 10e6,
    .is_supported = is_supported,
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
