#include "runtime/engine/cpu/rope_int.h"

#define LN2_HIGH 0x1.62e42feep-1 /* 32 bits: times an exponent it is exact */
#define LN2_LOW  0x1.a39ef35793c76p-33

/* pi/2 in three parts; n * part is exact for n < 2^20 in the first two. */
#define PIO2_1   0x1.921fb544p+0
#define PIO2_2   0x1.0b4611a6p-34
#define PIO2_3   0x1.3198a2e037073p-69
#define TWO_PIO1 0x1.45f306dc9c883p-1 /* 2 / pi */
#define PI       0x1.921fb54442d18p+1

double spw_rope_log(double x)
{
    assert(x >= 0x1p-1022);
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof(m));
    if (m > 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        exponent++;
    }
    /* log m = 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.172: 12 terms reach below 2^-60 */
    double s = (m - 1.0) / (m + 1.0), z = s * s, sum = 0.0;
    for (int i = 23; i >= 3; i -= 2)
        sum = (sum + 1.0 / i) * z;
    double log_m = 2.0 * (s + s * sum);
    return exponent * LN2_HIGH + (exponent * LN2_LOW + log_m);
}

double spw_rope_exp(double x)
{
    assert(x > -700.0 && x < 700.0);
    double n = (double)(int)(x * 0x1.71547652b82fep+0 + (x < 0 ? -0.5 : 0.5));
    double r = (x - n * LN2_HIGH) - n * LN2_LOW;
    /* Taylor, |r| < 0.35: r^15 / 15! is below 2^-62 */
    double sum = 1.0;
    for (int i = 15; i >= 1; i--)
        sum = 1.0 + sum * r / i;
    uint64_t bits = (uint64_t)((int)n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof(power));
    return sum * power;
}

void spw_rope_sincos(double x, double *out_sin, double *out_cos)
{
    assert(x >= 0.0 && x < 0x1p20);
    int64_t n = (int64_t)(x * TWO_PIO1 + 0.5);
    double r = ((x - (double)n * PIO2_1) - (double)n * PIO2_2) - (double)n * PIO2_3;
    /* Taylor on |r| <= pi/4: the terms left out are below 2^-60 */
    double z = r * r, sine = 0.0, cosine = 0.0;
    for (int i = 19; i >= 3; i -= 2)
        sine = (1.0 + sine) * -z / (double)(i * (i - 1));
    for (int i = 18; i >= 2; i -= 2)
        cosine = (1.0 + cosine) * -z / (double)(i * (i - 1));
    sine = r + r * sine;
    cosine = 1.0 + cosine;
    switch (n & 3) {
    case 0:
        *out_sin = sine;
        *out_cos = cosine;
        break;
    case 1:
        *out_sin = cosine;
        *out_cos = -sine;
        break;
    case 2:
        *out_sin = -sine;
        *out_cos = -cosine;
        break;
    default:
        *out_sin = -cosine;
        *out_cos = sine;
        break;
    }
}

/* Llama 3.1's extension: long waves are slowed by `factor`, short ones stay, between them a
 * straight blend over original_context / wavelength.
 */
static double scale_llama3(const struct spw_model_config *config, double frequency)
{
    double waves = config->rope.original_context_tokens * frequency / (2.0 * PI);
    double low = config->rope.low_freq_factor, high = config->rope.high_freq_factor;
    if (waves > high)
        return frequency;
    if (waves < low)
        return frequency / config->rope.factor;
    double blend = (waves - low) / (high - low);
    return (1.0 - blend) * frequency / config->rope.factor + blend * frequency;
}

void spw_rope_table(const struct spw_model_config *config, uint32_t positions, float *out_table)
{
    uint32_t half = config->head_dim / 2;
    double log_theta = spw_rope_log(config->rope.theta);
    for (uint32_t i = 0; i < half; i++) {
        double frequency = spw_rope_exp(-log_theta * (2.0 * i / config->head_dim));
        if (config->rope.kind == SPW_ROPE_LINEAR)
            frequency /= config->rope.factor;
        else if (config->rope.kind == SPW_ROPE_LLAMA3)
            frequency = scale_llama3(config, frequency);
        for (uint32_t p = 0; p < positions; p++) {
            double sine, cosine;
            spw_rope_sincos(p * frequency, &sine, &cosine);
            out_table[(size_t)p * config->head_dim + i] = (float)cosine;
            out_table[(size_t)p * config->head_dim + half + i] = (float)sine;
        }
    }
}
