#include "chunk.h"

#include <string.h>

static size_t
from_slot(const Call *call, size_t row)
{
    return call->from_slots ? (size_t)call->from_slots[row] : 0;
}

/* List every step of the chunk by where its input and output are, and return how many there are. */
static size_t
list_steps(const Chunk *chunk, const View *from, const View *to)
{
    size_t num = 0;
    for (size_t row = 0; row < chunk->call->batch; row++) {
        size_t length = length_of(chunk->call, row);
        for (size_t t = chunk->begin; t < chunk->end && t < length; t++) {
            chunk->scratch.x[num] = at(from, row, t - chunk->begin);
            chunk->scratch.y[num++] = at(to, row, t - chunk->begin);
        }
    }
    return num;
}

/* Run a layer that looks at each time step alone. */
static void
run_stateless(const Chunk *chunk, const Layer *layer, const View *from, const View *to)
{
    const InstructionSet *set = chunk->plan->set;
    size_t num = list_steps(chunk, from, to);
    (layer->kind == LAYER_DENSE ? set->dense : set->pointwise)(layer, num, chunk->scratch.x,
                                                                chunk->scratch.y);
}

/* Answer a masked step: the state stays, and the last live output is repeated, or zeros. */
static void
answer_masked(const Chunk *chunk, const Layer *layer, size_t row, float *output)
{
    bool has_output = chunk->call->flags[row * chunk->plan->num_recurrent + layer->recurrent_index];
    size_t num_bytes = layer->output_size * sizeof(float);
    if (has_output && !layer->zero_output_for_mask) {
        memmove(output, chunk->scratch.h[row], num_bytes);
    } else {
        memset(output, 0, num_bytes);
    }
}

/* Fetch a row's inputs of time step `t` of the chunk, if it has one. Rows stand a sequence apart, where
 * the processor foresees nothing. */
static void
fetch_inputs(const Chunk *chunk, const Layer *layer, const View *from, size_t row, size_t t)
{
    const size_t line_floats = 16;
    for (size_t i = 0; t < chunk->end && i < layer->input_size; i += line_floats) {
        __builtin_prefetch(at(from, row, t - chunk->begin) + i, 0, 2);
    }
}

/* Put the rows that take a live step at `t` side by side, answer the masked ones, and return how many
 * are live. */
static size_t
list_live(const Chunk *chunk, const Layer *layer, const View *from, const View *to, size_t t)
{
    const Call *call = chunk->call;
    const Scratch *s = &chunk->scratch;
    size_t num = 0;
    for (size_t row = 0; row < call->batch; row++) {
        if (t >= length_of(call, row)) {
            continue;
        }
        fetch_inputs(chunk, layer, from, row, t + 1);
        float *output = at(to, row, t - chunk->begin);
        if (chunk->mask && !chunk->mask[row * chunk->mask_stride + t - chunk->begin]) {
            answer_masked(chunk, layer, row, output);
            continue;
        }
        call->flags[row * chunk->plan->num_recurrent + layer->recurrent_index] = true;
        s->live[num] = row;
        s->live_x[num] = at(from, row, t - chunk->begin);
        s->live_h[num] = s->h[row];
        s->live_c[num] = s->c[row];
        s->h_next[num] = output;
        s->c_next[num] = call->rows + row * chunk->plan->state_size + layer->state_offset +
                         layer->output_size;
        num++;
    }
    return num;
}

/* Make the input products of all the chunk's steps at once, `(batch, steps, widest_sums)`. */
static void
make_sums(const Chunk *chunk, const Layer *layer, const View *sums, const View *from)
{
    size_t num = list_steps(chunk, from, sums);
    chunk->plan->set->input_sums(layer, num, chunk->scratch.x, chunk->scratch.y);
}

/* Point at where each row's h and c are: in the arena first, later in `rows`. */
static void
find_state(const Chunk *chunk, const Layer *layer)
{
    const Call *call = chunk->call;
    size_t state_size = chunk->plan->state_size;
    for (size_t row = 0; row < call->batch; row++) {
        const float *state = chunk->begin == 0
                                 ? call->arena_rows + from_slot(call, row) * state_size
                                 : call->rows + row * state_size;
        chunk->scratch.h[row] = state + layer->state_offset;
        chunk->scratch.c[row] = state + layer->state_offset + layer->output_size;
    }
}

/* Bring each row's h and c to `rows`, where they are not there yet. */
static void
keep_state(const Chunk *chunk, const Layer *layer)
{
    for (size_t row = 0; row < chunk->call->batch; row++) {
        float *h = chunk->call->rows + row * chunk->plan->state_size + layer->state_offset;
        float *c = h + layer->output_size;
        if (chunk->scratch.h[row] != h) {
            memcpy(h, chunk->scratch.h[row], layer->output_size * sizeof(float));
        }
        if (chunk->scratch.c[row] != c) {
            memcpy(c, chunk->scratch.c[row], layer->units * sizeof(float));
        }
    }
}

