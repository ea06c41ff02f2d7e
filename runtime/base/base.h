/* base.h - what every file may rely on: asserts that stay on, small macros.
 *
 * Room:      runtime/base (libc only)
 */
#ifndef SPW_BASE_H
#define SPW_BASE_H

#ifdef NDEBUG
#error "asserts are part of the program: build without NDEBUG (use the presets)"
#endif

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPW_ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SPW_MIN(a, b)      ((a) < (b) ? (a) : (b))
#define SPW_MAX(a, b)      ((a) > (b) ? (a) : (b))
#define SPW_CACHE_LINE     64u

/* Room for one of ours in a message to people; see spw_error. */
#define SPW_ERROR_TEXT_MAX 480u

#if defined(__GNUC__)
#define SPW_PRINTF(format_index, args_index)                                                       \
    __attribute__((format(printf, format_index, args_index)))
#else
#define SPW_PRINTF(format_index, args_index)
#endif

#endif
