/* The LSTM's step and the Dense on `lanes`. Included once for each instruction set, behind its lanes.
 *
 * A tile is a few rows by one block of columns: its sums live in registers from the bias to the
 * activations. Rows are shared out evenly over the tiles, and how does not show in the bits.
 */

/* Unrolled, so that what they index stays in registers. */
#define EACH(i, end) (int i = 0; i < (end); i++)

#include "exponential.h"
#include "activations.h"
#include "cell.h"
#include "pointwise.h"

/* sums += x @ weights, over `depth` lines of `num_columns` vectors each. */
INLINE void
accumulate(const int num_rows, const int num_columns, lanes sums[][NUM_GATES], const float *weights,
           size_t depth, const float *const *x)
{
    const float *row[MAX_TILE_ROWS];
    for EACH(r, num_rows) {
        row[r] = x[r];
    }
    for (size_t k = 0; k < depth; k++, weights += num_columns * LANES) {
        lanes input[MAX_TILE_ROWS];
        for EACH(r, num_rows) {
            input[r] = lanes_all(row[r][k]);
        }
        for EACH(g, num_columns) {
            lanes weight = lanes_load(weights + g * LANES);
            for EACH(r, num_rows) {
                sums[r][g] = lanes_fma(weight, input[r], sums[r][g]);
            }
        }
    }
}

INLINE void
start(const int num_rows, const int num_columns, lanes sums[][NUM_GATES], const float *biases)
{
    for EACH(g, num_columns) {
        lanes bias = lanes_load(biases + g * LANES);
        for EACH(r, num_rows) {
            sums[r][g] = bias;
        }
    }
}

/* Write the sums of bias and x, or those that are made already, and of h. */
INLINE void
sum_tile(const int num_rows, const Layer *layer, const StepRows *rows, size_t first, size_t block,
         float *gates)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    if (rows->sums) {
        for EACH(r, num_rows) {
            for EACH(g, NUM_GATES) {
                sums[r][g] = lanes_load(rows->sums[first + r] + (block * NUM_GATES + g) * LANES);
            }
        }
    } else {
        start(num_rows, NUM_GATES, sums, weights);
        accumulate(num_rows, NUM_GATES, sums, weights + NUM_GATES * LANES, layer->input_size,
                   rows->x + first);
    }
    weights += (1 + layer->input_size) * NUM_GATES * LANES;
    accumulate(num_rows, NUM_GATES, sums, weights, layer->output_size, rows->h + first);
    for EACH(r, num_rows) {
        for EACH(g, NUM_GATES) {
            lanes_store(gates + (r * NUM_GATES + g) * LANES, sums[r][g]);
        }
    }
}

INLINE void
input_tile(const int num_rows, const Layer *layer, const float *const *x, float *const *y,
           size_t block)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    start(num_rows, NUM_GATES, sums, weights);
    accumulate(num_rows, NUM_GATES, sums, weights + NUM_GATES * LANES, layer->input_size, x);
    for EACH(r, num_rows) {
        for EACH(g, NUM_GATES) {
            lanes_store(y[r] + (block * NUM_GATES + g) * LANES, sums[r][g]);
        }
    }
}

INLINE void
dense_tile(const int num_rows, const Layer *layer, const float *const *x, float *const *y,
           size_t block)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    start(num_rows, 1, sums, weights);
    accumulate(num_rows, 1, sums, weights + LANES, layer->input_size, x);
    size_t left = layer->output_size - block * LANES;
    for EACH(r, num_rows) {
        lanes_store_some(y[r] + block * LANES, sums[r][0], left < LANES ? left : LANES);
    }
}

INLINE size_t
tile_rows(size_t num_left)
{
    size_t num_tiles = (num_left + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    return (num_left + num_tiles - 1) / num_tiles;
}

/* Call `tile` with its number of rows as a constant, since registers have no index. */
#if MAX_TILE_ROWS == 6
#define WITH_ROWS(num_rows, tile, ...) \
    switch (num_rows) { \
    case 1: tile(1, __VA_ARGS__); break; \
    case 2: tile(2, __VA_ARGS__); break; \
    case 3: tile(3, __VA_ARGS__); break; \
    case 4: tile(4, __VA_ARGS__); break; \
    case 5: tile(5, __VA_ARGS__); break; \
    default: tile(6, __VA_ARGS__); break; \
    }
#elif MAX_TILE_ROWS == 3
#define WITH_ROWS(num_rows, tile, ...) \
    switch (num_rows) { \
    case 1: tile(1, __VA_ARGS__); break; \
    case 2: tile(2, __VA_ARGS__); break; \
    default: tile(3, __VA_ARGS__); break; \
    }
#else
#define WITH_ROWS(num_rows, tile, ...) \
    switch (num_rows) { \
    case 1: tile(1, __VA_ARGS__); break; \
    default: tile(2, __VA_ARGS__); break; \
    }
#endif

static void
step(const Layer *layer, const StepRows *rows, bool is_downwards)
{
    for (size_t i = 0; i < layer->num_blocks; i++) {
        size_t block = is_downwards ? layer->num_blocks - 1 - i : i;
        size_t unit = block * LANES;
        size_t left = layer->units - unit;
        size_t count = left < LANES ? left : LANES;
        for (size_t first = 0, size; first < rows->num_rows; first += size) {
            size = tile_rows(rows->num_rows - first);
            /* By way of memory: the compiler would not unroll the activations, and so would keep the
             * sums there all along. */
            float gates[MAX_TILE_ROWS * NUM_GATES * LANES] __attribute__((aligned(64)));
            WITH_ROWS(size, sum_tile, layer, rows, first, block, gates)
            finish_rows(layer, rows, first, size, gates, unit, count);
        }
    }
}

static void
input_sums(const Layer *layer, size_t num_rows, const float *const *x, float *const *sums)
{
    for (size_t block = 0; block < layer->num_blocks; block++) {
        for (size_t first = 0, size; first < num_rows; first += size) {
            size = tile_rows(num_rows - first);
            WITH_ROWS(size, input_tile, layer, x + first, sums + first, block)
        }
    }
}

static void
dense(const Layer *layer, size_t num_rows, const float *const *x, float *const *y)
{
    for (size_t block = 0; block < layer->num_blocks; block++) {
        for (size_t first = 0, size; first < num_rows; first += size) {
            size = tile_rows(num_rows - first);
            WITH_ROWS(size, dense_tile, layer, x + first, y + first, block)
        }
    }
    for (size_t row = 0; row < num_rows; row++) {
        finish_output(layer, y[row]);
    }
}

static bool
is_finite(const float *x, size_t size)
{
    uint32_t num_bad = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        /* Infinity and NaN are those with every bit of the exponent set. */
        num_bad += (bits & 0x7f800000u) == 0x7f800000u;
    }
    return num_bad == 0;
}
