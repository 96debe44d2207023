/* Reads the fields of each kind of layer from Python, checks them and packs them. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool
has_shape(PyObject *object, const char *name, npy_intp first, npy_intp second)
{
    int num_dimensions = second < 0 ? 1 : 2;
    if (!lstm_native_check_array(object, name, NPY_FLOAT32, num_dimensions)) {
        return false;
    }
    const npy_intp *shape = PyArray_DIMS((PyArrayObject *)object);
    if (shape[0] != first || (second >= 0 && shape[1] != second)) {
        PyErr_Format(PyExc_ValueError, "%s has a wrong shape", name);
        return false;
    }
    return true;
}

static const float *
floats(PyObject *object)
{
    return object == Py_None ? NULL : PyArray_DATA((PyArrayObject *)object);
}

static bool
has_memory(bool is_made)
{
    if (!is_made) {
        PyErr_NoMemory();
    }
    return is_made;
}

static bool
read_activation_index(int index, int end, Activation *activation)
{
    if (index < 0 || index >= end) {
        PyErr_Format(PyExc_ValueError, "no activation of this layer has the number %d", index);
        return false;
    }
    *activation = (Activation)index;
    return true;
}

static bool
is_limit(float value, const char *name)
{
    if (!(value >= 0)) {
        PyErr_Format(PyExc_ValueError, "%s must not be negative, nor a NaN", name);
        return false;
    }
    return true;
}

/* Make the layer a Dense. */
static bool
make_dense(Layer *layer, const InstructionSet *set, PyObject *kernel, PyObject *bias, float clip)
{
    if (!lstm_native_check_array(kernel, "kernel", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp columns = PyArray_DIM((PyArrayObject *)kernel, 1);
    if (bias != Py_None && !has_shape(bias, "bias", columns, -1)) {
        return false;
    }
    if (PyArray_SIZE((PyArrayObject *)kernel) < 1) {
        PyErr_SetString(PyExc_ValueError, "a dense layer without weights");
        return false;
    }
    layer->kind = LAYER_DENSE;
    layer->input_size = (size_t)PyArray_DIM((PyArrayObject *)kernel, 0);
    layer->output_size = layer->units = (size_t)columns;
    layer->clip = clip;
    return has_memory(lstm_native_pack(layer, set->lanes, floats(kernel), NULL, floats(bias)));
}

/* Give an LSTM whose sizes are set its projection, if there is one. */
static bool
make_projection(Layer *layer, const InstructionSet *set, PyObject *projection, float clip)
{
    if (projection == Py_None) {
        return true;
    }
    if (!is_limit(clip, "projection_clip") ||
        !has_shape(projection, "projection", (npy_intp)layer->units, (npy_intp)layer->output_size)) {
        return false;
    }
    layer->projection = calloc(1, sizeof *layer->projection);
    return has_memory(layer->projection != NULL) &&
           make_dense(layer->projection, set, projection, Py_None, clip);
}

/* Set an LSTM's sizes by its kernels. */
static bool
read_sizes(Layer *layer, PyObject *kernel, PyObject *recurrent)
{
    if (!lstm_native_check_array(kernel, "kernel", NPY_FLOAT32, 2) ||
        !lstm_native_check_array(recurrent, "recurrent_kernel", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp inputs = PyArray_DIM((PyArrayObject *)kernel, 0);
    npy_intp outputs = PyArray_DIM((PyArrayObject *)recurrent, 0);
    npy_intp columns = PyArray_DIM((PyArrayObject *)kernel, 1);
    if (inputs < 1 || outputs < 1 || columns < 1 || columns % NUM_GATES ||
        PyArray_DIM((PyArrayObject *)recurrent, 1) != columns) {
        PyErr_SetString(PyExc_ValueError, "kernel and recurrent_kernel do not fit together");
        return false;
    }
    layer->input_size = (size_t)inputs;
    layer->output_size = (size_t)outputs;
    layer->units = (size_t)(columns / NUM_GATES);
    return true;
}

/* Read `(kernel, recurrent_kernel, bias | None, peepholes | None, projection | None, activation,
 * recurrent_activation, gate_clip, cell_clip, projection_clip, zero_output_for_mask)`. */
static bool
read_lstm(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *kernel, *recurrent, *bias, *peepholes, *projection;
    int activation, recurrent_activation, zero_output_for_mask;
    float projection_clip;
    if (!PyArg_ParseTuple(fields, "OOOOOiifffp:lstm", &kernel, &recurrent, &bias, &peepholes,
                          &projection, &activation, &recurrent_activation, &layer->gate_clip,
                          &layer->cell_clip, &projection_clip, &zero_output_for_mask) ||
        !read_sizes(layer, kernel, recurrent)) {
        return false;
    }
    npy_intp units = (npy_intp)layer->units;
    if ((bias != Py_None && !has_shape(bias, "bias", NUM_GATES * units, -1)) ||
        (peepholes != Py_None && !has_shape(peepholes, "peepholes", NUM_GATES - 1, units)) ||
        !read_activation_index(activation, NUM_ELEMENTWISE, &layer->activation) ||
        !read_activation_index(recurrent_activation, NUM_ELEMENTWISE,
                               &layer->recurrent_activation) ||
        !is_limit(layer->gate_clip, "gate_clip") || !is_limit(layer->cell_clip, "cell_clip")) {
        return false;
    }
    if (projection == Py_None && layer->output_size != layer->units) {
        PyErr_SetString(PyExc_ValueError, "kernel and recurrent_kernel do not fit together");
        return false;
    }
    layer->kind = LAYER_LSTM;
    layer->zero_output_for_mask = zero_output_for_mask;
    layer->is_plain = layer->activation == ACTIVATION_TANH &&
                      layer->recurrent_activation == ACTIVATION_SIGMOID &&
                      peepholes == Py_None && isinf(layer->gate_clip) && isinf(layer->cell_clip);
    return make_projection(layer, set, projection, projection_clip) &&
           has_memory((set->is_bfloat16 ? lstm_native_pack_pairs : lstm_native_pack)(
               layer, set->lanes, floats(kernel), floats(recurrent), floats(bias))) &&
           (peepholes == Py_None ||
            has_memory(lstm_native_copy_vectors(layer, set->lanes, NUM_GATES - 1,
                                                floats(peepholes))));
}

/* Read `(kernel, bias | None, activation)`. */
static bool
read_dense(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *kernel, *bias;
    int activation;
    return PyArg_ParseTuple(fields, "OOi:dense", &kernel, &bias, &activation) &&
           read_activation_index(activation, NUM_ACTIVATIONS, &layer->activation) &&
           make_dense(layer, set, kernel, bias, INFINITY);
}

/* Set the sizes of a layer that gives as much as it takes. */
static bool
set_size(Layer *layer, LayerKind kind, Py_ssize_t size)
{
    if (size < 1) {
        PyErr_SetString(PyExc_ValueError, "a layer without features");
        return false;
    }
    layer->kind = kind;
    layer->input_size = layer->output_size = layer->units = (size_t)size;
    return true;
}

/* Read `(size, activation)`. */
static bool
read_activation(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    (void)set;
    Py_ssize_t size;
    int activation;
    return PyArg_ParseTuple(fields, "ni:activation", &size, &activation) &&
           read_activation_index(activation, NUM_ACTIVATIONS, &layer->activation) &&
           set_size(layer, LAYER_ACTIVATION, size);
}

/* Copy `(num_vectors, size)` float32. */
static bool
copy_vectors(Layer *layer, const InstructionSet *set, LayerKind kind, PyObject *vectors,
             npy_intp num_vectors)
{
    if (!lstm_native_check_array(vectors, "vectors", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp size = PyArray_DIM((PyArrayObject *)vectors, 1);
    return has_shape(vectors, "vectors", num_vectors, size) && set_size(layer, kind, size) &&
           has_memory(lstm_native_copy_vectors(layer, set->lanes, (size_t)num_vectors,
                                               floats(vectors)));
}

/* Read `(vectors,)`: center, scale, offset. */
static bool
read_affine(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *vectors;
    return PyArg_ParseTuple(fields, "O:affine", &vectors) &&
           copy_vectors(layer, set, LAYER_AFFINE, vectors, 3);
}

/* Read `(vectors, ceiling)`: alpha. */
static bool
read_slopes(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *vectors;
    return PyArg_ParseTuple(fields, "Of:slopes", &vectors, &layer->ceiling) &&
           copy_vectors(layer, set, LAYER_SLOPES, vectors, 1);
}

/* Read `(vectors, epsilon, rms_scaling)`: gamma, beta. */
static bool
read_normalization(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *vectors;
    int rms_scaling;
    if (!PyArg_ParseTuple(fields, "Ofp:normalization", &vectors, &layer->epsilon, &rms_scaling)) {
        return false;
    }
    layer->rms_scaling = rms_scaling;
    return copy_vectors(layer, set, LAYER_NORMALIZATION, vectors, 2);
}

/* Read `(size, mask_value)`. */
static bool
read_masking(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    (void)set;
    Py_ssize_t size;
    return PyArg_ParseTuple(fields, "nf:masking", &size, &layer->mask_value) &&
           set_size(layer, LAYER_MASKING, size);
}

/* Read `(vectors, mask_zero)`: the table. */
static bool
read_embedding(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *table;
    int mask_zero;
    if (!PyArg_ParseTuple(fields, "Op:embedding", &table, &mask_zero) ||
        !lstm_native_check_array(table, "vectors", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp vocabulary = PyArray_DIM((PyArrayObject *)table, 0);
    if (vocabulary < 1) {
        PyErr_SetString(PyExc_ValueError, "an embedding without vectors");
        return false;
    }
    layer->mask_zero = mask_zero;
    layer->vocabulary = (size_t)vocabulary;
    bool is_copied = copy_vectors(layer, set, LAYER_EMBEDDING, table, vocabulary);
    layer->input_size = 1;
    return is_copied;
}

static const struct {
    const char *kind;
    bool (*read)(Layer *, const InstructionSet *, PyObject *fields);
} readers[] = {
    {"lstm", read_lstm},     {"dense", read_dense},   {"activation", read_activation},
    {"affine", read_affine}, {"slopes", read_slopes}, {"normalization", read_normalization},
    {"masking", read_masking}, {"embedding", read_embedding},
};

bool
lstm_native_read_layer(Layer *layer, const InstructionSet *set, const char *kind, PyObject *fields)
{
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (strcmp(readers[i].kind, kind) == 0) {
            return readers[i].read(layer, set, fields);
        }
    }
    PyErr_Format(PyExc_ValueError, "there is no layer of the kind %s", kind);
    return false;
}
