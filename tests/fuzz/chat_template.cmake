# Fuzz target of the chat template interpreter.
if(TARGET spw_chat_template)
    spw_add_fuzz(chat_template fuzz_chat_template.c spw_chat_template)
endif()
