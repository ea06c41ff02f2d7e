# c_optional.cmake - rewrites a .proto for protoc-c, which knows no `optional` in proto3 (cmake -DIN= -DOUT= -P).
# `optional T x = n;` becomes `oneof has_x { T x = n; }`: equal bytes on the wire, and in C the field
# x beside has_x_case (0: not set).
file(READ ${IN} text)
string(REGEX REPLACE "optional ([a-zA-Z0-9_.]+) ([a-z0-9_]+) = ([0-9]+);" "oneof has_\\2 { \\1 \\2 = \\3; }" text "${text}")
file(WRITE ${OUT} "${text}")
