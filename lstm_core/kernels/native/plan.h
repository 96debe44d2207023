/* What a network is to the kernel: layers with packed weights, and the operations of one instruction
 * set. Knows no Python.
 *
 * The kernel's law: every float32 that leaves it depends on its own row alone. Each sum is one chain,
 * acc = bias, then acc = fma(weight[k], x[k], acc) for k = 0, 1, ..., with its own lane of a vector,
 * so the bits are the same for any number of rows, any order, any cut in time, any slot, and on every
 * instruction set that has a fused multiply-add.
 *
 * In bfloat16, which is only for those who ask for it, weights, x and h are rounded to 8 significant
 * bits, and acc = acc + weight[k] x[k] + weight[k + 1] x[k + 1] is the machine's instruction: as
 * independent of what else is in the batch, but not the bits of float32.
 */
#ifndef LSTM_NATIVE_PLAN_H
#define LSTM_NATIVE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NUM_GATES 4

typedef enum {
    LAYER_LSTM,
    LAYER_DENSE,
    LAYER_ACTIVATION,
    LAYER_AFFINE,        /* (x - center) * scale + offset: three vectors */
    LAYER_SLOPES,        /* x where positive, else alpha * x, up to a ceiling: one vector */
    LAYER_MASKING,       /* time steps whose features all are `mask_value` are masked, and zeros */
    LAYER_EMBEDDING,     /* x is the number of one of `vocabulary` vectors; the first layer only */
    LAYER_NORMALIZATION, /* (x - mean) / sqrt(variance + epsilon) * gamma + beta: two vectors */
} LayerKind;

/* In the order of `ACTIVATIONS` in the Python face. */
typedef enum {
    ACTIVATION_LINEAR,
    ACTIVATION_CELU,
    ACTIVATION_ELU,
    ACTIVATION_EXPONENTIAL,
    ACTIVATION_GELU,
    ACTIVATION_HARD_SIGMOID,
    ACTIVATION_HARD_SIGMOID_V1,
    ACTIVATION_HARD_SILU,
    ACTIVATION_LEAKY_RELU,
    ACTIVATION_LOG_SIGMOID,
    ACTIVATION_MISH,
    ACTIVATION_RELU,
    ACTIVATION_RELU6,
    ACTIVATION_SELU,
    ACTIVATION_SIGMOID,
    ACTIVATION_SILU,
    ACTIVATION_SOFTPLUS,
    ACTIVATION_SOFTSIGN,
    ACTIVATION_TANH,
    NUM_ELEMENTWISE,
    ACTIVATION_SOFTMAX = NUM_ELEMENTWISE,
    NUM_ACTIVATIONS
} Activation;

/* One layer. Sizes count floats.
 *
 * `packed` holds one block for each `lanes` units: the biases, then the weights of input 0, of
 * input 1 and so on, of an LSTM the four gates (input, forget, candidate, output) side by side each
 * time, x before h. The last block is filled up with zeros. Aligned to a cache line.
 *
 * `vectors` holds what there is once for each unit: of an LSTM the peepholes of the input, forget and
 * output gate, or NULL. Each is filled up with zeros to `num_blocks * lanes`.
 */
typedef struct Layer {
    LayerKind kind;
    size_t input_size;
    size_t output_size; /* of an LSTM: the length of h */
    size_t units;       /* of an LSTM: the length of c; else `output_size` */
    size_t num_blocks;
    size_t block_size;
    float *packed; /* NULL but for an LSTM or a Dense */
    float *vectors;
    Activation activation; /* of an LSTM: of the candidate and of the cell on its way out */
    float ceiling;         /* of LAYER_SLOPES, or INFINITY */
    float clip;            /* of a Dense: its outputs are clipped to this absolute value, or INFINITY */
    float epsilon;         /* of LAYER_NORMALIZATION */
    bool rms_scaling;      /* likewise: the mean is left in place */
    float mask_value;      /* of LAYER_MASKING */
    size_t vocabulary;     /* of LAYER_EMBEDDING */
    bool mask_zero;        /* likewise: number 0 is a masked time step */
    /* Of an LSTM: */
    Activation recurrent_activation;
    bool is_plain;            /* sigmoid and tanh, without peepholes and clips of gates or cell */
    float gate_clip;          /* of what the activations are given, or INFINITY */
    float cell_clip;          /* likewise, of the cell */
    struct Layer *projection; /* a Dense from `units` to `output_size`, or NULL */
    bool zero_output_for_mask;
    size_t state_offset;    /* where h begins in a state row; c is behind it */
    size_t recurrent_index; /* which of a row's flags is its own */
} Layer;

