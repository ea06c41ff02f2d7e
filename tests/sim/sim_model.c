/* sim_model.c - the played model: a hash of all tokens before decides the next one. */
#include "tests/sim/sim.h"

#include "tests/unit/model/tokenizer_fixture.h"

#include <string.h>

#define EOS_PER_MILLION 12000u

void sim_model_open(struct sim_model *model)
{
    memset(model, 0, sizeof(*model));
    model->tokenizer = fixture_open(
        &(struct fixture){.added = "[{\"id\":275,\"content\":\"<eos>\",\"special\":true}]",
                          .merges = fixture_words_merges});
    assert(spw_tokenizer_vocab(model->tokenizer) == SIM_VOCAB);
    model->config.vocab = SIM_VOCAB;
    model->config.eos_tokens[0] = SIM_EOS;
    model->config.eos_count = 1;
    model->config.default_temperature = -1.0f;
    spw_buffer_init(&model->bytes, 1u << 20);
    for (int32_t id = 0; id < (int32_t)SIM_VOCAB; id++) {
        size_t begin = model->bytes.bytes;
        bool plain = true;
        model->text_begin[id] = (uint32_t)begin;
        if (id != SIM_EOS)
            spw_tokenizer_token_bytes(model->tokenizer, id, &model->bytes);
        for (size_t i = begin; i < model->bytes.bytes; i++)
            plain = plain && model->bytes.data[i] >= ' ' && model->bytes.data[i] < 0x7f;
        if (model->bytes.bytes - begin == 2 && model->bytes.data[begin] == 0xc3)
            plain = true; /* one character of two bytes */
        if (plain && model->bytes.bytes > begin)
            model->outputs[model->output_count++] = id;
    }
    model->text_begin[SIM_VOCAB] = (uint32_t)model->bytes.bytes;
    assert(model->output_count > 100);
}

void sim_model_close(struct sim_model *model)
{
    spw_buffer_done(&model->bytes);
    spw_tokenizer_close(model->tokenizer);
}

int32_t sim_model_next(const struct sim_model *model, uint64_t state, uint64_t seed)
{
    uint64_t draw = sim_mix(state ^ sim_mix(seed));
    if (draw % 1000000 < EOS_PER_MILLION)
        return SIM_EOS;
    return model->outputs[(draw >> 32) % model->output_count];
}
