/* `Runner`: checks what a call was given, runs it, and hands over what came out. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include <stdlib.h>

#define CACHE_LINE_BYTES 64

/* Return a new reference to inputs whose last axis is contiguous, after checking what they are. */
static PyArrayObject *
read_inputs(PyObject *object, const Plan *plan)
{
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != NPY_FLOAT32) {
        PyErr_SetString(PyExc_TypeError, "inputs must be a float32 array");
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    npy_intp features = (npy_intp)plan->layers[0].input_size;
    if (PyArray_NDIM(array) != 3 || PyArray_DIM(array, 0) < 1 || PyArray_DIM(array, 1) < 1 ||
        PyArray_DIM(array, 2) != features) {
        PyErr_Format(PyExc_ValueError,
                     "inputs must be (batch, time, %zd), with at least a row and a time step",
                     (Py_ssize_t)features);
        return NULL;
    }
    bool is_readable = PyArray_ISBEHAVED_RO(array) &&
                       (features == 1 || PyArray_STRIDE(array, 2) == (npy_intp)sizeof(float)) &&
                       PyArray_STRIDE(array, 0) % (npy_intp)sizeof(float) == 0 &&
                       PyArray_STRIDE(array, 1) % (npy_intp)sizeof(float) == 0;
    if (is_readable) {
        Py_INCREF(array);
        return array;
    }
    return (PyArrayObject *)PyArray_FROMANY(object, NPY_FLOAT32, 3, 3, NPY_ARRAY_CARRAY_RO);
}

/* Set `mask` to a new reference, or to NULL for None. */
static bool
read_mask(PyObject *object, npy_intp batch, npy_intp time, PyArrayObject **mask)
{
    *mask = NULL;
    if (object == Py_None) {
        return true;
    }
    if (!PyArray_Check(object) || PyArray_TYPE((PyArrayObject *)object) != NPY_BOOL) {
        PyErr_SetString(PyExc_TypeError, "mask must be a bool array");
        return false;
    }
    PyArrayObject *given = (PyArrayObject *)object;
    if (PyArray_NDIM(given) != 2 || PyArray_DIM(given, 0) != batch ||
        PyArray_DIM(given, 1) != time) {
        PyErr_SetString(PyExc_ValueError, "mask must be (batch, time), as inputs are");
        return false;
    }
    *mask = (PyArrayObject *)PyArray_FROMANY(object, NPY_BOOL, 2, 2, NPY_ARRAY_CARRAY_RO);
    return *mask != NULL;
}

/* Grow the room of `num_rows` rows for what is read and found out of each. */
static bool
reserve_rows(RunnerObject *self, size_t num_rows)
{
    /* Not PyMem_Resize, which sets what it is given to NULL without memory. */
    size_t size;
    bool overflows = __builtin_mul_overflow(num_rows, 3 * sizeof *self->indices, &size);
    ptrdiff_t *indices = overflows ? NULL : PyMem_Realloc(self->indices, size);
    self->indices = indices ? indices : self->indices;
    bool *is_finite = overflows ? NULL : PyMem_Realloc(self->is_finite, 2 * num_rows);
    self->is_finite = is_finite ? is_finite : self->is_finite;
    if (!indices || !is_finite) {
        PyErr_NoMemory();
        return false;
    }
    self->num_indices = num_rows;
    return true;
}

/* Make room for a call; what there is stays if it is enough. */
static bool
reserve(RunnerObject *self, size_t batch, size_t time, size_t num_shares)
{
    if (batch == self->batch && time == self->time) {
        return true;
    }
    /* Until there is room for this one, there may be none for any. */
    self->batch = 0;
    size_t num_bytes = lstm_native_scratch_bytes(self->plan, batch, time, num_shares);
    if (num_bytes == 0) {
        PyErr_NoMemory();
        return false;
    }
    if (num_bytes > self->scratch_bytes) {
        free(self->scratch);
        self->scratch_bytes = 0;
        self->scratch = aligned_alloc(CACHE_LINE_BYTES, num_bytes);
        if (!self->scratch) {
            PyErr_NoMemory();
            return false;
        }
        self->scratch_bytes = num_bytes;
    }
    if (batch > self->num_indices && !reserve_rows(self, batch)) {
        return false;
    }
    PyArrayObject *all_finite = lstm_native_make_all_true(batch);
    if (!all_finite) {
        return false;
    }
    Py_XSETREF(self->all_finite, all_finite);
    self->batch = batch;
    self->time = time;
    return true;
}

