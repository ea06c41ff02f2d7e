# embed.cmake - writes the bytes of IN as a C array NAME into OUT (cmake -DIN= -DOUT= -DNAME= -P).
file(READ ${IN} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR bytes "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," list "${hex}")
string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" list "${list}")
file(WRITE ${OUT} "#include <stddef.h>\n#include <stdint.h>\n\nextern const uint8_t ${NAME}[];\nextern const size_t ${NAME}_bytes;\nconst size_t ${NAME}_bytes = ${bytes};\nconst uint8_t ${NAME}[] = {\n${list}\n};\n")
