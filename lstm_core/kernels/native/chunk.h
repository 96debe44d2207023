/* A chunk of a call's time steps on its way through the layers. */
#ifndef LSTM_NATIVE_CHUNK_H
#define LSTM_NATIVE_CHUNK_H

#include "run.h"

/* `(batch, time, features)` somewhere, without time steps that are not of this chunk. */
typedef struct {
    float *base;
    ptrdiff_t row_stride;
    ptrdiff_t time_stride;
} View;

typedef struct {
    const Plan *plan;
    const Call *call;
    Scratch scratch;
    size_t begin; /* the chunk's time steps */
    size_t end;
    const bool *mask;   /* `(batch, end - begin)` before the layer at hand; NULL: every step is live */
    size_t mask_stride; /* from row to row */
} Chunk;

static inline float *
at(const View *view, size_t row, size_t t)
{
    return view->base + (ptrdiff_t)row * view->row_stride + (ptrdiff_t)t * view->time_stride;
}

static inline size_t
length_of(const Call *call, size_t row)
{
    return call->lengths ? (size_t)call->lengths[row] : call->time;
}

/* Run a Masking or an Embedding, which have a say in the mask of the layers behind them. */
void lstm_native_run_masking(Chunk *, const Layer *, const View *from, const View *to);

#endif
