/* test_chat_template_bounds.c - limits, error texts with their lines, and what a failed or repeated
 * rendering leaves behind.
 */
#include "runtime/model/chat_template_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OUT_BYTES_MAX ((size_t)2 << 20)

static struct spw_error last_error;

static enum spw_status compile(const char *source, size_t bytes,
                               struct spw_chat_template **out_template)
{
    *out_template = NULL;
    memset(&last_error, 0, sizeof(last_error));
    return spw_chat_template_compile(source, bytes, out_template, &last_error);
}

/* Compile and render; the output's bytes, or the status. */
static enum spw_status render(const char *source, const char *variables, uint64_t now,
                              size_t bytes_max, size_t *out_bytes)
{
    struct spw_chat_template *chat_template;
    struct spw_buffer out;
    json_t *json = json_loads(variables, 0, NULL);
    assert_non_null(json);
    spw_buffer_init(&out, bytes_max);
    spw_buffer_add_text(&out, "kept");
    enum spw_status status = compile(source, strlen(source), &chat_template);
    if (status == SPW_OK)
        status = spw_chat_template_render(chat_template, json, now, &out, &last_error);
    else
        assert_null(chat_template);
    assert_false(out.failed);
    assert_memory_equal(out.data, "kept", 4);
    *out_bytes = out.bytes - 4;
    if (status != SPW_OK) {
        assert_int_equal(out.bytes, 4); /* nothing is left of a failed rendering */
        assert_true(last_error.text[0] != '\0');
    }
    spw_chat_template_destroy(chat_template);
    spw_buffer_done(&out);
    json_decref(json);
    return status;
}

static enum spw_status status_of(const char *source)
{
    size_t bytes;
    return render(source, "{}", 0, OUT_BYTES_MAX, &bytes);
}

static void expect_error(const char *source, enum spw_status status, const char *text)
{
    size_t bytes;
    assert_int_equal(render(source, "{\"s\": \"x\", \"l\": [1]}", 0, OUT_BYTES_MAX, &bytes),
                     status);
    assert_string_equal(last_error.text, text);
}

static void test_steps(void **state)
{
    (void)state;
    assert_int_equal(status_of("{% set r = range(1000)|list %}{% for a in r %}{% for b in r %}"
                               "{% for c in r %}{% endfor %}{% endfor %}{% endfor %}"),
                     SPW_TOO_LARGE);
    assert_non_null(strstr(last_error.text, "steps"));

    /* the bound is exact: what needs n steps passes with n and fails with n - 1 */
    struct spw_chat_template *chat_template;
    const char *source = "{% for x in range(10) %}{{ x }}{% endfor %}";
    json_t *variables = json_object();
    assert_int_equal(compile(source, strlen(source), &chat_template), SPW_OK);
    uint64_t enough = 0;
    for (uint64_t steps = 0; steps < 1000 && !enough; steps++) {
        struct spw_buffer out;
        spw_buffer_init(&out, OUT_BYTES_MAX);
        enum spw_status status = spw_ct_render(chat_template, variables, 0, steps, &out, NULL);
        assert_true(status == SPW_OK || status == SPW_TOO_LARGE);
        if (status == SPW_OK) {
            assert_string_equal(spw_buffer_text(&out), "0123456789");
            enough = steps;
        }
        spw_buffer_done(&out);
    }
    assert_true(enough > 20 && enough < 200);
    spw_chat_template_destroy(chat_template);
    json_decref(variables);
}

static void test_depth(void **state)
{
    (void)state;
    assert_int_equal(status_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of("{% macro a() %}{% set x = b() %}{% endmacro %}"
                               "{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}"),
                     SPW_TOO_LARGE);
    assert_int_equal(status_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
                     SPW_TOO_LARGE);
    /* a namespace that holds itself */
    assert_int_equal(status_of("{% set n = namespace() %}{% set n.n = [n] %}{{ n }}"),
                     SPW_TOO_LARGE);
    assert_int_equal(status_of("{% set n = namespace(l=[]) %}{% for i in range(900) %}"
                               "{% set n.l = [n.l] %}{% endfor %}{{ n.l|tojson }}"),
                     SPW_TOO_LARGE);
    assert_int_equal(status_of("{% set a = namespace(l=[]) %}{% set b = namespace(l=[]) %}"
                               "{% for i in range(9000) %}{% set a.l = [a.l] %}"
                               "{% set b.l = [b.l] %}{% endfor %}{{ a.l == b.l }}"),
                     SPW_TOO_LARGE);
    assert_int_equal(status_of("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}.{% endmacro %}"
                               "{{ m(90) }}"),
                     SPW_OK);
}

