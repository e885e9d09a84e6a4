/* trioreg.storage.filesystem._scripts: the Python side. Its contract is in _scripts.pyi.
 *
 * Rule: a script holds every object that its calls point into until it was handed out by ended().
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "rounds.h"

typedef struct {
    struct script script; /* first: the threads know no more than this */
    PyObject *tag;
    PyObject *held; /* list of bytes: paths as the system wants them, and contents */
    struct call calls[];
} PythonScript;

typedef struct {
    PyObject_HEAD
    struct rounds *rounds;
} RoundsObject;

static void drop(PythonScript *script) {
    Py_XDECREF(script->tag);
    Py_XDECREF(script->held);
    PyMem_RawFree(script);
}

/* --- a script from [(kind, subject, object)] --- */

static const char *hold_path(PyObject *held, PyObject *text) {
    PyObject *bytes;
    if (!PyUnicode_FSConverter(text, &bytes))
        return NULL;
    int failed = PyList_Append(held, bytes);
    Py_DECREF(bytes); /* the list has it */
    return failed ? NULL : PyBytes_AS_STRING(bytes);
}

static bool read_descriptor(struct call *call, PyObject *number) {
    long descriptor = PyLong_AsLong(number);
    if (descriptor == -1 && PyErr_Occurred())
        return false;
    call->descriptor = (int)descriptor;
    return true;
}

static bool hold_bytes(struct call *call, PyObject *held, PyObject *bytes) {
    if (!PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "a file is written from bytes");
        return false;
    }
    call->data = (const uint8_t *)PyBytes_AS_STRING(bytes);
    call->size = (size_t)PyBytes_GET_SIZE(bytes);
    return PyList_Append(held, bytes) == 0;
}

static bool read_object(struct call *call, PyObject *held, PyObject *object) {
    if (call->kind == WRITE_FILE)
        return hold_bytes(call, held, object);
    if (call->kind == WRITE_AT) {
        PyObject *bytes;
        long long offset;
        if (!PyTuple_Check(object)) {
            PyErr_SetString(PyExc_TypeError, "written are (bytes, offset)");
            return false;
        }
        if (!PyArg_ParseTuple(object, "OL:written", &bytes, &offset))
            return false;
        call->offset = offset;
        return hold_bytes(call, held, bytes);
    }
    if (call->kind == RENAME || call->kind == LINK)
        return (call->to = hold_path(held, object)) != NULL;
    if (call->kind == SET_MODE) {
        long mode = PyLong_AsLong(object);
        call->mode = (mode_t)mode;
        return mode != -1 || !PyErr_Occurred();
    }
    return true;
}

static bool read_call(struct call *call, PyObject *held, PyObject *item) {
    int kind;
    PyObject *subject, *object;
    if (!PyTuple_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a call is (kind, subject, object)");
        return false;
    }
    if (!PyArg_ParseTuple(item, "iOO:call", &kind, &subject, &object))
        return false;
    if (kind < 0 || kind >= KINDS) {
        PyErr_Format(PyExc_ValueError, "no such call: %d", kind);
        return false;
    }
    call->kind = (enum kind)kind;
    call->descriptor = NOT_OPEN;
    bool by_descriptor = kind == SET_MODE || kind == WRITE_AT ||
                         (kind == SYNC_FILE && PyLong_Check(subject));
    if (by_descriptor ? !read_descriptor(call, subject)
                      : (call->path = hold_path(held, subject)) == NULL)
        return false;
    return read_object(call, held, object);
}

static bool check_syncs(const struct script *script) {
    for (int i = 0; i < script->count; i++) {
        const struct call *call = &script->calls[i];
        if (call->kind == SYNC_FILE && call->path != NULL && call->of == NO_CALL) {
            PyErr_Format(PyExc_ValueError, "not written here: %s", call->path);
            return false;
        }
    }
    return true;
}

static PythonScript *read_script(PyObject *calls, PyObject *tag) {
    PyObject *list = PySequence_Fast(calls, "calls are a sequence");
    if (list == NULL)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list);
    PythonScript *script = PyMem_RawCalloc(1, sizeof *script + (size_t)count * sizeof(struct call));
    if (script == NULL) {
        Py_DECREF(list);
        PyErr_NoMemory();
        return NULL;
    }
    script->script.calls = script->calls;
    script->script.count = (int)count;
    script->tag = Py_NewRef(tag);
    script->held = PyList_New(0);
    bool fine = script->held != NULL;
    for (Py_ssize_t i = 0; fine && i < count; i++)
        fine = read_call(&script->calls[i], script->held, PySequence_Fast_GET_ITEM(list, i));
    Py_DECREF(list);
    if (fine) {
        script_prepare(&script->script);
        fine = check_syncs(&script->script);
    }
    if (!fine) {
        drop(script);
        return NULL;
    }
    return script;
}

