/* A chart is well-formed XML whatever its names and figures are, and shows what it was given. */
#include "runtime/trace/chart.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DEPTH_MAX 16

static const char *skip_name(const char *at)
{
    while (isalnum((unsigned char)*at) || *at == '-' || *at == ':')
        at++;
    return at;
}

static bool entity_ok(const char *at)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(known); i++)
        if (strncmp(at, known[i], strlen(known[i])) == 0)
            return true;
    return false;
}

/* One element whose tags nest, whose attributes are quoted and whose text has no bare & or <. */
static bool well_formed(const char *at)
{
    const char *names[DEPTH_MAX];
    size_t bytes[DEPTH_MAX];
    int depth = 0, roots = 0;
    while (*at) {
        if (*at == '&' && !entity_ok(at))
            return false;
        if (*at != '<') {
            if (depth == 0 && !isspace((unsigned char)*at))
                return false;
            at++;
            continue;
        }
        bool closing = at[1] == '/';
        const char *name = at + 1 + closing, *end = skip_name(name);
        if (end == name)
            return false;
        if (closing) {
            if (depth == 0 || *end != '>' || bytes[depth - 1] != (size_t)(end - name) ||
                memcmp(names[depth - 1], name, bytes[depth - 1]) != 0)
                return false;
            depth--;
            at = end + 1;
            continue;
        }
        size_t name_bytes = (size_t)(end - name);
        while (*end == ' ') {
            const char *key = end + 1;
            end = skip_name(key);
            if (end == key || end[0] != '=' || end[1] != '"')
                return false;
            for (end += 2; *end && *end != '"'; end++)
                if (*end == '<' || (*end == '&' && !entity_ok(end)))
                    return false;
            if (*end++ != '"')
                return false;
        }
        roots += depth == 0;
        if (end[0] == '/' && end[1] == '>') {
            at = end + 2;
            continue;
        }
        if (*end != '>' || depth == DEPTH_MAX)
            return false;
        names[depth] = name;
        bytes[depth++] = name_bytes;
        at = end + 1;
    }
    return depth == 0 && roots == 1;
}

static size_t occurrences(const char *text, const char *word)
{
    size_t count = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word))
        count++;
    return count;
}

static const char *draw(const struct spw_chart *chart, struct spw_buffer *out)
{
    spw_buffer_init(out, 1u << 20);
    spw_chart_svg(chart, out);
    assert_false(out->failed);
    const char *text = spw_buffer_text(out);
    assert_int_equal(strlen(text), out->bytes);
    assert_true(well_formed(text));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    return text;
}

static void checker_finds_what_is_wrong(void **state)
{
    (void)state;
    assert_true(well_formed("<a b=\"c &amp; d\">x<e/>&lt;</a>\n"));
    assert_false(well_formed("<a><b></a></b>"));
    assert_false(well_formed("<a>"));
    assert_false(well_formed("<a/><a/>"));
    assert_false(well_formed("<a>x & y</a>"));
    assert_false(well_formed("<a b=\"<\"/>"));
    assert_false(well_formed("<a b=c/>"));
    assert_false(well_formed("<a>1 < 2</a>"));
    assert_false(well_formed("words"));
}

static void names_are_escaped(void **state)
{
    (void)state;
    const double x[] = {0, 1}, y[] = {1, 2};
    struct spw_chart_series series = {
        .name = "</text><script>\"'&", .x = x, .y = y, .count = 2, .points = true};
    struct spw_chart chart = {.title = "a < b & \"c\" \x01\xff\xc3\xa9",
                              .x_title = "<x>",
                              .y_title = "&y",
                              .goal_name = "<goal>",
                              .y_goal = 1.5,
                              .series = &series,
                              .series_count = 1};
    struct spw_buffer out;
    const char *text = draw(&chart, &out);
    assert_null(strstr(text, "<script"));
    assert_non_null(strstr(text, "a &lt; b &amp; &quot;c&quot; ??\xc3\xa9"));
    assert_non_null(strstr(text, ">&lt;goal&gt;</text>"));
    spw_buffer_done(&out);
}

