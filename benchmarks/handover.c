/* Handing a row from one core to another: GB/s of writing a row that another core has just read, and of reading what was written.

       cc -O2 -o handover benchmarks/handover.c && ./handover

   Two processes, each on a core of its own, take turns; x86-64. Medians of 100 turns, once with plain stores, once past the caches. */

#define _GNU_SOURCE
#include <emmintrin.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BYTES (270080 * 4)
#define TURNS 100

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void store(__m128i *out, const __m128i *from, int past)
{
    for (int i = 0; i < BYTES / 16; i++)
        if (past)
            _mm_stream_si128(out + i, from[i]);
        else
            out[i] = from[i];
    _mm_sfence();
}

static __m128i load(const __m128i *row)
{
    __m128i sum = _mm_setzero_si128();
    for (int i = 0; i < BYTES / 16; i++)
        sum = _mm_xor_si128(sum, row[i]);
    return sum;
}

static int ascending(const void *a, const void *b)
{
    return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b);
}

static double median(double *seconds)
{
    qsort(seconds, TURNS, sizeof *seconds, ascending);
    return seconds[TURNS / 2];
}

int main(void)
{
    char *shared = mmap(0, 4096 + BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile long *turn = (volatile long *)shared;
    volatile double *told = (volatile double *)(shared + 1024);
    __m128i *row = (__m128i *)(shared + 4096), *own = aligned_alloc(64, BYTES), *other = aligned_alloc(64, BYTES);
    volatile int sink;
    for (int i = 0; i < BYTES / 16; i++)
        own[i] = other[i] = _mm_set1_epi32(i);
    int reader = fork() == 0;
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(reader, &core);
    sched_setaffinity(0, sizeof core, &core);
    for (int past = 0; past < 2; past++) {
        double first[TURNS], second[TURNS];
        for (int t = 0; t < TURNS; t++) {
            long at = 2 * (past * TURNS + t) + reader;
            while (*turn != at)
                ;
            double start = now();
            if (reader)
                sink = _mm_cvtsi128_si32(load(row));
            else
                store(row, own, past);
            first[t] = now() - start;
            start = now();
            if (!reader)
                store(other, own, past);
            second[t] = now() - start;
            if (reader && t == TURNS - 1)
                told[past] = median(first);
            *turn = at + 1;
        }
        while (!reader && *turn != 2 * (past + 1) * TURNS)
            ;
        if (!reader)
            printf("%s: writes what the other has read %.1f, its own %.1f; reads what was written %.1f GB/s\n", past ? "past the caches" : "plain stores   ",
                   1e-9 * BYTES / median(first), 1e-9 * BYTES / median(second), 1e-9 * BYTES / told[past]);
    }
    if (!reader)
        wait(0);
    (void)sink;
}
