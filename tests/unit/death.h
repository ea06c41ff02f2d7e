/* death.h - shows that a check stops the program: runs it in a child and looks how that ended.
 *
 * Room:      tests
 * Threads:   call it from a process with one thread
 */
#ifndef SPW_TEST_DEATH_H
#define SPW_TEST_DEATH_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* True when act(context) ends in an assertion; what it prints is not shown. */
static inline bool dies(void (*act)(void *context), void *context)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        act(context);
        _exit(0);
    }
    int state = 0;
    waitpid(child, &state, 0);
    return WIFSIGNALED(state) && WTERMSIG(state) == SIGABRT;
}

#endif
