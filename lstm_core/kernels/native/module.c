/* The extension module: its types, and the functions that need no object. */
#include "python_types.h"

#include <string.h>

static PyObject *
instruction_sets(PyObject *module, PyObject *is_bfloat16)
{
    (void)module;
    PyObject *names = PyList_New(0);
    for (const InstructionSet *const *set = lstm_native_instruction_sets; names && *set; set++) {
        PyObject *name = PyUnicode_FromString((*set)->name);
        bool is_meant = (*set)->is_bfloat16 == (is_bfloat16 == Py_True);
        if (is_meant && (*set)->is_supported() && (!name || PyList_Append(names, name) < 0)) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    PyObject *result = names ? PyList_AsTuple(names) : NULL;
    Py_XDECREF(names);
    return result;
}

static PyObject *
activate(PyObject *module, PyObject *arguments)
{
    (void)module;
    int activation;
    PyObject *object;
    const char *set_name;
    if (!PyArg_ParseTuple(arguments, "iOs:activate", &activation, &object, &set_name) ||
        !lstm_native_check_array(object, "x", NPY_FLOAT32, 1)) {
        return NULL;
    }
    const InstructionSet *set = lstm_native_supported(set_name);
    PyArrayObject *x = (PyArrayObject *)object;
    if (!set) {
        return NULL;
    }
    if (activation < 0 || activation >= NUM_ACTIVATIONS || !PyArray_ISWRITEABLE(x) ||
        PyArray_SIZE(x) < 1) {
        PyErr_SetString(PyExc_ValueError, "no such activation, or nothing to write to");
        return NULL;
    }
    set->activate((Activation)activation, PyArray_DATA(x), (size_t)PyArray_SIZE(x));
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"instruction_sets", instruction_sets, METH_O,
     "instruction_sets(is_bfloat16)\n--\n\nReturn those of this machine, the fastest first."},
    {"activate", activate, METH_VARARGS,
     "activate(activation, x, instruction_set)\n--\n\nApply an activation to `(size,)` in place."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "lstm_core.kernels.native._kernel",
    .m_doc = "The LSTM in C, for the instruction set at hand.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    import_array();
    if (PyType_Ready(&lstm_native_layer_type) < 0 || PyType_Ready(&lstm_native_runner_type) < 0) {
        return NULL;
    }
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyModule_AddIntConstant(module, "INTERFACE", LSTM_NATIVE_INTERFACE) < 0 ||
        PyModule_AddObjectRef(module, "Layer", (PyObject *)&lstm_native_layer_type) < 0 ||
        PyModule_AddObjectRef(module, "Runner", (PyObject *)&lstm_native_runner_type) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
