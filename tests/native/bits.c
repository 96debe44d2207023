/* The kernel's law without Python, for machines that tests cannot run on otherwise.
 *
 * Runs a network of every kind of layer, once for each activation and once with a plain LSTM, over a
 * batch and over each row alone, step by step. Prints a hash of all bits: the same on every machine
 * that has a fused multiply-add. Exits with 1 where a row alone has other bits than among others.
 *
 *     bits [INSTRUCTION_SET]
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum { BATCH = 23, TIME = 9, INPUTS = 11, UNITS = 21, OUTPUTS = 13 };
enum { SLOTS = 2 * BATCH + 1, NUM_LAYERS = 7 };

static uint32_t seed = 1;

/* Return a number from -0.5 to 0.5. */
static float
draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) / 16777216.0f - 0.5f;
}

static float *
draw_many(size_t count)
{
    float *numbers = malloc(count * sizeof *numbers);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = draw();
    }
    return numbers;
}

static void
must(bool is_fine, const char *what)
{
    if (!is_fine) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static void
set_sizes(Layer *layer, LayerKind kind, size_t input_size, size_t output_size)
{
    *layer = (Layer){.kind = kind,
                     .input_size = input_size,
                     .output_size = output_size,
                     .units = output_size,
                     .ceiling = INFINITY,
                     .clip = INFINITY};
}

static void
make_dense(Layer *layer, size_t lanes, size_t input_size, size_t output_size)
{
    set_sizes(layer, LAYER_DENSE, input_size, output_size);
    float *kernel = draw_many(input_size * output_size), *bias = draw_many(output_size);
    must(lstm_native_pack(layer, lanes, kernel, NULL, bias), "no memory");
    free(kernel);
    free(bias);
}

static void
make_lstm(Layer *layer, size_t lanes, Activation activation, bool is_plain)
{
    set_sizes(layer, LAYER_LSTM, INPUTS, OUTPUTS);
    layer->units = UNITS;
    layer->activation = layer->recurrent_activation = activation;
    layer->is_plain = is_plain;
    layer->gate_clip = 3;
    layer->cell_clip = 2;
    float *kernel = draw_many(INPUTS * NUM_GATES * UNITS);
    float *recurrent = draw_many(OUTPUTS * NUM_GATES * UNITS);
    float *peepholes = draw_many(3 * UNITS);
    must(lstm_native_pack(layer, lanes, kernel, recurrent, NULL) &&
             lstm_native_copy_vectors(layer, lanes, 3, peepholes),
         "no memory");
    layer->projection = malloc(sizeof *layer->projection);
    make_dense(layer->projection, lanes, UNITS, OUTPUTS);
    layer->projection->clip = 1;
    free(kernel);
    free(recurrent);
    free(peepholes);
}

static void
make_pointwise(Layer *layer, size_t lanes, LayerKind kind, size_t num_vectors)
{
    set_sizes(layer, kind, OUTPUTS, OUTPUTS);
    layer->epsilon = 0.01f;
    float *vectors = draw_many(num_vectors * OUTPUTS);
    must(lstm_native_copy_vectors(layer, lanes, num_vectors, vectors), "no memory");
    free(vectors);
}

static Plan *
make_plan(const InstructionSet *set, Activation activation, bool is_plain)
{
    Plan *plan = calloc(1, sizeof(Plan) + NUM_LAYERS * sizeof(Layer));
    plan->set = set;
    plan->num_layers = NUM_LAYERS;
    plan->num_recurrent = 1;
    plan->state_size = OUTPUTS + UNITS;
    plan->output_size = OUTPUTS;
    plan->widest = OUTPUTS; /* INPUTS are fewer */
    plan->widest_hidden = UNITS;
    plan->macs_per_step = 1e6; /* so that threads share the rows */
    Layer *layer = plan->layers;
    set_sizes(layer++, LAYER_MASKING, INPUTS, INPUTS);
    make_lstm(layer, set->lanes, activation, is_plain);
    plan->widest_sums = layer++->num_blocks * NUM_GATES * set->lanes;
    make_pointwise(layer++, set->lanes, LAYER_NORMALIZATION, 2);
    make_pointwise(layer++, set->lanes, LAYER_AFFINE, 3);
    make_pointwise(layer++, set->lanes, LAYER_SLOPES, 1);
    make_dense(layer, set->lanes, OUTPUTS, OUTPUTS);
    layer++->activation = ACTIVATION_SOFTMAX;
    set_sizes(layer, LAYER_ACTIVATION, OUTPUTS, OUTPUTS);
    layer->activation = activation;
    return plan;
}

/* Where the tests' calls read from and write to. */
typedef struct {
    float inputs[BATCH * TIME * INPUTS];
    float arena[SLOTS * (OUTPUTS + UNITS)];
    bool arena_flags[SLOTS];
    float rows[BATCH * (OUTPUTS + UNITS)];
    bool flags[BATCH];
    bool is_state_finite[BATCH];
    bool is_output_finite[BATCH];
} Memory;

static void
run(const Plan *plan, Memory *memory, size_t batch, size_t time, const float *inputs,
    const ptrdiff_t *from, const ptrdiff_t *to, float *outputs, size_t num_threads)
{
    Call call = {
        .batch = batch,
        .time = time,
        .inputs = inputs,
        .input_row_stride = TIME * INPUTS,
        .input_time_stride = INPUTS,
        .from_slots = from,
        .to_slots = to,
        .arena_rows = memory->arena,
        .arena_flags = memory->arena_flags,
        .outputs = outputs,
        .rows = memory->rows,
        .flags = memory->flags,
        .is_state_finite = memory->is_state_finite,
        .is_output_finite = memory->is_output_finite,
    };
    size_t num_shares = lstm_native_num_shares(plan, batch, time, num_threads);
    size_t num_bytes = lstm_native_scratch_bytes(plan, batch, time, num_shares);
    void *scratch = aligned_alloc(64, num_bytes);
    must(scratch && num_bytes, "no memory");
    lstm_native_run_shared(plan, &call, scratch, num_shares);
    free(scratch);
}

/* Run all rows together and each alone, and return a hash of the bits. */
static uint64_t
check(const Plan *plan, uint64_t hash)
{
    static Memory memory;
    static float together[BATCH * TIME * OUTPUTS];
    memset(&memory, 0, sizeof memory);
    for (size_t i = 0; i < BATCH * TIME * INPUTS; i++) {
        /* Every seventh time step is masked. */
        memory.inputs[i] = i / INPUTS % 7 == 3 ? 0 : 4 * draw();
    }
    ptrdiff_t from[BATCH] = {0}, to[BATCH];
    for (size_t row = 0; row < BATCH; row++) {
        to[row] = (ptrdiff_t)(BATCH - row);
    }
    run(plan, &memory, BATCH, TIME, memory.inputs, from, to, together, 3);
    for (size_t row = 0; row < BATCH; row++) {
        ptrdiff_t slots[] = {0, BATCH + 1};
        for (size_t t = 0; t < TIME; t++) {
            float alone[OUTPUTS];
            const float *inputs = memory.inputs + (row * TIME + t) * INPUTS;
            run(plan, &memory, 1, 1, inputs, &slots[0], &slots[1], alone, 1);
            must(memcmp(alone, together + (row * TIME + t) * OUTPUTS, sizeof alone) == 0,
                 "a row alone has other bits");
            slots[0] = slots[1];
            slots[1] = BATCH + 1 + (ptrdiff_t)(t + 1) % 2;
        }
        size_t size = OUTPUTS + UNITS;
        must(memcmp(memory.arena + (size_t)slots[0] * size, memory.arena + (size_t)to[row] * size,
                    size * sizeof(float)) == 0,
             "a row alone has another state");
    }
    for (size_t i = 0; i < sizeof together; i++) {
        hash = (hash ^ ((const unsigned char *)together)[i]) * 1099511628211u;
    }
    return hash;
}

int
main(int num_arguments, char **arguments)
{
    const InstructionSet *set = lstm_native_instruction_sets[0];
    if (num_arguments > 1) {
        set = lstm_native_find(arguments[1]);
    }
    must(set && set->is_supported(), "no such instruction set");
    uint64_t hash = 14695981039346656037u;
    for (Activation activation = 0; activation <= NUM_ELEMENTWISE; activation++) {
        bool is_plain = activation == NUM_ELEMENTWISE;
        Plan *plan = make_plan(set, is_plain ? ACTIVATION_TANH : activation, is_plain);
        hash = check(plan, hash);
        for (size_t i = 0; i < plan->num_layers; i++) {
            lstm_native_free(&plan->layers[i]);
        }
        free(plan);
    }
    printf("%016llx\n", (unsigned long long)hash);
    return 0;
}
