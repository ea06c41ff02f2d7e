/* Arena and pool: alignment, full, giving back, and a check that sees damage. */
#include "runtime/base/arena.h"
#include "runtime/base/pool.h"
#include "tests/unit/death.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void arena_aligns_and_zeroes(void **state)
{
    (void)state;
    struct spw_arena arena;
    assert_true(spw_arena_create(&arena, 3 * 4096));
    assert_int_equal((uintptr_t)arena.base % 4096, 0);
    assert_int_equal(arena.bytes, 3 * 4096);
    memset(arena.base, 0xAB, arena.bytes);

    size_t expected = 0;
    for (size_t align = 1; align <= 4096; align *= 2) {
        unsigned char *piece = spw_arena_take(&arena, 3, align);
        assert_non_null(piece);
        expected = (expected + align - 1) / align * align;
        assert_ptr_equal(piece, arena.base + expected);
        assert_int_equal((uintptr_t)piece % align, 0);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(piece[i], 0);
        assert_int_equal(piece[3], 0xAB); /* no more than was asked for */
        expected += 3;
        assert_int_equal(arena.used, expected);
    }
    spw_arena_done(&arena);
    assert_null(arena.base);
    spw_arena_done(&arena);
}

static void arena_full_is_an_answer(void **state)
{
    (void)state;
    _Alignas(64) unsigned char memory[128];
    struct spw_arena arena;
    spw_arena_init(&arena, memory, sizeof(memory));
    assert_non_null(spw_arena_take(&arena, 1, 1));
    assert_null(spw_arena_take(&arena, 65, 64)); /* 63 bytes of padding, 64 left */
    assert_int_equal(arena.used, 1);
    assert_ptr_equal(spw_arena_take(&arena, 64, 64), memory + 64);
    assert_null(spw_arena_take(&arena, 1, 1));
    assert_null(spw_arena_take(&arena, SIZE_MAX, 1));
    assert_ptr_equal(spw_arena_take(&arena, 0, 1), memory + 128);
    spw_arena_done(&arena); /* the caller's memory is not freed */
    assert_false(spw_arena_create(&arena, SIZE_MAX));
    assert_true(spw_arena_create(&arena, 1));
    assert_int_equal(arena.bytes, 4096);
    spw_arena_done(&arena);
}

static void arena_reset_gives_back(void **state)
{
    (void)state;
    struct spw_arena arena;
    assert_true(spw_arena_create(&arena, 4096));
    spw_arena_take(&arena, 100, 1);
    size_t mark = arena.used;
    unsigned char *first = spw_arena_take(&arena, 200, 8);
    memset(first, 1, 200);
    spw_arena_reset(&arena, mark);
    unsigned char *again = spw_arena_take(&arena, 200, 8);
    assert_ptr_equal(first, again);
    for (int i = 0; i < 200; i++)
        assert_int_equal(again[i], 0);
    spw_arena_reset(&arena, 0);
    assert_int_equal(arena.used, 0);
    spw_arena_done(&arena);
}

static void reset_forward(void *context)
{
    struct spw_arena *arena = context;
    spw_arena_reset(arena, arena->used + 1);
}

static void odd_alignment(void *context)
{
    spw_arena_take(context, 1, 3);
}

static void arena_misuse_is_stopped(void **state)
{
    (void)state;
    struct spw_arena arena;
    assert_true(spw_arena_create(&arena, 4096));
    assert_true(dies(reset_forward, &arena));
    assert_true(dies(odd_alignment, &arena));
    spw_arena_done(&arena);
}

#define POOL 7u

static void pool_hands_out_each_once(void **state)
{
    (void)state;
    uint32_t next[POOL];
    struct spw_pool pool;
    spw_pool_init(&pool, next, POOL);
    spw_pool_check(&pool);
    for (uint32_t i = 0; i < POOL; i++) {
        assert_false(spw_pool_is_taken(&pool, i));
        assert_int_equal(spw_pool_take(&pool), i);
        assert_true(spw_pool_is_taken(&pool, i));
        assert_int_equal(pool.taken, i + 1);
        spw_pool_check(&pool);
    }
    assert_int_equal(spw_pool_take(&pool), SPW_POOL_NONE);
    spw_pool_give(&pool, 3);
    spw_pool_give(&pool, 5);
    spw_pool_check(&pool);
    assert_int_equal(pool.taken, POOL - 2);
    assert_int_equal(spw_pool_take(&pool), 5);
    assert_int_equal(spw_pool_take(&pool), 3);
    assert_int_equal(spw_pool_take(&pool), SPW_POOL_NONE);

    struct spw_pool none;
    spw_pool_init(&none, NULL, 0);
    assert_int_equal(spw_pool_take(&none), SPW_POOL_NONE);
    spw_pool_check(&none);
}

static void check_pool(void *context)
{
    spw_pool_check(context);
}

static void give_free(void *context)
{
    spw_pool_give(context, 6);
}

/* One damage at a time; each must be seen. */
static void pool_check_sees_damage(void **state)
{
    (void)state;
    enum { LOOP, OUT_OF_RANGE, LEAK, COUNT_OFF, MARK_LOST, TAKEN_IN_LIST, DAMAGES };
    for (int damage = 0; damage < DAMAGES; damage++) {
        uint32_t next[POOL];
        struct spw_pool pool;
        spw_pool_init(&pool, next, POOL);
        spw_pool_take(&pool);
        spw_pool_take(&pool); /* 0 and 1 are taken; free: 2, 3, 4, 5, 6 */
        assert_false(dies(check_pool, &pool));
        switch (damage) {
        case LOOP:
            next[6] = 2;
            break;
        case OUT_OF_RANGE:
            next[4] = POOL;
            break;
        case LEAK:
            next[4] = SPW_POOL_NONE;
            break;
        case COUNT_OFF:
            pool.taken = 1;
            break;
        case MARK_LOST:
            next[1] = 2; /* counts are right, but giving 1 back would be refused */
            break;
        default:
            next[3] = SPW_POOL_TAKEN;
            break;
        }
        assert_true(dies(check_pool, &pool));
    }
    uint32_t next[POOL];
    struct spw_pool pool;
    spw_pool_init(&pool, next, POOL);
    assert_true(dies(give_free, &pool)); /* twice given back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_aligns_and_zeroes),  cmocka_unit_test(arena_full_is_an_answer),
        cmocka_unit_test(arena_reset_gives_back),   cmocka_unit_test(arena_misuse_is_stopped),
        cmocka_unit_test(pool_hands_out_each_once), cmocka_unit_test(pool_check_sees_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
