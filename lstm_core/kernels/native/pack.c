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
    &lstm_native_avx512, &lstm_native_avx2, &lstm_native_portable, NULL};
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
