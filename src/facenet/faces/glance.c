/* P-net: in bfloat16 with AMX, the matrix units of newer Intel processors, and of windows exactly.
   `kernels.c` includes this; `glance.py` says what it computes.

   A tile of AMX has 16 rows of 64 bytes. Here a convolution is a product of weights (16 channels by
   32 values) and of pixels: each row of that tile has, of 16 pixels beside each other, two values
   in bfloat16 that follow one another among the 32. Rows of tiles are the same distance apart, so
   that the planes of a picture are read where they lie, a step aside for each column of the
   kernel. */

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && \
    ((!defined(__clang__) && __GNUC__ >= 11) || (defined(__clang__) && __clang_major__ >= 12))

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SCAN __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define TILE(n) "%%tmm" #n
#define LOAD(n, from, stride)                                                                     \
    __asm__ volatile("tileloadd (%0,%1,1), " TILE(n)::"r"(from), "r"((int64_t)(stride)) : "memory")
#define STORE(n, to)                                                                              \
    __asm__ volatile("tilestored " TILE(n) ", (%0,%1,1)" ::"r"(to), "r"((int64_t)64) : "memory")
#define ZERO(n) __asm__ volatile("tilezero " TILE(n)::)
#define DOT(sum, a, b) __asm__ volatile("tdpbf16ps " TILE(b) ", " TILE(a) ", " TILE(sum)::)

enum { SIDE = 16, TILE_WORDS = 256, KEPT = 24 };

/* Rows of one stage, the last few of them: of each row `planes` planes of words, a word two values
   in bfloat16 that are multiplied together. */
typedef struct {
    uint32_t *words;
    int64_t stride, planes, base, next;
} Rows;

static uint32_t *row_of(const Rows *rows, int64_t row) {
    return rows->words + (row - rows->base) * rows->planes * rows->stride;
}

/* Room for the next row: where there is none left, the last `keep` rows move to the front. */
static uint32_t *next_row(Rows *rows, int64_t keep) {
    if (rows->next - rows->base == KEPT) {
        uint32_t *last = row_of(rows, rows->next - keep);
        memmove(rows->words, last, 4 * keep * rows->planes * rows->stride);
        rows->base = rows->next - keep;
    }
    return row_of(rows, rows->next++);
}

/* Room that begins where a line of the cache does: tiles from elsewhere take six times as long to
   load, and so do weights that do not. NULL where there is none. */
static void *zeros(int64_t bytes) {
    void *room = aligned_alloc(64, (bytes + 63) / 64 * 64);
    return room ? memset(room, 0, bytes) : room;
}

static int make_rows(Rows *rows, int64_t width, int64_t planes) {
    rows->stride = (width + 79) / 16 * 16 + 16; /* whole blocks and a step aside are in it */
    rows->planes = planes;
    rows->base = rows->next = 0;
    rows->words = zeros(4 * (KEPT + 4) * planes * rows->stride);
    return rows->words != 0;
}

SCAN static inline __m512i paired(__m512 low, __m512 high) {
    __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

/* PReLU: what is below zero, times a slope. */
SCAN static inline __m512 bent(__m512 x, float slope) {
    __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mul_ps(x, below, x, _mm512_set1_ps(slope));
}

SCAN static inline __m512 prelu(const float *sums, float bias, float slope) {
    return bent(_mm512_add_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(bias)), slope);
}

/* 0, step, 2 steps, ... 15 steps. */
SCAN static inline __m512i apart(int step) {
    __m512i count = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_mullo_epi32(count, _mm512_set1_epi32(step));
}

/* Every other one of 32 values, from the first on or from the second. */
SCAN static inline __m512 even(__m512 a, __m512 b) {
    return _mm512_permutex2var_ps(a, apart(2), b);
}

SCAN static inline __m512 odd(__m512 a, __m512 b) {
    return _mm512_permutex2var_ps(a, _mm512_add_epi32(apart(2), _mm512_set1_epi32(1)), b);
}

SCAN static inline __mmask16 lanes(int64_t count) {
    return count >= SIDE ? 0xffff : count <= 0 ? 0 : (__mmask16)((1 << count) - 1);
}

/* A row of a level, (3, height, width): each value beside the one to its right. */
SCAN static void take_row(const float *row, int64_t plane, int64_t width, Rows *to) {
    uint32_t *out = next_row(to, 2);
    for (int64_t c = 0; c < 3; c++, row += plane, out += to->stride)
        for (int64_t x = 0; x < width; x += SIDE) {
            __m512 here = _mm512_maskz_loadu_ps(lanes(width - x), row + x);
            __m512 right = _mm512_maskz_loadu_ps(lanes(width - x - 1), row + x + 1);
            _mm512_storeu_si512(out + x, paired(here, right));
        }
}