/* Read slots and lengths into the runner's indices, and point `call` at them. None for the first slots
 * is slot 0 for all, for the second nowhere, and for the lengths `time` for all. */
static bool
read_numbers(RunnerObject *self, PyObject *const *arguments, Call *call)
{
    Py_ssize_t batch = (Py_ssize_t)call->batch;
    Py_ssize_t time = (Py_ssize_t)call->time;
    Py_ssize_t last_slot = PyArray_DIM(self->rows, 0) - 1;
    ptrdiff_t *from = self->indices, *to = from + batch, *lengths = to + batch;
    call->from_slots = arguments[0] == Py_None ? NULL : from;
    call->to_slots = arguments[1] == Py_None ? NULL : to;
    call->lengths = arguments[3] == Py_None ? NULL : lengths;
    return (!call->from_slots || lstm_native_read_indices(arguments[0], "from_slots", batch, 0,
                                                          last_slot, from)) &&
           /* Slot 0 is where everybody begins: nobody writes to it. */
           (!call->to_slots ||
            lstm_native_read_indices(arguments[1], "to_slots", batch, 1, last_slot, to)) &&
           (!call->lengths ||
            lstm_native_read_indices(arguments[3], "lengths", batch, 1, time, lengths));
}

static PyObject *
run(RunnerObject *self, PyObject *const *arguments, PyArrayObject *inputs, PyArrayObject *mask)
{
    const Plan *plan = self->plan;
    Call call = {
        .batch = (size_t)PyArray_DIM(inputs, 0),
        .time = (size_t)PyArray_DIM(inputs, 1),
        .inputs = PyArray_DATA(inputs),
        .input_row_stride = PyArray_STRIDE(inputs, 0) / (npy_intp)sizeof(float),
        .input_time_stride = PyArray_STRIDE(inputs, 1) / (npy_intp)sizeof(float),
        .mask = mask ? PyArray_DATA(mask) : NULL,
        .is_downwards = self->is_downwards,
        .arena_rows = PyArray_DATA(self->rows),
        .arena_flags = PyArray_DATA(self->flags),
    };
    size_t num_shares =
        lstm_native_num_shares(plan, call.batch, call.time, self->num_threads);
    if (!reserve(self, call.batch, call.time, num_shares) || !read_numbers(self, arguments, &call) ||
        !lstm_native_check_numbers(plan, &call)) {
        return NULL;
    }
    PyObject *results = lstm_native_make_results(self, &call);
    if (!results) {
        return NULL;
    }
    double macs = (double)call.batch * (double)call.time * plan->macs_per_step;
    /* Short work keeps the interpreter: to hand it over and take it back costs as much. */
    PyThreadState *thread = macs > plan->set->long_macs ? PyEval_SaveThread() : NULL;
    lstm_native_run_shared(plan, &call, self->scratch, num_shares);
    if (thread) {
        PyEval_RestoreThread(thread);
    }
    self->is_downwards ^= call.time % 2 == 1;
    return lstm_native_tell_finite(results, &call);
}

PyDoc_STRVAR(advance_doc,
             "advance(from_slots, to_slots, inputs, lengths, mask)\n"
             "--\n\n"
             "Take each row's next time steps, from one slot to another.");