/* Take one time step of the `num` rows that are listed as live. */
static void
run_step(const Chunk *chunk, const Layer *layer, size_t num, bool has_sums, bool is_downwards)
{
    const Scratch *s = &chunk->scratch;
    const InstructionSet *set = chunk->plan->set;
    StepRows rows = {num,       s->live_x, has_sums ? s->live_sums : NULL, s->live_h,
                     s->live_c, s->h_next, s->c_next, s->panel};
    if (!layer->projection) {
        set->step(layer, &rows, is_downwards);
        return;
    }
    for (size_t i = 0; i < num; i++) {
        s->hidden[i] = s->unprojected + i * layer->units;
    }
    rows.h_next = s->hidden;
    set->step(layer, &rows, is_downwards);
    set->dense(layer->projection, num, (const float *const *)s->hidden, s->h_next);
}

static void
run_lstm(const Chunk *chunk, const Layer *layer, const View *from, const View *to)
{
    const Scratch *s = &chunk->scratch;
    size_t sums_size = layer->num_blocks * NUM_GATES * chunk->plan->set->lanes;
    View sums = {s->sums, (ptrdiff_t)(s->steps * sums_size), (ptrdiff_t)sums_size};
    bool is_made = s->sums && chunk->end - chunk->begin > 1;
    if (is_made) {
        make_sums(chunk, layer, &sums, from);
    }
    find_state(chunk, layer);
    for (size_t t = chunk->begin; t < chunk->end; t++) {
        size_t num = list_live(chunk, layer, from, to, t);
        if (num == 0) {
            continue;
        }
        for (size_t i = 0; is_made && i < num; i++) {
            s->live_sums[i] = at(&sums, s->live[i], t - chunk->begin);
        }
        /* To and fro: the blocks that the last step ended with are still in the nearest cache. */
        run_step(chunk, layer, num, is_made, (t % 2 == 1) != chunk->call->is_downwards);
        for (size_t i = 0; i < num; i++) {
            s->h[s->live[i]] = s->h_next[i];
            s->c[s->live[i]] = s->c_next[i];
        }
    }
    keep_state(chunk, layer);
}

static void
run_layer(Chunk *chunk, const Layer *layer, const View *from, const View *to)
{
    switch (layer->kind) {
    case LAYER_LSTM:
        run_lstm(chunk, layer, from, to);
        break;
    case LAYER_MASKING:
    case LAYER_EMBEDDING:
        lstm_native_run_masking(chunk, layer, from, to);
        break;
    default:
        run_stateless(chunk, layer, from, to);
    }
}

static void
run_chunk(Chunk *chunk)
{
    const Plan *plan = chunk->plan;
    const Call *call = chunk->call;
    View from = {(float *)call->inputs, call->input_row_stride, call->input_time_stride};
    from.base += (ptrdiff_t)chunk->begin * call->input_time_stride;
    chunk->mask = call->mask ? call->mask + chunk->begin : NULL;
    chunk->mask_stride = call->time;
    for (size_t i = 0; i < plan->num_layers; i++) {
        const Layer *layer = &plan->layers[i];
        ptrdiff_t size = (ptrdiff_t)layer->output_size;
        View to = {chunk->scratch.outputs[i % 2], (ptrdiff_t)chunk->scratch.steps * size, size};
        if (i == plan->num_layers - 1) {
            to = (View){call->outputs + (ptrdiff_t)chunk->begin * size,
                        (ptrdiff_t)call->time * size, size};
        }
        run_layer(chunk, layer, &from, &to);
        from = to;
    }
}

/* Zero the outputs beyond each row's length, look at what came out, and move it to the arena. */
static void
finish(const Plan *plan, const Call *call)
{
    for (size_t row = 0; row < call->batch; row++) {
        size_t length = length_of(call, row);
        float *outputs = call->outputs + row * call->time * plan->output_size;
        float *state = call->rows + row * plan->state_size;
        bool *flags = call->flags + row * plan->num_recurrent;
        memset(outputs + length * plan->output_size, 0,
               (call->time - length) * plan->output_size * sizeof(float));
        call->is_state_finite[row] = plan->set->is_finite(state, plan->state_size);
        call->is_output_finite[row] = plan->set->is_finite(outputs, length * plan->output_size);
        if (call->to_slots) {
            size_t to = (size_t)call->to_slots[row];
            memcpy(call->arena_rows + to * plan->state_size, state,
                   plan->state_size * sizeof(float));
            memcpy(call->arena_flags + to * plan->num_recurrent, flags, plan->num_recurrent);
        }
    }
}

void
lstm_native_run(const Plan *plan, const Call *call, void *scratch)
{
    Chunk chunk = {.plan = plan, .call = call};
    lstm_native_cut(plan, call->batch, call->time, scratch, &chunk.scratch);
    for (size_t row = 0; row < call->batch; row++) {
        memcpy(call->flags + row * plan->num_recurrent,
               call->arena_flags + from_slot(call, row) * plan->num_recurrent,
               plan->num_recurrent);
    }
    for (; chunk.begin < call->time; chunk.begin = chunk.end) {
        size_t left = call->time - chunk.begin;
        chunk.end = chunk.begin + (left < chunk.scratch.steps ? left : chunk.scratch.steps);
        run_chunk(&chunk);
    }
    finish(plan, call);
}
