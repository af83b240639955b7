/* What is done to a product's columns while they are in the cache: sigma forward, . sigma' backward. */
#include "engine.h"

static size_t place(const Epilogue *epilogue, long row, long column)
{
    return (size_t)(row * epilogue->row + column) * epilogue->real_bytes;
}

void finish_value(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                  long c_row)
{
    (void)row, (void)column;
    epilogue->activation->value(rows, columns, c, c_row, c, c_row);
}

void finish_value_and_slope(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                            long c_row)
{
    char *slope = (char *)epilogue->signal + place(epilogue, row, column);
    epilogue->activation->value_and_slope(rows, columns, c, c_row, c, c_row, slope, epilogue->row);
}

void finish_pull_back(const Epilogue *epilogue, long row, long column, long rows, long columns, void *c,
                      long c_row)
{
    const char *kept = (const char *)epilogue->kept + place(epilogue, row, column);
    char *delta = (char *)epilogue->signal + place(epilogue, row, column);
    epilogue->activation->pull_back(rows, columns, kept, epilogue->row, c, c_row, delta, epilogue->row);
}
