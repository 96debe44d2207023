/* `Layer`: reads a layer's weights from Python and packs them; and chains layers up. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include <stdlib.h>
#include <string.h>

bool
lstm_native_check_array(PyObject *object, const char *name, int type, int num_dimensions)
{
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be an array, not %s", name, Py_TYPE(object)->tp_name);
        return false;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != type || !PyArray_ISCARRAY_RO(array)) {
        PyErr_Format(PyExc_TypeError, "%s must be a C-contiguous %s array, not %S", name,
                     type == NPY_FLOAT32 ? "float32" : "bool", PyArray_DESCR(array));
        return false;
    }
    if (PyArray_NDIM(array) != num_dimensions) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimensions, not %d", name, num_dimensions,
                     PyArray_NDIM(array));
        return false;
    }
    return true;
}

const InstructionSet *
lstm_native_supported(const char *name)
{
    const InstructionSet *set = lstm_native_find(name);
    if (!set || !set->is_supported()) {
        PyErr_Format(PyExc_ValueError, "this machine has no instruction set %s", name);
        return NULL;
    }
    return set;
}

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
pack(Layer *layer, const InstructionSet *set, PyObject *kernel, PyObject *recurrent, PyObject *bias)
{
    if (!lstm_native_pack(layer, set->lanes, floats(kernel), floats(recurrent), floats(bias))) {
        PyErr_NoMemory();
        return false;
    }
    return true;
}

/* Read `(kernel, recurrent_kernel, bias | None, zero_output_for_mask)`. */
static bool
read_lstm(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *kernel, *recurrent, *bias;
    int zero_output_for_mask;
    if (!PyArg_ParseTuple(fields, "OOOp:lstm", &kernel, &recurrent, &bias,
                          &zero_output_for_mask) ||
        !lstm_native_check_array(kernel, "kernel", NPY_FLOAT32, 2) ||
        !lstm_native_check_array(recurrent, "recurrent_kernel", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp inputs = PyArray_DIM((PyArrayObject *)kernel, 0);
    npy_intp units = PyArray_DIM((PyArrayObject *)recurrent, 0);
    npy_intp columns = PyArray_DIM((PyArrayObject *)kernel, 1);
    if (inputs < 1 || units < 1 || columns % NUM_GATES || columns / NUM_GATES != units ||
        !has_shape(recurrent, "recurrent_kernel", units, columns) ||
        (bias != Py_None && !has_shape(bias, "bias", columns, -1))) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "kernel and recurrent_kernel do not fit together");
        }
        return false;
    }
    layer->kind = LAYER_LSTM;
    layer->input_size = (size_t)inputs;
    layer->output_size = (size_t)units;
    layer->zero_output_for_mask = zero_output_for_mask;
    return pack(layer, set, kernel, recurrent, bias);
}

/* Read `(kernel, bias | None, activation)`. */
static bool
read_dense(Layer *layer, const InstructionSet *set, PyObject *fields)
{
    PyObject *kernel, *bias;
    int activation;
    if (!PyArg_ParseTuple(fields, "OOi:dense", &kernel, &bias, &activation) ||
        !lstm_native_check_array(kernel, "kernel", NPY_FLOAT32, 2)) {
        return false;
    }
    npy_intp columns = PyArray_DIM((PyArrayObject *)kernel, 1);
    if (bias != Py_None && !has_shape(bias, "bias", columns, -1)) {
        return false;
    }
    if (PyArray_SIZE((PyArrayObject *)kernel) < 1 || activation < 0 || activation >= NUM_ACTIVATIONS) {
        PyErr_SetString(PyExc_ValueError, "a dense layer without weights, or of no known activation");
        return false;
    }
    layer->kind = LAYER_DENSE;
    layer->input_size = (size_t)PyArray_DIM((PyArrayObject *)kernel, 0);
    layer->output_size = (size_t)columns;
    layer->activation = (Activation)activation;
    return pack(layer, set, kernel, Py_None, bias);
}

static PyObject *
layer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *fields;
    const char *set_name;
    static char *names[] = {"fields", "instruction_set", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!s:Layer", names, &PyTuple_Type, &fields,
                                     &set_name)) {
        return NULL;
    }
    const InstructionSet *set = lstm_native_supported(set_name);
    LayerObject *self = set ? (LayerObject *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        return NULL;
    }
    self->set = set;
    bool is_lstm = PyTuple_GET_SIZE(fields) == 4;
    if (!(is_lstm ? read_lstm : read_dense)(&self->layer, set, fields)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
layer_dealloc(PyObject *object)
{
    free(((LayerObject *)object)->layer.packed);
    Py_TYPE(object)->tp_free(object);
}

PyTypeObject lstm_native_layer_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "lstm_core.kernels.native._kernel.Layer",
    .tp_doc = "Layer(fields, instruction_set): a layer's packed weights.",
    .tp_basicsize = sizeof(LayerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = layer_new,
    .tp_dealloc = layer_dealloc,
};

static size_t
greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Chain the next layer up; else raise. */
static bool
add_layer(Plan *plan, PyObject *object)
{
    if (!PyObject_TypeCheck(object, &lstm_native_layer_type)) {
        PyErr_SetString(PyExc_TypeError, "layers must be a tuple of Layer");
        return false;
    }
    const LayerObject *given = (LayerObject *)object;
    Layer *layer = &plan->layers[plan->num_layers];
    *layer = given->layer;
    if (plan->num_layers++ == 0) {
        plan->set = given->set;
    } else if (layer->input_size != plan->output_size || given->set != plan->set) {
        PyErr_SetString(PyExc_ValueError, "a layer does not take what the one before it gives");
        return false;
    }
    if (layer->kind == LAYER_LSTM) {
        size_t sums = layer->num_blocks * NUM_GATES * plan->set->lanes;
        layer->state_offset = plan->state_size;
        layer->recurrent_index = plan->num_recurrent++;
        plan->widest_sums = greater(sums, plan->widest_sums);
        plan->state_size += 2 * layer->output_size;
    }
    plan->output_size = layer->output_size;
    plan->widest = greater(layer->output_size, plan->widest);
    plan->macs_per_step += (double)layer->num_blocks * (double)layer->block_size;
    return true;
}

Plan *
lstm_native_make_plan(PyObject *layers)
{
    Py_ssize_t num_layers = PyTuple_GET_SIZE(layers);
    if (num_layers == 0) {
        PyErr_SetString(PyExc_ValueError, "a runner needs a layer");
        return NULL;
    }
    Plan *plan = calloc(1, sizeof(Plan) + (size_t)num_layers * sizeof(Layer));
    if (!plan) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < num_layers; i++) {
        if (!add_layer(plan, PyTuple_GET_ITEM(layers, i))) {
            free(plan);
            return NULL;
        }
    }
    return plan;
}
