/* The cell: from the four gates' sums to the new state, a vector of units at a time. Included once for
 * each instruction set.
 */

INLINE lanes
load_first(const float *p, size_t count)
{
    return count == LANES ? lanes_load(p) : lanes_load_some(p, count);
}

INLINE void
store_first(float *p, lanes x, size_t count)
{
    if (count == LANES) {
        lanes_store(p, x);
    } else {
        lanes_store_some(p, x, count);
    }
}

/* Return x clipped to an absolute value, which may be INFINITY. */
INLINE lanes
clip(lanes x, float limit)
{
    return lanes_at_least(lanes_all(-limit), lanes_at_most(lanes_all(limit), x));
}

/* Not inlined: once for the five activations of a cell, not five times. */
static __attribute__((noinline)) lanes
activate_gate(Activation activation, lanes x, float limit)
{
    return activate_lanes(activation, clip(x, limit));
}

/* Make one row's new state of any cell, of `count` units from `unit` on. `gates` are the sums of the
 * four gates side by side; the states are pointed at where the unit is. */
static void
finish_any_row(const Layer *layer, const float *gates, const float *c, float *c_next, float *h_next,
               size_t unit, size_t count)
{
    size_t size = layer->num_blocks * LANES;
    const float *peepholes = layer->vectors ? layer->vectors + unit : NULL;
    Activation gate = layer->recurrent_activation, activation = layer->activation;
    float limit = layer->gate_clip;
    lanes old = load_first(c, count);
    lanes input = lanes_load(gates);
    lanes forget = lanes_load(gates + LANES);
    lanes candidate = activate_gate(activation, lanes_load(gates + 2 * LANES), limit);
    lanes output = lanes_load(gates + 3 * LANES);
    if (peepholes) {
        input = lanes_fma(lanes_load(peepholes), old, input);
        forget = lanes_fma(lanes_load(peepholes + size), old, forget);
    }
    lanes added = lanes_mul(activate_gate(gate, input, limit), candidate);
    lanes cell = lanes_fma(activate_gate(gate, forget, limit), old, added);
    cell = clip(cell, layer->cell_clip);
    if (peepholes) {
        output = lanes_fma(lanes_load(peepholes + 2 * size), cell, output);
    }
    store_first(c_next, cell, count);
    output = activate_gate(gate, output, limit);
    store_first(h_next, lanes_mul(output, activate_gate(activation, cell, INFINITY)), count);
}

/* Return sigmoid times tanh in one division, from 1 / sigmoid and e^2x - 1. What is below 2^-99 may be
 * 0, where the product overflows. */
INLINE lanes
gated(lanes divisor, lanes expm1)
{
    return lanes_div(expm1, lanes_mul(divisor, lanes_add(expm1, lanes_all(2.0f))));
}

/* Make a row's new cell of `count` units. Leaves it in the place of the candidate in `gates`, and in
 * that of the output gate its divisor, for `finish_plain_hidden`. */
INLINE void
finish_plain_cell(float *gates, const float *c, float *c_next, size_t count)
{
    lanes input = sigmoid_divisor(lanes_load(gates));
    lanes forget = sigmoid(lanes_load(gates + LANES));
    lanes candidate = tanh_expm1(lanes_load(gates + 2 * LANES));
    lanes output = sigmoid_divisor(lanes_load(gates + 3 * LANES));
    lanes cell = lanes_fma(forget, load_first(c, count), gated(input, candidate));
    store_first(c_next, cell, count);
    lanes_store(gates + 2 * LANES, cell);
    lanes_store(gates + 3 * LANES, output);
}

INLINE void
finish_plain_hidden(const float *gates, float *h_next, size_t count)
{
    lanes cell = tanh_expm1(lanes_load(gates + 2 * LANES));
    store_first(h_next, gated(lanes_load(gates + 3 * LANES), cell), count);
}

/* Make the new state of `num_rows` rows from `first` on, of `count` units from `unit` on, from the sums
 * of their gates, which are overwritten. */
INLINE void
finish_rows(const Layer *layer, const StepRows *rows, size_t first, size_t num_rows, float *gates,
            size_t unit, size_t count)
{
    float *const *c_next = rows->c_next + first, *const *h_next = rows->h_next + first;
    const float *const *c = rows->c + first;
    size_t size = NUM_GATES * LANES;
    /* In loops of their own: what a plain row has in registers would not outlive the other's calls. */
    if (layer->is_plain) {
        /* In two, too: behind each row's long chain of instructions the next one would wait. */
        for (size_t r = 0; r < num_rows; r++) {
            finish_plain_cell(gates + r * size, c[r] + unit, c_next[r] + unit, count);
        }
        for (size_t r = 0; r < num_rows; r++) {
            finish_plain_hidden(gates + r * size, h_next[r] + unit, count);
        }
    } else {
        for (size_t r = 0; r < num_rows; r++) {
            finish_any_row(layer, gates + r * size, c[r] + unit, c_next[r] + unit, h_next[r] + unit,
                           unit, count);
        }
    }
}
