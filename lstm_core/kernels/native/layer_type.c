/* `Layer`: a layer's packed weights; and what the types share in checking arguments. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

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

static PyObject *
layer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *fields;
    const char *kind, *set_name;
    static char *names[] = {"kind", "fields", "instruction_set", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sO!s:Layer", names, &kind, &PyTuple_Type,
                                     &fields, &set_name)) {
        return NULL;
    }
    const InstructionSet *set = lstm_native_supported(set_name);
    LayerObject *self = set ? (LayerObject *)type->tp_alloc(type, 0) : NULL;
    if (!self) {
        return NULL;
    }
    self->set = set;
    if (!lstm_native_read_layer(&self->layer, set, kind, fields)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
layer_dealloc(PyObject *object)
{
    lstm_native_free(&((LayerObject *)object)->layer);
    Py_TYPE(object)->tp_free(object);
}

PyTypeObject lstm_native_layer_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "lstm_core.kernels.native._kernel.Layer",
    .tp_doc = "Layer(kind, fields, instruction_set): a layer's packed weights.",
    .tp_basicsize = sizeof(LayerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = layer_new,
    .tp_dealloc = layer_dealloc,
};
