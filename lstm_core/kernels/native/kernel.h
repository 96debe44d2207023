/* The LSTM's step and the Dense on `lanes`. Included once for each instruction set, behind its lanes.
 *
 * A tile is a few rows by one block of columns: its sums live in registers from the bias to the
 * activations. Rows are shared out evenly over the tiles, and how does not show in the bits.
 */

/* A loop that is unrolled before registers are given out, so that what it indexes stays in them. */
#define EACH(i, end) _Pragma("GCC unroll 8") for (int i = 0; i < (end); i++)

#include "exponential.h"
#include "activations.h"
#include "cell.h"
#include "pointwise.h"

#if !defined(BFLOAT16)
/* What stands in a slot of an LSTM's lines of weights and inputs: a float. */
#define slot_fma lanes_fma

INLINE size_t num_slots(size_t num_inputs) { return num_inputs; }

INLINE void
fill_slots(float *slots, const float *x, size_t num_inputs)
{
    memcpy(slots, x, num_inputs * sizeof *x);
}
#endif

/* sums += x @ weights, over `depth` lines of `num_columns` vectors each: slots where they are the
 * gates', else floats. */
INLINE void
accumulate(const int num_rows, const int num_columns, lanes sums[][NUM_GATES], const float *weights,
           size_t depth, const float *const *x)
{
    const float *row[MAX_TILE_ROWS];
    EACH(r, num_rows) {
        row[r] = x[r];
    }
    for (size_t k = 0; k < depth; k++, weights += num_columns * LANES) {
        lanes input[MAX_TILE_ROWS];
        EACH(r, num_rows) {
            input[r] = lanes_all(row[r][k]);
        }
        EACH(g, num_columns) {
            lanes weight = lanes_load(weights + g * LANES);
            EACH(r, num_rows) {
                sums[r][g] = num_columns == NUM_GATES ? slot_fma(weight, input[r], sums[r][g])
                                                      : lanes_fma(weight, input[r], sums[r][g]);
            }
        }
    }
}

INLINE void
start(const int num_rows, const int num_columns, lanes sums[][NUM_GATES], const float *biases)
{
    EACH(g, num_columns) {
        lanes bias = lanes_load(biases + g * LANES);
        EACH(r, num_rows) {
            sums[r][g] = bias;
        }
    }
}

INLINE void
store_gates(const int num_rows, lanes sums[][NUM_GATES], float *const *gates)
{
    EACH(r, num_rows) {
        EACH(g, NUM_GATES) {
            lanes_store(gates[r] + g * LANES, sums[r][g]);
        }
    }
}

/* gates = bias + x @ weights, over the first `depth` lines of the block. */
INLINE void
gates_tile(const int num_rows, const Layer *layer, size_t block, size_t depth, const float *const *x,
           float *const *gates)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    start(num_rows, NUM_GATES, sums, weights);
    accumulate(num_rows, NUM_GATES, sums, weights + NUM_GATES * LANES, depth, x);
    store_gates(num_rows, sums, gates);
}

/* gates = sums of bias and x + h @ weights. */
INLINE void
recurrent_tile(const int num_rows, const Layer *layer, size_t block, const float *const *made,
               const float *const *h, float *const *gates)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    EACH(r, num_rows) {
        EACH(g, NUM_GATES) {
            sums[r][g] = lanes_load(made[r] + (block * NUM_GATES + (size_t)g) * LANES);
        }
    }
    weights += (1 + num_slots(layer->input_size)) * NUM_GATES * LANES;
    accumulate(num_rows, NUM_GATES, sums, weights, layer->output_size, h);
    store_gates(num_rows, sums, gates);
}

INLINE void
dense_tile(const int num_rows, const Layer *layer, size_t block, const float *const *x,
           float *const *y)
{
    const float *weights = layer->packed + block * layer->block_size;
    lanes sums[MAX_TILE_ROWS][NUM_GATES];
    start(num_rows, 1, sums, weights);
    accumulate(num_rows, 1, sums, weights + LANES, layer->input_size, x);
    size_t left = layer->output_size - block * LANES;
    EACH(r, num_rows) {
        lanes_store_some(y[r] + block * LANES, sums[r][0], left < LANES ? left : LANES);
    }
}

/* Each tile as a function of its own for each number of rows: registers have no index, and where one
 * function has more than one of the loops, some of the sums stand in memory. */
#define TILES(n) \
    static OUTLINE void \
    gates_tile_##n(const Layer *layer, size_t block, size_t depth, const float *const *x, \
                   float *const *gates) \
    { \
        gates_tile(n, layer, block, depth, x, gates); \
    } \
    static OUTLINE void \
    recurrent_tile_##n(const Layer *layer, size_t block, const float *const *made, \
                       const float *const *h, float *const *gates) \
    { \
        recurrent_tile(n, layer, block, made, h, gates); \
    } \
    static OUTLINE void \
    dense_tile_##n(const Layer *layer, size_t block, const float *const *x, float *const *y) \
    { \
        dense_tile(n, layer, block, x, y); \
    }

