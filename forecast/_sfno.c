/* One step of the network of forecast/sfno.py for one member, as forecast/compiled.py packs it. */

#include "_harmonics.h"

struct block {
    const float *norm_weight, *norm_bias; /* (embed) */
    const float *modulation;              /* (latent, 2 embed): scale, shift */
    const float *filter;                  /* (degree, embed, scalars + gradients) */
    const float *local, *remote;          /* (panel, embed or spread, 2 PANEL): see pointwise */
    const float *bias;                    /* (2 hidden), by panels likewise */
    const float *out, *out_bias;          /* (hidden, embed), (embed) */
};

struct network {
    struct transform data, inner;
    int64_t channels, padded; /* of the data, and in multiples of LANES */
    int64_t embed, scalars, gradients, hidden, latents, padded_latents, blocks;
    double epsilon;          /* of the norms */
    const float *sharpening; /* (degree) */
    const float *encoder;    /* (3 padded, embed) */
    const float *fixed;      /* (longitude, latitude, embed): what does not change, encoded */
    const float *decoder, *decoder_bias; /* (embed, padded), (padded) */
    const struct block *block;
};

/* ---- what is done at each place ---- */

static float total(const float *values, int64_t count)
{
    float part[LANES];
    for (int lane = 0; lane < LANES; lane += WIDTH) {
        vector sum = {0};
        for (int64_t v = lane; v < count; v += LANES)
            sum += load(values + v);
        store(part + lane, sum);
    }
    for (int size = LANES / 2; size; size /= 2)
        for (int k = 0; k < size; k++)
            part[k] += part[k + size];
    return part[0];
}

/* Layer norms of `rows` rows; `modulated`, if any, is (row, 2 embed): scale, shift. */
static void normalise(const struct network *net, const struct block *block, int64_t rows,
                      const float *fields, const float *modulated, float *here)
{
    const int64_t embed = net->embed;
    for (int64_t r = 0; r < rows; r++, fields += embed, here += embed) {
        const float mean = total(fields, embed) / (float)embed;
        for (int64_t v = 0; v < embed; v += WIDTH) {
            const vector apart = load(fields + v) - mean;
            store(here + v, apart * apart);
        }
        const float variance = total(here, embed) / (float)embed;
        const float scale = 1.0f / __builtin_sqrtf(variance + (float)net->epsilon);
        for (int64_t v = 0; v < embed; v += WIDTH) {
            const vector apart = (load(fields + v) - mean) * scale;
            vector value = apart * load(block->norm_weight + v) + load(block->norm_bias + v);
            if (modulated) {
                const float *own = modulated + r * 2 * embed + v;
                value = value * load(own) + (value + load(own + embed));
            }
            store(here + v, value);
        }
    }
}

/* fields += out (left * right) + bias, where left and right are linear maps of `here` and `around`
   together. Weights come in panels of PANEL columns of left and as many of right. */
#define PANEL (2 * LANES)

static void pointwise(const struct network *net, const struct block *block, int64_t rows,
                      const float *here, const float *around, float *work, float *fields)
{
    const int64_t embed = net->embed, spread = net->scalars + 2 * net->gradients;
    float *mixed = work, *both = work + rows * 2 * PANEL;
    for (int64_t h = 0; h < net->hidden; h += PANEL) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t v = 0; v < 2 * PANEL; v += WIDTH)
                store(mixed + r * 2 * PANEL + v, load(block->bias + 2 * h + v));
        add_product(rows, embed, 2 * PANEL, here, embed, 1, block->local + 2 * h * embed, 2 * PANEL,
                    mixed, 2 * PANEL);
        add_product(rows, spread, 2 * PANEL, around, spread, 1, block->remote + 2 * h * spread,
                    2 * PANEL, mixed, 2 * PANEL);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t v = 0; v < PANEL; v += WIDTH) {
                const float *left = mixed + r * 2 * PANEL + v;
                store(both + r * net->hidden + h + v, load(left) * load(left + PANEL));
            }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; v < embed; v += WIDTH) {
            float *field = fields + r * embed + v;
            store(field, load(field) + load(block->out_bias + v));
        }
    add_product(rows, net->hidden, embed, both, net->hidden, 1, block->out, embed, fields, embed);
}

/* ---- the step ---- */

struct work { /* pieces of one piece of memory; sizes as in forecast/compiled.py */
    float *fields, *here, *around, *noise, *waves, *coefficients, *filtered, *rows;
};

