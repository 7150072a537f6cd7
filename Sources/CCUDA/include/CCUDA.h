#ifndef CCUDA_H
#define CCUDA_H

#include <stddef.h>
#include <stdint.h>

#include "KernelArguments.h"

// The CUDA driver and NVRTC, found with dlopen: nothing of CUDA is needed to build or to start without a GPU.
// Declarations are ours, for the symbols and versions named in driver.c.

#ifdef __cplusplus
extern "C" {
#endif

typedef int mk_cu_result;  // CUresult: 0 is success
typedef void *mk_cu_context;
typedef void *mk_cu_module;
typedef void *mk_cu_function;
typedef void *mk_cu_stream;
typedef void *mk_cu_event;
typedef void *mk_cu_graph;
typedef void *mk_cu_graph_exec;
typedef void *mk_nvrtc_program;

// CUdevice_attribute
enum {
    MK_CU_SHARED_PER_BLOCK_OPTIN = 97,
    MK_CU_MULTIPROCESSORS = 16,
    MK_CU_L2_BYTES = 38,
    MK_CU_CAPABILITY_MAJOR = 75,
    MK_CU_CAPABILITY_MINOR = 76,
    MK_CU_COOPERATIVE_LAUNCH = 95,
    MK_CU_MEMORY_CLOCK_KHZ = 36,
    MK_CU_MEMORY_BUS_BITS = 37,
    MK_CU_CLOCK_KHZ = 13,
};

// CUfunction_attribute
enum {
    MK_CU_FUNC_LOCAL_BYTES = 3,
    MK_CU_FUNC_REGISTERS = 4,
    MK_CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    MK_CU_FUNC_SHARED_CARVEOUT = 9,
};

// CUlaunchAttributeID
enum { MK_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION = 6 };

/// CUlaunchAttribute.
typedef struct {
    int id;
    union {
        long long words[8];
        int flag;
    } value;
} mk_cu_launch_attribute;

/// CUlaunchConfig.
typedef struct {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    mk_cu_stream stream;
    mk_cu_launch_attribute *attributes;
    unsigned attribute_count;
} mk_cu_launch_config;

// CUstreamCaptureMode
enum { MK_CU_CAPTURE_RELAXED = 2 };

// CUresult values that Martlet tells apart.
enum {
    MK_CU_OUT_OF_MEMORY = 2,
    MK_CU_NO_DEVICE = 100,
    MK_CU_INVALID_DEVICE = 101,
    MK_CU_NO_BINARY_FOR_GPU = 209,
    MK_CU_NOT_READY = 600,
};

typedef struct {
    mk_cu_result (*init)(unsigned flags);
    mk_cu_result (*driver_version)(int *version);
    mk_cu_result (*device_count)(int *count);
    mk_cu_result (*device_get)(int *device, int ordinal);
    mk_cu_result (*device_name)(char *name, int length, int device);
    mk_cu_result (*device_attribute)(int *value, int attribute, int device);
    mk_cu_result (*device_memory)(size_t *bytes, int device);
    mk_cu_result (*context_retain)(mk_cu_context *context, int device);
    mk_cu_result (*context_release)(int device);
    mk_cu_result (*context_set)(mk_cu_context context);
    mk_cu_result (*memory_info)(size_t *free, size_t *total);
    mk_cu_result (*allocate)(uint64_t *address, size_t bytes);
    mk_cu_result (*release)(uint64_t address);
    mk_cu_result (*copy_in)(uint64_t to, const void *from, size_t bytes);
    mk_cu_result (*copy_out)(void *to, uint64_t from, size_t bytes);
    mk_cu_result (*copy_in_async)(uint64_t to, const void *from, size_t bytes, mk_cu_stream stream);
    mk_cu_result (*copy_out_async)(void *to, uint64_t from, size_t bytes, mk_cu_stream stream);
    mk_cu_result (*copy_device_async)(uint64_t to, uint64_t from, size_t bytes, mk_cu_stream stream);
    mk_cu_result (*fill_async)(uint64_t address, unsigned char value, size_t bytes, mk_cu_stream stream);
    mk_cu_result (*module_load)(mk_cu_module *module, const void *image);
    mk_cu_result (*module_unload)(mk_cu_module module);
    mk_cu_result (*module_function)(mk_cu_function *function, mk_cu_module module, const char *name);
    mk_cu_result (*function_set)(mk_cu_function function, int attribute, int value);
    mk_cu_result (*launch)(
        mk_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
        unsigned block_z, unsigned shared_bytes, mk_cu_stream stream, void **parameters, void **extra);
    mk_cu_result (*launch_cooperative)(
        mk_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
        unsigned block_z, unsigned shared_bytes, mk_cu_stream stream, void **parameters);
    /// Null if the driver lacks it.
    mk_cu_result (*launch_with)(
        const mk_cu_launch_config *config, mk_cu_function function, void **parameters, void **extra);
    mk_cu_result (*stream_create)(mk_cu_stream *stream, unsigned flags);
    mk_cu_result (*stream_destroy)(mk_cu_stream stream);
    mk_cu_result (*stream_wait)(mk_cu_stream stream);
    mk_cu_result (*event_create)(mk_cu_event *event, unsigned flags);
    mk_cu_result (*event_destroy)(mk_cu_event event);
    mk_cu_result (*event_record)(mk_cu_event event, mk_cu_stream stream);
    mk_cu_result (*event_wait)(mk_cu_event event);
    mk_cu_result (*event_elapsed)(float *milliseconds, mk_cu_event start, mk_cu_event end);
    // Graphs: all of them null if the driver lacks one.
    mk_cu_result (*capture_begin)(mk_cu_stream stream, int mode);
    mk_cu_result (*capture_end)(mk_cu_stream stream, mk_cu_graph *graph);
    mk_cu_result (*graph_instantiate)(mk_cu_graph_exec *executable, mk_cu_graph graph, unsigned long long flags);
    mk_cu_result (*graph_upload)(mk_cu_graph_exec executable, mk_cu_stream stream);
    mk_cu_result (*graph_launch)(mk_cu_graph_exec executable, mk_cu_stream stream);
    mk_cu_result (*graph_destroy)(mk_cu_graph graph);
    mk_cu_result (*graph_exec_destroy)(mk_cu_graph_exec executable);
    mk_cu_result (*error_name)(mk_cu_result error, const char **name);
    mk_cu_result (*error_string)(mk_cu_result error, const char **text);
} mk_cuda_driver;

typedef struct {
    int (*version)(int *major, int *minor);
    int (*create)(
        mk_nvrtc_program *program, const char *source, const char *name, int header_count, const char *const *headers,
        const char *const *header_names);
    int (*destroy)(mk_nvrtc_program *program);
    int (*compile)(mk_nvrtc_program program, int option_count, const char *const *options);
    int (*cubin_size)(mk_nvrtc_program program, size_t *bytes);
    int (*cubin)(mk_nvrtc_program program, char *bytes);
    int (*log_size)(mk_nvrtc_program program, size_t *bytes);
    int (*log)(mk_nvrtc_program program, char *text);
    const char *(*error_string)(int error);
} mk_nvrtc;

/// Opens libcuda.so.1 and fills the table.
/// - Returns: 1, or 0 with the loader's own words in `message` [size].
int mk_cuda_open(mk_cuda_driver *driver, char *message, size_t size);

/// Opens NVRTC and fills the table: `path`, a library or a folder that holds one, if it is given, else the system's
/// libnvrtc.so, .so.13 or .so.12.
/// - Returns: 1, or 0 with the reasons in `message` [size].
int mk_nvrtc_open(mk_nvrtc *nvrtc, const char *path, char *message, size_t size);

/// One file of kernel source.
typedef struct {
    const char *name;
    const char *text;
    size_t length;
} mk_kernel_source;

/// All kernel source in the order of compilation; ends with a null name.
const mk_kernel_source *mk_kernel_sources(void);

#ifdef __cplusplus
}
#endif

#endif
