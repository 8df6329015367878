/* Loops that NumPy has not, or only as many passes; scoring/loops.py calls them. */

#include <stdint.h>

#define BATCH 128
#define TOGETHER 8 /* cells: a line of cache of what is written */

/* Compiled for several processors, of which the loader picks one. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FASTEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FASTEST
#endif

/* A bisection is a chain of loads that wait for each other. Those of a batch go step by step
   together, so that the loads of one step do not wait: where the processor has them, as gathers.

   count[k]: how many of the first `entries` of the row of value k, which ascends, lie at or below
   the value. `rows` is (row, width), `values` and `count` are (row, each). */
#define DEFINE_COUNT(name, type)                                                                   \
    FASTEST void name(const type *rows, int64_t width, int64_t entries, const type *values,        \
                      int64_t each, int64_t total, int32_t *count)                                 \
    {                                                                                              \
        const int64_t fitting = INT32_MAX / width; /* a place is counted in 32 bits */             \
        const int64_t batch = fitting < 1 ? 1 : fitting < BATCH ? fitting : BATCH;                 \
        int32_t start[BATCH], place[BATCH];                                                        \
        int64_t column = 0;                                                                        \
        for (int64_t first = 0; first < total; first += batch) {                                   \
            const int size = (int)(total - first < batch ? total - first : batch);                 \
            const type *from = rows, *value = values + first;                                      \
            for (int k = 0; k < size; k++) {                                                       \
                start[k] = place[k] = (int32_t)(rows - from);                                      \
                if (++column == each) {                                                            \
                    column = 0;                                                                    \
                    rows += width;                                                                 \
                }                                                                                  \
            }                                                                                      \
            for (int64_t left = entries; left > 0; left /= 2) {                                    \
                const int32_t half = (int32_t)((left + 1) / 2);                                    \
                const type *middle = from + half - 1;                                              \
                for (int k = 0; k < size; k++)                                                     \
                    place[k] += middle[place[k]] <= value[k] ? half : 0;                           \
            }                                                                                      \
            for (int k = 0; k < size; k++)                                                         \
                count[first + k] = place[k] - start[k];                                            \
        }                                                                                          \
    }

DEFINE_COUNT(count_float32, float)
DEFINE_COUNT(count_float64, double)

/* prefix, (block + 1, 2, cell): sums over the first 0, 1, ... blocks of d and of w d, where
   w_i = 2i - size - 1, from sums, (cell, block, 2), of d and of 0, 1, ... times d in each block. */
#define DEFINE_PREFIX(name, type)                                                                  \
    FASTEST void name(const type *sums, int64_t cells, int64_t blocks, int64_t length,             \
                      int64_t size, double *prefix)                                                \
    {                                                                                              \
        for (int64_t first = 0; first < cells; first += TOGETHER) {                                \
            const int some = (int)(cells - first < TOGETHER ? cells - first : TOGETHER);           \
            double plain[TOGETHER] = {0}, ranked[TOGETHER] = {0};                                  \
            double *out = prefix + first;                                                          \
            for (int64_t block = 0;; block++, out += 2 * cells) {                                  \
                for (int k = 0; k < some; k++)                                                     \
                    out[k] = plain[k];                                                             \
                for (int k = 0; k < some; k++)                                                     \
                    out[cells + k] = ranked[k];                                                    \
                if (block == blocks)                                                               \
                    break;                                                                         \
                const double rank = (double)(2 * length * block - size + 1);                       \
                const type *sum = sums + 2 * (first * blocks + block);                             \
                for (int k = 0; k < some; k++, sum += 2 * blocks) {                                \
                    plain[k] += sum[0];                                                            \
                    ranked[k] += 2 * (double)sum[1] + rank * (double)sum[0];                       \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

DEFINE_PREFIX(prefix_float32, float)
DEFINE_PREFIX(prefix_float64, double)
