/* trioreg.pipeline._engine: the module, and what it tells about this CPU. */
#include "objects.h"

#include "cpu.h"

static struct plan measured;
static bool is_measured;

const struct plan *measured_plan(void) {
    if (!is_measured)
        is_measured = plan_make(&measured, 0);
    return &measured;
}

void forget_measured_plan(void) { is_measured = false; }

/* {name: (lanes, GB/s)} of every way, and the way taken for 1, 2 … 16 streams. */
static bool add_plan(PyObject *dict) {
    const struct plan *plan = measured_plan();
    PyObject *ways = PyDict_New(), *choice = PyList_New(0);
    bool fine = ways != NULL && choice != NULL;
    for (int i = 0; fine && i < plan->count; i++) {
        const struct way *way = &plan->ways[i];
        PyObject *value = Py_BuildValue("(id)", way->lanes, 64 * way->lanes / way->nanoseconds);
        fine = value != NULL && PyDict_SetItemString(ways, way->name, value) == 0;
        Py_XDECREF(value);
    }
    for (int active = 1; fine && active <= LANES_MAX; active++) {
        PyObject *name = PyUnicode_FromString(plan->ways[plan->choice[active]].name);
        fine = name != NULL && PyList_Append(choice, name) == 0;
        Py_XDECREF(name);
    }
    fine = fine && PyDict_SetItemString(dict, "ways", ways) == 0 &&
           PyDict_SetItemString(dict, "choice", choice) == 0;
    Py_XDECREF(ways);
    Py_XDECREF(choice);
    return fine;
}

static PyObject *capabilities(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    struct way ways[WAYS_MAX];
    int count = plan_ways(ways), avx2 = 0, avx512 = 0;
    for (int i = 0; i < count; i++) {
        avx2 |= ways[i].lanes == 8;
        avx512 |= ways[i].lanes == 16;
    }
    const struct plan *plan = measured_plan();
    PyObject *dict = Py_BuildValue(
        "{s:N,s:N,s:N,s:i,s:s,s:s}", "avx512", PyBool_FromLong(avx512), "avx2",
        PyBool_FromLong(avx2), "sha_ni", PyBool_FromLong(cpu_has_sha_ni()), "lanes",
        plan->ways[plan->choice[LANES_MAX]].lanes, "single", single_name(SHA256), "single_sha512",
        single_name(SHA512));
    if (dict != NULL && !add_plan(dict))
        Py_CLEAR(dict);
    return dict;
}

static PyObject *set_openssl(PyObject *Py_UNUSED(module), PyObject *args) {
    unsigned long long update256, update512;
    if (!PyArg_ParseTuple(args, "KK:set_openssl", &update256, &update512))
        return NULL;
    if (!single_set_openssl((uintptr_t)update256, (uintptr_t)update512)) {
        PyErr_SetString(PyExc_ValueError, "these are not SHA256_Update and SHA512_Update");
        return NULL;
    }
    forget_measured_plan();
    Py_RETURN_NONE;
}

static PyObject *use_single(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name;
    if (!PyArg_ParseTuple(args, "z:use_single", &name))
        return NULL;
    if (!single_use(name))
        return PyErr_Format(PyExc_ValueError, "not to be had here: %s", name);
    forget_measured_plan();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"capabilities", capabilities, METH_NOARGS,
     "capabilities(): what the CPU has and what the engine chose."},
    {"set_openssl", set_openssl, METH_VARARGS,
     "set_openssl(update256, update512): addresses of SHA256_Update and SHA512_Update; 0, 0 "
     "forgets them. Before engines are made. ValueError if they compute something else."},
    {"use_single", use_single, METH_VARARGS,
     "use_single(name): forces 'sha-ni', 'openssl' or 'portable'; None chooses again. For tests "
     "and benchmarks."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trioreg.pipeline._engine",
    .m_doc = "The compiled digest engine: see docs/engine.md.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__engine(void) {
    single_use(NULL);
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddType(module, &State_Type) < 0 ||
        PyModule_AddType(module, &Engine_Type) < 0)
        Py_CLEAR(module);
    return module;
}
