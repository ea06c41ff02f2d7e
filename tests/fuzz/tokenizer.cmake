# tokenizer.json from strangers.
if(TARGET spw_tokenizer)
    spw_add_fuzz(tokenizer_json ${CMAKE_CURRENT_LIST_DIR}/fuzz_tokenizer_json.c spw_tokenizer)
endif()
