/* Layers without a state but Dense, and what a Dense ends in, a row at a time. Included once for each
 * instruction set.
 */

/* However wide the vectors are, a sum over a row is made of so many, each of every 16th number. */
#define NUM_PARTS 16

/* Return the sum of x, or of its squares. */
INLINE float
sum_row(const bool is_squared, const float *x, size_t size)
{
    float parts[NUM_PARTS] = {0};
    for (size_t i = 0; i < size; i += NUM_PARTS) {
        size_t count = size - i < NUM_PARTS ? size - i : NUM_PARTS;
        for (size_t j = 0; j < count; j++) {
            parts[j] += is_squared ? x[i + j] * x[i + j] : x[i + j];
        }
    }
    for (size_t width = NUM_PARTS / 2; width > 0; width /= 2) {
        for (size_t j = 0; j < width; j++) {
            parts[j] += parts[j + width];
        }
    }
    return parts[0];
}

/* Write (x - mean) / sqrt(variance + epsilon) * gamma + beta, or x for x - mean. */
static void
normalize(const Layer *layer, const float *x, float *y)
{
    size_t size = layer->output_size;
    const float *gamma = layer->vectors;
    const float *beta = gamma + layer->num_blocks * LANES;
    float mean = sum_row(false, x, size) / (float)size;
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] - mean;
    }
    float variance = sum_row(true, y, size) / (float)size;
    float deviation = sqrtf(variance + layer->epsilon);
    const float *centered = layer->rms_scaling ? x : y;
    for (size_t i = 0; i < size; i++) {
        y[i] = centered[i] / deviation * gamma[i] + beta[i];
    }
}

/* Write one vector of a layer that looks at each feature alone. */
INLINE lanes
map_lanes(const Layer *layer, lanes x, const float *vectors)
{
    size_t size = layer->num_blocks * LANES;
    switch (layer->kind) {
    case LAYER_AFFINE:
        x = lanes_mul(lanes_sub(x, lanes_load(vectors)), lanes_load(vectors + size));
        return lanes_add(x, lanes_load(vectors + 2 * size));
    case LAYER_SLOPES:
        return lanes_at_most(lanes_all(layer->ceiling), slope(x, lanes_load(vectors)));
    default:
        return x;
    }
}

static void
pointwise(const Layer *layer, size_t num_rows, const float *const *x, float *const *y)
{
    size_t size = layer->output_size;
    for (size_t row = 0; row < num_rows; row++) {
        if (layer->kind == LAYER_ACTIVATION) {
            memcpy(y[row], x[row], size * sizeof(float));
            activate(layer->activation, y[row], size);
        } else if (layer->kind == LAYER_NORMALIZATION) {
            normalize(layer, x[row], y[row]);
        } else {
            for (size_t i = 0; i < size; i += LANES) {
                size_t count = size - i < LANES ? size - i : LANES;
                lanes from = load_first(x[row] + i, count);
                store_first(y[row] + i, map_lanes(layer, from, layer->vectors + i), count);
            }
        }
    }
}

/* Activate and clip what a Dense has summed up, in place. */
static void
finish_output(const Layer *layer, float *y)
{
    activate(layer->activation, y, layer->output_size);
    if (layer->clip < INFINITY) {
        for (size_t i = 0; i < layer->output_size; i += LANES) {
            size_t count = layer->output_size - i < LANES ? layer->output_size - i : LANES;
            store_first(y + i, clip(load_first(y + i, count), layer->clip), count);
        }
    }
}
