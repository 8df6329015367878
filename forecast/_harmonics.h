/* Matrix products, and transforms between fields and coefficients of spherical harmonics.

   Fields are (longitude, latitude, channel), coefficients (order m, part, degree l, channel), of
   which those with l < m are never read. Channels come in multiples of LANES. Symmetries are used
   throughout: of the harmonics about the equator (latitudes come in pairs, north and south), and of
   sines and cosines about quarters of a circle of latitude.

   Every sum is taken in one order, whatever vectors the processor has: all builds give the same
   bits. */

#include <stdint.h>

#define LANES 16 /* channels come in multiples of it */
#ifdef __AVX512F__
#define WIDTH 16  /* of a vector */
#define VECTORS 4 /* in a row of a tile of a matrix product, which is kept in registers */
#else
#define WIDTH 8
#define VECTORS 2
#endif
#define ROWS 6 /* of such a tile */
#define INLINE static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

struct transform { /* of a grid; a northern latitude may be the equator */
    int64_t degrees, longitudes, latitudes;
    const float *quadrature;   /* (m, l, northern latitude): from waves to coefficients */
    const float *scalar;       /* likewise, from coefficients to waves */
    const float *south, *east; /* likewise, to components of gradients; east by part */
    const float *into[4]; /* (wave, place): cosines of even, sines of even, cosines of odd ... */
    const float *back[4]; /* (place, wave) */
};

INLINE vector load(const float *from) { return *(const vector *)from; }
INLINE void store(float *to, vector value) { *(vector *)to = value; }

/* ---- matrix products ---- */

/* rows x vectors of c (+)= a b; a's element (r, k) is a[r ar + k ak]; rows of b and c lie bk, cr
 * apart. */
