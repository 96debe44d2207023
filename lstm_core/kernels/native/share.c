/* Shares the rows of a call out over threads. Which thread runs a row does not show in its bits. */
#include "run.h"

#include <pthread.h>

typedef struct {
    const Plan *plan;
    Call call; /* of this share's rows */
    void *scratch;
    pthread_t thread;
    bool has_thread;
} Share;

size_t
lstm_native_num_shares(const Plan *plan, size_t batch, size_t time, size_t num_threads)
{
    /* Half of what is long for each: a thread is started and ended in a tenth of that. */
    double macs = (double)batch * (double)time * plan->macs_per_step;
    double most = macs / (plan->set->long_macs / 2);
    size_t num = batch < num_threads ? batch : num_threads;
    num = num < MAX_SHARES ? num : MAX_SHARES;
    return most < 2 ? 1 : most < (double)num ? (size_t)most : num;
}

static size_t
rows_of_share(size_t batch, size_t num_shares)
{
    return (batch + num_shares - 1) / num_shares;
}

/* Return the bytes of scratch that each share has, or 0 where they overflow. */
static size_t
bytes_of_share(const Plan *plan, size_t batch, size_t time, size_t num_shares)
{
    size_t most = rows_of_share(batch, num_shares);
    size_t last = (batch - 1) % most + 1;
    /* Fewer rows may need more: they take more time steps at once, and have sums. */
    size_t num_bytes = lstm_native_cut(plan, most, time, NULL, &(Scratch){0});
    size_t last_bytes = lstm_native_cut(plan, last, time, NULL, &(Scratch){0});
    if (num_bytes == 0 || last_bytes == 0) {
        return 0;
    }
    return num_bytes > last_bytes ? num_bytes : last_bytes;
}

size_t
lstm_native_scratch_bytes(const Plan *plan, size_t batch, size_t time, size_t num_shares)
{
    size_t num_bytes = bytes_of_share(plan, batch, time, num_shares);
    return __builtin_mul_overflow(num_bytes, num_shares, &num_bytes) ? 0 : num_bytes;
}

/* Return the call of some of the rows of another. */
static Call
call_of_rows(const Plan *plan, const Call *call, size_t first, size_t num_rows)
{
    Call part = *call;
    part.batch = num_rows;
    part.inputs += (ptrdiff_t)first * call->input_row_stride;
    part.from_slots = call->from_slots ? call->from_slots + first : NULL;
    part.to_slots = call->to_slots ? call->to_slots + first : NULL;
    part.lengths = call->lengths ? call->lengths + first : NULL;
    part.mask = call->mask ? call->mask + first * call->time : NULL;
    part.outputs += first * call->time * plan->output_size;
    part.rows += first * plan->state_size;
    part.flags += first * plan->num_recurrent;
    part.is_state_finite += first;
    part.is_output_finite += first;
    return part;
}

static void *
run_share(void *argument)
{
    const Share *share = argument;
    lstm_native_run(share->plan, &share->call, share->scratch);
    return NULL;
}

void
lstm_native_run_shared(const Plan *plan, const Call *call, void *scratch, size_t num_shares)
{
    if (num_shares == 1) {
        lstm_native_run(plan, call, scratch);
        return;
    }
    Share shares[MAX_SHARES];
    size_t most = rows_of_share(call->batch, num_shares);
    size_t num_bytes = bytes_of_share(plan, call->batch, call->time, num_shares);
    size_t num = 0;
    for (size_t first = 0; first < call->batch; first += most, num++) {
        size_t left = call->batch - first;
        Share *share = &shares[num];
        share->plan = plan;
        share->call = call_of_rows(plan, call, first, left < most ? left : most);
        share->scratch = (char *)scratch + num * num_bytes;
        /* The first is the caller's, and so is what the system gives no thread for. */
        share->has_thread =
            num > 0 && pthread_create(&share->thread, NULL, run_share, share) == 0;
    }
    for (size_t i = 0; i < num; i++) {
        if (!shares[i].has_thread) {
            run_share(&shares[i]);
        }
    }
    for (size_t i = 0; i < num; i++) {
        if (shares[i].has_thread) {
            pthread_join(shares[i].thread, NULL);
        }
    }
}
