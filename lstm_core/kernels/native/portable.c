/* The kernel on whatever the compiler targets: 4 lanes. */
#include "plan.h"

#include <math.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define OUTLINE __attribute__((noinline))
#include "lanes_portable.h"
#include "kernel.h"

static bool
is_supported(void)
{
    return true;
}

const InstructionSet lstm_native_portable = {
    .name = "portable",
    .lanes = LANES,
    .long_macs = 2e6,
    .is_supported = is_supported,
    .input_sums = input_sums,
    .step = step,
    .dense = dense,
    .pointwise = pointwise,
    .is_finite = is_finite,
    .activate = activate,
};
