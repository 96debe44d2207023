/* Packs weights, and lists the instruction sets. Does no arithmetic. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define CACHE_LINE_BYTES 64
#define HUGE_PAGE_BYTES (2u << 20)

#if defined(__x86_64__)
const InstructionSet *const lstm_native_instruction_sets[] = {
    &lstm_native_avx512,      &lstm_native_avx2, &lstm_native_portable,
#if defined(LSTM_NATIVE_HAS_BFLOAT16)
    &lstm_native_avx512_bf16,
#endif
    NULL};
#else
const InstructionSet *const lstm_native_instruction_sets[] = {&lstm_native_portable, NULL};
#endif

const InstructionSet *
lstm_native_find(const char *name)
{
    for (const InstructionSet *const *set = lstm_native_instruction_sets; *set; set++) {
        if (strcmp((*set)->name, name) == 0) {
            return *set;
        }
    }
    return NULL;
}

/* Copy one line of `num_gates` times `size` columns to every block's line at `line`. */
static void
scatter_line(const Layer *layer, size_t lanes, size_t num_gates, size_t line, const float *columns)
{
    for (size_t gate = 0; gate < num_gates; gate++) {
        for (size_t unit = 0; unit < layer->units; unit++) {
            size_t block = unit / lanes;
            size_t lane = unit % lanes;
            layer->packed[block * layer->block_size + (line * num_gates + gate) * lanes + lane] =
                columns[gate * layer->units + unit];
        }
    }
}

/* Return zeros, or NULL without memory. */
static float *
make_zeros(size_t count)
{
    size_t num_bytes = count * sizeof(float);
    /* In small pages, what is larger than the processor's table of pages covers (about 12 MB) is read
     * at half the rate or less. */
    size_t alignment = num_bytes < HUGE_PAGE_BYTES ? CACHE_LINE_BYTES : HUGE_PAGE_BYTES;
    /* aligned_alloc wants a multiple of the alignment. */
    num_bytes = (num_bytes + alignment - 1) / alignment * alignment;
    float *zeros = aligned_alloc(alignment, num_bytes);
    if (!zeros) {
        return NULL;
    }
#if defined(MADV_HUGEPAGE)
    if (alignment == HUGE_PAGE_BYTES) {
        /* What malloc had in use before stands in small pages, which are given back first. */
        madvise(zeros, num_bytes, MADV_DONTNEED);
        /* A wish: where it is not granted the weights stand in small pages. */
        madvise(zeros, num_bytes, MADV_HUGEPAGE);
    }
#endif
    return memset(zeros, 0, num_bytes);
}

bool
lstm_native_pack(Layer *layer, size_t lanes, const float *kernel, const float *recurrent,
                 const float *bias)
{
    size_t num_gates = recurrent ? NUM_GATES : 1;
    size_t columns = num_gates * layer->units;
    size_t lines = 1 + layer->input_size + (recurrent ? layer->output_size : 0);
    layer->num_blocks = (layer->units + lanes - 1) / lanes;
    layer->block_size = lines * num_gates * lanes;
    layer->packed = make_zeros(layer->num_blocks * layer->block_size);
    if (!layer->packed) {
        return false;
    }
    if (bias) {
        scatter_line(layer, lanes, num_gates, 0, bias);
    }
    for (size_t k = 0; k < layer->input_size; k++) {
        scatter_line(layer, lanes, num_gates, 1 + k, kernel + k * columns);
    }
    for (size_t k = 0; recurrent && k < layer->output_size; k++) {
        scatter_line(layer, lanes, num_gates, 1 + layer->input_size + k, recurrent + k * columns);
    }
    return true;
}

/* Return the bits of the bfloat16 nearest to x, ties to even; a NaN stays one. */
static uint32_t
bfloat16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return x != x ? bits >> 16 | 0x40u : rounded;
}

/* Copy `num` lines of columns, two to each of the block's lines from `line` on. */
static void
scatter_pairs(const Layer *layer, size_t lanes, size_t line, size_t num, const float *from,
              float *pairs)
{
    size_t columns = NUM_GATES * layer->units;
    for (size_t k = 0; k < num; k += 2, from += 2 * columns) {
        for (size_t i = 0; i < columns; i++) {
            uint32_t second = k + 1 < num ? bfloat16(from[columns + i]) : 0;
            uint32_t slot = bfloat16(from[i]) | second << 16;
            memcpy(pairs + i, &slot, sizeof slot);
        }
        scatter_line(layer, lanes, NUM_GATES, line + k / 2, pairs);
    }
}

bool
lstm_native_pack_pairs(Layer *layer, size_t lanes, const float *kernel, const float *recurrent,
                       const float *bias)
{
    size_t input_lines = (layer->input_size + 1) / 2;
    size_t lines = 1 + input_lines + (layer->output_size + 1) / 2;
    layer->num_blocks = (layer->units + lanes - 1) / lanes;
    layer->block_size = lines * NUM_GATES * lanes;
    layer->packed = make_zeros(layer->num_blocks * layer->block_size);
    float *pairs = make_zeros(NUM_GATES * layer->units);
    if (layer->packed && pairs) {
        if (bias) {
            scatter_line(layer, lanes, NUM_GATES, 0, bias);
        }
        scatter_pairs(layer, lanes, 1, layer->input_size, kernel, pairs);
        scatter_pairs(layer, lanes, 1 + input_lines, layer->output_size, recurrent, pairs);
    }
    free(pairs);
    return layer->packed && pairs;
}

bool
lstm_native_copy_vectors(Layer *layer, size_t lanes, size_t num_vectors, const float *from)
{
    layer->num_blocks = (layer->units + lanes - 1) / lanes;
    size_t size = layer->num_blocks * lanes;
    layer->vectors = make_zeros(num_vectors * size);
    for (size_t i = 0; layer->vectors && i < num_vectors; i++) {
        memcpy(layer->vectors + i * size, from + i * layer->units, layer->units * sizeof(float));
    }
    return layer->vectors != NULL;
}

void
lstm_native_free(Layer *layer)
{
    free(layer->packed);
    free(layer->vectors);
    if (layer->projection) {
        lstm_native_free(layer->projection);
        free(layer->projection);
    }
}