static void step_block(const struct network *net, const struct block *block,
                       const struct work *work)
{
    const int64_t embed = net->embed, latitudes = net->inner.latitudes,
                  degrees = net->inner.degrees;
    const int64_t places = net->inner.longitudes * latitudes,
                  outputs = net->scalars + net->gradients;
    const int64_t spread = outputs + net->gradients, modulated = block->modulation && work->noise;
    for (int64_t at = 0; at < places; at += latitudes) {
        if (modulated)
            product(latitudes, net->latents, 2 * embed, work->noise + at * net->padded_latents,
                    net->padded_latents, 1, block->modulation, 2 * embed, work->rows, 2 * embed);
        normalise(net, block, latitudes, work->fields + at * embed, modulated ? work->rows : 0,
                  work->here + at * embed);
    }
    analyse(&net->inner, embed, work->here, work->waves, work->rows, work->coefficients);
    for (int64_t l = 0; l < degrees; l++)
        product(2 * (l + 1), embed, outputs, work->coefficients + l * embed, degrees * embed, 1,
                block->filter + l * embed * outputs, outputs, work->filtered + l * outputs,
                degrees * outputs);
    synthesise(&net->inner, net->scalars, net->gradients, work->filtered, work->waves, work->rows,
               work->around);
    for (int64_t at = 0; at < places; at += latitudes)
        pointwise(net, block, latitudes, work->here + at * embed, work->around + at * spread,
                  work->rows, work->fields + at * embed);
}

/* (channel, latitude, longitude) to (longitude, latitude, padded channel). */
static void gather(const struct network *net, const float *given, float *fields)
{
    const int64_t latitudes = net->data.latitudes, longitudes = net->data.longitudes;
    const int64_t places = latitudes * longitudes, padded = net->padded;
    for (int64_t i = 0; i < latitudes; i++)
        for (int64_t j = 0; j < longitudes; j++)
            for (int64_t c = 0; c < padded; c++)
                fields[(j * latitudes + i) * padded + c] =
                    c < net->channels ? given[c * places + i * longitudes + j] : 0;
}

/* And back. */
static void scatter(const struct network *net, const float *fields, float *result)
{
    const int64_t latitudes = net->data.latitudes, longitudes = net->data.longitudes;
    for (int64_t c = 0; c < net->channels; c++)
        for (int64_t i = 0; i < latitudes; i++)
            for (int64_t j = 0; j < longitudes; j++)
                *result++ = fields[(j * latitudes + i) * net->padded + c];
}

/* The fields on the inner grid, with their sharpened gradients, encoded. */
static void encode(const struct network *net, const struct work *work)
{
    const int64_t degrees = net->inner.degrees, latitudes = net->inner.latitudes;
    const int64_t places = net->inner.longitudes * latitudes, padded = net->padded;
    for (int64_t row = 0; row < 2 * degrees * degrees; row++)
        for (int64_t v = 0; v < padded; v += WIDTH) {
            const vector value = load(work->coefficients + row * padded + v);
            store(work->filtered + 2 * row * padded + v, value);
            store(work->filtered + (2 * row + 1) * padded + v,
                  value * net->sharpening[row % degrees]);
        }
    synthesise(&net->inner, padded, padded, work->filtered, work->waves, work->rows, work->around);
    for (int64_t k = 0; k < places * net->embed; k += WIDTH)
        store(work->fields + k, load(net->fixed + k));
    for (int64_t at = 0; at < places; at += latitudes)
        add_product(latitudes, 3 * padded, net->embed, work->around + at * 3 * padded, 3 * padded,
                    1, net->encoder, net->embed, work->fields + at * net->embed, net->embed);
}

static void decode(const struct network *net, const struct work *work)
{
    const int64_t latitudes = net->inner.latitudes, padded = net->padded;
    for (int64_t at = 0; at < net->inner.longitudes * latitudes; at += latitudes) {
        float *change = work->here + at * padded;
        for (int64_t r = 0; r < latitudes; r++)
            for (int64_t v = 0; v < padded; v += WIDTH)
                store(change + r * padded + v, load(net->decoder_bias + v));
        add_product(latitudes, net->embed, padded, work->fields + at * net->embed, net->embed, 1,
                    net->decoder, padded, change, padded);
    }
}

/* Coefficients of latent noise, (m, part, l, latent), on the inner grid. */
static void spread_noise(const struct network *net, const float *noise, const struct work *work)
{
    const int64_t padded = net->padded_latents;
    for (int64_t row = 0; row < 2 * net->inner.degrees * net->inner.degrees; row++)
        for (int64_t c = 0; c < padded; c++)
            work->filtered[row * padded + c] = c < net->latents ? noise[row * net->latents + c] : 0;
    synthesise(&net->inner, padded, 0, work->filtered, work->waves, work->rows, work->noise);
}

/* Change of one member's normalised fields in one timestep, (channel, latitude, longitude); `noise`
   may be null. */
void sfno_step(const struct network *net, const float *fields, const float *noise,
               const struct work *given, float *result)
{
    struct work work = *given;
    gather(net, fields, work.around);
    analyse(&net->data, net->padded, work.around, work.waves, work.rows, work.coefficients);
    encode(net, &work);
    if (noise)
        spread_noise(net, noise, &work);
    else
        work.noise = 0;
    for (int64_t k = 0; k < net->blocks; k++)
        step_block(net, net->block + k, &work);
    decode(net, &work);
    analyse(&net->inner, net->padded, work.here, work.waves, work.rows, work.coefficients);
    synthesise(&net->data, net->padded, 0, work.coefficients, work.waves, work.rows, work.around);
    scatter(net, work.around, result);
}

/* Whether this processor has the instructions that this build is made of. */
int sfno_runs_here(void)
{
#ifdef __AVX512F__
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
           && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#else
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}
