/* Log lines: one per event, whole, in form; and the clocks. */
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/spw-test-log-XXXXXX";
static char text[1 << 20];

/* What was logged since the last call. */
static const char *logged(void)
{
    FILE *file = fopen(path, "r");
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    text[bytes] = '\0';
    fclose(file);
    assert_int_equal(truncate(path, 0), 0);
    return text;
}

static size_t lines_of(const char *at)
{
    size_t lines = 0;
    for (; *at; at++)
        lines += *at == '\n';
    return lines;
}

static void a_line_has_its_parts(void **state)
{
    (void)state;
    spw_log_identity(3, "worker");
    time_t before = time(NULL);
    spw_log_warn("room", "words request=%d", 12);
    const char *line = logged();
    struct tm parts = {0};
    int millis = 0, used = 0;
    assert_int_equal(sscanf(line, "%d-%d-%dT%d:%d:%d.%dZ%n", &parts.tm_year, &parts.tm_mon,
                            &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &millis,
                            &used),
                     7);
    assert_int_equal(used, 24);
    parts.tm_year -= 1900;
    parts.tm_mon -= 1;
    time_t when = timegm(&parts);
    assert_true(when >= before && when <= time(NULL));
    assert_string_equal(line + 24, " 3 worker warn room words request=12\n");
}

static void levels_choose(void **state)
{
    (void)state;
    const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (int set = SPW_LOG_ERROR; set <= SPW_LOG_TRACE; set++) {
        enum spw_log_level parsed;
        assert_true(spw_log_level_parse(names[set], &parsed));
        assert_int_equal(parsed, set);
        spw_log_level_set(parsed);
        for (int level = SPW_LOG_ERROR; level <= SPW_LOG_TRACE; level++) {
            assert_int_equal(spw_log_enabled((enum spw_log_level)level), level <= set);
            spw_log_line((enum spw_log_level)level, "room", "x");
        }
        assert_int_equal(lines_of(logged()), (size_t)set + 1);
    }
    enum spw_log_level untouched = SPW_LOG_DEBUG;
    assert_false(spw_log_level_parse("Warn", &untouched));
    assert_false(spw_log_level_parse("", &untouched));
    assert_int_equal(untouched, SPW_LOG_DEBUG);
    spw_log_level_set(SPW_LOG_INFO);
    spw_log_debug("room", "not %s", "seen");
    assert_string_equal(logged(), "");
}

static void a_long_line_is_cut_and_ends(void **state)
{
    (void)state;
    char longer[3000];
    for (size_t bytes = 900; bytes < 1100; bytes++) {
        memset(longer, 'x', bytes);
        longer[bytes] = '\0';
        spw_log_info("room", "%s", longer);
        const char *line = logged();
        assert_int_equal(lines_of(line), 1);
        assert_true(strlen(line) <= 1023);
        assert_int_equal(line[strlen(line) - 1], '\n');
    }
    memset(longer, 'y', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    spw_log_info("room", "%s", longer);
    assert_int_equal(lines_of(logged()), 1);
}

/* What a client wrote may stand in a message: it must not be able to write lines of its own. */
static void nothing_in_a_message_begins_a_line(void **state)
{
    (void)state;
    spw_log_info("room", "model '%s' is unknown",
                 "a\n2026-01-01T00:00:00.000Z 0 - info x\r\x1b[2J");
    const char *line = logged();
    assert_int_equal(lines_of(line), 1);
    assert_null(strchr(line, '\r'));
    assert_null(strchr(line, '\x1b'));
    assert_non_null(
        strstr(line, "model 'a?2026-01-01T00:00:00.000Z 0 - info x??[2J' is unknown\n"));
    spw_log_info("room", "caf\xc3\xa9\tau lait"); /* letters of all languages stay */
    assert_non_null(strstr(logged(), "caf\xc3\xa9?au lait\n"));
}

#define THREADS    4
#define PER_THREAD 500

static void *write_many(void *context)
{
    for (int i = 0; i < PER_THREAD; i++)
        spw_log_info("room", "thread=%d line=%d end", *(int *)context, i);
    return NULL;
}

static void threads_do_not_mix(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int numbers[THREADS], next[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *at = (char *)(uintptr_t)logged();
    size_t lines = 0;
    char *rest = NULL;
    for (char *line = strtok_r(at, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest), lines++) {
        int thread = -1, number = -1, used = 0;
        const char *words = strstr(line, "thread=");
        assert_non_null(words);
        sscanf(words, "thread=%d line=%d end%n", &thread, &number, &used);
        assert_int_equal(used, strlen(words));
        assert_true(thread >= 0 && thread < THREADS);
        assert_int_equal(number, next[thread]++);
    }
    assert_int_equal(lines, THREADS * PER_THREAD);
}

static void a_bad_path_changes_nothing(void **state)
{
    (void)state;
    assert_false(spw_log_file("/nonexistent-folder/log"));
    spw_log_info("room", "still here");
    assert_int_equal(lines_of(logged()), 1);
}

static uint64_t count_up(void *context)
{
    return ++*(uint64_t *)context;
}

static void clocks(void **state)
{
    (void)state;
    struct spw_clock clock = spw_clock_monotonic();
    uint64_t before = spw_clock_monotonic_ns();
    for (int i = 0; i < 1000; i++) {
        uint64_t now = spw_clock_now(&clock);
        assert_true(now >= before);
        before = now;
    }
    uint64_t number = 41;
    struct spw_clock counting = {.now_ns = count_up, .context = &number};
    assert_int_equal(spw_clock_now(&counting), 42);
    time_t wall = time(NULL);
    assert_true(spw_clock_wall_seconds() - (uint64_t)wall <= 1);
    assert_true(SPW_SECOND == 1000 * SPW_MS && SPW_MS == 1000 * SPW_US);
}

static int open_log(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    close(fd);
    return fd < 0 || !spw_log_file(path);
}

static int remove_log(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_its_parts),
        cmocka_unit_test(levels_choose),
        cmocka_unit_test(a_long_line_is_cut_and_ends),
        cmocka_unit_test(nothing_in_a_message_begins_a_line),
        cmocka_unit_test(threads_do_not_mix),
        cmocka_unit_test(a_bad_path_changes_nothing),
        cmocka_unit_test(clocks),
    };
    return cmocka_run_group_tests(tests, open_log, remove_log);
}
