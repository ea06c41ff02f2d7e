/* stop_match.h - ends an answer before the first stop string.
 *
 * Room:      runtime/sample
 * Threads:   one owner
 * Ownership: owns copies of the stop strings; output grows in the caller's buffer
 * Errors:    bad stop strings are refused at creation with the reason
 *
 * Fed with pieces of text, it passes on what can no longer be part of a stop string and holds back
 * the rest, at most 255 bytes. The stop string that is complete first (by its last byte) ends the
 * answer; of several that end at the same byte the longest counts, so that nothing of it is shown.
 * The outcome does not depend on how the text was cut into pieces. Valid UTF-8 in, pieces of whole
 * characters out.
 */
#ifndef SPW_STOP_MATCH_H
#define SPW_STOP_MATCH_H

#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

#define SPW_STOP_STRINGS_MAX 16u
#define SPW_STOP_BYTES_MAX   256u

struct spw_stop_matcher;

/* stops: `count` strings of bytes[i] bytes each; count 0 is a matcher that passes everything on.
 * SPW_INVALID for an empty string, SPW_TOO_LARGE past the limits above, SPW_NO_MEMORY.
 */
enum spw_status spw_stop_matcher_create(const char *const *stops, const size_t *bytes, size_t count,
                                        struct spw_stop_matcher **out_matcher,
                                        struct spw_error *error);
void spw_stop_matcher_destroy(struct spw_stop_matcher *matcher); /* accepts NULL */

/* Take the next piece; append to out_text what may be shown now. Returns the index of the stop
 * string that was completed, -1 for none. After a match all further text is dropped and the same
 * index returned. O(bytes x stop strings).
 */
int spw_stop_matcher_push(struct spw_stop_matcher *matcher, const char *text, size_t bytes,
                          struct spw_buffer *out_text);

/* The answer ended otherwise: append what was held back (nothing after a match). */
void spw_stop_matcher_flush(struct spw_stop_matcher *matcher, struct spw_buffer *out_text);

#endif
