/* Cuts the scratch of a call up, and decides how many time steps are run at a time. */
#include "run.h"

/* What a chunk's layer gives should stay in the second level of cache, beside the weights. */
#define CHUNK_FLOATS 32768
/* With more rows than this the sums cost more to store and load than the weights that they spare. */
#define MAX_ROWS_OF_SUMS 2
#define CACHE_LINE_BYTES 64

static size_t
chunk_steps(const Plan *plan, size_t batch, size_t time)
{
    size_t num_floats;
    if (__builtin_mul_overflow(batch, plan->widest, &num_floats)) {
        return 1;
    }
    size_t steps = CHUNK_FLOATS / num_floats;
    return steps < 1 ? 1 : steps < time ? steps : time;
}

static size_t
widest_panel(const Plan *plan)
{
    size_t widest = 0;
    for (size_t i = 0; i < plan->num_layers; i++) {
        const Layer *layer = &plan->layers[i];
        size_t stride = layer->kind == LAYER_LSTM ? lstm_native_panel_stride(layer) : 0;
        widest = stride > widest ? stride : widest;
    }
    return widest;
}

/* Where the next piece begins, and whether the size has overflowed. */
typedef struct {
    char *scratch; /* NULL to count only */
    size_t num_bytes;
    bool overflows;
} Cutter;

static void *
take(Cutter *cutter, size_t count, size_t width, size_t item_bytes)
{
    size_t size;
    char *piece = cutter->scratch ? cutter->scratch + cutter->num_bytes : NULL;
    cutter->overflows |= __builtin_mul_overflow(count, width, &size);
    cutter->overflows |= __builtin_mul_overflow(size, item_bytes, &size);
    cutter->overflows |= __builtin_add_overflow(size, CACHE_LINE_BYTES - 1, &size);
    size -= size % CACHE_LINE_BYTES;
    cutter->overflows |= __builtin_add_overflow(cutter->num_bytes, size, &cutter->num_bytes);
    return piece;
}

size_t
lstm_native_cut(const Plan *plan, size_t batch, size_t time, void *scratch, Scratch *cuts)
{
    size_t steps = chunk_steps(plan, batch, time);
    Cutter cutter = {scratch, 0, false};
    size_t wide;
    cutter.overflows |= __builtin_mul_overflow(batch, steps, &wide);
    cuts->steps = steps;
    cuts->x = take(&cutter, wide, 1, sizeof *cuts->x);
    cuts->y = take(&cutter, wide, 1, sizeof *cuts->y);
    cuts->h = take(&cutter, batch, 1, sizeof *cuts->h);
    cuts->c = take(&cutter, batch, 1, sizeof *cuts->c);
    cuts->live_x = take(&cutter, batch, 1, sizeof *cuts->live_x);
    cuts->live_sums = take(&cutter, batch, 1, sizeof *cuts->live_sums);
    cuts->live_h = take(&cutter, batch, 1, sizeof *cuts->live_h);
    cuts->live_c = take(&cutter, batch, 1, sizeof *cuts->live_c);
    cuts->h_next = take(&cutter, batch, 1, sizeof *cuts->h_next);
    cuts->c_next = take(&cutter, batch, 1, sizeof *cuts->c_next);
    cuts->live = take(&cutter, batch, 1, sizeof *cuts->live);
    cuts->mask = take(&cutter, wide, 1, sizeof *cuts->mask);
    cuts->outputs[0] = take(&cutter, wide, plan->widest, sizeof(float));
    cuts->outputs[1] = take(&cutter, wide, plan->widest, sizeof(float));
    cuts->hidden = NULL;
    cuts->unprojected = NULL;
    if (plan->widest_hidden > 0) {
        cuts->hidden = take(&cutter, batch, 1, sizeof *cuts->hidden);
        cuts->unprojected = take(&cutter, batch, plan->widest_hidden, sizeof(float));
    }
    cuts->panel = take(&cutter, batch, widest_panel(plan), sizeof(float));
    cuts->sums = NULL;
    if (plan->set->input_sums && batch <= MAX_ROWS_OF_SUMS && steps > 1) {
        cuts->sums = take(&cutter, wide, plan->widest_sums, sizeof(float));
    }
    return cutter.overflows ? 0 : cutter.num_bytes;
}
