"""A user's own bilinear map: the kernels' calls, carried into Python and back.

Nets with such a map run on one thread, the calling one. What the user's function raises is kept by the caller
object under that thread, as others may be in the same plan, and its results are zeros: the loops go on to the
next place where they ask, before any weight has changed.
"""
from threading import get_ident

cimport numpy as cnp
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from kernels cimport Block, Layer, Map, keep_subnormals, set_arithmetic_mode


cdef struct UserMap:
    void *caller              # fnn_core.layers.bilinear.Caller
    size_t real_bytes
    int type_number
    int raised                # whether any thread's error waits for its call's end


cdef inline object rows_of(const void *data, long rows, long columns, const UserMap *user):
    """A copy that the user's function may keep."""
    cdef cnp.npy_intp[2] shape
    shape[0] = rows
    shape[1] = columns
    return cnp.PyArray_SimpleNewFromData(2, shape, user.type_number, <void *> data).copy()


cdef inline void call(UserMap *user, str name, tuple arguments, void *result, long entries,
                      bint accumulate) noexcept:
    """result ← [result +] caller.name(*arguments)."""
    cdef cnp.ndarray array
    cdef cnp.npy_intp length = entries
    cdef uint64_t before = keep_subnormals()
    try:
        array = getattr(<object> user.caller, name)(*arguments)
        if accumulate:
            array = array.ravel() + cnp.PyArray_SimpleNewFromData(1, &length, user.type_number, result)
        memcpy(result, cnp.PyArray_DATA(array), entries * user.real_bytes)
    except BaseException as error:
        (<object> user.caller).errors.setdefault(get_ident(), error)
        user.raised = 1
        memset(result, 0, entries * user.real_bytes)
    finally:
        set_arithmetic_mode(before)


cdef inline object weight_of(const Layer *layer, const void *theta, const UserMap *user):
    cdef const char *data = <const char *> theta + layer.weight * user.real_bytes
    return rows_of(data, 1, layer.weight_count, user)


cdef inline void user_apply(const Layer *layer, const Block *block, const void *theta, const void *x, long x_row,
                            void *a) noexcept with gil:
    cdef UserMap *user = <UserMap *> layer.user
    cdef const char *bias_data = <const char *> theta + layer.bias * user.real_bytes
    bias = None
    if layer.bias_count and not block.without_bias:
        bias = rows_of(bias_data, 1, layer.bias_count, user)
    call(user, "apply", (rows_of(x, block.rows, layer.inputs, user), weight_of(layer, theta, user), bias), a,
         block.rows * layer.outputs, False)


cdef inline void user_adjoint_input(const Layer *layer, const Block *block, const void *theta, const void *x,
                                    long x_row, const void *delta, void *u) noexcept with gil:
    cdef UserMap *user = <UserMap *> layer.user
    call(user, "adjoint_input", (rows_of(delta, block.rows, layer.outputs, user), weight_of(layer, theta, user)),
         u, block.rows * layer.inputs, False)


cdef inline void user_adjoint_weight(const Layer *layer, const Block *block, const void *x, long x_row,
                                     const void *delta, int accumulate, void *gradient) noexcept with gil:
    cdef UserMap *user = <UserMap *> layer.user
    call(user, "adjoint_weight", (rows_of(x, block.rows, layer.inputs, user),
                                  rows_of(delta, block.rows, layer.outputs, user)),
         gradient, layer.weight_count, accumulate)


cdef inline void user_gather(const Layer *layer, const Block *block, const void *delta, int accumulate,
                             void *gradient) noexcept with gil:
    cdef UserMap *user = <UserMap *> layer.user
    call(user, "gather", (rows_of(delta, block.rows, layer.outputs, user),), gradient, layer.bias_count,
         accumulate)


cdef inline void fill_user_map(Map *map) noexcept:
    map.name = "bilinear"
    map.apply = user_apply
    map.adjoint_input = user_adjoint_input
    map.adjoint_weight = user_adjoint_weight
    map.gather = user_gather
    map.add_squares = NULL
    map.tangent = NULL
