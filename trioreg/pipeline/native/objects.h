/* The Python types of this module. Fields beside the pool's own are touched under the GIL only. */
#ifndef TRIOREG_OBJECTS_H
#define TRIOREG_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "pool.h"

typedef struct {
    PyObject_HEAD
    struct stream stream;
    const void *engine; /* whose jobs are in flight, meaningful while jobs > 0 */
    Py_ssize_t jobs;    /* submitted and not collected */
    bool updating;      /* update() has released the GIL */
    uint64_t promised;  /* bytes hashed or submitted */
} StateObject;

extern PyTypeObject State_Type, Engine_Type;

/* Methods of a class take keywords through this cast. */
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

/* The plan measured for this process, made on first use. */
const struct plan *measured_plan(void);
void forget_measured_plan(void);

#endif
