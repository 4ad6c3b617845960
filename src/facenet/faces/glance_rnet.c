/* R-net in bfloat16 with AMX; `glance.c` includes this, and says how a convolution is made.

   16 crops lie beside each other, as one picture that is 24 pixels high: after the first pooling a
   row has 12 places for each crop, of which 11 count, after the second 6, of which 4 count. */

enum { CROP = 24, CROPS = 16, WIDE = CROP * CROPS, SPARE = 48, PAIR = 2 * CROP };
enum { STEP1 = WIDE + SPARE, STEP2 = WIDE / 2 + SPARE, STEP3 = WIDE / 4 + SPARE };

typedef struct {
    uint32_t crops[(CROP + 4) * 3 * STEP1], first[(11 + 2) * 14 * STEP2], second[5 * 24 * STEP3];
    uint32_t third[9 * 32 * CROPS];
    float upper[28][PAIR + SPARE], tall[28][PAIR + SPARE], wide[2][STEP2];
    float rows[3][48][STEP2], last[64][STEP3];
} Room;

typedef struct {
    const uint32_t *first, *second, *third, *dense; /* tiles */
    const float *values;                            /* biases and slopes, then the head */
} Rnet;

/* Four sums at a time, in tiles 0 to 3: begun, added to (tile 4 times four tiles of weights that
   follow each other), and put away. */
SCAN static inline void zero_four(void) {
    ZERO(0); ZERO(1); ZERO(2); ZERO(3);
}

SCAN static inline void dot_four(const uint32_t *tile) {
    LOAD(5, tile, 64);
    DOT(0, 5, 4);
    LOAD(6, tile + TILE_WORDS, 64);
    DOT(1, 6, 4);
    LOAD(5, tile + 2 * TILE_WORDS, 64);
    DOT(2, 5, 4);
    LOAD(6, tile + 3 * TILE_WORDS, 64);
    DOT(3, 6, 4);
}

SCAN static inline void store_four(float sums[4][TILE_WORDS]) {
    STORE(0, sums[0]); STORE(1, sums[1]); STORE(2, sums[2]); STORE(3, sums[3]);
}

/* The largest of three values beside each other, from every other one on: 16 of them. */
SCAN static inline __m512 widest(const float *row) {
    __m512 a = _mm512_loadu_ps(row), b = _mm512_loadu_ps(row + SIDE);
    __m512 c = _mm512_loadu_ps(row + 2), d = _mm512_loadu_ps(row + SIDE + 2);
    return _mm512_max_ps(_mm512_max_ps(even(a, b), odd(a, b)), even(c, d));
}

SCAN static void narrow(const float *low, const float *high, int64_t width, uint32_t *out) {
    for (int64_t x = 0; x < width; x += SIDE)
        _mm512_storeu_si512(out + x, paired(widest(low + 2 * x), widest(high + 2 * x)));
}

/* Crops, float32 (., 3, 24, 24), each value beside the one to its right. */
SCAN static void take_crops(const float *crops, int64_t count, Room *room) {
    for (int64_t n = 0; n < count; n++)
        for (int64_t c = 0; c < 3; c++)
            for (int64_t y = 0; y < CROP; y++, crops += CROP) {
                uint32_t *out = room->crops + (3 * y + c) * STEP1 + CROP * n;
                for (int64_t x = 0; x < CROP; x += SIDE) {
                    __m512 here = _mm512_maskz_loadu_ps(lanes(CROP - x), crops + x);
                    __m512 right = _mm512_maskz_loadu_ps(lanes(CROP - x - 1), crops + x + 1);
                    _mm512_mask_storeu_epi32(out + x, lanes(CROP - x), paired(here, right));
                }
            }
}

/* Rows 2p and 2p + 1 of the first convolution of two crops, from a column on: the first of them
   completes row p - 1 after pooling, and both begin row p, in `upper`. Columns 22 and 23 of a crop
   count for nothing. */