INLINE void tile(const int rows, const int vectors, const int add, int64_t depth, const float *a,
                 int64_t ar, int64_t ak, const float *b, int64_t bk, float *c, int64_t cr)
{
    vector sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            sum[r][v] = add ? load(c + r * cr + v * WIDTH) : (vector){0};
    for (int64_t k = 0; k < depth; k++, a += ak, b += bk) {
        vector right[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            right[v] = load(b + v * WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++)
                sum[r][v] += a[r * ar] * right[v];
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            store(c + r * cr + v * WIDTH, sum[r][v]);
}

#define TILE(r, v) tile(r, v, add, depth, a, ar, ak, b, bk, c, cr)

INLINE void strip(const int vectors, const int add, int64_t rows, int64_t depth, const float *a,
                  int64_t ar, int64_t ak, const float *b, int64_t bk, float *c, int64_t cr)
{
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * ar, c += ROWS * cr)
        TILE(ROWS, vectors);
    switch (rows) {
    case 5: TILE(5, vectors); break;
    case 4: TILE(4, vectors); break;
    case 3: TILE(3, vectors); break;
    case 2: TILE(2, vectors); break;
    case 1: TILE(1, vectors); break;
    }
}

INLINE void product_of(const int add, int64_t rows, int64_t depth, int64_t columns, const float *a,
                       int64_t ar, int64_t ak, const float *b, int64_t bk, float *c, int64_t cr)
{
    int64_t left = columns / WIDTH;
    for (; left >= VECTORS; left -= VECTORS, b += VECTORS * WIDTH, c += VECTORS * WIDTH)
        strip(VECTORS, add, rows, depth, a, ar, ak, b, bk, c, cr);
#if VECTORS == 4
    switch (left) {
    case 3: strip(3, add, rows, depth, a, ar, ak, b, bk, c, cr); break;
    case 2: strip(2, add, rows, depth, a, ar, ak, b, bk, c, cr); break;
    case 1: strip(1, add, rows, depth, a, ar, ak, b, bk, c, cr); break;
    }
#endif
}

/* c = a b, with `rows` rows and `columns` columns, and sums of `depth` terms. */
static void product(int64_t rows, int64_t depth, int64_t columns, const float *a, int64_t ar,
                    int64_t ak, const float *b, int64_t bk, float *c, int64_t cr)
{
    product_of(0, rows, depth, columns, a, ar, ak, b, bk, c, cr);
}

/* c += a b */
static void add_product(int64_t rows, int64_t depth, int64_t columns, const float *a, int64_t ar,
                        int64_t ak, const float *b, int64_t bk, float *c, int64_t cr)
{
    product_of(1, rows, depth, columns, a, ar, ak, b, bk, c, cr);
}

/* ---- waves along longitude: (m, part, parity about the equator, northern latitude, channel) ----
 */

INLINE int64_t even_waves(int64_t degrees) { return (degrees + 1) / 2; }

/* Waves of (longitude, channel), by sums and differences over quarters of the circle. `folded`
   holds as much; waves lie `step` apart in m, and their parts `part`. */
static void to_waves(const struct transform *grid, int64_t channels, const float *places,
                     float *folded, float *waves, int64_t step, int64_t part)
{
    const int64_t half = grid->longitudes / 2, quarter = half / 2, even = even_waves(grid->degrees);
    const int64_t odd = grid->degrees - even;
    float *even_cosine = folded, *even_sine = even_cosine + (quarter + 1) * channels;
    float *odd_cosine = even_sine + (quarter - 1) * channels;
    float *odd_sine = odd_cosine + quarter * channels;
    for (int64_t v = 0; v < channels; v += WIDTH) {
        const float *from = places + v;
        for (int64_t j = 0; j <= quarter; j += quarter) {
            const vector here = load(from + j * channels),
                         there = load(from + (j + half) * channels);
            store(even_cosine + j * channels + v, here + there);
            store((j ? odd_sine + (quarter - 1) * channels : odd_cosine) + v, here - there);
        }
        for (int64_t j = 1; j < quarter; j++) {
            const vector a = load(from + j * channels), b = load(from + (j + half) * channels);
            const vector c = load(from + (half - j) * channels);
            const vector d = load(from + (2 * half - j) * channels);
            const vector s = a + b, t = c + d, x = a - b, y = c - d;
            store(even_cosine + j * channels + v, s + t);
            store(even_sine + (j - 1) * channels + v, s - t);
            store(odd_cosine + j * channels + v, x - y);
            store(odd_sine + (j - 1) * channels + v, x + y);
        }
    }
    const int64_t next = 2 * step;
    product(even, quarter + 1, channels, grid->into[0], quarter + 1, 1, even_cosine, channels,
            waves, next);
    product(even, quarter - 1, channels, grid->into[1], quarter - 1, 1, even_sine, channels,
            waves + part, next);
    waves += step;
    product(odd, quarter, channels, grid->into[2], quarter, 1, odd_cosine, channels, waves, next);
    product(odd, quarter, channels, grid->into[3], quarter, 1, odd_sine, channels, waves + part,
            next);
}

/* Places of one latitude, which lie `apart`, from its waves, (m, part, channel). */
static void from_waves(const struct transform *grid, int64_t channels, const float *waves,
                       float *folded, float *places, int64_t apart)
{
    const int64_t half = grid->longitudes / 2, quarter = half / 2, even = even_waves(grid->degrees);
    const int64_t odd = grid->degrees - even, next = 4 * channels;
    float *even_cosine = folded, *even_sine = even_cosine + (quarter + 1) * channels;
    float *odd_cosine = even_sine + (quarter - 1) * channels;
    float *odd_sine = odd_cosine + quarter * channels;
    product(quarter + 1, even, channels, grid->back[0], even, 1, waves, next, even_cosine,
            channels);
    product(quarter - 1, even, channels, grid->back[1], even, 1, waves + channels, next, even_sine,
            channels);
    waves += 2 * channels;
    product(quarter, odd, channels, grid->back[2], odd, 1, waves, next, odd_cosine, channels);
    product(quarter, odd, channels, grid->back[3], odd, 1, waves + channels, next, odd_sine,
            channels);
    for (int64_t v = 0; v < channels; v += WIDTH) {
        float *to = places + v;
        for (int64_t j = 0; j <= quarter; j += quarter) {
            const vector e = load(even_cosine + j * channels + v);
            const vector o = load((j ? odd_sine + (quarter - 1) * channels : odd_cosine) + v);
            store(to + j * apart, e + o);
            store(to + (j + half) * apart, e - o);
        }
        for (int64_t j = 1; j < quarter; j++) {
            const vector p = load(even_cosine + j * channels + v);
            const vector q = load(even_sine + (j - 1) * channels + v);
            const vector r = load(odd_cosine + j * channels + v);
            const vector s = load(odd_sine + (j - 1) * channels + v);
            const vector e = p + q, f = p - q, o = s + r, w = s - r;
            store(to + j * apart, e + o);
            store(to + (j + half) * apart, e - o);
            store(to + (half - j) * apart, f + w);
            store(to + (2 * half - j) * apart, f - w);
        }
    }
}

/* ---- transforms ---- */

/* Coefficients of fields. */
static void analyse(const struct transform *grid, int64_t channels, const float *fields,
                    float *waves, float *folded, float *coefficients)
{
    const int64_t degrees = grid->degrees, north = (grid->latitudes + 1) / 2;
    const int64_t parity = north * channels, part = 2 * parity, order = 2 * part;
    const int64_t apart = grid->latitudes * channels;
    float *sums = folded + grid->longitudes * channels;
    float *differences = sums + grid->longitudes * channels;
    for (int64_t i = 0; i < north; i++) {
        const float *up = fields + i * channels, *down = fields + apart - (i + 1) * channels;
        for (int64_t j = 0; j < grid->longitudes; j++)
            for (int64_t v = 0; v < channels; v += WIDTH) {
                const vector a = load(up + j * apart + v), b = load(down + j * apart + v);
                store(sums + j * channels + v, a + b);
                store(differences + j * channels + v, a - b);
            }
        to_waves(grid, channels, sums, folded, waves + i * channels, order, part);
        to_waves(grid, channels, differences, folded, waves + parity + i * channels, order, part);
    }
    for (int64_t m = 0; m < degrees; m++)
        for (int64_t p = 0; p < 2; p++)
            for (int64_t l = m; l < degrees && l < m + 2; l++)
                product((degrees - l + 1) / 2, north, channels,
                        grid->quadrature + (m * degrees + l) * north, 2 * north, 1,
                        waves + m * order + p * part + (l - m) * parity, channels,
                        coefficients + ((2 * m + p) * degrees + l) * channels, 2 * channels);
}

/* Waves of the fields of coefficients, in `columns` channels of `wide`. The field is even about the
   equator where l - m is even, if `odd` is 0, and the other way round if it is 1. */
static void legendre(const struct transform *grid, const float *functions, int64_t odd, int64_t m,
                     const float *coefficients, int64_t channels, int64_t columns, float *waves,
                     int64_t wide)
{
    const int64_t degrees = grid->degrees, north = (grid->latitudes + 1) / 2;
    for (int64_t parity = 0; parity < 2; parity++) {
        const int64_t l = m + (parity ^ odd);
        product(north, (degrees - l + 1) / 2, columns, functions + (m * degrees + l) * north, 1,
                2 * north, coefficients + l * channels, 2 * channels, waves + parity * north * wide,
                wide);
    }
}

/* Fields of coefficients of `scalars + gradients` channels; the last ones become the southward
   components of their gradients, and behind them stand the eastward ones. */
static void synthesise(const struct transform *grid, int64_t scalars, int64_t gradients,
                       const float *coefficients, float *waves, float *folded, float *fields)
{
    const int64_t degrees = grid->degrees, north = (grid->latitudes + 1) / 2;
    const int64_t channels = scalars + gradients, wide = channels + gradients;
    const int64_t part = 2 * north * wide, row = degrees * channels;
    for (int64_t m = 0; m < degrees; m++)
        for (int64_t p = 0; p < 2; p++) {
            const float *own = coefficients + (2 * m + p) * row, *other = own + (p ? -row : row);
            float *wave = waves + (2 * m + p) * part;
            legendre(grid, grid->scalar, 0, m, own, channels, scalars, wave, wide);
            legendre(grid, grid->south, 1, m, own + scalars, channels, gradients, wave + scalars,
                     wide);
            legendre(grid, grid->east + p * degrees * degrees * north, 0, m, other + scalars,
                     channels, gradients, wave + channels, wide);
        }
    const int64_t apart = grid->latitudes * wide;
    float *up = folded + grid->longitudes * wide, *down = up + 2 * degrees * wide;
    for (int64_t i = 0; i < north; i++) {
        for (int64_t k = 0; k < 2 * degrees; k++)
            for (int64_t v = 0; v < wide; v += WIDTH) {
                const float *wave = waves + k * part + i * wide + v;
                const vector even = load(wave), odd = load(wave + north * wide);
                store(up + k * wide + v, even + odd);
                store(down + k * wide + v, even - odd);
            }
        from_waves(grid, wide, up, folded, fields + i * wide, apart);
        from_waves(grid, wide, down, folded, fields + apart - (i + 1) * wide, apart);
    }
}
