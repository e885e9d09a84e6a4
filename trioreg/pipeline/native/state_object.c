/* trioreg.pipeline._engine.State: one resumable digest. Refuses to be touched while hashed. */
#include "objects.h"

enum { RELEASE_GIL_FROM = 2048 }; /* bytes; as hashlib: below, the hand-over costs more */

static bool parse_algorithm(const char *name, enum sha_algorithm *algorithm) {
    bool is256 = strcmp(name, "sha256") == 0;
    if (!is256 && strcmp(name, "sha512") != 0) {
        PyErr_Format(PyExc_ValueError, "no such algorithm: %s", name);
        return false;
    }
    *algorithm = is256 ? SHA256 : SHA512;
    return true;
}

static bool check_at_rest(const StateObject *self) {
    if (self->jobs == 0 && !self->updating)
        return true;
    PyErr_SetString(PyExc_RuntimeError, "state is in use: it has jobs not collected, or an update");
    return false;
}

static PyObject *State_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"algorithm", NULL};
    const char *name;
    enum sha_algorithm algorithm;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:State", names, &name) ||
        !parse_algorithm(name, &algorithm))
        return NULL;
    StateObject *self = (StateObject *)type->tp_alloc(type, 0);
    if (self != NULL)
        sha_begin(&self->stream.sha, algorithm);
    return (PyObject *)self;
}

static PyObject *State_update(StateObject *self, PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (!check_at_rest(self)) {
        PyBuffer_Release(&view);
        return NULL;
    }
    if ((uint64_t)view.len > SHA_LENGTH_MAX - self->promised) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_OverflowError, "more bytes than SHA-2 can count");
        return NULL;
    }
    self->promised += (uint64_t)view.len;
    if (view.len < RELEASE_GIL_FROM) {
        sha_update(&self->stream.sha, view.buf, (size_t)view.len);
    } else {
        self->updating = true;
        Py_BEGIN_ALLOW_THREADS
        sha_update(&self->stream.sha, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
        self->updating = false;
    }
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *State_digest(StateObject *self, PyObject *Py_UNUSED(ignored)) {
    uint8_t digest[SHA_DIGEST_MAX];
    if (!check_at_rest(self))
        return NULL;
    size_t size = sha_digest(&self->stream.sha, digest);
    return PyBytes_FromStringAndSize((const char *)digest, (Py_ssize_t)size);
}

static PyObject *State_copy(StateObject *self, PyObject *Py_UNUSED(ignored)) {
    if (!check_at_rest(self))
        return NULL;
    StateObject *copy = (StateObject *)Py_TYPE(self)->tp_alloc(Py_TYPE(self), 0);
    if (copy != NULL) {
        copy->stream.sha = self->stream.sha;
        copy->promised = self->promised;
    }
    return (PyObject *)copy;
}

static PyObject *State_save(StateObject *self, PyObject *Py_UNUSED(ignored)) {
    uint8_t saved[SHA_SAVED_MAX];
    if (!check_at_rest(self))
        return NULL;
    size_t size = sha_save(&self->stream.sha, saved);
    return PyBytes_FromStringAndSize((const char *)saved, (Py_ssize_t)size);
}

static PyObject *State_load(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"algorithm", "saved", NULL};
    const char *name;
    Py_buffer view;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sy*:load", names, &name, &view))
        return NULL;
    enum sha_algorithm algorithm;
    StateObject *self = NULL;
    if (parse_algorithm(name, &algorithm))
        self = (StateObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        const char *wrong = sha_load(&self->stream.sha, algorithm, view.buf, (size_t)view.len);
        if (wrong != NULL) {
            PyErr_SetString(PyExc_ValueError, wrong);
            Py_CLEAR(self);
        } else {
            self->promised = sha_length(&self->stream.sha);
        }
    }
    PyBuffer_Release(&view);
    return (PyObject *)self;
}

static PyObject *State_algorithm(StateObject *self, void *Py_UNUSED(closure)) {
    return PyUnicode_FromString(self->stream.sha.algorithm == SHA256 ? "sha256" : "sha512");
}

static PyObject *State_length(StateObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(sha_length(&self->stream.sha));
}

static PyMethodDef State_methods[] = {
    {"update", (PyCFunction)State_update, METH_O, "update(data): hashes any contiguous buffer."},
    {"digest", (PyCFunction)State_digest, METH_NOARGS,
     "digest(): of the bytes so far; the state does not change."},
    {"copy", (PyCFunction)State_copy, METH_NOARGS, "copy(): an independent state."},
    {"save", (PyCFunction)State_save, METH_NOARGS,
     "save(): words big-endian, length as 16 bytes big-endian, unfinished block."},
    {"load", METHOD(State_load), METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "load(algorithm, saved): the state that was saved; ValueError if its shape is wrong."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef State_properties[] = {
    {"algorithm", (getter)State_algorithm, NULL, "sha256 or sha512", NULL},
    {"length", (getter)State_length, NULL,
     "bytes hashed so far; while jobs are in flight, of those that have begun", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject State_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "trioreg.pipeline._engine.State",
    .tp_doc = "A resumable SHA-2 state. RuntimeError while an engine has jobs of it not collected.",
    .tp_basicsize = sizeof(StateObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = State_new,
    .tp_methods = State_methods,
    .tp_getset = State_properties,
};
