/* Rows blended in one pass: each is read once, the sum stays in registers and is written once.

   out = rows[0]; out = out + share (row - out) for each further row, element by element, with one fused multiply-add, as
   torch.lerp computes it, to the last bit: from the nearer end of the two, so that a share of 1 gives the row itself.

   stream: write past the caches. A line that another core has read must be taken from that core before it can be
   written; a streaming store leaves that to the memory and waits for nobody. */

#include <math.h>
#include <stddef.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <emmintrin.h>

#define STEP 512     /* bytes that are summed in registers */
#define PIECE 65536  /* bytes of a row after which the next sum has its turn: rows that several sums read stay near */

static inline __attribute__((always_inline)) void put(void *out, const void *from, int stream)
{
    if (!stream) {
        __builtin_memcpy(out, from, STEP);
        return;
    }
    for (int i = 0; i < STEP; i += 16)
        _mm_stream_si128((__m128i *)((char *)out + i), _mm_loadu_si128((const __m128i *)((const char *)from + i)));
}

/* sums: how many. terms[s]: rows of sum s; rows, shares: those of all sums, one after the other. n: elements of a row. */
#define BLEND(name, real, fused, isa)                                                                                    \
    static __attribute__((target(isa))) void name(int sums, real **outs, const int *terms, const real **rows,            \
                                                  const double *shares, size_t n, int stream)                            \
    {                                                                                                                    \
        enum { WIDTH = STEP / sizeof(real), LENGTH = PIECE / sizeof(real) };                                             \
        for (size_t begin = 0; begin < n; begin += LENGTH) {                                                             \
            size_t end = begin + LENGTH < n ? begin + LENGTH : n, first = 0;                                             \
            for (int s = 0; s < sums; first += terms[s++])                                                               \
                for (size_t i = begin; i < end; i += WIDTH) {                                                            \
                    real total[WIDTH];                                                                                   \
                    for (int e = 0; e < WIDTH; e++)                                                                      \
                        total[e] = rows[first][i + e];                                                                   \
                    for (size_t j = first + 1; j < first + terms[s]; j++) {                                              \
                        const real *row = rows[j] + i, share = (real)shares[j];                                          \
                        if (share < (real)0.5 && share > (real)-0.5)                                                     \
                            for (int e = 0; e < WIDTH; e++)                                                              \
                                total[e] = fused(share, row[e] - total[e], total[e]);                                    \
                        else                                                                                             \
                            for (int e = 0; e < WIDTH; e++)                                                              \
                                total[e] = fused(share - (real)1, row[e] - total[e], row[e]);                            \
                    }                                                                                                    \
                    put(outs[s] + i, total, stream);                                                                     \
                }                                                                                                        \
        }                                                                                                                \
        _mm_sfence();                                                                                                    \
    }

BLEND(wide_float, float, __builtin_fmaf, "avx512f")
BLEND(wide_double, double, __builtin_fma, "avx512f")
BLEND(narrow_float, float, __builtin_fmaf, "avx2,fma")
BLEND(narrow_double, double, __builtin_fma, "avx2,fma")

static int width(void)
{
    return __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 32 : 0;
}

void blend_float(int sums, float **outs, const int *terms, const float **rows, const double *shares, size_t n, int stream)
{
    (width() == 64 ? wide_float : narrow_float)(sums, outs, terms, rows, shares, n, stream);
}

void blend_double(int sums, double **outs, const int *terms, const double **rows, const double *shares, size_t n, int stream)
{
    (width() == 64 ? wide_double : narrow_double)(sums, outs, terms, rows, shares, n, stream);
}

/* Return the bytes that rows must be a multiple of; 0 where this processor has no fused multiply-add. */
int blend_step(void)
{
    return width() ? STEP : 0;
}
#else
int blend_step(void)
{
    return 0;
}
#endif