typedef struct {
    const uint32_t *first, *second, *third; /* tiles of the convolutions */
    const float *values;                    /* biases and slopes, then the head */
} Pnet;

/* Rows 2p and, where there is `both`, 2p + 1 of the first convolution, pooled: row p. */
SCAN static void first_row(const Rows *from, Rows *to, int64_t p, int64_t width, int both,
                           const Pnet *net) {
    const float *bias = net->values, *slope = bias + 16;
    const uint32_t *in = row_of(from, 2 * p);
    uint32_t *out = next_row(to, 2);
    int64_t step = 4 * from->stride;
    __m512 none = _mm512_set1_ps(-__builtin_inff());
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    LOAD(4, net->first, 64);
    LOAD(5, net->first + TILE_WORDS, 64);
    for (int64_t x = 0; x < width; x += 2 * SIDE) {
        LOAD(6, in + x, step);
        LOAD(7, in + x + SIDE, step);
        ZERO(0); ZERO(1); ZERO(2); ZERO(3);
        DOT(0, 4, 6); DOT(1, 4, 7); DOT(2, 5, 6); DOT(3, 5, 7);
        LOAD(6, in + x + 2, step);
        LOAD(7, in + x + SIDE + 2, step);
        LOAD(4, net->first + 2 * TILE_WORDS, 64);
        LOAD(5, net->first + 3 * TILE_WORDS, 64);
        DOT(0, 4, 6); DOT(1, 4, 7); DOT(2, 5, 6); DOT(3, 5, 7);
        LOAD(4, net->first, 64);
        LOAD(5, net->first + TILE_WORDS, 64);
        STORE(0, sums[0]); STORE(1, sums[1]); STORE(2, sums[2]); STORE(3, sums[3]);
        __mmask16 left = lanes(width - x), right = lanes(width - x - SIDE);
        __m512 pooled[10];
        for (int64_t c = 0; c < 10; c++) {
            __m512 a = prelu(sums[0] + SIDE * c, bias[c], slope[c]);
            __m512 b = prelu(sums[1] + SIDE * c, bias[c], slope[c]);
            if (both) {
                a = _mm512_max_ps(a, prelu(sums[2] + SIDE * c, bias[c], slope[c]));
                b = _mm512_max_ps(b, prelu(sums[3] + SIDE * c, bias[c], slope[c]));
            }
            a = _mm512_mask_blend_ps(left, none, a);
            b = _mm512_mask_blend_ps(right, none, b);
            pooled[c] = _mm512_max_ps(even(a, b), odd(a, b));
        }
        __mmask16 there = lanes((width - x + 1) / 2);
        for (int64_t c = 0; c < 5; c++)
            _mm512_storeu_si512(
                out + c * to->stride + x / 2,
                _mm512_maskz_mov_epi32(there, paired(pooled[2 * c], pooled[2 * c + 1])));
    }
}

/* Row q of the second convolution. */
SCAN static void second_row(const Rows *from, Rows *to, int64_t q, int64_t width,
                            const Pnet *net) {
    const float *bias = net->values + 32, *slope = bias + 16;
    const uint32_t *in = row_of(from, q);
    uint32_t *out = next_row(to, 2);
    int64_t step = 4 * from->stride;
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    LOAD(4, net->second, 64);
    LOAD(5, net->second + TILE_WORDS, 64);
    LOAD(6, net->second + 2 * TILE_WORDS, 64);
#define THIRDS(n)                                                                                 \
    ZERO(n);                                                                                      \
    LOAD(7, in + x + n * SIDE, step); DOT(n, 4, 7);                                               \
    LOAD(7, in + x + n * SIDE + 1, step); DOT(n, 5, 7);                                           \
    LOAD(7, in + x + n * SIDE + 2, step); DOT(n, 6, 7);
    for (int64_t x = 0; x < width; x += 4 * SIDE) {
        THIRDS(0) THIRDS(1) THIRDS(2) THIRDS(3)
        STORE(0, sums[0]); STORE(1, sums[1]); STORE(2, sums[2]); STORE(3, sums[3]);
        for (int64_t n = 0; n < 4 && x + n * SIDE < width; n++)
            for (int64_t c = 0; c < 16; c += 2) {
                __m512 low = prelu(sums[n] + SIDE * c, bias[c], slope[c]);
                __m512 high = prelu(sums[n] + SIDE * (c + 1), bias[c + 1], slope[c + 1]);
                _mm512_storeu_si512(out + c / 2 * to->stride + x + n * SIDE, paired(low, high));
            }
    }
}