static void figures_stand_where_they_belong(void **state)
{
    (void)state;
    /* frame: x 64..704, y 254..50; the highest y is 4 % below the top */
    const double x[] = {0, 50, 100}, y[] = {0, 10, 5};
    struct spw_chart_series series = {.name = "one", .x = x, .y = y, .count = 3, .points = true};
    struct spw_chart chart = {.title = "t", .series = &series, .series_count = 1};
    struct spw_buffer out;
    const char *text = draw(&chart, &out);
    assert_non_null(strstr(text, "cx=\"64.0\" cy=\"254.0\""));
    assert_non_null(strstr(text, "cx=\"384.0\" cy=\"57.8\""));
    assert_non_null(strstr(text, "cx=\"704.0\" cy=\"155.9\""));
    assert_non_null(strstr(text, "M64.0 254.0h0L384.0 57.8L704.0 155.9\"/>"));
    assert_int_equal(occurrences(text, "<circle"), 3);
    spw_buffer_done(&out);

    series.step = true;
    text = draw(&chart, &out);
    assert_non_null(strstr(text, "M64.0 254.0h0H384.0V57.8H704.0V155.9\"/>"));
    spw_buffer_done(&out);
}

static void logarithmic_axes(void **state)
{
    (void)state;
    const double x[] = {1, 0, 10, 100, -3}, y[] = {1, 5, 1000, 1000000, 7};
    struct spw_chart_series series = {.name = "one", .x = x, .y = y, .count = 5, .points = true};
    struct spw_chart chart = {.series = &series, .series_count = 1, .x_log = true, .y_log = true};
    struct spw_buffer out;
    const char *text = draw(&chart, &out);
    /* what has no logarithm is left out; decades stand at equal distances */
    assert_int_equal(occurrences(text, "<circle"), 3);
    assert_non_null(strstr(text, "cx=\"64.0\" cy=\"254.0\""));
    assert_non_null(strstr(text, "cx=\"384.0\" cy=\"152.0\""));
    assert_non_null(strstr(text, "cx=\"704.0\" cy=\"50.0\""));
    assert_non_null(strstr(text, ">1M</text>"));
    spw_buffer_done(&out);
}

static void gaps_and_nothing(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, 3, 4}, y[] = {1, 2, NAN, INFINITY, 2};
    struct spw_chart_series series = {.name = "one", .x = x, .y = y, .count = 5};
    struct spw_chart chart = {.series = &series, .series_count = 1};
    struct spw_buffer out;
    const char *text = draw(&chart, &out);
    const char *line = strstr(text, "class=\"l s0\" d=\"M0 0");
    assert_non_null(line);
    assert_int_equal(occurrences(line + strlen("class=\"l s0\" d=\"M0 0"), "h0"), 2);
    spw_buffer_done(&out);

    series.count = 0;
    text = draw(&chart, &out);
    assert_non_null(strstr(text, "no figures"));
    spw_buffer_done(&out);
    chart.series_count = 0;
    chart.y_log = true;
    text = draw(&chart, &out);
    assert_non_null(strstr(text, "no figures"));
    spw_buffer_done(&out);
}

static void ranges_of_every_kind(void **state)
{
    (void)state;
    static const double figures[][2] = {
        {0, 0},  {5, 5},           {-5, -5},    {1e-9, 2e-9}, {1e12, 1e12},
        {-1, 1}, {1e15, 1e15 + 1}, {0, 1e-200}, {3, 3000000}, {0.07, 0.0700001}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(figures); i++)
        for (int form = 0; form < 4; form++) {
            const double x[] = {0, 1};
            struct spw_chart_series series = {.name = "one", .count = 2};
            series.x = form & 1 ? figures[i] : x;
            series.y = form & 1 ? x : figures[i];
            struct spw_chart chart = {.series = &series, .series_count = 1};
            chart.x_log = chart.y_log = form & 2;
            struct spw_buffer out;
            draw(&chart, &out);
            spw_buffer_done(&out);
        }
}

/* 200,000 points make a small file, and the one peak among them is still there. */
static void long_lines_keep_their_peaks(void **state)
{
    (void)state;
    static double x[200000], y[200000];
    for (size_t i = 0; i < SPW_ARRAY_COUNT(x); i++) {
        x[i] = (double)i;
        y[i] = 1 + (double)(i % 7) * 0.1;
    }
    y[123456] = 100;
    y[123458] = 50;
    struct spw_chart_series series = {
        .name = "long", .x = x, .y = y, .count = 200000, .points = true};
    struct spw_chart chart = {.series = &series, .series_count = 1};
    struct spw_buffer out;
    const char *text = draw(&chart, &out);
    assert_true(out.bytes < 100000);
    assert_int_equal(occurrences(text, " 57.8L"), 1); /* 100, once */
    assert_int_equal(occurrences(text, "<circle"), 0);
    spw_buffer_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checker_finds_what_is_wrong),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(figures_stand_where_they_belong),
        cmocka_unit_test(logarithmic_axes),
        cmocka_unit_test(gaps_and_nothing),
        cmocka_unit_test(ranges_of_every_kind),
        cmocka_unit_test(long_lines_keep_their_peaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
