/* Runs a network over a batch of rows: from the arena, over the layers and the time steps, into the
 * arena. Knows no Python; everything that it is given has been checked.
 */
#ifndef LSTM_NATIVE_RUN_H
#define LSTM_NATIVE_RUN_H

#include "plan.h"

#define MAX_SHARES 256

typedef struct {
    const InstructionSet *set;
    size_t num_layers;
    size_t num_recurrent;
    size_t state_size;
    size_t output_size;
    size_t widest; /* the most floats that a layer gives for a time step */
    size_t widest_sums; /* the most that `input_sums` gives for one */
    size_t widest_hidden; /* the most units of an LSTM with a projection */
    double macs_per_step; /* multiply-adds of a row, padding included */
    Layer layers[];
} Plan;

/* One call. Strides count floats. */
typedef struct {
    size_t batch;
    size_t time;
    const float *inputs;
    ptrdiff_t input_row_stride;
    ptrdiff_t input_time_stride;
    const ptrdiff_t *from_slots; /* NULL: slot 0 for all */
    const ptrdiff_t *to_slots; /* NULL: the arena stays as it is */
    const ptrdiff_t *lengths; /* NULL: `time` steps each */
    const bool *mask;         /* `(batch, time)`; NULL: every step is live */
    bool is_downwards;        /* whether the first time step walks the weights from the end */
    float *arena_rows;        /* `(slots, state_size)` */
    bool *arena_flags;        /* `(slots, num_recurrent)` */
    float *outputs;           /* `(batch, time, output_size)` */
    float *rows;              /* `(batch, state_size)` */
    bool *flags;              /* `(batch, num_recurrent)` */
    bool *is_state_finite;    /* `(batch,)` */
    bool *is_output_finite;   /* `(batch,)` */
} Call;

/* The scratch of a call, cut up. `steps` is how many time steps are run at a time, a chunk; `wide` is
 * `batch * steps`. */
typedef struct {
    size_t steps;
    const float **x;      /* (wide,) */
    float **y;            /* (wide,) */
    const float **h;      /* (batch,), where each row's h is now */
    const float **c;      /* (batch,) */
    const float **live_x; /* (batch,), of the rows that take a time step, side by side */
    const float **live_sums;
    const float **live_h;
    const float **live_c;
    float **h_next;
    float **c_next;
    float **hidden;       /* (batch,), where what is to be projected is; NULL without a projection */
    size_t *live;         /* (batch,), which rows they are */
    bool *mask;           /* (wide,), behind a layer that makes one */
    float *outputs[2];    /* (wide, widest), of the layers by turns */
    float *unprojected;   /* (batch, widest_hidden); NULL without a projection */
    float *panel;         /* (batch, the widest `lstm_native_panel_stride`) */
    float *sums;          /* (wide, widest_sums); NULL where that does not pay */
} Scratch;

/* Cut `scratch` up; where it is NULL, only count. Return its bytes, or 0 where they overflow. */
size_t lstm_native_cut(const Plan *, size_t batch, size_t time, void *scratch, Scratch *);

/* Run a call. `scratch` is aligned to a cache line, and nobody else's meanwhile. */
void lstm_native_run(const Plan *, const Call *, void *scratch);

/* Return how many threads, at most `num_threads`, have enough to do with such a call. */
size_t lstm_native_num_shares(const Plan *, size_t batch, size_t time, size_t num_threads);

/* Return the bytes of scratch that `lstm_native_run_shared` needs, or 0 where they overflow. */
size_t lstm_native_scratch_bytes(const Plan *, size_t batch, size_t time, size_t num_shares);

/* Run a call on so many threads, this one among them. They end with the call. */
void lstm_native_run_shared(const Plan *, const Call *, void *scratch, size_t num_shares);

#endif
