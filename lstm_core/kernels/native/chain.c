/* Chains layers up to a plan. */
#define NO_IMPORT_ARRAY
#include "python_types.h"

#include <stdlib.h>

static size_t
greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What a layer costs a row and a time step, in multiply-adds. */
static double
macs_of(const Layer *layer)
{
    /* Of those without weights an activation is the slowest. */
    return layer->packed ? (double)layer->num_blocks * (double)layer->block_size
                         : 32.0 * (double)layer->output_size;
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
    } else if (layer->input_size != plan->output_size || given->set != plan->set ||
               layer->kind == LAYER_EMBEDDING) {
        PyErr_SetString(PyExc_ValueError, "a layer does not take what the one before it gives");
        return false;
    }
    if (layer->kind == LAYER_LSTM) {
        size_t sums = layer->num_blocks * NUM_GATES * plan->set->lanes;
        layer->state_offset = plan->state_size;
        layer->recurrent_index = plan->num_recurrent++;
        plan->widest_sums = greater(sums, plan->widest_sums);
        plan->state_size += layer->output_size + layer->units;
    }
    if (layer->projection) {
        plan->widest_hidden = greater(layer->units, plan->widest_hidden);
        plan->macs_per_step += macs_of(layer->projection);
    }
    plan->output_size = layer->output_size;
    plan->widest = greater(layer->output_size, plan->widest);
    plan->macs_per_step += macs_of(layer);
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