/* A row of the third convolution and of the head: `out` (width,). */
SCAN static void third_row(const Rows *from, int64_t row, int64_t width, const Pnet *net,
                           float *out) {
    const float *bias = net->values + 64, *slope = bias + 32, *head = slope + 32;
    const uint32_t *in = row_of(from, row);
    int64_t step = 4 * from->stride;
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    for (int64_t x = 0; x < width; x += 2 * SIDE) {
        const uint32_t *tile = net->third;
        ZERO(0); ZERO(1); ZERO(2); ZERO(3);
        for (int64_t k = 0; k < 6; k++, tile += 2 * TILE_WORDS) {
            const uint32_t *at = in + (k % 2) * 2 * from->planes * from->stride + x + k / 2;
            LOAD(4, tile, 64);
            LOAD(6, at, step);
            DOT(0, 4, 6);
            LOAD(7, at + SIDE, step);
            DOT(1, 4, 7);
            LOAD(5, tile + TILE_WORDS, 64);
            DOT(2, 5, 6);
            DOT(3, 5, 7);
        }
        STORE(0, sums[0]); STORE(1, sums[1]); STORE(2, sums[2]); STORE(3, sums[3]);
        for (int64_t n = 0; n < 2; n++) {
            __m512 total = _mm512_set1_ps(head[32]), other = _mm512_setzero_ps();
            for (int64_t c = 0; c < 16; c++) {
                total = _mm512_fmadd_ps(prelu(sums[n] + SIDE * c, bias[c], slope[c]),
                                        _mm512_set1_ps(head[c]), total);
                other = _mm512_fmadd_ps(prelu(sums[2 + n] + SIDE * c, bias[16 + c], slope[16 + c]),
                                        _mm512_set1_ps(head[16 + c]), other);
            }
            _mm512_mask_storeu_ps(out + x + n * SIDE, lanes(width - x - n * SIDE),
                                  _mm512_add_ps(total, other));
        }
    }
}

SCAN static void scan(const float *level, int64_t height, int64_t width, Rows *rows,
                      const Pnet *net, float *out) {
    int64_t count = (height - 1) / 2, columns = (width - 1) / 2 - 4, taken = 0;
    for (int64_t p = 0; p < count; p++) {
        for (; taken < 2 * p + 4 && taken < height; taken++)
            take_row(level + taken * width, height * width, width, &rows[0]);
        first_row(&rows[0], &rows[1], p, width - 2, 2 * p + 3 < height, net);
        if (p >= 2) second_row(&rows[1], &rows[2], p - 2, columns + 2, net);
        if (p >= 4) third_row(&rows[2], p - 4, columns, net, out + (p - 4) * columns);
    }
}

