/* trioreg.pipeline._engine.Engine: native threads behind an eventfd.
 *
 * Rule: a job owns its buffer, state and tag from submit() until completed() has handed it out or
 * the engine is gone. All outstanding jobs hang on the engine, touched under the GIL only; the pool
 * sees just the C part of them and never takes the GIL.
 */
#include "objects.h"

#include <errno.h>

enum { THREADS_MAX = 64 };

struct python_job {
    struct job job; /* first: the pool hands back its address */
    Py_buffer view;
    PyObject *state, *tag;
    struct python_job *previous, *next;
};

typedef struct {
    PyObject_HEAD
    struct pool *pool;
    struct python_job *outstanding;
} EngineObject;

/* --- jobs --- */

static void link_job(EngineObject *self, struct python_job *job) {
    job->previous = NULL;
    job->next = self->outstanding;
    if (job->next != NULL)
        job->next->previous = job;
    self->outstanding = job;
}

/* Lets go of all a job owned. Foreign code may run here (a tag's or buffer's end). */
static void drop_job(EngineObject *self, struct python_job *job) {
    if (job->previous != NULL)
        job->previous->next = job->next;
    else
        self->outstanding = job->next;
    if (job->next != NULL)
        job->next->previous = job->previous;
    StateObject *state = (StateObject *)job->state;
    state->jobs--;
    if (job->job.error == ECANCELED)
        state->promised -= job->job.size;
    PyBuffer_Release(&job->view);
    Py_DECREF(job->state);
    Py_DECREF(job->tag);
    PyMem_Free(job);
}

static PyObject *describe_job(const struct python_job *job) {
    PyObject *saved = Py_NewRef(Py_None);
    if (job->job.want_state && job->job.error != ECANCELED) {
        Py_DECREF(saved);
        saved = PyBytes_FromStringAndSize((const char *)job->job.saved,
                                          (Py_ssize_t)job->job.saved_size);
        if (saved == NULL)
            return NULL;
    }
    return Py_BuildValue("(OiN)", job->tag, job->job.error, saved);
}

/* --- life --- */

