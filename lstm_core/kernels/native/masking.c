/* Masking and Embedding: layers that look at a time step and say whether it is live. */
#include "chunk.h"

#include <string.h>

/* Write one time step of Masking, and return whether it is live. */
static bool
mask_step(const Layer *layer, const float *x, float *y)
{
    bool is_live = false;
    for (size_t i = 0; i < layer->output_size; i++) {
        is_live |= x[i] != layer->mask_value;
    }
    if (is_live) {
        memcpy(y, x, layer->output_size * sizeof(float));
    } else {
        memset(y, 0, layer->output_size * sizeof(float));
    }
    return is_live;
}

/* Write the embedding of a number that has been checked, and return whether it is live. */
static bool
embed_step(const Layer *layer, size_t lanes, const float *x, float *y)
{
    const float *row = layer->vectors + (size_t)*x * layer->num_blocks * lanes;
    memcpy(y, row, layer->output_size * sizeof(float));
    return *x != 0;
}

void
lstm_native_run_masking(Chunk *chunk, const Layer *layer, const View *from, const View *to)
{
    const Call *call = chunk->call;
    size_t steps = chunk->scratch.steps;
    for (size_t row = 0; row < call->batch; row++) {
        size_t length = length_of(call, row);
        for (size_t t = chunk->begin; t < chunk->end && t < length; t++) {
            const float *x = at(from, row, t - chunk->begin);
            float *y = at(to, row, t - chunk->begin);
            bool is_live = layer->kind == LAYER_MASKING
                               ? mask_step(layer, x, y)
                               : embed_step(layer, chunk->plan->set->lanes, x, y);
            /* In place of what such a layer said before, but not of what the caller says. */
            is_live = is_live && (!call->mask || call->mask[row * call->time + t]);
            chunk->scratch.mask[row * steps + t - chunk->begin] = is_live;
        }
    }
    if (layer->kind == LAYER_MASKING || layer->mask_zero) {
        chunk->mask = chunk->scratch.mask;
        chunk->mask_stride = steps;
    }
}
