# for_c.cmake - rewrites a .proto for protoc-c (cmake -DIN= -DOUT= -P). The bytes on the wire stay the same.
#
# `optional T x = n;`, which protoc-c does not know in proto3, becomes `oneof has_x { T x = n; }`: in C the
# field x beside has_x_case (0: not set). The strings named text and content, which carry prompts and
# answers, become bytes: in C they have a length, because a zero may be a character of them.
file(READ ${IN} text)
string(REGEX REPLACE "optional ([a-zA-Z0-9_.]+) ([a-z0-9_]+) = ([0-9]+);" "oneof has_\\2 { \\1 \\2 = \\3; }" text "${text}")
string(REGEX REPLACE "string (text|content) = " "bytes \\1 = " text "${text}")
file(WRITE ${OUT} "${text}")
