/* Work on pixels and boxes that takes many small steps: area means and suppression.

   `kernels.py` calls these without the lock of Python; `resample.py` and `boxes.py` say what they
   compute, and do the same in NumPy where they could not be built. Built without contraction
   (-ffp-contract=off), so that both round alike. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif

typedef uint32_t Sum __attribute__((vector_size(16)));
typedef float Mean __attribute__((vector_size(16)));

static int64_t first(int64_t cell, int64_t size, int64_t count) { return cell * size / count; }

static int64_t end(int64_t cell, int64_t size, int64_t count) {
    return ((cell + 1) * size + count - 1) / count;
}

/* A row of cells: add up `rows` rows of pixels, then each cell's columns, and put the means,
   standardised, into three planes. `edges`: first column of each cell and the one after its last.
   `Lane` holds the sum of a column; a vector reads one more than there are. */
#define CELLS(Name, Lane)                                                                         \
    typedef Lane Name##_pixel __attribute__((vector_size(4 * sizeof(Lane))));                     \
    FAST static void Name(const uint8_t *row, int64_t rows, int64_t stride, int64_t length,       \
                          Lane *sums, const int32_t *edges, int64_t columns, float *out,          \
                          int64_t plane) {                                                        \
        for (int64_t i = 0; i < length; i++) sums[i] = row[i];                                    \
        for (int64_t r = 1; r < rows; r++) {                                                      \
            row += stride;                                                                        \
            for (int64_t i = 0; i < length; i++) sums[i] += row[i];                               \
        }                                                                                         \
        for (int64_t j = 0; j < columns; j++) {                                                   \
            int32_t left = edges[2 * j], right = edges[2 * j + 1];                                \
            Sum total = {0, 0, 0, 0};                                                             \
            for (int32_t x = left; x < right; x++) {                                              \
                Name##_pixel pixel;                                                               \
                memcpy(&pixel, sums + 3 * x, sizeof pixel);                                       \
                total += __builtin_convertvector(pixel, Sum);                                     \
            }                                                                                     \
            Mean mean = __builtin_convertvector(total, Mean) / (float)(rows * (right - left));    \
            mean = (mean - 127.5f) * 0.0078125f;                                                  \
            out[j] = mean[0];                                                                     \
            out[plane + j] = mean[1];                                                             \
            out[2 * plane + j] = mean[2];                                                         \
        }                                                                                         \
    }

CELLS(short_cells, uint16_t) /* up to 257 rows */
CELLS(tall_cells, uint32_t)

/* Area means of a part of a picture, as float32 (3, rows, columns). `stride`: bytes of a row of
   the picture. Returns 0, or 1 without memory. */
static int area(const uint8_t *part, int64_t stride, int64_t height, int64_t width, int64_t rows,
                int64_t columns, float *out) {
    uint32_t *sums = calloc(3 * width + 1, sizeof *sums);
    int32_t *edges = malloc(2 * columns * sizeof *edges);
    int enough = sums && edges;
    if (enough) {
        for (int64_t j = 0; j < columns; j++) {
            edges[2 * j] = (int32_t)first(j, width, columns);
            edges[2 * j + 1] = (int32_t)end(j, width, columns);
        }
        for (int64_t i = 0; i < rows; i++, out += columns) {
            int64_t top = first(i, height, rows), many = end(i, height, rows) - top;
            const uint8_t *row = part + top * stride;
            if (many <= 257)
                short_cells(row, many, stride, 3 * width, (uint16_t *)sums, edges, columns, out,
                            rows * columns);
            else
                tall_cells(row, many, stride, 3 * width, sums, edges, columns, out,
                           rows * columns);
        }
    }
    free(sums);
    free(edges);
    return !enough;
}

/* A whole picture, uint8 (height, width, 3), at another size. */
int facenet_level(const uint8_t *image, int64_t height, int64_t width, int64_t rows,
                  int64_t columns, float *out) {
    return area(image, 3 * width, height, width, rows, columns, out);
}

/* Windows of a picture as squares: int64 (n, 4), first column and row, width and height. */
int facenet_crops(const uint8_t *image, int64_t width, const int64_t *windows, int64_t count,
                  int64_t side, float *out) {
    for (int64_t n = 0; n < count; n++, windows += 4, out += 3 * side * side) {
        const uint8_t *part = image + 3 * (windows[1] * width + windows[0]);
        if (area(part, 3 * width, windows[3], windows[2], side, side, out)) return 1;
    }
    return 0;
}

/* Greedy suppression of boxes in falling order of their scores: x1[n], y1[n], x2[n], y2[n]; `keep`
   says which are left. In the arithmetic of the boxes. */
#define SUPPRESS(Name, Real)                                                                      \
    FAST void Name(const Real *x1, const Real *y1, const Real *x2, const Real *y2, int64_t count, \
                   Real threshold, Real pixel, int smaller, uint8_t *keep) {                      \
        memset(keep, 1, count);                                                                   \
        for (int64_t i = 0; i < count; i++) {                                                     \
            if (!keep[i]) continue;                                                               \
            Real a1 = x1[i], b1 = y1[i], a2 = x2[i], b2 = y2[i];                                  \
            Real own = (a2 - a1 + pixel) * (b2 - b1 + pixel);                                     \
            for (int64_t j = i + 1; j < count; j++) {                                             \
                Real area = (x2[j] - x1[j] + pixel) * (y2[j] - y1[j] + pixel);                    \
                Real width = (a2 < x2[j] ? a2 : x2[j]) - (a1 > x1[j] ? a1 : x1[j]) + pixel;       \
                Real height = (b2 < y2[j] ? b2 : y2[j]) - (b1 > y1[j] ? b1 : y1[j]) + pixel;      \
                Real shared = (width > 0 ? width : 0) * (height > 0 ? height : 0);                \
                Real whole = smaller ? (own < area ? own : area) : own + area - shared;           \
                keep[j] &= !(shared / whole > threshold);                                         \
            }                                                                                     \
        }                                                                                         \
    }

SUPPRESS(facenet_suppress_float32, float)
SUPPRESS(facenet_suppress_float64, double)