static PyObject *
advance(PyObject *object, PyObject *const *arguments, Py_ssize_t num_arguments)
{
    RunnerObject *self = (RunnerObject *)object;
    if (num_arguments != 5) {
        PyErr_Format(PyExc_TypeError, "advance takes 5 arguments, not %zd", num_arguments);
        return NULL;
    }
    if (self->is_busy) {
        PyErr_SetString(PyExc_RuntimeError, "a runner takes one call at a time");
        return NULL;
    }
    /* From here on, since to copy what is not contiguous gives the interpreter away. */
    self->is_busy = true;
    PyObject *results = NULL;
    PyArrayObject *mask = NULL;
    PyArrayObject *inputs = read_inputs(arguments[2], self->plan);
    if (inputs &&
        read_mask(arguments[4], PyArray_DIM(inputs, 0), PyArray_DIM(inputs, 1), &mask)) {
        results = run(self, arguments, inputs, mask);
    }
    self->is_busy = false;
    Py_XDECREF(mask);
    Py_XDECREF(inputs);
    return results;
}

static bool
is_arena(const Plan *plan, PyArrayObject *rows, PyArrayObject *flags)
{
    bool fits = PyArray_ISWRITEABLE(rows) && PyArray_ISWRITEABLE(flags) &&
                PyArray_DIM(rows, 0) >= 1 && PyArray_DIM(rows, 0) == PyArray_DIM(flags, 0) &&
                (size_t)PyArray_DIM(rows, 1) == plan->state_size &&
                (size_t)PyArray_DIM(flags, 1) == plan->num_recurrent;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "rows and has_output are not an arena of these layers");
    }
    return fits;
}

static PyObject *
runner_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"layers", "rows", "has_output", "num_threads", "results", NULL};
    PyObject *layers, *rows, *flags, *results;
    Py_ssize_t num_threads;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!OOnO!:Runner", names, &PyTuple_Type,
                                     &layers, &rows, &flags, &num_threads, &PyType_Type,
                                     &results) ||
        !lstm_native_check_array(rows, "rows", NPY_FLOAT32, 2) ||
        !lstm_native_check_array(flags, "has_output", NPY_BOOL, 2)) {
        return NULL;
    }
    if (num_threads < 1) {
        PyErr_Format(PyExc_ValueError, "num_threads must be at least 1, not %zd", num_threads);
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)results, &PyTuple_Type)) {
        PyErr_Format(PyExc_TypeError, "results must be a kind of tuple, not %R", results);
        return NULL;
    }
    Plan *plan = lstm_native_make_plan(layers);
    RunnerObject *self = NULL;
    if (plan && is_arena(plan, (PyArrayObject *)rows, (PyArrayObject *)flags)) {
        self = (RunnerObject *)type->tp_alloc(type, 0);
    }
    if (!self) {
        free(plan);
        return NULL;
    }
    self->plan = plan;
    self->num_threads = (size_t)num_threads;
    self->layers = Py_NewRef(layers);
    self->rows = (PyArrayObject *)Py_NewRef(rows);
    self->flags = (PyArrayObject *)Py_NewRef(flags);
    self->results = (PyTypeObject *)Py_NewRef(results);
    return (PyObject *)self;
}

static void
runner_dealloc(PyObject *object)
{
    RunnerObject *self = (RunnerObject *)object;
    free(self->plan);
    Py_XDECREF(self->layers);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->flags);
    Py_XDECREF(self->results);
    Py_XDECREF(self->all_finite);
    free(self->scratch);
    PyMem_Free(self->indices);
    PyMem_Free(self->is_finite);
    Py_TYPE(object)->tp_free(object);
}

static PyMethodDef methods[] = {
    {"advance", (PyCFunction)(void (*)(void))advance, METH_FASTCALL, advance_doc},
    {NULL, NULL, 0, NULL},
};

PyTypeObject lstm_native_runner_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "lstm_core.kernels.native._kernel.Runner",
    .tp_doc = "Runner(layers, rows, has_output, num_threads, results): runs layers on an arena, a call "
              "at a time.",
    .tp_basicsize = sizeof(RunnerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = runner_new,
    .tp_dealloc = runner_dealloc,
    .tp_methods = methods,
};