/* The rows of one time step of an LSTM, by pointers: `c_next` may be `c`, nothing else may meet. */
typedef struct {
    size_t num_rows;
    const float **x;      /* input_size each, overwritten; or, where their products are made already, */
    const float **sums;   /* what `input_sums` gave; else NULL */
    const float **h;      /* output_size each, before the step */
    const float **c;      /* units each */
    float **h_next;       /* units each, after it, not projected yet */
    float **c_next;
    float *panel;         /* room for x and h side by side, `lstm_native_panel_stride` a row */
} StepRows;

/* Return how many floats apart rows of x and h side by side stand: an odd number of cache lines, since
 * several rows at a power of two would want the same few lines of the cache. */
static inline size_t
lstm_native_panel_stride(const Layer *layer)
{
    size_t lines = (layer->input_size + layer->output_size + 15) / 16;
    return (lines | 1) * 16;
}

/* The operations on one instruction set. All of them read and write whole rows by pointer. */
typedef struct {
    const char *name;
    bool is_bfloat16; /* whether an LSTM's slots hold two bfloat16 each */
    size_t lanes;
    double long_macs; /* multiply-adds that take about 200 us */
    bool (*is_supported)(void);
    /* Write bias + x products, `num_blocks * 4 * lanes` floats a row, in the order of the blocks. NULL
     * where `step` makes them all. */
    void (*input_sums)(const Layer *, size_t num_rows, const float *const *x, float *const *sums);
    /* Take one time step. `is_downwards` walks the blocks from the last to the first. */
    void (*step)(const Layer *, const StepRows *, bool is_downwards);
    void (*dense)(const Layer *, size_t num_rows, const float *const *x, float *const *y);
    /* Any other layer without a state. */
    void (*pointwise)(const Layer *, size_t num_rows, const float *const *x, float *const *y);
    bool (*is_finite)(const float *, size_t size);
    void (*activate)(Activation, float *, size_t size);
} InstructionSet;

/* Not those of GCC before 10. */
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 10)
#define LSTM_NATIVE_HAS_BFLOAT16
#endif

extern const InstructionSet lstm_native_avx512;
extern const InstructionSet lstm_native_avx512_bf16;
extern const InstructionSet lstm_native_avx2;
extern const InstructionSet lstm_native_portable;

/* Those that this build knows, the fastest first, ended by NULL. */
extern const InstructionSet *const lstm_native_instruction_sets[];

/* Return the one of a name, or NULL. */
const InstructionSet *lstm_native_find(const char *name);

/* Pack the weights of a layer whose sizes are set. `kernel` is `(input_size, columns)`, `recurrent`
 * `(output_size, columns)` or NULL for a Dense, `bias` `(columns,)` or NULL; of an LSTM `columns` is
 * `4 * units`, gates in that order. False without memory. */
bool lstm_native_pack(Layer *, size_t lanes, const float *kernel, const float *recurrent,
                      const float *bias);

/* Do the same for an LSTM on slots of two bfloat16: each line holds two inputs. */
bool lstm_native_pack_pairs(Layer *, size_t lanes, const float *kernel, const float *recurrent,
                            const float *bias);

/* Copy `(num_vectors, units)` floats to the layer's vectors. False without memory. */
bool lstm_native_copy_vectors(Layer *, size_t lanes, size_t num_vectors, const float *from);

/* Free all that a layer owns. */
void lstm_native_free(Layer *);

#endif
