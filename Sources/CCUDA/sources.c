#include "CCUDA.h"

// #embed is of C23; every Swift 6 toolchain's clang takes it in older modes too, with a remark that it is an extension.
#pragma clang diagnostic ignored "-Wc23-extensions"

static const char arguments[] = {
#embed "include/KernelArguments.h"
    , 0};
static const char primitives[] = {
#embed "kernels/primitives.cu"
    , 0};
static const char arithmetic[] = {
#embed "kernels/arithmetic.cu"
    , 0};
static const char linear[] = {
#embed "kernels/linear.cu"
    , 0};
static const char tiles[] = {
#embed "kernels/tiles.cu"
    , 0};
static const char rows[] = {
#embed "kernels/rows.cu"
    , 0};
static const char attention[] = {
#embed "kernels/attention.cu"
    , 0};
static const char sampler[] = {
#embed "kernels/sampler.cu"
    , 0};
static const char embedding[] = {
#embed "kernels/embedding.cu"
    , 0};
static const char codec[] = {
#embed "kernels/codec.cu"
    , 0};
static const char pack[] = {
#embed "kernels/pack.cu"
    , 0};
static const char focus[] = {
#embed "kernels/focus.cu"
    , 0};
static const char step[] = {
#embed "kernels/step.cu"
    , 0};

static const mk_kernel_source sources[] = {
    {"KernelArguments.h", arguments, sizeof arguments - 1},
    {"primitives.cu", primitives, sizeof primitives - 1},
    {"arithmetic.cu", arithmetic, sizeof arithmetic - 1},
    {"linear.cu", linear, sizeof linear - 1},
    {"tiles.cu", tiles, sizeof tiles - 1},
    {"rows.cu", rows, sizeof rows - 1},
    {"attention.cu", attention, sizeof attention - 1},
    {"sampler.cu", sampler, sizeof sampler - 1},
    {"embedding.cu", embedding, sizeof embedding - 1},
    {"codec.cu", codec, sizeof codec - 1},
    {"pack.cu", pack, sizeof pack - 1},
    {"focus.cu", focus, sizeof focus - 1},
    {"step.cu", step, sizeof step - 1},
    {0, 0, 0},
};

const mk_kernel_source *mk_kernel_sources(void) { return sources; }
