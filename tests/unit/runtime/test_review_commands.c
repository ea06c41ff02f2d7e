/* Commands as a shell calls them, where no deployment is needed: what they refuse, and what `up`
 * does with a starter (a script of the test's in mpirun's place).
 */
#include "runtime/base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/spw-test-review-XXXXXX";
static char output[1 << 16];

/* Runs a line of shell with $SPILLWAY_BINARY and the folder as $DIR; output and errors go into
 * `output`. Returns the exit code. */
static int shell(const char *line)
{
    char command[4096];
    snprintf(command, sizeof(command),
             "exec 2>&1 </dev/null; cd %s; B='" SPW_EXECUTABLE "'; M='" SPW_SOURCE_DIR
             "/launch/demo-model'; PATH=%s/bin:$PATH; %s",
             folder, folder, line);
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    size_t bytes = 0;
    for (ssize_t got; (got = read(ends[0], output + bytes, sizeof(output) - 1 - bytes)) > 0;)
        bytes += (size_t)got;
    output[bytes] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect(int code, int wanted, const char *words)
{
    if (code != wanted || !strstr(output, words))
        fail_msg("code %d, %d and '%s' are right: %s", code, wanted, words, output);
}

/* An mpirun that starts nothing: `body` is its script. */
static void play_starter(const char *body)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/bin", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/bin/mpirun", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", body);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0700), 0);
}

static void numbers_are_whole(void **state)
{
    (void)state;
    expect(shell("$B submit --max-tokens 1e12 x"), SPW_EXIT_USAGE,
           "spillway submit: flag --max-tokens is '1e12': a whole number from 0 to 4294967295");
    expect(shell("$B submit --max-tokens 4294967296 x"), SPW_EXIT_USAGE, "'4294967296'");
    expect(shell("$B submit --seed 1.5 x"), SPW_EXIT_USAGE, "flag --seed is '1.5'");
    expect(shell("$B submit --seed -1 x"), SPW_EXIT_USAGE, "flag --seed is '-1'");
    expect(shell("$B submit --temperature nan x"), SPW_EXIT_USAGE, "flag --temperature is 'nan'");
    expect(shell("$B run --model $M --max-tokens some x"), SPW_EXIT_USAGE,
           "spillway run: flag --max-tokens is 'some'");
    expect(shell("$B run --model $M --seed 18446744073709551616 x"), SPW_EXIT_USAGE,
           "flag --seed is '18446744073709551616'");
}

/* An answer's last message has no text: in a sanitized build this ended the command. */
static void an_answer_is_printed(void **state)
{
    (void)state;
    assert_int_equal(shell("$B run --model $M --greedy --plain --max-tokens 3 Hello"), SPW_EXIT_OK);
    assert_true(strlen(output) > 1);
    assert_null(strstr(output, "error"));
}

/* Two signals at once are two: a drain, then an end. */
static void both_signals_are_passed_on(void **state)
{
    (void)state;
    play_starter("n=0; trap 'n=$((n+1))' USR1; echo ready; i=0\n"
                 "while [ $i -lt 100 ]; do i=$((i+1)); sleep 0.05\n"
                 "[ $n = 2 ] && { echo 'ended code=0'; exit 0; }; done; echo \"$n signals\"");
    expect(shell("$B up --model $M & P=$!; sleep 1; kill -INT $P; kill -TERM $P; wait $P"),
           SPW_EXIT_OK, "ready\n");
    assert_null(strstr(output, "signals"));
}

/* The pid of a deployment that is gone may be anybody's by now. */
static void a_pid_left_behind_is_nobody(void **state)
{
    (void)state;
    play_starter("trap 'echo \"ended code=0\"; exit 0' USR1; echo ready http=1\n"
                 "while :; do sleep 0.05; done");
    expect(shell("mkdir state; sleep 30 & P=$!; echo $P > state/pid; $B down --state-dir state; "
                 "C=$?; kill -0 $P && echo alive; kill $P; exit $C"),
           SPW_EXIT_CONFIG, "no deployment of `spillway up --daemon` runs here\nalive");
    expect(shell("echo $$ > state/pid; $B up --daemon --state-dir state --model $M"), SPW_EXIT_OK,
           "ready http=1");
    expect(shell("$B up --daemon --state-dir state --model $M"), SPW_EXIT_CONFIG,
           "a deployment runs already");
    expect(shell("$B down --state-dir state && echo gone"), SPW_EXIT_OK, "gone");
    expect(shell("$B down --state-dir state"), SPW_EXIT_CONFIG, "no deployment");
}

static void a_daemon_that_fails_says_where_to_look(void **state)
{
    (void)state;
    play_starter("echo the reason >&2; exit 1");
    expect(shell("mkdir failed; $B up --daemon --state-dir failed --model $M"), SPW_EXIT_PEER_LOST,
           "ended before it was ready: failed/log says why");
    expect(shell("cat failed/log"), 0, "the reason");
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return shell("rm -rf \"$PWD\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_whole),
        cmocka_unit_test(an_answer_is_printed),
        cmocka_unit_test(both_signals_are_passed_on),
        cmocka_unit_test(a_pid_left_behind_is_nobody),
        cmocka_unit_test(a_daemon_that_fails_says_where_to_look),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
