/* test_chat_template_cases.c - what templates render, against Jinja2's own answers: the committed
 * cases (test_chat_template_cases.json), and real templates where ../shared/data is there.
 */
#include "runtime/model/chat_template.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW_SECONDS 1767323045u /* 2026-01-02 03:04:05 */
#define SHARED      SPW_SOURCE_DIR "/../shared/data/templates"

static json_t *load(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %s", path, error.text);
    return json;
}

/* The error text without where it happened. */
static void cut_place(char *text)
{
    char *place = strstr(text, " (chat template line ");
    if (place)
        *place = '\0';
}

/* Whether the template does with the variables what `expected` says ("output", or "error" with
 * "exact"). What it did instead goes to out_found.
 */
static bool agrees(const char *source, size_t bytes, const json_t *variables,
                   const json_t *expected, bool exact, char *out_found, size_t found_bytes)
{
    struct spw_chat_template *chat_template = NULL;
    struct spw_error error = {{0}};
    struct spw_buffer out;
    spw_buffer_init(&out, 1u << 22);
    enum spw_status status = spw_chat_template_compile(source, bytes, &chat_template, &error);
    if (status == SPW_OK)
        status = spw_chat_template_render(chat_template, variables, NOW_SECONDS, &out, &error);
    spw_chat_template_destroy(chat_template);
    cut_place(error.text);
    snprintf(out_found, found_bytes, "%s", status == SPW_OK ? spw_buffer_text(&out) : error.text);
    const json_t *output = json_object_get(expected, "output");
    bool same = false;
    if (output && status == SPW_OK) {
        same = out.bytes == json_string_length(output) &&
               (!out.bytes || memcmp(out.data, json_string_value(output), out.bytes) == 0);
    } else if (!output && status == SPW_INVALID) {
        const char *words = json_string_value(json_object_get(expected, "error"));
        size_t kind = strcspn(words, ":");
        same = exact ? strcmp(words, error.text) == 0
                     : strncmp(words, error.text, kind) == 0 && error.text[kind] == ':';
    }
    spw_buffer_done(&out);
    return same;
}

static void test_committed_cases(void **state)
{
    (void)state;
    char found[4096];
    json_t *file = load(SPW_SOURCE_DIR "/tests/unit/model/test_chat_template_cases.json");
    const json_t *variables = json_object_get(file, "variables");
    json_t *before = json_deep_copy(variables);
    const json_t *cases = json_object_get(file, "cases");
    size_t bad = 0;
    assert_true(json_array_size(cases) > 200);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *row = json_array_get(cases, i);
        const json_t *source = json_object_get(row, "source");
        if (!agrees(json_string_value(source), json_string_length(source), variables, row,
                    json_is_true(json_object_get(row, "exact")), found, sizeof(found))) {
            const char *output = json_string_value(json_object_get(row, "output"));
            print_message("source   %s\nexpected %s\nfound    %s\n", json_string_value(source),
                          output ? output : json_string_value(json_object_get(row, "error")),
                          found);
            bad++;
        }
    }
    assert_int_equal(bad, 0);
    assert_true(json_equal(before, variables)); /* templates change nothing */
    json_decref(before);
    json_decref(file);
}

/* The comparison itself: one wrong byte, a wrong kind, or success for failure is found. */
static void test_comparison(void **state)
{
    static const struct {
        const char *expected;
        const char *source;
        bool same;
    } rows[] = {
        {"{\"output\": \"a1\"}", "a{{ 1 }}", true},
        {"{\"output\": \"a1 \"}", "a{{ 1 }}", false},
        {"{\"output\": \"b1\"}", "a{{ 1 }}", false},
        {"{\"output\": \"\"}", "{{ x.y }}", false},
        {"{\"error\": \"UndefinedError: 'x' is undefined\"}", "{{ x.y }}", true},
        {"{\"error\": \"UndefinedError: 'y' is undefined\"}", "{{ x.y }}", false},
        {"{\"error\": \"TypeError: 'x' is undefined\"}", "{{ x.y }}", false},
        {"{\"error\": \"TypeError: x\"}", "x", false},
    };
    (void)state;
    char found[256];
    json_t *variables = json_object();
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        json_t *expected = json_loads(rows[i].expected, 0, NULL);
        assert_non_null(expected);
        assert_int_equal(agrees(rows[i].source, strlen(rows[i].source), variables, expected, true,
                                found, sizeof(found)),
                         rows[i].same);
        json_decref(expected);
    }
    json_decref(variables);
}

/* A case's variables as the data's makers gave them: tools is none where there are none. */
static json_t *case_variables(const json_t *row)
{
    json_t *variables = json_deep_copy(row);
    json_object_del(variables, "case");
    json_object_set_new(variables, "bos_token", json_string("<BOS>"));
    json_object_set_new(variables, "eos_token", json_string("<EOS>"));
    json_object_set_new(variables, "unk_token", json_string("<UNK>"));
    json_object_set_new(variables, "pad_token", json_string("<PAD>"));
    if (!json_object_get(variables, "tools"))
        json_object_set_new(variables, "tools", json_null());
    return variables;
}

static size_t check_template(const char *name, const json_t *cases, size_t *out_bad)
{
    char path[1024];
    char found[4096];
    size_t stem = strlen(name) - strlen(".jinja");
    snprintf(path, sizeof(path), SHARED "/%.*s.expected.json", (int)stem, name);
    json_t *expected = load(path);
    snprintf(path, sizeof(path), SHARED "/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *source = malloc(1u << 20);
    assert_non_null(source);
    size_t bytes = fread(source, 1, 1u << 20, file);
    fclose(file);
    assert_int_equal(json_array_size(expected), json_array_size(cases));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *variables = case_variables(json_array_get(cases, i));
        const json_t *row = json_array_get(expected, i);
        if (!agrees(source, bytes, variables, row, true, found, sizeof(found))) {
            print_message("%s, case %zu: found %.300s\n", name, i, found);
            (*out_bad)++;
        }
        json_decref(variables);
    }
    free(source);
    json_decref(expected);
    return json_array_size(cases);
}

static void test_real_templates(void **state)
{
    (void)state;
    size_t checked = 0;
    size_t bad = 0;
    DIR *dir = opendir(SHARED);
    if (!dir) {
        print_message("skipped: no real templates, ../shared/data/templates is missing\n");
        skip();
    }
    json_t *cases = load(SHARED "/cases.json");
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        size_t length = strlen(entry->d_name);
        if (length > 6 && strcmp(entry->d_name + length - 6, ".jinja") == 0)
            checked += check_template(entry->d_name, cases, &bad);
    }
    closedir(dir);
    json_decref(cases);
    print_message("%zu renderings of real templates\n", checked);
    assert_true(checked > 0);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_committed_cases),
        cmocka_unit_test(test_real_templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