TILES(1)
TILES(2)
#if MAX_TILE_ROWS >= 3
TILES(3)
#endif
#if MAX_TILE_ROWS >= 6
TILES(4)
TILES(5)
TILES(6)
#endif

#if MAX_TILE_ROWS == 6
#define OF_EACH_SIZE(tile) {tile##_1, tile##_2, tile##_3, tile##_4, tile##_5, tile##_6}
#elif MAX_TILE_ROWS == 3
#define OF_EACH_SIZE(tile) {tile##_1, tile##_2, tile##_3}
#else
#define OF_EACH_SIZE(tile) {tile##_1, tile##_2}
#endif

static void (*const gates_tiles[])(const Layer *, size_t, size_t, const float *const *,
                                   float *const *) = OF_EACH_SIZE(gates_tile);
static void (*const recurrent_tiles[])(const Layer *, size_t, const float *const *,
                                       const float *const *,
                                       float *const *) = OF_EACH_SIZE(recurrent_tile);
static void (*const dense_tiles[])(const Layer *, size_t, const float *const *,
                                   float *const *) = OF_EACH_SIZE(dense_tile);

INLINE size_t
tile_rows(size_t num_left)
{
    size_t num_tiles = (num_left + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    return (num_left + num_tiles - 1) / num_tiles;
}

/* Put x and h of each row side by side, and point at them. */
INLINE void
fill_panel(const Layer *layer, const StepRows *rows)
{
    size_t stride = lstm_native_panel_stride(layer);
    for (size_t r = 0; r < rows->num_rows; r++) {
        float *line = rows->panel + r * stride;
        fill_slots(line, rows->x[r], layer->input_size);
        fill_slots(line + num_slots(layer->input_size), rows->h[r], layer->output_size);
        rows->x[r] = line;
    }
}

static void
step(const Layer *layer, const StepRows *rows, bool is_downwards)
{
    size_t depth = num_slots(layer->input_size) + num_slots(layer->output_size);
    float room[MAX_TILE_ROWS * NUM_GATES * LANES] __attribute__((aligned(64)));
    float *gates[MAX_TILE_ROWS];
    EACH(r, MAX_TILE_ROWS) {
        gates[r] = room + r * NUM_GATES * LANES;
    }
    if (!rows->sums) {
        fill_panel(layer, rows);
    }
    for (size_t i = 0; i < layer->num_blocks; i++) {
        size_t block = is_downwards ? layer->num_blocks - 1 - i : i;
        size_t unit = block * LANES;
        size_t left = layer->units - unit;
        size_t count = left < LANES ? left : LANES;
        for (size_t first = 0, size; first < rows->num_rows; first += size) {
            size = tile_rows(rows->num_rows - first);
            /* These stand a state apart, where the processor foresees nothing. */
            for (size_t r = first; r < first + size; r++) {
                __builtin_prefetch(rows->c[r] + unit);
                __builtin_prefetch(rows->c_next[r] + unit, 1);
                __builtin_prefetch(rows->h_next[r] + unit, 1);
            }
            if (rows->sums) {
                recurrent_tiles[size - 1](layer, block, rows->sums + first, rows->h + first, gates);
            } else {
                gates_tiles[size - 1](layer, block, depth, rows->x + first, gates);
            }
            finish_rows(layer, rows, first, size, room, unit, count);
        }
    }
}

#if !defined(BFLOAT16)
static void
input_sums(const Layer *layer, size_t num_rows, const float *const *x, float *const *sums)
{
    for (size_t block = 0; block < layer->num_blocks; block++) {
        for (size_t first = 0, size; first < num_rows; first += size) {
            size = tile_rows(num_rows - first);
            float *gates[MAX_TILE_ROWS];
            for (size_t r = 0; r < size; r++) {
                gates[r] = sums[first + r] + block * NUM_GATES * LANES;
            }
            gates_tiles[size - 1](layer, block, layer->input_size, x + first, gates);
        }
    }
}
#endif

static void
dense(const Layer *layer, size_t num_rows, const float *const *x, float *const *y)
{
    for (size_t block = 0; block < layer->num_blocks; block++) {
        for (size_t first = 0, size; first < num_rows; first += size) {
            size = tile_rows(num_rows - first);
            dense_tiles[size - 1](layer, block, x + first, y + first);
        }
    }
    for (size_t row = 0; row < num_rows; row++) {
        finish_output(layer, y[row]);
    }
}

static bool
is_finite(const float *x, size_t size)
{
    lanes sum = lanes_all(0.0f);
    for (size_t i = 0; i < size; i += LANES) {
        lanes some = load_first(x + i, size - i < LANES ? size - i : LANES);
        /* Zeros, but NaN for infinity and for NaN. */
        sum = lanes_add(sum, lanes_sub(some, some));
    }
    uint32_t bits[LANES], any = 0;
    memcpy(bits, &sum, sizeof bits);
    EACH(i, LANES) {
        any |= bits[i];
    }
    return any == 0;
}
