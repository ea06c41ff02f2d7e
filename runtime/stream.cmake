# What every door stands on: requests, the rings to the loop, streams of text.
spw_library(spw_stream SOURCES request.c prefix.c tenants.c door.c stream.c
    LIBS spw_model spw_tokenizer spw_chat_template spw_sample spw_base PKG jansson)
