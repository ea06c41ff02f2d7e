# Text to token ids and back.
spw_library(spw_tokenizer
    SOURCES tokenizer.c tokenizer_json.c tokenizer_parts.c tokenizer_vocab.c tokenizer_added.c tokenizer_regex.c
        tokenizer_split.c tokenizer_bpe.c tokenizer_nfc.c tokenizer_text.c tokenizer_decode.c
    LIBS spw_base
    PKG jansson libpcre2-8)
