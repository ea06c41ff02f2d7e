/* The list of tenants: what is taken, and in which words the rest is refused. */
#include "runtime/tenants.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct spw_tenants *parse(const char *text, uint32_t queue)
{
    struct spw_tenants *tenants = NULL;
    struct spw_error error = {{0}};
    if (spw_tenants_parse(text, queue, &tenants, &error) != SPW_OK)
        fail_msg("'%s': %s", text, error.text);
    assert_string_equal(error.text, "");
    return tenants;
}

static void expect(const struct spw_tenants *tenants, const char *name, uint32_t index,
                   uint32_t weight, uint32_t queue)
{
    uint32_t found = 99;
    assert_true(spw_tenants_find(tenants, name, &found));
    assert_int_equal(found, index);
    assert_string_equal(tenants->list[index].name, name);
    assert_int_equal(tenants->list[index].weight, weight);
    assert_int_equal(tenants->list[index].queue, queue);
}

static void lists(void **state)
{
    (void)state;
    uint32_t found = 99;
    static const char *const empty[] = {"", " ", "\t\n"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(empty); i++) {
        struct spw_tenants *tenants = parse(empty[i], 1024);
        assert_int_equal(tenants->count, 1);
        expect(tenants, "default", 0, 1, 1024);
        assert_false(spw_tenants_find(tenants, "", &found));
        spw_tenants_destroy(tenants);
    }
    struct spw_tenants *tenants = parse(" research=3,web=1:200 ,\n a.b-c_9=1000000:1024", 1024);
    assert_int_equal(tenants->count, 4);
    expect(tenants, "default", 0, 1, 1024);
    expect(tenants, "research", 1, 3, 1024);
    expect(tenants, "web", 2, 1, 200);
    expect(tenants, "a.b-c_9", 3, 1000000, 1024);
    static const char *const others[] = {"", "Web", "we", "webs", "web ", "web=1"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(others); i++)
        assert_false(spw_tenants_find(tenants, others[i], &found));
    spw_tenants_destroy(tenants);
    tenants = parse("a=2,default=7:5,b=1", 10);
    assert_int_equal(tenants->count, 3);
    expect(tenants, "default", 0, 7, 5);
    expect(tenants, "a", 1, 2, 10);
    expect(tenants, "b", 2, 1, 10);
    spw_tenants_destroy(tenants);
    /* a name as long as one may be */
    char text[80];
    memset(text, 'n', 63);
    memcpy(text + 63, "=1", 3);
    tenants = parse(text, 10);
    text[63] = '\0';
    expect(tenants, text, 1, 1, 10);
    spw_tenants_destroy(tenants);
    spw_tenants_destroy(NULL);
    /* without a list there is the default one */
    assert_true(spw_tenants_find(NULL, "default", &found));
    assert_int_equal(found, 0);
    assert_false(spw_tenants_find(NULL, "web", &found));
}

static void refused(const char *text, const char *words)
{
    struct spw_tenants *tenants = NULL;
    struct spw_error error = {{0}};
    char whole[512];
    assert_int_equal(spw_tenants_parse(text, 1024, &tenants, &error), SPW_CONFIG);
    assert_null(tenants);
    snprintf(whole, sizeof(whole),
             "tenants: %s; NAME=WEIGHT or NAME=WEIGHT:QUEUE is right, as in "
             "research=3,web=1:200",
             words);
    assert_string_equal(error.text, whole);
}

static void mistakes(void **state)
{
    (void)state;
#define NAME   "a name of a-z, 0-9, _, . and - and then = are expected"
#define WEIGHT "the weight must be a number from 1 to 1000000"
#define QUEUE  "the queue must be a number from 1 to 1024, the knob queue"
    refused("web", "entry 1 'web': " NAME);
    refused("a=1,web", "entry 2 'web': " NAME);
    refused("=1", "entry 1 '=1': " NAME);
    refused("a=1,", "entry 2 '': " NAME);
    refused("a=1,,b=1", "entry 2 '': " NAME);
    refused(",", "entry 1 '': " NAME);
    refused("Web=1", "entry 1 'Web=1': " NAME);
    refused("we b=1", "entry 1 'we b=1': " NAME);
    refused("w\xc3\xa4=1", "entry 1 'w\xc3\xa4=1': " NAME);
    refused("a=", "entry 1 'a=': " WEIGHT);
    refused("a=0", "entry 1 'a=0': " WEIGHT);
    refused("a=-1", "entry 1 'a=-1': " WEIGHT);
    refused("a=1000001", "entry 1 'a=1000001': " WEIGHT);
    refused("a=99999999999999999999999", "entry 1 'a=99999999999999999999999': " WEIGHT);
    refused("a=1:", "entry 1 'a=1:': " QUEUE);
    refused("a=1:0", "entry 1 'a=1:0': " QUEUE);
    refused("b=2, a=1:1025 ,c=3", "entry 2 'a=1:1025': " QUEUE);
    refused("a=1:5:6", "entry 1 'a=1:5:6': something follows");
    refused("a=1.5", "entry 1 'a=1.5': something follows");
    refused("a=1 :5", "entry 1 'a=1 :5': something follows");
    refused("a=1,b=2,a=3", "entry 3 'a=3': the tenant is there twice");
    refused("default=1,default=1", "entry 2 'default=1': the tenant is there twice");
    char text[100];
    memset(text, 'n', 64);
    memcpy(text + 64, "=1", 3);
    char words[200];
    snprintf(words, sizeof(words), "entry 1 '%s': the name has more than 63 characters", text);
    refused(text, words);
}

/* 1023 beside the default one; one more is refused. */
static void many(void **state)
{
    (void)state;
    static char text[32768];
    size_t used = 0;
    for (int i = 0; i < 1023; i++)
        used +=
            (size_t)snprintf(text + used, sizeof(text) - used, "%st%d=%d", i ? "," : "", i, i + 1);
    struct spw_tenants *tenants = parse(text, 7);
    assert_int_equal(tenants->count, SPW_TENANTS_MAX);
    expect(tenants, "t1022", 1023, 1023, 7);
    expect(tenants, "default", 0, 1, 7);
    spw_tenants_destroy(tenants);
    snprintf(text + used, sizeof(text) - used, ",default=3,x=1");
    struct spw_error error = {{0}};
    tenants = NULL;
    assert_int_equal(spw_tenants_parse(text, 7, &tenants, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "tenants: entry 1025 'x=1': at most 1023 tenants beside "
                                       "'default' are possible"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
