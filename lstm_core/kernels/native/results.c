/* What a call of a runner returns: makes the arrays, which the kernel fills. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include <string.h>

PyArrayObject *
lstm_native_make_all_true(size_t count)
{
    npy_intp size = (npy_intp)count;
    PyArrayObject *array = (PyArrayObject *)PyArray_SimpleNew(1, &size, NPY_BOOL);
    if (array) {
        memset(PyArray_DATA(array), true, count);
        PyArray_CLEARFLAGS(array, NPY_ARRAY_WRITEABLE);
    }
    return array;
}

PyObject *
lstm_native_make_results(const RunnerObject *self, Call *call)
{
    const Plan *plan = self->plan;
    npy_intp batch = (npy_intp)call->batch;
    npy_intp outputs[] = {batch, (npy_intp)call->time, (npy_intp)plan->output_size};
    npy_intp rows[] = {batch, (npy_intp)plan->state_size};
    npy_intp flags[] = {batch, (npy_intp)plan->num_recurrent};
    PyObject *arrays[] = {
        PyArray_SimpleNew(3, outputs, NPY_FLOAT32), PyArray_SimpleNew(2, rows, NPY_FLOAT32),
        PyArray_SimpleNew(2, flags, NPY_BOOL),      Py_NewRef(self->all_finite),
        Py_NewRef(self->all_finite),
    };
    PyObject *results = self->results->tp_alloc(self->results, 5);
    bool is_made = results != NULL;
    for (int i = 0; i < 5; i++) {
        is_made = is_made && arrays[i];
    }
    if (!is_made) {
        for (int i = 0; i < 5; i++) {
            Py_XDECREF(arrays[i]);
        }
        Py_XDECREF(results);
        return NULL;
    }
    for (int i = 0; i < 5; i++) {
        PyTuple_SET_ITEM(results, i, arrays[i]);
    }
    call->outputs = PyArray_DATA((PyArrayObject *)arrays[0]);
    call->rows = PyArray_DATA((PyArrayObject *)arrays[1]);
    call->flags = PyArray_DATA((PyArrayObject *)arrays[2]);
    call->is_state_finite = self->is_finite;
    call->is_output_finite = self->is_finite + batch;
    return results;
}

/* Put what was found out at `index` of the results, where it is not that all rows are finite. */
static bool
put_finite(PyObject *results, Py_ssize_t index, const bool *is_finite, size_t batch)
{
    if (!memchr(is_finite, false, batch)) {
        return true;
    }
    npy_intp size = (npy_intp)batch;
    PyObject *array = PyArray_SimpleNew(1, &size, NPY_BOOL);
    if (!array) {
        return false;
    }
    memcpy(PyArray_DATA((PyArrayObject *)array), is_finite, batch);
    Py_DECREF(PyTuple_GET_ITEM(results, index));
    PyTuple_SET_ITEM(results, index, array);
    return true;
}

PyObject *
lstm_native_tell_finite(PyObject *results, const Call *call)
{
    if (!put_finite(results, 3, call->is_state_finite, call->batch) ||
        !put_finite(results, 4, call->is_output_finite, call->batch)) {
        Py_CLEAR(results);
    }
    return results;
}
