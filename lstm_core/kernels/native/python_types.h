/* The Python types of the extension module, and what they share. */
#ifndef LSTM_NATIVE_PYTHON_TYPES_H
#define LSTM_NATIVE_PYTHON_TYPES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL lstm_native_numpy
#include <numpy/arrayobject.h>

#include "run.h"

/* Raised whenever what Python and C say to each other changes: a module that was built from earlier
 * sources is then told apart. */
#define LSTM_NATIVE_INTERFACE 4

/* `Layer` in Python: its packed weights. Never changes, so any number of runners share it. */
typedef struct {
    PyObject_HEAD
    const InstructionSet *set;
    Layer layer;
} LayerObject;

/* `Runner` in Python: layers in a chain, an arena and scratch. */
typedef struct {
    PyObject_HEAD
    PyObject *layers; /* a tuple, which keeps the weights alive */
    Plan *plan;
    PyArrayObject *rows;
    PyArrayObject *flags;
    PyTypeObject *results;     /* of the tuples that calls return */
    PyArrayObject *all_finite; /* `(batch,)` of the last batch, all true, for nobody to write to */
    void *scratch;
    size_t scratch_bytes;
    ptrdiff_t *indices; /* room for from_slots, to_slots and lengths */
    bool *is_finite;    /* room for whether states and outputs are */
    size_t num_indices; /* rows that these have room for */
    size_t batch;       /* of the last call that room was made for, or 0 */
    size_t time;
    size_t num_threads;
    bool is_busy;
    bool is_downwards; /* the way through the weights that the next call begins with */
} RunnerObject;

extern PyTypeObject lstm_native_layer_type;
extern PyTypeObject lstm_native_runner_type;

/* Return whether an array is C-contiguous, aligned, of the machine's byte order, of this type and
 * number of dimensions; else raise. */
bool lstm_native_check_array(PyObject *, const char *name, int type, int num_dimensions);

/* Read the fields of a kind of layer into one that is all zeros; else raise, and leave the layer to be
 * freed. */
bool lstm_native_read_layer(Layer *, const InstructionSet *, const char *kind, PyObject *fields);

/* Return the plan of a tuple of layers, for `free`; else raise. The layers stay the owners of the
 * weights. */
Plan *lstm_native_make_plan(PyObject *layers);

/* Read `count` whole numbers from `low` to `high`, from a list or anything that makes an array of
 * them; else raise. */
bool lstm_native_read_indices(PyObject *, const char *name, Py_ssize_t count, Py_ssize_t low,
                              Py_ssize_t high, ptrdiff_t *indices);

/* Return an array of `count` bools that are all true and stay so, or NULL. */
PyArrayObject *lstm_native_make_all_true(size_t count);

/* Return a new tuple of the arrays that a call fills, and point `call` at them. Its last two say that
 * all rows are finite, in one array that calls share, until `lstm_native_tell_finite` knows better. */
PyObject *lstm_native_make_results(const RunnerObject *, Call *);

/* Put what a call has found out into its results where it is not that all rows are finite. Return them,
 * or NULL without memory. */
PyObject *lstm_native_tell_finite(PyObject *results, const Call *);

/* Check that the inputs of an embedding are numbers of its vectors; else raise IndexError. */
bool lstm_native_check_numbers(const Plan *, const Call *);

/* Return the instruction set of a name if this machine has it; else raise ValueError. */
const InstructionSet *lstm_native_supported(const char *name);

#endif
