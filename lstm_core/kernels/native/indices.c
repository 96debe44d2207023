/* Reads slots, lengths and the numbers of embeddings, within bounds. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include "chunk.h"

/* Read one item of `name` as an index from `low` to `high`. */
static bool
read_index(PyObject *item, const char *name, Py_ssize_t at, Py_ssize_t low, Py_ssize_t high,
           ptrdiff_t *index)
{
    Py_ssize_t value = PyLong_CheckExact(item) ? PyLong_AsSsize_t(item)
                                               : PyNumber_AsSsize_t(item, PyExc_OverflowError);
    if (value == -1 && PyErr_Occurred()) {
        return false;
    }
    if (value < low || value > high) {
        PyErr_Format(PyExc_IndexError, "%s[%zd] is %zd, not from %zd to %zd", name, at, value, low,
                     high);
        return false;
    }
    *index = value;
    return true;
}

static bool
read_list(PyObject *list, const char *name, Py_ssize_t count, Py_ssize_t low, Py_ssize_t high,
          ptrdiff_t *indices)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        /* An item that is no plain int runs Python code, which may change the list. */
        if (i >= PyList_GET_SIZE(list)) {
            PyErr_Format(PyExc_RuntimeError, "%s changed while it was read", name);
            return false;
        }
        PyObject *item = PyList_GET_ITEM(list, i);
        Py_INCREF(item);
        bool is_read = read_index(item, name, i, low, high, &indices[i]);
        Py_DECREF(item);
        if (!is_read) {
            return false;
        }
    }
    return true;
}

static bool
read_array(PyObject *object, const char *name, Py_ssize_t count, Py_ssize_t low, Py_ssize_t high,
           ptrdiff_t *indices)
{
    PyArrayObject *array =
        (PyArrayObject *)PyArray_FROMANY(object, NPY_INTP, 1, 1, NPY_ARRAY_CARRAY_RO);
    if (!array) {
        return false;
    }
    const npy_intp *values = PyArray_DATA(array);
    bool is_read = PyArray_DIM(array, 0) == count;
    if (!is_read) {
        PyErr_Format(PyExc_RuntimeError, "%s changed while it was read", name);
    }
    for (Py_ssize_t i = 0; is_read && i < count; i++) {
        indices[i] = values[i];
        if (values[i] < low || values[i] > high) {
            PyErr_Format(PyExc_IndexError, "%s[%zd] is %zd, not from %zd to %zd", name, i,
                         (Py_ssize_t)values[i], low, high);
            is_read = false;
        }
    }
    Py_DECREF(array);
    return is_read;
}

bool
lstm_native_read_indices(PyObject *object, const char *name, Py_ssize_t count, Py_ssize_t low,
                         Py_ssize_t high, ptrdiff_t *indices)
{
    Py_ssize_t size = PySequence_Size(object);
    if (size < 0) {
        return false;
    }
    if (size != count) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items for %zd rows", name, size, count);
        return false;
    }
    return PyList_CheckExact(object) ? read_list(object, name, count, low, high, indices)
                                     : read_array(object, name, count, low, high, indices);
}

bool
lstm_native_check_numbers(const Plan *plan, const Call *call)
{
    const Layer *layer = &plan->layers[0];
    View inputs = {(float *)call->inputs, call->input_row_stride, call->input_time_stride};
    for (size_t row = 0; layer->kind == LAYER_EMBEDDING && row < call->batch; row++) {
        size_t length = length_of(call, row);
        for (size_t t = 0; t < length; t++) {
            double number = *at(&inputs, row, t);
            /* Not of a NaN either. */
            if (!(number >= 0 && number < (double)layer->vocabulary)) {
                PyErr_Format(PyExc_IndexError, "inputs[%zd, %zd] is no number below %zd", row, t,
                             layer->vocabulary);
                return false;
            }
        }
    }
    return true;
}