SCAN static void crops_first(Room *room, int64_t start, int64_t p, const Rnet *net) {
    static const __mmask16 counts[3] = {0xffff, 0xff3f, 0x3fff};
    const float *bias = net->values, *slope = bias + 32;
    const uint32_t *in = room->crops + 2 * p * 3 * STEP1 + start;
    __m512 none = _mm512_set1_ps(-__builtin_inff());
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    for (int64_t x = 0; x < PAIR; x += SIDE) {
        const uint32_t *tile = net->first;
        zero_four();
        for (int64_t k = 0; k < 2; k++, tile += 4 * TILE_WORDS) {
            LOAD(4, in + x + 2 * k, 4 * STEP1);
            dot_four(tile);
        }
        store_four(sums);
        __mmask16 count = counts[x / SIDE];
        for (int64_t c = 0; c < 28; c++) {
            __m512 one = prelu(sums[c / 16] + SIDE * (c % 16), bias[c], slope[c]);
            __m512 two = prelu(sums[2 + c / 16] + SIDE * (c % 16), bias[c], slope[c]);
            __m512 above = _mm512_loadu_ps(room->upper[c] + x);
            one = _mm512_mask_blend_ps(count, none, one);
            _mm512_storeu_ps(room->tall[c] + x, _mm512_max_ps(above, one));
            _mm512_storeu_ps(room->upper[c] + x, _mm512_mask_max_ps(none, count, one, two));
        }
    }
    for (int64_t c = 0; p && c < 14; c++)
        narrow(room->tall[2 * c], room->tall[2 * c + 1], PAIR / 2,
               room->first + ((p - 1) * 14 + c) * STEP2 + start / 2);
}

/* Row y of the second convolution; every other one completes a row after pooling. */
SCAN static void crops_second(Room *room, int64_t y, const Rnet *net) {
    const float *bias = net->values + 64, *slope = bias + 48;
    float sums[6][TILE_WORDS] __attribute__((aligned(64)));
    for (int64_t x = 0; x < WIDE / 2; x += 2 * SIDE) {
        const uint32_t *tile = net->second;
        zero_four(); ZERO(4); ZERO(5);
        for (int64_t k = 0; k < 9; k++, tile += 3 * TILE_WORDS) {
            const uint32_t *at = room->first + (y + k / 3) * 14 * STEP2 + x + k % 3;
            LOAD(6, at, 4 * STEP2);
            LOAD(7, tile, 64);
            DOT(0, 7, 6);
            LOAD(7, tile + TILE_WORDS, 64);
            DOT(1, 7, 6);
            LOAD(7, tile + 2 * TILE_WORDS, 64);
            DOT(2, 7, 6);
            LOAD(6, at + SIDE, 4 * STEP2);
            DOT(5, 7, 6);
            LOAD(7, tile + TILE_WORDS, 64);
            DOT(4, 7, 6);
            LOAD(7, tile, 64);
            DOT(3, 7, 6);
        }
        STORE(0, sums[0]); STORE(1, sums[1]); STORE(2, sums[2]);
        STORE(3, sums[3]); STORE(4, sums[4]); STORE(5, sums[5]);
        for (int64_t n = 0; n < 2; n++)
            for (int64_t c = 0; c < 48; c++)
                _mm512_storeu_ps(room->rows[y % 3][c] + x + n * SIDE,
                                 prelu(sums[3 * n + c / 16] + SIDE * (c % 16), bias[c], slope[c]));
    }
    for (int64_t c = 0; y >= 2 && y % 2 == 0 && c < 48; c++) {
        for (int64_t x = 0; x < WIDE / 2; x += SIDE) {
            __m512 most = _mm512_loadu_ps(room->rows[0][c] + x);
            most = _mm512_max_ps(most, _mm512_loadu_ps(room->rows[1][c] + x));
            most = _mm512_max_ps(most, _mm512_loadu_ps(room->rows[2][c] + x));
            _mm512_storeu_ps(room->wide[c % 2] + x, most);
        }
        if (c % 2)
            narrow(room->wide[0], room->wide[1], WIDE / 4,
                   room->second + ((y / 2 - 1) * 24 + c / 2) * STEP3);
    }
}

