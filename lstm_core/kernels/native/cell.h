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

/* Make one row's new state of a plain cell. Arguments as for `finish_any_row`. */
INLINE void
finish_plain_row(const float *gates, const float *c, float *c_next, float *h_next, size_t count)
{
    bool is_whole = count == LANES;
    lanes old = is_whole ? lanes_load(c) : lanes_load_some(c, count);
    lanes input = sigmoid(lanes_load(gates));
    lanes forget = sigmoid(lanes_load(gates + LANES));
    lanes candidate = tanh_(lanes_load(gates + 2 * LANES));
    lanes output = sigmoid(lanes_load(gates + 3 * LANES));
    lanes cell = lanes_fma(forget, old, lanes_mul(input, candidate));
    lanes hidden = lanes_mul(output, tanh_(cell));
    if (is_whole) {
        lanes_store(c_next, cell);
        lanes_store(h_next, hidden);
    } else {
        lanes_store_some(c_next, cell, count);
        lanes_store_some(h_next, hidden, count);
    }
}

/* Make the new state of `num_rows` rows from `first` on, of `count` units from `unit` on, from the sums
 * of their gates. */
INLINE void
finish_rows(const Layer *layer, const StepRows *rows, size_t first, size_t num_rows,
            const float *gates, size_t unit, size_t count)
{
    float *const *c_next = rows->c_next + first, *const *h_next = rows->h_next + first;
    const float *const *c = rows->c + first;
    /* In loops of their own: what a plain row has in registers would not outlive the other's calls. */
    if (layer->is_plain) {
        for (size_t r = 0; r < num_rows; r++, gates += NUM_GATES * LANES) {
            finish_plain_row(gates, c[r] + unit, c_next[r] + unit, h_next[r] + unit, count);
        }
    } else {
        for (size_t r = 0; r < num_rows; r++, gates += NUM_GATES * LANES) {
            finish_any_row(layer, gates, c[r] + unit, c_next[r] + unit, h_next[r] + unit, unit,
                           count);
        }
    }
}