static void begin_tiles(void) {
    static const struct {
        uint8_t palette, start, zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
}

static void end_tiles(void) { __asm__ volatile("tilerelease" ::); }

/* How surely the cells of levels, float32 (count, 3, height, width), show a face: the logarithm of
   the odds. tiles: weights in bfloat16, in tiles of 16 x 32 that begin with a line of the cache;
   values: what else the network has. Returns 1 without memory. */
int facenet_glance(const float *levels, int64_t count, int64_t height, int64_t width,
                   const uint32_t *tiles, const float *values, float *out) {
    Pnet net = {tiles, tiles + 4 * TILE_WORDS, tiles + 7 * TILE_WORDS, values};
    int64_t cells = ((height - 1) / 2 - 4) * ((width - 1) / 2 - 4);
    int failed = 0;
    begin_tiles();
    for (int64_t n = 0; n < count && !failed; n++, levels += 3 * height * width, out += cells) {
        Rows rows[3] = {{0}};
        failed = !(make_rows(&rows[0], width, 3) && make_rows(&rows[1], width / 2, 5) &&
                   make_rows(&rows[2], width / 2, 8));
        if (!failed) scan(levels, height, width, rows, &net, out);
        for (int k = 0; k < 3; k++) free(rows[k].words);
    }
    end_tiles();
    return failed;
}

#include "glance_rnet.c"

/* One value of 16 windows. */
typedef __m512 Lanes;

/* A point of a convolution of 3 x 3 with PReLU: 16 of its channels or fewer. from: planes of
   `stride` squared points, its first point; weights: (planes, 3, 3, all). */
#define POINT(Name, Channels)                                                                     \
    SCAN static inline void Name(const Lanes *from, int64_t planes, int64_t stride,               \
                                 const float *weights, int64_t all, const float *bias,            \
                                 const float *slope, Lanes *out) {                                \
        Lanes sums[Channels];                                                                     \
        for (int o = 0; o < Channels; o++) sums[o] = _mm512_set1_ps(bias[o]);                     \
        for (int64_t c = 0; c < planes; c++, from += stride * stride)                             \
            for (int64_t y = 0; y < 3; y++)                                                       \
                for (int64_t x = 0; x < 3; x++, weights += all) {                                 \
                    Lanes value = from[y * stride + x];                                           \
                    _Pragma("GCC unroll 16") for (int o = 0; o < Channels; o++) sums[o] =         \
                        _mm512_fmadd_ps(value, _mm512_set1_ps(weights[o]), sums[o]);              \
                }                                                                                 \
        for (int o = 0; o < Channels; o++) out[o] = bent(sums[o], slope[o]);                      \
    }

POINT(ten, 10)
POINT(sixteen, 16)

enum { WINDOW = 3 * 12 * 12, LEFT = 27 * 10 + 20, MIDDLE = 90 * 16 + 32, RIGHT = 144 * 32 + 64 };

/* 16 windows at once, each in its lane; weights in the order in which they are needed. Which
   windows have a last row, a last column. */
SCAN static void sixteen_windows(const Lanes *in, __mmask16 row, __mmask16 column,
                                 const float *weights, Lanes said[5]) {
    Lanes pooled[10 * 25], second[16 * 9], third[32];
    const float *bias = weights + 270;
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 5; x++)
            for (int n = 0; n < 4; n++) {
                Lanes point[10];
                ten(in + (2 * y + n / 2) * 12 + 2 * x + n % 2, 3, 12, weights, 10, bias, bias + 10,
                    point);
                __mmask16 there = 0xffff;
                if (2 * y + n / 2 == 9) there &= row;
                if (2 * x + n % 2 == 9) there &= column;
                for (int c = 0; c < 10; c++) {
                    Lanes *best = &pooled[25 * c + 5 * y + x];
                    *best = n ? _mm512_mask_max_ps(*best, there, *best, point[c]) : point[c];
                }
            }
    weights += LEFT;
    bias = weights + 90 * 16;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            Lanes point[16];
            sixteen(pooled + 5 * y + x, 10, 5, weights, 16, bias, bias + 16, point);
            for (int c = 0; c < 16; c++) second[9 * c + 3 * y + x] = point[c];
        }
    weights += MIDDLE;
    bias = weights + 144 * 32;
    for (int half = 0; half < 32; half += 16)
        sixteen(second, 16, 3, weights + half, 32, bias + half, bias + 32 + half, third + half);
    weights += RIGHT;
    for (int n = 0; n < 5; n++, weights += 33) {
        said[n] = _mm512_set1_ps(weights[32]);
        for (int c = 0; c < 32; c++)
            said[n] = _mm512_fmadd_ps(third[c], _mm512_set1_ps(weights[c]), said[n]);
    }
}

/* P-net in float32 of windows (count, 3, 12, 12): five answers each, the first the logarithm of
   the odds. rows, columns: how many of a window are in its level, 11 or 12. */
SCAN void facenet_judge(const float *windows, const uint8_t *rows, const uint8_t *columns,
                        int64_t count, const float *weights, float *out) {
    for (int64_t n = 0; n < count; n += SIDE, windows += SIDE * WINDOW) {
        __mmask16 there = lanes(count - n);
        Lanes in[WINDOW], said[5];
        __mmask16 row = 0, column = 0;
        for (int64_t i = 0; i < SIDE && n + i < count; i++) {
            row |= (rows[n + i] > 11) << i;
            column |= (columns[n + i] > 11) << i;
        }
        for (int64_t k = 0; k < WINDOW; k++)
            in[k] = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, apart(WINDOW),
                                             windows + k, 4);
        sixteen_windows(in, row, column, weights, said);
        for (int k = 0; k < 5; k++) {
            float values[SIDE];
            _mm512_storeu_ps(values, said[k]);
            for (int64_t i = 0; i < SIDE && n + i < count; i++) out[5 * (n + i) + k] = values[i];
        }
    }
}

/* Whether this processor and system have what `facenet_glance` needs; asks the system for it. */
int facenet_can_glance(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    int matrices = (d >> 22 & 1) && (d >> 24 & 1);
    int vectors = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return 0;
    return matrices && vectors && (a >> 5 & 1) && !syscall(SYS_arch_prctl, 0x1023, 18);
}

#else

int facenet_glance_crops(const float *crops, int64_t count, const uint32_t *tiles,
                         const float *values, float *out) {
    (void)crops, (void)count, (void)tiles, (void)values, (void)out;
    return 1;
}

int facenet_glance(const float *levels, int64_t count, int64_t height, int64_t width,
                 const uint32_t *tiles, const float *values, float *out) {
    (void)levels, (void)count, (void)height, (void)width, (void)tiles, (void)values, (void)out;
    return 1;
}

void facenet_judge(const float *windows, const uint8_t *rows, const uint8_t *columns,
                   int64_t count, const float *weights, float *out) {
    (void)windows, (void)rows, (void)columns, (void)count, (void)weights, (void)out;
}

int facenet_can_glance(void) { return 0; }

#endif