/* count times `piece`, between head and tail */
static enum spw_status status_of_many(const char *head, const char *piece, size_t count,
                                      const char *tail)
{
    struct spw_buffer source;
    spw_buffer_init(&source, (size_t)1 << 24);
    spw_buffer_add_text(&source, head);
    for (size_t i = 0; i < count; i++)
        spw_buffer_add_text(&source, piece);
    spw_buffer_add_text(&source, tail);
    enum spw_status status = status_of(spw_buffer_text(&source));
    spw_buffer_done(&source);
    return status;
}

static void test_nesting(void **state)
{
    (void)state;
    assert_int_equal(status_of_many("{{ ", "(", 5000, " }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ ", "-", 5000, "1 }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ ", "not ", 5000, "1 }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ ", "1 if 1 else ", 5000, "1 }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("", "{% if 1 %}", 5000, ""), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ 1", " + 1", 5000, " }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ 1", "|string", 5000, " }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ x", ".x", 5000, " }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ 1", " and 1", 5000, " }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of_many("{{ 1", " + 1", 500, " }}"), SPW_OK);
    assert_int_equal(status_of_many("{{ 1", " ~ 1", 5000, " }}"), SPW_OK);
    assert_int_equal(status_of_many("{% if 0 %}", "{% elif 0 %}", 5000, "{% endif %}"), SPW_OK);
    assert_int_equal(status_of_many("", "x", SPW_CT_SOURCE_BYTES_MAX, ""), SPW_OK);
    assert_int_equal(status_of_many("", "x", SPW_CT_SOURCE_BYTES_MAX + 1, ""), SPW_TOO_LARGE);
}

static void test_output_limit(void **state)
{
    (void)state;
    size_t bytes;
    assert_int_equal(render("{{ 'x' * 96 }}", "{}", 0, 100, &bytes), SPW_OK);
    assert_int_equal(bytes, 96);
    assert_int_equal(render("{{ 'x' * 97 }}", "{}", 0, 100, &bytes), SPW_TOO_LARGE);
    assert_int_equal(render("a{{ 'x' * 90 }}bcdefg", "{}", 0, 100, &bytes), SPW_TOO_LARGE);
    assert_non_null(strstr(last_error.text, "output"));
}

static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(status_of("{{ 'x' * 10000000000 }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of("{{ 'xy' * 9000000000000000000 }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of("{{ ([1] * 10000000000)|length }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of("{% set n = namespace(s='x') %}{% for i in range(60) %}"
                               "{% set n.s = n.s + n.s %}{% endfor %}"),
                     SPW_TOO_LARGE);
    assert_int_equal(status_of("{{ 'x'.center(10000000000) }}"), SPW_TOO_LARGE);
    assert_int_equal(status_of("{{ '%99999999999d' % 1 }}"), SPW_INVALID);
}

static void test_variables_depth(void **state)
{
    (void)state;
    for (size_t depth = 190; depth <= 210; depth += 20) {
        struct spw_buffer text;
        size_t bytes;
        spw_buffer_init(&text, OUT_BYTES_MAX);
        spw_buffer_add_text(&text, "{\"x\":");
        for (size_t i = 0; i < depth; i++)
            spw_buffer_add_text(&text, "[");
        for (size_t i = 0; i < depth; i++)
            spw_buffer_add_text(&text, "]");
        spw_buffer_add_text(&text, "}");
        enum spw_status status =
            render("{{ x|tojson }}", spw_buffer_text(&text), 0, OUT_BYTES_MAX, &bytes);
        assert_int_equal(status, depth < 200 ? SPW_OK : SPW_TOO_LARGE);
        if (status == SPW_OK)
            assert_int_equal(bytes, 2 * depth);
        spw_buffer_done(&text);
    }
}

static void test_error_texts(void **state)
{
    (void)state;
    expect_error("a\n{{ x.y }}", SPW_INVALID,
                 "UndefinedError: 'x' is undefined (chat template line 2)");
    expect_error("{#\n\n#}\n\n{{ s|nope }}", SPW_INVALID,
                 "TemplateAssertionError: No filter named 'nope'. (chat template line 5)");
    expect_error("\n{{ s is nope }}", SPW_INVALID,
                 "TemplateAssertionError: No test named 'nope'. (chat template line 2)");
    expect_error("\n\n{{ nope(1) }}", SPW_INVALID,
                 "UndefinedError: 'nope' is undefined (chat template line 3)");
    expect_error("{{ s.translate(1) }}", SPW_INVALID,
                 "NotImplementedError: 'translate' is not supported in chat templates"
                 " (chat template line 1)");
    expect_error("{{ l.append(1) }}", SPW_INVALID,
                 "SecurityError: access to attribute 'append' of 'list' object is unsafe."
                 " (chat template line 1)");
    expect_error("{% if 1 %}\n{% include 'x' %}{% endif %}", SPW_INVALID,
                 "TemplateSyntaxError: tag 'include' is not supported in chat templates"
                 " (chat template line 2)");
    expect_error("{{ 1 +\n\n }}", SPW_INVALID,
                 "TemplateSyntaxError: expected an expression, found '}}' (chat template line 3)");
    expect_error("\n{% for x in l %}", SPW_INVALID,
                 "TemplateSyntaxError: Unexpected end of template: 'endfor' is missing"
                 " (chat template line 2)");
    expect_error("{% macro m() %}\n{{ raise_exception('No ' ~ s) }}{% endmacro %}\n{{ m() }}",
                 SPW_INVALID, "TemplateError: No x (chat template line 2)");
    expect_error("{{ 1 << 70 }}", SPW_INVALID,
                 "TemplateSyntaxError: expected an expression, found '<' (chat template line 1)");
    expect_error("{{ 99999999999999999999 }}", SPW_INVALID,
                 "OverflowError: number 99999999999999999999 is beyond 64 bits"
                 " (chat template line 1)");
    expect_error("{{ 9223372036854775807 + 1 }}", SPW_INVALID,
                 "OverflowError: integers beyond 64 bits are not supported"
                 " (chat template line 1)");
}

static void test_long_words(void **state)
{
    (void)state;
    size_t bytes;
    assert_int_equal(render("{{ raise_exception('w' * 100000) }}", "{}", 0, OUT_BYTES_MAX, &bytes),
                     SPW_INVALID);
    assert_int_equal(strlen(last_error.text), SPW_ERROR_TEXT_MAX - 1);
    assert_memory_equal(last_error.text, "TemplateError: wwww", 19);
}

static void test_invalid_utf8(void **state)
{
    static const char *const bad[] = {
        "\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "{{ '\xe2\x82' }}"};
    (void)state;
    struct spw_chat_template *chat_template;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++) {
        assert_int_equal(compile(bad[i], strlen(bad[i]), &chat_template), SPW_INVALID);
        assert_null(chat_template);
    }
    assert_int_equal(status_of("{{ '\\ud800' }}"), SPW_INVALID);
    assert_int_equal(compile(NULL, 0, &chat_template), SPW_OK);
    spw_chat_template_destroy(chat_template);
    spw_chat_template_destroy(NULL);
}

static void test_time(void **state)
{
    static const struct {
        uint64_t now;
        const char *format;
        const char *text;
    } rows[] = {
        {0, "%Y-%m-%d %H:%M:%S", "1970-01-01 00:00:00"},
        {1767323045, "%d %b %Y", "02 Jan 2026"},
        {1709210096, "%A, %B %d, %Y", "Thursday, February 29, 2024"},
        {4102444799, "%Y-%m-%dT%H:%M:%S", "2099-12-31T23:59:59"},
    };
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_chat_template *chat_template;
        char source[128];
        struct spw_buffer out;
        json_t *variables = json_object();
        spw_buffer_init(&out, OUT_BYTES_MAX);
        snprintf(source, sizeof(source), "{{ strftime_now('%s') }}", rows[i].format);
        assert_int_equal(compile(source, strlen(source), &chat_template), SPW_OK);
        /* twice from one template, into one buffer */
        for (int round = 0; round < 2; round++)
            assert_int_equal(
                spw_chat_template_render(chat_template, variables, rows[i].now, &out, &last_error),
                SPW_OK);
        size_t bytes = strlen(rows[i].text);
        assert_int_equal(out.bytes, 2 * bytes);
        assert_memory_equal(out.data, rows[i].text, bytes);
        assert_memory_equal(out.data + bytes, rows[i].text, bytes);
        spw_buffer_done(&out);
        spw_chat_template_destroy(chat_template);
        json_decref(variables);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_nesting),      cmocka_unit_test(test_output_limit),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_variables_depth),
        cmocka_unit_test(test_error_texts),  cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_invalid_utf8), cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
