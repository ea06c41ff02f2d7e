# The tokenizer's tests.
if(TARGET spw_tokenizer)
    spw_add_test(test_model_tokenizer SOURCES test_tokenizer.c tokenizer_fixture.c LIBS spw_tokenizer)
    spw_add_test(test_model_tokenizer_decode SOURCES test_tokenizer_decode.c tokenizer_fixture.c LIBS spw_tokenizer)
    spw_add_test(test_model_tokenizer_data SOURCES test_tokenizer_data.c LIBS spw_tokenizer)
endif()
