/* Work on pixels and boxes that takes many small steps: area means, crops, the bilinear resize and
   suppression; and the quick look of P-net and R-net.

   `kernels.py` calls these without the lock of Python; `resample.py`, `bilinear.py`, `boxes.py` and
   `networks.py` say what they compute, and do the same in NumPy where they could not be built.
   Built without contraction (-ffp-contract=off), so that both round alike. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FAST
#endif

#ifndef SOURCE
#define SOURCE "unknown"
#endif

/* What the library was built from: the digest that the build computes. */
const char *facenet_source(void) { return SOURCE; }

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

enum { BITS = 22 }; /* of a weight behind the point */

static uint8_t rounded(int32_t sum) {
    int32_t value = (sum + (1 << (BITS - 1))) >> BITS;
    return value > 255 ? 255 : (uint8_t)value;
}

/* A row of pixels at another width: pixel j is the sum of `taps` pixels from first[j] on, weighted.
   Weights behind the last pixel are zero, and what is read there is not used. */
FAST static void across(const uint8_t *row, const int32_t *first, const int32_t *weights,
                        int64_t taps, int64_t columns, uint8_t *out) {
    typedef int32_t Four __attribute__((vector_size(16)));
    typedef uint8_t Pixel __attribute__((vector_size(4)));
    for (int64_t j = 0; j < columns; j++, weights += taps, out += 3) {
        Four total = {0, 0, 0, 0};
        for (int64_t t = 0; t < taps; t++) {
            Pixel pixel;
            memcpy(&pixel, row + 3 * (first[j] + t), sizeof pixel);
            total += __builtin_convertvector(pixel, Four) * weights[t];
        }
        for (int64_t c = 0; c < 3; c++) out[c] = rounded(total[c]);
    }
}

/* Rows of `length` bytes at another height, alike. */
FAST static void down(const uint8_t *rows, int64_t height, int64_t length, const int32_t *first,
                      const int32_t *weights, int64_t taps, int64_t count, int32_t *sums,
                      uint8_t *out) {
    for (int64_t i = 0; i < count; i++, weights += taps, out += length) {
        memset(sums, 0, length * sizeof *sums);
        for (int64_t t = 0; t < taps && first[i] + t < height; t++) {
            const uint8_t *row = rows + (first[i] + t) * length;
            for (int64_t k = 0; k < length; k++) sums[k] += weights[t] * row[k];
        }
        for (int64_t k = 0; k < length; k++) out[k] = rounded(sums[k]);
    }
}

/* Pillow's resize of uint8 (height, width, 3), whose rows are `stride` bytes apart, first the
   columns, then the rows. Of each axis: `count` cells, the first pixel of each, int32 (count), and
   weights, int32 (count, taps). Returns 0, or 1 without memory. */
int facenet_bilinear(const uint8_t *image, int64_t stride, int64_t height, int64_t width,
                     const int32_t *left, const int32_t *across_weights, int64_t across_taps,
                     int64_t columns, const int32_t *top, const int32_t *down_weights,
                     int64_t down_taps, int64_t rows, uint8_t *out) {
    uint8_t *row = calloc(3 * (width + across_taps) + 1, 1);
    uint8_t *narrow = malloc(3 * columns * height);
    int32_t *sums = malloc(3 * columns * sizeof *sums);
    int enough = row && narrow && sums;
    if (enough) {
        for (int64_t i = 0; i < height; i++) {
            memcpy(row, image + i * stride, 3 * width);
            across(row, left, across_weights, across_taps, columns, narrow + 3 * columns * i);
        }
        down(narrow, height, 3 * columns, top, down_weights, down_taps, rows, sums, out);
    }
    free(row);
    free(narrow);
    free(sums);
    return !enough;
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

/* Squares of `side` pixels of levels, float32 (., 3, height, width), one behind the other, zero
   where a level ends; corners: int64 (3, count), number of the level, first row, first column. */
void facenet_windows(const float *levels, int64_t height, int64_t width, const int64_t *corners,
                     int64_t count, int64_t side, float *out) {
    const int64_t *rows = corners + count, *columns = rows + count;
    memset(out, 0, 3 * side * side * count * sizeof *out);
    for (int64_t n = 0; n < count; n++) {
        const float *part = levels + (3 * corners[n] * height + rows[n]) * width + columns[n];
        int64_t high = height - rows[n] < side ? height - rows[n] : side;
        int64_t wide = width - columns[n] < side ? width - columns[n] : side;
        for (int64_t c = 0; c < 3; c++, part += height * width, out += side * side)
            for (int64_t y = 0; y < high; y++)
                memcpy(out + y * side, part + y * width, wide * sizeof *out);
    }
}

#include "glance.c"
