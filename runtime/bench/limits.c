/* limits.c - what this machine can do at most: reading memory, and f32 multiply-adds. */
#include "runtime/base/clock.h"
#include "runtime/bench/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES ((size_t)256 << 20) /* for each thread: far beyond a last-level cache */
#define THREADS_MAX  256u

struct limit_thread {
    pthread_t thread;
    pthread_barrier_t *barrier;
    uint64_t begin_ns, end_ns;
    const float *buffer;
    size_t floats;
    uint64_t rounds;
    bool arithmetic;
    float result; /* so that nothing is optimised away */
};

/* 64 chains of vector sums: enough loads in flight for any core. */
#define READ_BODY(lanes)                                                                           \
    typedef float vector __attribute__((vector_size(4 * (lanes)), aligned(4 * (lanes))));          \
    const vector *at = __builtin_assume_aligned(buffer, 64);                                       \
    vector sum[8] = {{0}};                                                                         \
    for (size_t i = 0; i + 8 <= floats / (lanes); i += 8)                                          \
        for (size_t j = 0; j < 8; j++)                                                             \
            sum[j] += at[i + j];                                                                   \
    float total = 0;                                                                               \
    for (size_t j = 0; j < 8; j++)                                                                 \
        total += sum[j][0];                                                                        \
    return total;

/* Independent multiply-add chains that fill the registers; constants such that they stay finite.
 * The pragma of the attribute's target lets the compiler use fma for a * b + c here, where no bits
 * are promised.
 */
#define FMA_CHAINS 24u
#define FMA_BODY(lanes, fma)                                                                       \
    typedef float vector __attribute__((vector_size(4 * (lanes))));                                \
    vector acc[FMA_CHAINS], a = {0}, b = {0};                                                      \
    a += 0.999f;                                                                                   \
    b += 0.001f;                                                                                   \
    for (size_t j = 0; j < FMA_CHAINS; j++)                                                        \
        acc[j] = b * (float)j;                                                                     \
    for (uint64_t r = 0; r < rounds; r++) {                                                        \
        _Pragma("GCC unroll 24") for (size_t j = 0; j < FMA_CHAINS; j++) fma;                      \
    }                                                                                              \
    float total = 0;                                                                               \
    for (size_t j = 0; j < FMA_CHAINS; j++)                                                        \
        total += acc[j][0];                                                                        \
    return total;

static float read_plain(const float *buffer, size_t floats)
{
    READ_BODY(4)
}

static float fma_plain(uint64_t rounds)
{
    FMA_BODY(4, acc[j] = acc[j] * a + b)
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f"))) static float read_avx512(const float *buffer, size_t floats)
{
    READ_BODY(16)
}
__attribute__((target("avx2,fma"))) static float read_avx2(const float *buffer, size_t floats)
{
    READ_BODY(8)
}
__attribute__((target("avx512f"))) static float fma_avx512(uint64_t rounds)
{
    FMA_BODY(16, acc[j] = (vector)_mm512_fmadd_ps((__m512)acc[j], (__m512)a, (__m512)b))
}
#undef FMA_CHAINS
#define FMA_CHAINS 12u
__attribute__((target("avx2,fma"))) static float fma_avx2(uint64_t rounds)
{
    FMA_BODY(8, acc[j] = (vector)_mm256_fmadd_ps((__m256)acc[j], (__m256)a, (__m256)b))
}
#endif

struct way {
    float (*read)(const float *buffer, size_t floats);
    float (*fma)(uint64_t rounds);
    double flops_per_round;
};

static struct way best_way(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return (struct way){read_avx512, fma_avx512, 2.0 * 16 * 24};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct way){read_avx2, fma_avx2, 2.0 * 8 * 12};
#endif
    return (struct way){read_plain, fma_plain, 2.0 * 4 * 24};
}

static void *limit_main(void *argument)
{
    struct limit_thread *self = argument;
    struct way way = best_way();
    pthread_barrier_wait(self->barrier);
    self->begin_ns = spw_clock_monotonic_ns();
    self->result = self->arithmetic ? way.fma(self->rounds) : way.read(self->buffer, self->floats);
    self->end_ns = spw_clock_monotonic_ns();
    return NULL;
}

/* Seconds of one run with all threads, or 0 when they cannot be had. */
static double run_once(uint32_t threads, bool arithmetic, const float *buffer, size_t floats,
                       uint64_t rounds)
{
    static struct limit_thread runs[THREADS_MAX];
    pthread_barrier_t barrier;
    assert(threads >= 1 && threads <= THREADS_MAX);
    pthread_barrier_init(&barrier, NULL, threads + 1);
    for (uint32_t t = 0; t < threads; t++) {
        runs[t] = (struct limit_thread){.barrier = &barrier,
                                        .buffer = buffer + (size_t)t * floats,
                                        .floats = floats,
                                        .rounds = rounds,
                                        .arithmetic = arithmetic};
        if (pthread_create(&runs[t].thread, NULL, limit_main, &runs[t]) != 0)
            abort(); /* a benchmark that cannot start its threads has nothing to say */
    }
    pthread_barrier_wait(&barrier);
    /* the threads' own times: this one may not get a core while they run */
    uint64_t begin = UINT64_MAX, end = 0;
    for (uint32_t t = 0; t < threads; t++) {
        pthread_join(runs[t].thread, NULL);
        begin = SPW_MIN(begin, runs[t].begin_ns);
        end = SPW_MAX(end, runs[t].end_ns);
    }
    pthread_barrier_destroy(&barrier);
    return (double)(end - begin) * 1e-9;
}

/* A limit is the best of several runs: a neighbour's noise is not the machine's. */
double spw_bench_limit_read(uint32_t threads, bool quick)
{
    threads = SPW_MIN(SPW_MAX(threads, 1u), THREADS_MAX);
    size_t bytes = BUFFER_BYTES;
    float *buffer = aligned_alloc(64, bytes * threads);
    if (!buffer)
        return 0;
    memset(buffer, 0, bytes * threads);
    double best = 0;
    for (int run = 0; run < (quick ? 4 : 8); run++) {
        double seconds = run_once(threads, false, buffer, bytes / sizeof(float), 0);
        best = SPW_MAX(best, (double)(bytes * threads) / seconds);
    }
    free(buffer);
    return best;
}

double spw_bench_limit_fma(uint32_t threads, bool quick)
{
    threads = SPW_MIN(SPW_MAX(threads, 1u), THREADS_MAX);
    uint64_t rounds = quick ? 1000000 : 4000000;
    double best = 0;
    for (int run = 0; run < (quick ? 3 : 6); run++) {
        double seconds = run_once(threads, true, NULL, 0, rounds);
        best = SPW_MAX(best, best_way().flops_per_round * (double)rounds * threads / seconds);
    }
    return best;
}