static PyObject *Engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"threads", "lanes", "batch", NULL};
    int threads, batch = 16, lanes = 0;
    PyObject *wanted = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|$Oi:Engine", names, &threads, &wanted,
                                     &batch))
        return NULL;
    if (wanted != Py_None) {
        lanes = (int)PyLong_AsLong(wanted);
        if (PyErr_Occurred())
            return NULL;
    }
    if (threads < 1 || threads > THREADS_MAX || batch < 1 || batch > BATCH_MAX)
        return PyErr_Format(PyExc_ValueError, "threads must be 1 to %d and batch 1 to %d",
                            THREADS_MAX, BATCH_MAX);
    struct plan forced;
    if (wanted != Py_None && (lanes < 1 || !plan_make(&forced, lanes)))
        return PyErr_Format(PyExc_ValueError, "this CPU has no way to hash in %d lanes", lanes);
    EngineObject *self = (EngineObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->pool = pool_open(threads, batch, wanted == Py_None ? measured_plan() : &forced);
    if (self->pool == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int Engine_traverse(EngineObject *self, visitproc visit, void *arg) {
    for (struct python_job *job = self->outstanding; job != NULL; job = job->next) {
        Py_VISIT(job->view.obj);
        Py_VISIT(job->state);
        Py_VISIT(job->tag);
    }
    return 0;
}

/* Nobody can collect any more: wait for the threads, then let go of everything. */
static int Engine_clear(EngineObject *self) {
    struct pool *pool = self->pool;
    self->pool = NULL;
    if (pool == NULL)
        return 0;
    Py_BEGIN_ALLOW_THREADS
    pool_close(pool);
    pool_free(pool);
    Py_END_ALLOW_THREADS
    while (self->outstanding != NULL)
        drop_job(self, self->outstanding);
    return 0;
}

static void Engine_dealloc(EngineObject *self) {
    PyObject_GC_UnTrack(self);
    Engine_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* --- methods --- */

static bool check_submit(EngineObject *self, StateObject *state, const Py_buffer *view,
                         Py_ssize_t start, Py_ssize_t end, int fd, long long offset) {
    if (self->pool == NULL)
        PyErr_SetString(PyExc_RuntimeError, "engine is closed");
    else if (start < 0 || start > end || end > view->len)
        PyErr_Format(PyExc_ValueError, "no bytes %zd to %zd in a buffer of %zd", start, end,
                     view->len);
    else if (fd >= 0 && (offset < 0 || offset > LLONG_MAX - (end - start)))
        PyErr_SetString(PyExc_ValueError, "no such offset in a file");
    else if (state->updating || (state->jobs > 0 && state->engine != self))
        PyErr_SetString(PyExc_RuntimeError, "state is in use by an update or another engine");
    else if ((uint64_t)(end - start) > SHA_LENGTH_MAX - state->promised)
        PyErr_SetString(PyExc_OverflowError, "more bytes than SHA-2 can count");
    else
        return true;
    return false;
}

static PyObject *Engine_submit(EngineObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"state", "buffer",     "start",  "end",     "fd", "offset",
                            "tag",   "want_state", "direct", "reserve", NULL};
    StateObject *state;
    PyObject *buffer, *tag;
    Py_ssize_t start, end;
    int fd, want_state = 0, direct = -1;
    long long offset, reserve = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OnniLO|piL:submit", names, &State_Type,
                                     &state, &buffer, &start, &end, &fd, &offset, &tag,
                                     &want_state, &direct, &reserve))
        return NULL;
    struct python_job *job = PyMem_Calloc(1, sizeof *job);
    if (job == NULL)
        return PyErr_NoMemory();
    if (PyObject_GetBuffer(buffer, &job->view, PyBUF_SIMPLE) < 0) {
        PyMem_Free(job);
        return NULL;
    }
    if (!check_submit(self, state, &job->view, start, end, fd, offset)) {
        PyBuffer_Release(&job->view);
        PyMem_Free(job);
        return NULL;
    }
    job->job.stream = &state->stream;
    job->job.data = (const uint8_t *)job->view.buf + start;
    job->job.size = (size_t)(end - start);
    job->job.fd = fd;
    job->job.direct = direct;
    job->job.offset = offset;
    job->job.reserve = reserve;
    job->job.want_state = want_state;
    job->state = Py_NewRef((PyObject *)state);
    job->tag = Py_NewRef(tag);
    link_job(self, job);
    state->engine = self;
    state->jobs++;
    state->promised += job->job.size;
    if (!pool_submit(self->pool, &job->job)) {
        job->job.error = ECANCELED;
        drop_job(self, job);
        PyErr_SetString(PyExc_RuntimeError, "engine is closed");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Built whole before anything is let go: if memory fails, nothing is lost. */
static PyObject *Engine_completed(EngineObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *list = PyList_New(0);
    if (list == NULL || self->pool == NULL)
        return list;
    struct job *first = pool_completed(self->pool);
    for (struct job *job = first; job != NULL; job = job->next) {
        PyObject *described = describe_job((struct python_job *)job);
        if (described == NULL || PyList_Append(list, described) < 0) {
            Py_XDECREF(described);
            Py_DECREF(list);
            pool_uncollect(self->pool, first);
            return NULL;
        }
        Py_DECREF(described);
    }
    while (first != NULL) {
        struct job *job = first;
        first = job->next;
        drop_job(self, (struct python_job *)job);
    }
    return list;
}

static PyObject *Engine_fileno(EngineObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(self->pool == NULL ? -1 : pool_fileno(self->pool));
}

static PyObject *Engine_close(EngineObject *self, PyObject *Py_UNUSED(ignored)) {
    if (self->pool != NULL) {
        Py_BEGIN_ALLOW_THREADS
        pool_close(self->pool);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *Engine_statistics(EngineObject *self, PyObject *Py_UNUSED(ignored)) {
    struct pool_statistics look = {0};
    if (self->pool != NULL)
        look = pool_look(self->pool);
    PyObject *sizes = PyTuple_New(BATCH_SIZES);
    for (int i = 0; sizes != NULL && i < BATCH_SIZES; i++) {
        PyObject *size = PyLong_FromUnsignedLongLong(look.sizes[i]);
        if (size == NULL)
            Py_CLEAR(sizes);
        else
            PyTuple_SET_ITEM(sizes, i, size);
    }
    if (sizes == NULL)
        return NULL;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:N}",
                         "batches", look.batches, "jobs", look.jobs, "bytes", look.bytes,
                         "wakeups", look.wakeups, "waiting", look.waiting,
                         "hashing", look.hashing, "writing", look.writing,
                         "completed", look.completed, "lane_blocks", look.tally.lane_blocks,
                         "lane_places", look.tally.lane_places,
                         "single_blocks", look.tally.single_blocks, "sizes", sizes);
}

/* A job's flag is read without the pool's lock: this is a look at a moment that has passed anyway. */
static PyObject *Engine_outstanding(EngineObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *found = PyList_New(0);
    for (struct python_job *job = self->outstanding; found != NULL && job != NULL; job = job->next) {
        PyObject *hashed = __atomic_load_n(&job->job.hashed, __ATOMIC_RELAXED) ? Py_True : Py_False;
        PyObject *pair = PyTuple_Pack(2, job->tag, hashed);
        if (pair == NULL || PyList_Append(found, pair) < 0)
            Py_CLEAR(found);
        Py_XDECREF(pair);
    }
    return found;
}

static PyMethodDef Engine_methods[] = {
    {"submit", METHOD(Engine_submit), METH_VARARGS | METH_KEYWORDS,
     "submit(state, buffer, start, end, fd, offset, tag, want_state=False, direct=-1, reserve=0): "
     "hashes the bytes into the state and, with fd >= 0, writes them at offset. Never waits."},
    {"completed", (PyCFunction)Engine_completed, METH_NOARGS,
     "completed(): [(tag, errno or 0, saved state or None)] of the jobs that ended."},
    {"fileno", (PyCFunction)Engine_fileno, METH_NOARGS,
     "fileno(): readable while completed() has something."},
    {"close", (PyCFunction)Engine_close, METH_NOARGS,
     "close(): waits for jobs that have begun; the others complete with ECANCELED."},
    {"statistics", (PyCFunction)Engine_statistics, METH_NOARGS, "statistics(): plain counters."},
    {"outstanding", (PyCFunction)Engine_outstanding, METH_NOARGS,
     "outstanding(): [(tag, hashed)] of the jobs that were not collected."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Engine_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "trioreg.pipeline._engine.Engine",
    .tp_doc = "Engine(threads, *, lanes=None, batch=16): threads that hash and write.",
    .tp_basicsize = sizeof(EngineObject),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Engine_new,
    .tp_traverse = (traverseproc)Engine_traverse,
    .tp_clear = (inquiry)Engine_clear,
    .tp_dealloc = (destructor)Engine_dealloc,
    .tp_methods = Engine_methods,
};