/* --- the type --- */

static PyObject *Rounds_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    int threads;
    if (!PyArg_ParseTuple(args, "i:Rounds", &threads))
        return NULL;
    if (threads < 1 || threads > THREADS_MAX)
        return PyErr_Format(PyExc_ValueError, "1 to %d threads", THREADS_MAX);
    RoundsObject *self = (RoundsObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->rounds = rounds_open(threads);
    if (self->rounds == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void Rounds_dealloc(RoundsObject *self) {
    if (self->rounds != NULL) {
        struct sync_time times[TIMES_MAX];
        int timed;
        Py_BEGIN_ALLOW_THREADS
        rounds_close(self->rounds);
        Py_END_ALLOW_THREADS
        struct script *script = rounds_ended(self->rounds, times, &timed);
        while (script != NULL) {
            struct script *next = script->next;
            drop((PythonScript *)script);
            script = next;
        }
        rounds_free(self->rounds);
    }
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *Rounds_submit(RoundsObject *self, PyObject *args) {
    PyObject *calls, *tag;
    if (!PyArg_ParseTuple(args, "OO:submit", &calls, &tag))
        return NULL;
    PythonScript *script = read_script(calls, tag);
    if (script == NULL)
        return NULL;
    int error = rounds_submit(self->rounds, &script->script);
    if (error != 0) {
        drop(script);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static bool add_time(PyObject *times, const struct sync_time *time) {
    PyObject *pair = Py_BuildValue("(Nd)", PyBool_FromLong(time->directory), (double)time->seconds);
    bool fine = pair != NULL && PyList_Append(times, pair) == 0;
    Py_XDECREF(pair);
    return fine;
}

static bool add_ended(PyObject *ended, PythonScript *script) {
    PyObject *outcome = Py_BuildValue("(OiiN)", script->tag, script->script.failed,
                                      script->script.error, PyBool_FromLong(script->script.existed));
    bool fine = outcome != NULL && PyList_Append(ended, outcome) == 0;
    Py_XDECREF(outcome);
    return fine;
}

/* When memory fails here somebody waits for ever; Python itself does no better. */
static PyObject *Rounds_ended(RoundsObject *self, PyObject *Py_UNUSED(ignored)) {
    struct sync_time times[TIMES_MAX];
    int timed;
    struct script *script = rounds_ended(self->rounds, times, &timed);
    PyObject *ended = PyList_New(0), *seconds = PyList_New(0);
    bool fine = ended != NULL && seconds != NULL;
    while (script != NULL) {
        struct script *next = script->next;
        fine = fine && add_ended(ended, (PythonScript *)script);
        drop((PythonScript *)script);
        script = next;
    }
    for (int i = 0; fine && i < timed; i++)
        fine = add_time(seconds, &times[i]);
    if (fine)
        return Py_BuildValue("(NN)", ended, seconds);
    Py_XDECREF(ended);
    Py_XDECREF(seconds);
    return NULL;
}

static PyObject *Rounds_fileno(RoundsObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(rounds_fileno(self->rounds));
}

static PyMethodDef Rounds_methods[] = {
    {"submit", (PyCFunction)Rounds_submit, METH_VARARGS,
     "submit(calls, tag): runs a script in a thread; never waits."},
    {"ended", (PyCFunction)Rounds_ended, METH_NOARGS,
     "ended(): ([(tag, failed call or -1, errno, existed)], [(directory?, seconds) of syncs])."},
    {"fileno", (PyCFunction)Rounds_fileno, METH_NOARGS,
     "fileno(): readable while ended() has something."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Rounds_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "trioreg.storage.filesystem._scripts.Rounds",
    .tp_doc = "Rounds(threads): runs scripts of system calls in threads without Python.",
    .tp_basicsize = sizeof(RoundsObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Rounds_new,
    .tp_dealloc = (destructor)Rounds_dealloc,
    .tp_methods = Rounds_methods,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trioreg.storage.filesystem._scripts",
    .m_doc = "Changes of the disk without Python: see docs/storage.md.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__scripts(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddType(module, &Rounds_Type) < 0)
        Py_CLEAR(module);
    return module;
}
