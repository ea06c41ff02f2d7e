# The chat template interpreter's tests.
if(TARGET spw_chat_template)
    foreach(name cases bounds)
        spw_add_test(test_chat_template_${name}
            SOURCES test_chat_template_${name}.c
            LIBS spw_chat_template)
    endforeach()
endif()