/* Row y of the third convolution, with the crops in lanes. */
SCAN static void crops_third(Room *room, int64_t y, const Rnet *net) {
    const float *bias = net->values + 160, *slope = bias + 64;
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    for (int64_t x = 0; x < WIDE / 4; x += SIDE) {
        const uint32_t *tile = net->third;
        zero_four();
        for (int64_t k = 0; k < 6; k++, tile += 4 * TILE_WORDS) {
            LOAD(4, room->second + (y * 24 + k / 2 * 16) * STEP3 + x + k % 2, 4 * STEP3);
            dot_four(tile);
        }
        store_four(sums);
        for (int64_t c = 0; c < 64; c++)
            _mm512_storeu_ps(room->last[c] + x,
                             prelu(sums[c / 16] + SIDE * (c % 16), bias[c], slope[c]));
    }
    __m512i crop = apart(6);
    for (int64_t x = 0; x < 3; x++)
        for (int64_t c = 0; c < 32; c++)
            _mm512_storeu_si512(room->third + ((3 * y + x) * 32 + c) * CROPS,
                                paired(_mm512_i32gather_ps(crop, room->last[2 * c] + x, 4),
                                       _mm512_i32gather_ps(crop, room->last[2 * c + 1] + x, 4)));
}

/* The dense layer and the head: the logarithm of the odds of 16 crops. */
SCAN static __m512 crops_end(Room *room, const Rnet *net) {
    const float *bias = net->values + 288, *slope = bias + 128, *head = slope + 128;
    __m512 total = _mm512_set1_ps(head[128]);
    const uint32_t *tile = net->dense;
    float sums[4][TILE_WORDS] __attribute__((aligned(64)));
    for (int64_t half = 0; half < 128; half += 64) {
        zero_four();
        for (int64_t k = 0; k < 18; k++, tile += 4 * TILE_WORDS) {
            LOAD(4, room->third + k * TILE_WORDS, 64);
            dot_four(tile);
        }
        store_four(sums);
        for (int64_t c = 0; c < 64; c++)
            total = _mm512_fmadd_ps(
                prelu(sums[c / 16] + SIDE * (c % 16), bias[half + c], slope[half + c]),
                _mm512_set1_ps(head[half + c]), total);
    }
    return total;
}

/* How surely crops, float32 (count, 3, 24, 24), show a face: the logarithm of the odds. tiles,
   values: as for `facenet_glance`. Returns 1 without memory. */
SCAN int facenet_glance_crops(const float *crops, int64_t count, const uint32_t *tiles,
                              const float *values, float *out) {
    Rnet net = {tiles, tiles + 8 * TILE_WORDS, tiles + 35 * TILE_WORDS, tiles + 59 * TILE_WORDS,
                values};
    Room *room = zeros(sizeof *room);
    if (!room) return 1;
    begin_tiles();
    for (int64_t n = 0; n < count; n += CROPS) {
        int64_t some = count - n < CROPS ? count - n : CROPS;
        take_crops(crops + n * 3 * CROP * CROP, some, room);
        for (int64_t x = 0; x < some * CROP; x += PAIR) {
            for (int64_t p = 0; p < 11; p++) crops_first(room, x, p, &net);
            for (int64_t c = 0; c < 14; c++) /* the last row has only two to pool */
                narrow(room->upper[2 * c], room->upper[2 * c + 1], PAIR / 2,
                       room->first + (10 * 14 + c) * STEP2 + x / 2);
        }
        for (int64_t y = 0; y < 9; y++) crops_second(room, y, &net);
        for (int64_t y = 0; y < 3; y++) crops_third(room, y, &net);
        _mm512_mask_storeu_ps(out + n, lanes(some), crops_end(room, &net));
    }
    end_tiles();
    free(room);
    return 0;
}
